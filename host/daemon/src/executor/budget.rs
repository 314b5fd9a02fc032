//! Tokens that plugins may use in an hour by the clock. Each worker tells what it has used, in a message of its own that it writes
//! anew; what a plugin has used is the sum of all.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cofferdam_bus::{Message, Stored};

use crate::config::Share;

/// All that workers tell.
pub(super) const TOLD: &str = "cd.b.>";
const HOUR: u64 = 60 * 60 * 1_000_000_000;

/// Tokens by plugin.
type Used = BTreeMap<String, u64>;

/// What plugins may use, and have used.
#[derive(Debug)]
pub(super) struct Budget {
    limits: HashMap<String, u64>,
    /// Of this worker's life.
    life: String,
    hours: Mutex<Hours>,
}

#[derive(Debug, Default)]
struct Hours {
    /// Since the epoch.
    hour: u64,
    own: Used,
    others: HashMap<String, Used>,
    /// There is something to tell.
    dirty: bool,
}

/// Whether a job may be worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// In the next hour.
    In(Duration),
    /// Not before its time is over.
    Never {
        used: u64,
        budget: u64,
    },
}

impl Budget {
    pub(super) fn new<'a>(shares: impl IntoIterator<Item = (&'a String, &'a Share)>, life: String) -> Self {
        let limits =
            shares.into_iter().filter_map(|(plugin, share)| Some((plugin.clone(), share.tokens_per_hour?)));
        Self { limits: limits.collect(), life, hours: Mutex::default() }
    }

    /// May a job be worked now, the time of which ends at `deadline`? Times in nanoseconds since the epoch.
    pub(super) fn verdict(&self, plugin: &str, now: u64, deadline: u64) -> Verdict {
        let Some(budget) = self.limits.get(plugin).copied() else { return Verdict::Fine };
        let used = self.used(plugin, now);
        let next = (now / HOUR + 1) * HOUR;
        match used < budget {
            true => Verdict::Fine,
            false if deadline <= next => Verdict::Never { used, budget },
            false => Verdict::In(Duration::from_nanos(next - now)),
        }
    }

    /// In this hour, by all workers.
    fn used(&self, plugin: &str, now: u64) -> u64 {
        let hours = self.at(now);
        let own = hours.own.get(plugin).copied().unwrap_or_default();
        hours
            .others
            .values()
            .filter_map(|used| used.get(plugin))
            .fold(own, |all, used| all.saturating_add(*used))
    }

    /// A plugin's job has used tokens here.
    pub(super) fn add(&self, plugin: &str, tokens: u64, now: u64) {
        if tokens > 0 {
            let mut hours = self.at(now);
            let own = hours.own.entry(plugin.to_owned()).or_default();
            *own = own.saturating_add(tokens);
            hours.dirty = true;
        }
    }

    /// Another worker, or this one's echo.
    pub(super) fn heard(&self, stored: &Stored, now: u64) {
        let mut tokens = stored.message.subject.rsplitn(3, '.');
        let (Some(hour), Some(life)) = (tokens.next(), tokens.next()) else { return };
        let mut hours = self.at(now);
        if life == self.life || hour.parse() != Ok(hours.hour) {
            return;
        }
        match serde_json::from_slice(&stored.message.data) {
            Ok(used) => drop(hours.others.insert(life.to_owned(), used)),
            Err(error) => {
                tracing::warn!(subject = stored.message.subject, "tokens that can't be read: {error}")
            }
        }
    }

    /// What is to be told, if there is anything new.
    pub(super) fn message(&self, now: u64) -> Option<Message> {
        let mut hours = self.at(now);
        std::mem::take(&mut hours.dirty).then(|| Message {
            subject: format!("cd.b.{}.{}", self.life, hours.hour),
            headers: vec![("Nats-TTL".into(), format!("{}s", 2 * 60 * 60))],
            data: Bytes::from(serde_json::to_vec(&hours.own).unwrap_or_default()),
        })
    }

    /// It could not be told.
    pub(super) fn untold(&self) {
        self.hours().dirty = true;
    }

    /// Budget and use of each plugin that has one.
    pub(super) fn all(&self, now: u64) -> Vec<(&str, u64, u64)> {
        self.limits
            .iter()
            .map(|(plugin, budget)| (plugin.as_str(), *budget, self.used(plugin, now)))
            .collect()
    }

    /// Plugins the jobs of which wait for the next hour.
    pub(super) fn used_up(&self, now: u64) -> Vec<String> {
        let all = self.all(now).into_iter();
        all.filter(|(_, budget, used)| used >= budget).map(|(plugin, ..)| plugin.to_owned()).collect()
    }

    /// With the hour that it is.
    fn at(&self, now: u64) -> MutexGuard<'_, Hours> {
        let mut hours = self.hours();
        if hours.hour < now / HOUR {
            *hours = Hours { hour: now / HOUR, ..Hours::default() };
        }
        hours
    }

    fn hours(&self) -> MutexGuard<'_, Hours> {
        self.hours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = HOUR / 60;
    const NOON: u64 = 12 * HOUR;

    fn budget(life: &str) -> Budget {
        let share = |tokens_per_hour| Share { weight: 1, tokens_per_hour };
        let shares = BTreeMap::from([("p".to_owned(), share(Some(100))), ("free".to_owned(), share(None))]);
        Budget::new(&shares, life.to_owned())
    }

    fn stored(message: Message) -> Stored {
        Stored { message, sequence: 1, timestamp: NOON }
    }

    #[test]
    fn what_is_used_up_comes_back_with_the_next_hour() {
        let budget = budget("w1");
        let verdict = |now, deadline| budget.verdict("p", now, deadline);
        budget.add("p", 99, NOON);
        assert_eq!(verdict(NOON, NOON + MINUTE), Verdict::Fine);
        budget.add("p", 50, NOON + MINUTE);
        assert_eq!(verdict(NOON + MINUTE, NOON + HOUR), Verdict::Never { used: 149, budget: 100 });
        let wait = Verdict::In(Duration::from_secs(59 * 60));
        assert_eq!(verdict(NOON + MINUTE, NOON + HOUR + MINUTE), wait);
        assert_eq!(budget.used_up(NOON + MINUTE), ["p"]);
        assert!(budget.used_up(NOON + HOUR).is_empty());
        assert_eq!(verdict(NOON + HOUR, NOON + HOUR + MINUTE), Verdict::Fine);
        budget.add("free", u64::MAX / 2, NOON + HOUR);
        assert_eq!(budget.verdict("free", NOON + HOUR, NOON + HOUR), Verdict::Fine);
        assert_eq!(budget.verdict("unnamed", NOON, NOON), Verdict::Fine);
    }

    #[test]
    fn workers_add_up_and_nobody_counts_twice() {
        let (one, two) = (budget("w1"), budget("w2"));
        one.add("p", 60, NOON);
        let told = one.message(NOON).expect("something new");
        assert_eq!(told.subject, format!("cd.b.w1.{}", 12));
        assert_eq!(one.message(NOON), None);
        for _ in 0..2 {
            two.heard(&stored(told.clone()), NOON);
            one.heard(&stored(told.clone()), NOON);
        }
        two.add("p", 39, NOON);
        assert_eq!((one.used("p", NOON), two.used("p", NOON)), (60, 99));
        one.add("p", 1, NOON);
        two.heard(&stored(one.message(NOON).expect("more")), NOON);
        assert_eq!(two.verdict("p", NOON, NOON), Verdict::Never { used: 100, budget: 100 });
        // Of another hour.
        two.heard(&stored(told), NOON + HOUR);
        assert_eq!(two.used("p", NOON + HOUR), 0);
    }
}
