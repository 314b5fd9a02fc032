//! What is lost, repeated or out of order, from what the streams hold and the ledger counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    collect::{Collected, Fate, Fed, Out},
    journal::{Call, Journal, by_event},
    mark::Slot,
};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Events that ran more often than their fate made them.
    pub(crate) reruns: u64,
    /// Events without an effect that they should have, their dead letter among them, and writes of state that are in no later
    /// state.
    pub(crate) lost: u64,
    /// Effects that are there once more than they should be, effects that are of another run than the rest of their event or of
    /// an attempt that failed, and writes of state that no event has told of.
    pub(crate) repeated_effects: u64,
    /// Events of a key whose first attempt committed after that of a later one.
    pub(crate) misordered_keys: u64,
    /// Events whose first publish is stored after their second.
    pub(crate) misordered_effects: u64,
    /// `once` calls that came after their answer had been recorded, or with a second key.
    pub(crate) once_repeated: u64,
    /// `once` calls that came again before.
    pub(crate) once_resent: u64,
    /// Events with effects whose call's answer is not recorded.
    pub(crate) once_unrecorded: u64,
    /// Dead letters that no fate asked for.
    pub(crate) unjust: u64,
    /// A few of the faults, in words.
    pub(crate) told: Vec<String>,
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
    attempt: Option<u32>,
}

const TOLD: usize = 20;

impl Verdict {
    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.told.len() < TOLD {
            self.told.push(what());
        }
    }

    pub(crate) fn of(collected: &Collected, journal: &Journal) -> Verdict {
        let mut verdict = Verdict::default();
        let effects = effects(collected);
        for (event, fed) in &collected.events {
            verdict.effects_of(*event, fed, effects.get(event));
        }
        for event in effects.keys().filter(|event| !collected.events.contains_key(event)) {
            verdict.repeated_effects += 1;
            verdict.tell(|| format!("effects of {event}, which was never fed"));
        }
        verdict.cells(collected, &effects);
        verdict.dead(collected);
        verdict.reruns(collected, journal);
        verdict.once(collected, journal, &effects);
        verdict
    }

    fn effects_of(&mut self, event: u64, fed: &Fed, effects: Option<&Effects>) {
        let nothing = Effects::default();
        let effects = effects.unwrap_or(&nothing);
        let missing: Vec<Slot> =
            fed.slots().into_iter().filter(|slot| !effects.runs.contains_key(slot)).collect();
        if !missing.is_empty() {
            self.lost += 1;
            self.tell(|| format!("lost: {missing:?} of event {event}"));
        }
        if fed.fate == Some(Fate::Reject) && !effects.runs.is_empty() {
            self.repeated_effects += 1;
            self.tell(|| format!("effects of event {event}, which was rejected: {:?}", effects.runs));
        }
        if fed.fate == Some(Fate::Retry) && effects.attempt == Some(1) {
            self.repeated_effects += 1;
            self.tell(|| format!("effects of event {event}'s first attempt, which failed"));
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
    fn cells(&mut self, collected: &Collected, effects: &BTreeMap<u64, Effects>) {
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
            let first = |event: &u64| effects.get(event).is_some_and(|effects| effects.attempt == Some(1));
            let order: Vec<u64> = chain.iter().map(|(.., event)| *event).filter(first).collect();
            for pair in order.windows(2).filter(|pair| pair[0] > pair[1]) {
                self.misordered_keys += 1;
                self.tell(|| format!("misordered: event {} of {key} came before {}", pair[0], pair[1]));
            }
        }
    }

    fn dead(&mut self, collected: &Collected) {
        let mut letters: BTreeMap<u64, u64> = BTreeMap::new();
        for dead in &collected.dead {
            let fed = dead.event.and_then(|event| collected.events.get(&event));
            match fed.filter(|fed| dead.as_told && fed.fate == Some(Fate::Reject)) {
                Some(_) => *letters.entry(dead.event.unwrap_or_default()).or_default() += 1,
                None => {
                    self.unjust += 1;
                    self.tell(|| format!("given up: {}", dead.text));
                }
            }
        }
        for (event, _) in collected.events.iter().filter(|(_, fed)| fed.fate == Some(Fate::Reject)) {
            match letters.get(event) {
                None => {
                    self.lost += 1;
                    self.tell(|| format!("lost: the dead letter of event {event}"));
                }
                Some(1) => {}
                Some(many) => {
                    self.repeated_effects += many - 1;
                    self.tell(|| format!("repeated: {many} dead letters of event {event}"));
                }
            }
        }
    }

    fn reruns(&mut self, collected: &Collected, journal: &Journal) {
        for (event, calls) in by_event(&journal.runs) {
            let fate = collected.events.get(&event).and_then(|fed| fed.fate);
            let meant = if fate == Some(Fate::Retry) { 2 } else { 1 };
            self.reruns += u64::from(calls.len() > meant);
        }
    }

    fn once(&mut self, collected: &Collected, journal: &Journal, effects: &BTreeMap<u64, Effects>) {
        let mut recorded: HashMap<(u64, &str), u64> = HashMap::new();
        for answer in &collected.recorded {
            recorded.insert((answer.event, &answer.key), answer.at);
        }
        for (event, calls) in by_event(&journal.once) {
            let mut keys: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
            for call in calls {
                keys.entry(&call.key).or_default().push(call);
            }
            if keys.len() > 1 {
                self.once_repeated += keys.len() as u64 - 1;
                self.tell(|| format!("event {event} made its one call with {} keys", keys.len()));
            }
            for (key, calls) in &keys {
                let at = recorded.get(&(event, *key));
                let (late, early): (Vec<&Call>, Vec<&Call>) =
                    calls.iter().partition(|call| at.is_some_and(|at| call.at > *at));
                let begun =
                    late.first().zip(at).is_some_and(|(call, at)| call.at < *at + collected.recorded_early);
                let late = late.len() - usize::from(begun);
                self.once_repeated += late as u64;
                self.once_resent += (early.len() as u64 + u64::from(begun)).saturating_sub(1);
                if late > 0 {
                    self.tell(|| {
                        let times: Vec<_> = calls.iter().map(|call| (call.at, &call.who)).collect();
                        format!(
                            "event {event}: its answer was recorded at {at:?}, and it called at {times:?}"
                        )
                    });
                }
            }
        }
        let known: BTreeSet<u64> = collected.recorded.iter().map(|answer| answer.event).collect();
        for event in effects.keys().filter(|event| !known.contains(event)) {
            self.once_unrecorded += 1;
            self.tell(|| format!("event {event} is done, and the answer of its call is not recorded"));
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
        effects.attempt = Some(*attempt);
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
    use crate::{
        collect::{Answer, Dead},
        journal::Method,
        mark::Mark,
    };

    fn answer(event: u64) -> Answer {
        Answer { event, key: format!("of {event}"), at: 100 }
    }

    /// Events 1 and 2 of one key, each with all its effects; 3 was rejected.
    fn whole() -> Collected {
        let mut collected = Collected::default();
        collected.events.insert(3, Fed { n: 3, key: None, fate: Some(Fate::Reject) });
        collected.dead.push(Dead { event: Some(3), as_told: true, text: String::new() });
        collected.recorded = vec![answer(1), answer(2)];
        for event in [1, 2] {
            collected.events.insert(event, Fed { n: event, key: Some("k".into()), fate: None });
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
        compare(&collected, &Journal::default(), expect);
    }

    #[track_caller]
    fn compare(collected: &Collected, journal: &Journal, expect: impl FnOnce(&mut Verdict)) {
        let mut expected = Verdict::default();
        expect(&mut expected);
        let mut found = Verdict::of(collected, journal);
        found.told = Vec::new();
        assert_eq!(found, expected);
    }

    #[test]
    fn dead_letters_are_those_that_were_asked_for_each_once() {
        check(|c| c.dead.clear(), |v| v.lost = 1);
        check(|c| c.dead.push(c.dead[0].clone()), |v| v.repeated_effects = 1);
        check(|c| c.dead.push(Dead { event: Some(1), ..c.dead[0].clone() }), |v| v.unjust = 1);
        check(
            |c| c.answers.push(Mark { event: 3, run: 1, slot: Slot::Job }),
            |v| (v.repeated_effects, v.once_unrecorded) = (1, 1),
        );
    }

    #[test]
    fn a_failed_attempt_has_no_effects() {
        check(|c| c.events.get_mut(&1).unwrap().fate = Some(Fate::Retry), |v| v.repeated_effects = 1);
    }

    #[test]
    fn a_call_after_its_answer_was_recorded_is_repeated_and_one_before_was_resent() {
        let call = |event: u64, at, key: &str| Call {
            at,
            event,
            method: Method::Count,
            key: key.into(),
            count: 1,
            who: String::new(),
        };
        let check_calls = |calls: &[Call], expect: fn(&mut Verdict)| {
            let mut journal = Journal::default();
            journal.once = calls.to_vec();
            compare(&whole(), &journal, expect);
        };
        check_calls(&[call(1, 90, "of 1"), call(2, 90, "of 2")], |_| {});
        check_calls(&[call(1, 90, "of 1"), call(1, 95, "of 1")], |v| v.once_resent = 1);
        check_calls(&[call(1, 90, "of 1"), call(1, 101, "of 1")], |v| v.once_repeated = 1);
        check_calls(&[call(1, 90, "of 1"), call(1, 90, "other")], |v| v.once_repeated = 1);
        // Where times of records are those of their group, the first call so soon after is what was recorded.
        let mut early = whole();
        early.recorded_early = 50;
        let mut journal = Journal::default();
        journal.once = vec![call(1, 90, "of 1"), call(1, 120, "of 1"), call(1, 121, "of 1")];
        compare(&early, &journal, |v| (v.once_resent, v.once_repeated) = (1, 1));
        check(|c| c.recorded.truncate(1), |v| v.once_unrecorded = 1);
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
