//! What is lost, repeated or out of order, from what the streams hold and the ledger counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    collect::{Collected, Out},
    journal::Journal,
    mark::Slot,
};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Events that ran more than once.
    pub(crate) reruns: u64,
    /// Events without an effect that they should have, and writes of state that are in no later state.
    pub(crate) lost: u64,
    /// Effects that are there once more than they should be, effects that are of another run than the rest of their event, and
    /// writes of state that no event has told of.
    pub(crate) repeated_effects: u64,
    /// Events of a key that committed after a later one although nothing of them had failed.
    pub(crate) misordered_keys: u64,
    /// Events whose first publish is stored after their second.
    pub(crate) misordered_effects: u64,
    /// Calls with a key that had been sent before.
    pub(crate) calls_resent: u64,
    /// Events whose one call came with more than one key.
    pub(crate) calls_rekeyed: u64,
    /// A few of the faults, in words, but for the order of keys.
    pub(crate) told: Vec<String>,
    /// A few of those.
    pub(crate) told_of_keys: Vec<String>,
}

/// Of one event.
#[derive(Debug, Default)]
struct Effects {
    /// The runs that each effect is of, as often as it is there.
    runs: BTreeMap<Slot, Vec<u64>>,
    /// Sequences of the publishes.
    places: BTreeMap<Slot, u64>,
    /// What it told of its cell.
    cell: Option<(u64, u64)>,
    attempt: u32,
}

const TOLD: usize = 20;

impl Verdict {
    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.told.len() < TOLD {
            self.told.push(what());
        }
    }

    /// `failed`: events of which an attempt failed, or that were handed back; they lose their place.
    pub(crate) fn of(collected: &Collected, journal: &Journal, failed: &BTreeSet<u64>) -> Verdict {
        let mut verdict = Verdict::default();
        let effects = effects(collected);
        for event in collected.events.keys() {
            verdict.effects_of(*event, effects.get(event));
        }
        for event in effects.keys().filter(|event| !collected.events.contains_key(event)) {
            verdict.repeated_effects += 1;
            verdict.tell(|| format!("effects of {event}, which was never fed"));
        }
        verdict.cells(collected, &effects, failed);
        verdict.calls(journal);
        verdict
    }

    fn effects_of(&mut self, event: u64, effects: Option<&Effects>) {
        let nothing = Effects::default();
        let effects = effects.unwrap_or(&nothing);
        let missing: Vec<Slot> =
            Slot::ALL.into_iter().filter(|slot| !effects.runs.contains_key(slot)).collect();
        if !missing.is_empty() {
            self.lost += 1;
            self.tell(|| format!("lost: {missing:?} of event {event}"));
        }
        for (slot, runs) in &effects.runs {
            if runs.len() > 1 {
                self.repeated_effects += runs.len() as u64 - 1;
                self.tell(|| format!("repeated: {slot:?} of event {event}, by its runs {runs:?}"));
            }
        }
        let runs: BTreeSet<u64> = effects.runs.values().flatten().copied().collect();
        if runs.len() > 1 && effects.runs.values().all(|runs| runs.len() == 1) {
            self.repeated_effects += runs.len() as u64 - 1;
            self.tell(|| format!("effects of event {event} are of several runs: {:?}", effects.runs));
        }
        if let (Some(first), Some(second)) =
            (effects.places.get(&Slot::First), effects.places.get(&Slot::Second))
            && first > second
        {
            self.misordered_effects += 1;
            self.tell(|| format!("misordered: the effects of event {event}"));
        }
    }

    /// A cell counts its events and remembers the last: what they told must be one chain.
    fn cells(&mut self, collected: &Collected, effects: &BTreeMap<u64, Effects>, failed: &BTreeSet<u64>) {
        let mut cells: HashMap<&str, Vec<(u64, u64, u64)>> = HashMap::new();
        for (event, fed) in &collected.events {
            let told = effects.get(event).and_then(|effects| effects.cell);
            if let (Some(key), Some((count, before))) = (&fed.key, told) {
                cells.entry(key).or_default().push((count, before, *event));
            }
        }
        for (key, mut chain) in cells {
            chain.sort_unstable();
            let mut last = (0, 0);
            for (count, before, event) in &chain {
                let (last_count, last_event) = last;
                if *count == last_count {
                    self.lost += 1;
                    self.tell(|| {
                        format!("lost: state of {key}: events {last_event} and {event} are both its {count}.")
                    });
                } else if *count > last_count + 1 {
                    self.repeated_effects += count - last_count - 1;
                    self.tell(|| {
                        format!("state of {key} counts {last_count}, then {count}: it was written by what told nothing")
                    });
                } else if *before != last_event {
                    self.repeated_effects += 1;
                    self.tell(|| {
                        format!("state of {key}: event {event} came after {last_event}, but saw {before}")
                    });
                }
                last = (*count, *event);
            }
            let untroubled = |event: &u64| {
                !failed.contains(event) && effects.get(event).is_some_and(|effects| effects.attempt == 1)
            };
            let order: Vec<u64> = chain.iter().map(|(.., event)| *event).filter(untroubled).collect();
            for pair in order.windows(2).filter(|pair| pair[0] > pair[1]) {
                self.misordered_keys += 1;
                if self.told_of_keys.len() < TOLD {
                    let text = format!("misordered: event {} of {key} came before {}", pair[0], pair[1]);
                    self.told_of_keys.push(text);
                }
            }
        }
    }

    fn calls(&mut self, journal: &Journal) {
        for (event, calls) in journal.by_event() {
            let keys: BTreeSet<&str> = calls.iter().map(|call| call.key.as_str()).collect();
            self.reruns += u64::from(calls.len() > 1);
            self.calls_resent += (calls.len() - keys.len()) as u64;
            if keys.len() > 1 {
                self.calls_rekeyed += 1;
                self.tell(|| format!("event {event} called with {} keys", keys.len()));
            }
        }
    }
}

fn effects(collected: &Collected) -> BTreeMap<u64, Effects> {
    let mut all: BTreeMap<u64, Effects> = BTreeMap::new();
    for (sequence, mark, out) in &collected.outs {
        let Out { attempt, count, before, .. } = out;
        let effects = all.entry(mark.event).or_default();
        effects.runs.entry(mark.slot).or_default().push(mark.run);
        effects.places.entry(mark.slot).or_insert(*sequence);
        effects.attempt = *attempt;
        if effects.cell.is_none() {
            effects.cell = count.zip(*before);
        }
    }
    for mark in &collected.answers {
        all.entry(mark.event).or_default().runs.entry(mark.slot).or_default().push(mark.run);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{collect::Fed, mark::Mark};

    /// Events 1 and 2 of one key, each with all its effects.
    fn whole() -> Collected {
        let mut collected = Collected::default();
        for event in [1, 2] {
            collected.events.insert(event, Fed { n: event, key: Some("k".into()) });
            for slot in [Slot::First, Slot::Second] {
                let out =
                    Out { mark: String::new(), attempt: 1, count: Some(event), before: Some(event - 1) };
                let sequence = collected.outs.len() as u64 + 1;
                collected.outs.push((sequence, Mark { event, run: 1, slot }, out));
            }
            collected.answers.push(Mark { event, run: 1, slot: Slot::Job });
        }
        collected
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Collected), expect: impl FnOnce(&mut Verdict)) {
        let mut collected = whole();
        change(&mut collected);
        let mut expected = Verdict::default();
        expect(&mut expected);
        let mut found = Verdict::of(&collected, &Journal::default(), &BTreeSet::new());
        (found.told, found.told_of_keys) = Default::default();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_whole_is_no_fault() {
        check(|_| {}, |_| {});
    }

    #[test]
    fn what_is_missing_is_lost() {
        check(|c| c.answers.truncate(1), |v| v.lost = 1);
        check(|c| c.outs.retain(|(_, mark, _)| mark.event == 1), |v| v.lost = 1);
        // Both wrote their state over the same state.
        check(
            |c| c.outs.iter_mut().for_each(|(.., out)| (out.count, out.before) = (Some(1), Some(0))),
            |v| {
                v.lost = 1;
            },
        );
    }

    #[test]
    fn what_is_there_twice_or_of_two_runs_is_repeated() {
        check(|c| c.outs.push((9, c.outs[0].1, c.outs[0].2.clone())), |v| v.repeated_effects = 1);
        check(|c| c.answers[0].run = 2, |v| v.repeated_effects = 1);
        check(
            |c| c.outs.iter_mut().filter(|o| o.1.event == 2).for_each(|(.., out)| out.count = Some(3)),
            |v| v.repeated_effects = 1,
        );
    }

    #[test]
    fn the_order_of_a_key_and_of_an_event_is_looked_at() {
        check(|c| (c.outs[0].0, c.outs[1].0) = (2, 1), |v| v.misordered_effects = 1);
        check(
            |c| {
                for (_, mark, out) in &mut c.outs {
                    (out.count, out.before) =
                        if mark.event == 2 { (Some(1), Some(0)) } else { (Some(2), Some(2)) };
                }
            },
            |v| v.misordered_keys = 1,
        );
    }
}
