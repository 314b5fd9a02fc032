//! What a load was told ([`crate::churn`]), and the check of a bus opened again after a crash: nothing that was confirmed
//! is lost, nothing came that was not stored, commits are there whole or not at all, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cofferdam_bus::{Bus, ConsumerSpec, Opened, Start, Stored};
use tokio::time::timeout;

use crate::churn::{self, CAP, Role, Told, cell, message, role};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Ledger {
    /// Events that are stored for good: confirmed, or found after a crash.
    stored: BTreeMap<u64, String>,
    delivered: BTreeMap<u64, String>,
    committed: BTreeSet<u64>,
    acked: BTreeSet<u64>,
    /// What the stream of effects held at the last check.
    effects: Vec<String>,
    revision: u64,
    capped: u64,
    job: u64,
}

async fn read(bus: &Arc<dyn Bus>, stream: &str, filter: &str) -> Result<Vec<Stored>> {
    let mut reader = bus.read(stream, filter, Start::Sequence(0)).await?;
    let mut found = Vec::new();
    while let Some(stored) = reader.stored().await? {
        found.push(stored);
    }
    Ok(found)
}

fn text(stored: &Stored) -> String {
    String::from_utf8_lossy(&stored.message.data).into_owned()
}

fn contiguous(what: &str, found: &[Stored]) -> Result<()> {
    for pair in found.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        ensure!(a.sequence + 1 == b.sequence, "{what}: {} comes after {}", b.sequence, a.sequence);
        ensure!(a.timestamp <= b.timestamp, "{what}: time goes back at {}", b.sequence);
    }
    Ok(())
}

impl Ledger {
    pub fn hear(&mut self, told: Told) {
        match told {
            Told::Stored { sequence, data } => drop(self.stored.insert(sequence, data)),
            Told::Delivered { sequence, data } => drop(self.delivered.insert(sequence, data)),
            Told::Committed { sequence } => drop(self.committed.insert(sequence)),
            Told::Acked { sequence } => drop(self.acked.insert(sequence)),
            Told::Set { revision } => self.revision = self.revision.max(revision),
            Told::Capped { sequence } => self.capped = self.capped.max(sequence),
            Told::Job { number } => self.job = self.job.max(number),
        }
    }

    /// How much was confirmed, for whoever wants to know whether a test tested anything.
    pub fn confirmed(&self) -> usize {
        self.stored.len() + self.committed.len() + self.acked.len()
    }

    /// Compares all that can be read. What was found must stay.
    pub async fn check(&mut self, bus: &Arc<dyn Bus>) -> Result<()> {
        churn::plant(bus).await?;
        self.check_events(bus).await.context("stream IN")?;
        self.check_effects(bus).await.context("stream OUT")?;
        self.check_cells(bus).await.context("cells")?;
        self.check_counters(bus).await?;
        self.check_deliveries(bus).await.context("deliveries")
    }

    async fn check_events(&mut self, bus: &Arc<dyn Bus>) -> Result<()> {
        let found = read(bus, "IN", "in.>").await?;
        contiguous("events", &found)?;
        ensure!(found.first().is_none_or(|s| s.sequence == 1), "it begins with {:?}", found.first());
        let events: BTreeMap<u64, String> = found.iter().map(|s| (s.sequence, text(s))).collect();
        let once: BTreeSet<&String> = events.values().collect();
        ensure!(once.len() == events.len(), "something is stored twice");
        for (sequence, data) in self.stored.iter().chain(&self.delivered) {
            let there = events.get(sequence);
            ensure!(there == Some(data), "{data:?} was stored as {sequence}, where {there:?} is");
        }
        for subject in ["in.0", "in.1", "in.2"] {
            let last = bus.last(subject).await?;
            ensure!(
                last.as_ref() == found.iter().rfind(|s| s.message.subject == subject),
                "last of {subject}: {last:?}"
            );
        }
        self.stored = events;
        Ok(())
    }

    async fn check_effects(&mut self, bus: &Arc<dyn Bus>) -> Result<()> {
        let found = read(bus, "OUT", "out.>").await?;
        contiguous("effects", &found)?;
        let effects: Vec<String> = found.iter().map(text).collect();
        ensure!(effects.starts_with(&self.effects), "what was there has changed");
        let mut by_event: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for effect in &effects {
            let (sequence, ordinal) = effect.split_once(' ').context("two words")?;
            by_event.entry(sequence.parse()?).or_default().push(ordinal.parse()?);
        }
        for (sequence, ordinals) in &by_event {
            let Role::Commit { effects, .. } = role(*sequence) else {
                anyhow::bail!("{sequence} has effects")
            };
            let all: Vec<u64> = (0..effects).collect();
            ensure!(*ordinals == all, "of the effects 0 to {effects} of {sequence} there are {ordinals:?}");
            ensure!(self.delivered.contains_key(sequence), "{sequence} was never delivered");
        }
        for sequence in &self.committed {
            ensure!(by_event.contains_key(sequence), "the effects of {sequence} are lost");
        }
        self.committed = by_event.into_keys().collect();
        self.effects = effects;
        Ok(())
    }

    async fn check_cells(&self, bus: &Arc<dyn Bus>) -> Result<()> {
        let spec = ConsumerSpec {
            stream: "PROBE".into(),
            durable: "probe".into(),
            filter: "probe".into(),
            ..churn::spec()
        };
        let origin = bus.ensure_consumer(&spec).await?;
        let sequence = bus.publish(message("probe", "x"), Default::default()).await?.sequence;
        let mut deliveries = bus.deliveries(&origin, 1).await?;
        let probe = timeout(PATIENCE, deliveries.next()).await.context("no probe came")??;
        ensure!(probe.stored.sequence <= sequence, "{probe:?}");
        for number in 0..3 {
            let Opened::Fresh(base) = bus.open(&probe, &cell(number)).await? else {
                anyhow::bail!("the probe has settled");
            };
            let sum =
                base.state.entries.get("sum").map_or("0".into(), |v| String::from_utf8_lossy(v).into_owned());
            let of_cell = |s: &&u64| matches!(role(**s), Role::Commit { point, .. } if point == cell(number));
            let expected: u64 = self.committed.iter().filter(of_cell).sum();
            ensure!(sum == expected.to_string(), "cell {number} has {sum}, its effects say {expected}");
        }
        probe.ack().await?;
        deliveries.close().await;
        Ok(())
    }

    async fn check_counters(&mut self, bus: &Arc<dyn Bus>) -> Result<()> {
        let bucket = bus.bucket("churn").await?;
        if let Some(entry) = bucket.get("k").await? {
            let value = String::from_utf8_lossy(entry.value.as_deref().unwrap_or_default()).into_owned();
            ensure!(value == entry.revision.to_string(), "key: {value:?} in revision {}", entry.revision);
            let range = self.revision..=self.revision + 1;
            ensure!(range.contains(&entry.revision), "key: revision {}, not of {range:?}", entry.revision);
            self.revision = entry.revision;
        }
        ensure!(self.revision == 0 || bucket.keys().await? == ["k"], "the key is lost");

        let found = read(bus, "CAP", "cap").await?;
        contiguous("CAP", &found)?;
        let last = found.last().map_or(0, |s| s.sequence);
        let range = self.capped..=self.capped + 1;
        ensure!(range.contains(&last), "CAP: ends with {last}, not in {range:?}");
        ensure!(found.len() as u64 == last.min(CAP), "CAP: {} messages up to {last}", found.len());
        self.capped = last;

        let found = read(bus, "COFFERDAM", "cd.j.x").await?;
        ensure!(found.len() <= 1, "one message a subject, but {}", found.len());
        let number = found.first().map_or(Ok(0), |s| text(s).parse::<u64>())?;
        let range = self.job..=self.job + 1;
        ensure!(range.contains(&number), "cd.j.x is {number}, not in {range:?}");
        self.job = number;
        Ok(())
    }

    fn settled(&self, sequence: u64) -> bool {
        self.acked.contains(&sequence) || self.committed.contains(&sequence)
    }

    /// Some of what comes again; none of it has settled.
    async fn check_deliveries(&mut self, bus: &Arc<dyn Bus>) -> Result<()> {
        let origin = bus.ensure_consumer(&churn::spec()).await?;
        let mut deliveries = bus.deliveries(&origin, 64).await?;
        for _ in 0..64 {
            let Ok(delivery) = timeout(Duration::from_millis(15), deliveries.next()).await else { break };
            let delivery = delivery?;
            self.came(&delivery.stored)?;
            if delivery.stored.sequence % 2 == 0 {
                delivery.nak(None).await?;
            }
        }
        deliveries.close().await;
        Ok(())
    }

    fn came(&mut self, stored: &Stored) -> Result<()> {
        let sequence = stored.sequence;
        ensure!(!self.settled(sequence), "{sequence} has settled and came again");
        let there = self.stored.get(&sequence);
        ensure!(there == Some(&text(stored)), "{:?} came as {sequence}, where {there:?} is", text(stored));
        self.delivered.insert(sequence, text(stored));
        Ok(())
    }

    /// All that has not settled comes again, and nothing else does. What was to be acked, and is not known to be, may.
    pub async fn finish(&mut self, bus: &Arc<dyn Bus>) -> Result<()> {
        self.check(bus).await?;
        let origin = bus.ensure_consumer(&churn::spec()).await?;
        let mut deliveries = bus.deliveries(&origin, 64).await?;
        let may_be_acked =
            |s: &u64| self.delivered.contains_key(s) && matches!(role(*s), Role::Ack | Role::Maybe);
        let unsettled = self.stored.keys().copied().filter(|s| !self.settled(*s));
        let mut missing: BTreeSet<u64> = unsettled.filter(|s| !may_be_acked(s)).collect();
        while !missing.is_empty() {
            let next = timeout(PATIENCE, deliveries.next()).await;
            let delivery = next.with_context(|| format!("these never came: {missing:?}"))??;
            self.came(&delivery.stored)?;
            missing.remove(&delivery.stored.sequence);
            delivery.ack().await?;
        }
        // Those that may come do now, or later.
        while let Ok(delivery) = timeout(Duration::from_millis(300), deliveries.next()).await {
            let delivery = delivery?;
            self.came(&delivery.stored)?;
            delivery.ack().await?;
        }
        deliveries.close().await;
        bus.flush().await;
        Ok(())
    }
}
