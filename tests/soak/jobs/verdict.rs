//! What became of the jobs, as the streams and the endpoint's journal tell it. Knows nothing of how the executor works.

use std::collections::{BTreeMap, HashMap};

use async_nats::jetstream;
use harness::answering;
use serde::Serialize;
use serde_json::Value;

use super::journal::Journal;
use crate::plain::read_nats;

/// Everything that ends a job for the fleet.
const ENDS: &str = "agent.response.>";
const RECORDS: &str = "cd.e.*";
const TOLD: usize = 20;

/// When workers were killed, by name.
pub(crate) type Killed = HashMap<String, u64>;

/// Terminal events, by task.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    next: u64,
    events: BTreeMap<String, Vec<End>>,
    /// What the records say, by job.
    records: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// With what was said.
    Completed(String),
    /// With the reason.
    Failed(String),
    /// With its subject.
    Other(String),
}

impl Answers {
    pub(crate) async fn refresh(&mut self, jetstream: &jetstream::Context) {
        let stored = read_nats(jetstream, ENDS, self.next).await.expect("a readable stream");
        for stored in stored {
            self.next = stored.sequence + 1;
            let event: Value = serde_json::from_slice(&stored.data).expect("JSON");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let end = match stored.subject.as_str() {
                "agent.response.completed" => End::Completed(text(&event["proposal"]["content"])),
                "agent.response.failed" => End::Failed(text(&event["error"])),
                other => End::Other(other.to_owned()),
            };
            self.events.entry(text(&event["task_id"])).or_default().push(end);
        }
    }

    pub(crate) async fn read_records(&mut self, jetstream: &jetstream::Context) {
        for stored in read_nats(jetstream, RECORDS, 1).await.expect("a readable stream") {
            let record: Value = serde_json::from_slice(&stored.data).expect("JSON");
            let own = stored.subject.rsplit('_').next().unwrap_or_default().to_owned();
            self.records.insert(own, record["phase"].as_str().unwrap_or_default().to_owned());
        }
    }

    /// Jobs that have ended.
    pub(crate) fn jobs(&self) -> u64 {
        self.events.len() as u64
    }

    pub(crate) fn all(&self) -> u64 {
        self.events.values().map(|ends| ends.len() as u64).sum()
    }
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) completed: u64,
    /// With `agent.response.failed`, though the endpoint answers everybody.
    pub(crate) ended_as_failed: u64,
    /// Without a terminal event.
    pub(crate) lost: u64,
    /// Terminal events after a job's first.
    pub(crate) repeated: u64,
    /// Answers that are not those of their job, and events of no job.
    pub(crate) wrong: u64,
    /// Ended jobs whose record does not say so.
    pub(crate) unrecorded: u64,
    /// To the endpoint.
    pub(crate) requests: u64,
    /// Requests after a job's first: what was worked, or paid for, more than once.
    pub(crate) requests_repeated: u64,
    /// Jobs that were asked for more than once.
    pub(crate) jobs_repeated: u64,
    /// Of the repeated requests, those whose job's last worker lived: two workers had it at a time.
    pub(crate) requests_at_a_time: u64,
    /// The most that one job was asked for.
    pub(crate) requests_of_one_job: u64,
    /// A few of the faults, in words.
    #[serde(skip)]
    pub(crate) told: Vec<String>,
}

impl Verdict {
    pub(crate) fn of(jobs: u64, answers: &Answers, journal: &Journal, killed: &Killed) -> Verdict {
        let mut verdict = Verdict::default();
        for number in 0..jobs {
            verdict.job(number, answers);
        }
        let known = |task: &str| number_of(task).is_some_and(|number| number < jobs);
        for (task, ends) in answers.events.iter().filter(|(task, _)| !known(task)) {
            verdict.wrong += ends.len() as u64;
            verdict.tell(|| format!("events of {task:?}, which was never submitted: {ends:?}"));
        }
        verdict.requests = journal.requests();
        for asked in journal.asked.values() {
            let times = asked.len() as u64;
            verdict.requests_repeated += times - 1;
            verdict.jobs_repeated += u64::from(times > 1);
            verdict.requests_of_one_job = verdict.requests_of_one_job.max(times);
            let lived = |who: &str, at: u64| killed.get(who).is_none_or(|killed| *killed > at);
            let pairs = asked.windows(2).filter(|pair| lived(&pair[0].1, pair[1].0));
            verdict.requests_at_a_time += pairs.count() as u64;
        }
        verdict
    }

    fn job(&mut self, number: u64, answers: &Answers) {
        let ends = answers.events.get(&super::task(number)).map(Vec::as_slice).unwrap_or_default();
        let phase = answers.records.get(&number.to_string()).map_or("", String::as_str);
        let Some(first) = ends.first() else {
            self.lost += 1;
            return self.tell(|| format!("job {number} has no terminal event; its record says {phase:?}"));
        };
        if ends.len() > 1 {
            self.repeated += ends.len() as u64 - 1;
            self.tell(|| format!("job {number} ended {} times: {ends:?}", ends.len()));
        }
        let expected = match first {
            End::Completed(said) => {
                self.completed += 1;
                if *said != answering::said(number) {
                    self.wrong += 1;
                    self.tell(|| format!("job {number} was answered {said:?}"));
                }
                "done"
            }
            End::Failed(why) => {
                self.ended_as_failed += 1;
                self.tell(|| format!("job {number} failed: {why}"));
                "failed"
            }
            End::Other(subject) => {
                self.wrong += 1;
                return self.tell(|| format!("job {number} ended on {subject}"));
            }
        };
        if phase != expected {
            self.unrecorded += 1;
            self.tell(|| format!("job {number} is {expected}; its record says {phase:?}"));
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.told.len() < TOLD {
            self.told.push(what());
        }
    }

    /// What should not be.
    pub(crate) fn faults(&self) -> Vec<String> {
        let faults = [
            ("jobs without a terminal event", self.lost),
            ("terminal events that are repeated", self.repeated),
            ("wrong answers or events", self.wrong),
            ("jobs that failed without a reason", self.ended_as_failed),
            ("jobs whose record does not say that they ended", self.unrecorded),
        ];
        let found = faults.into_iter().filter(|(_, count)| *count > 0);
        found.map(|(what, count)| format!("{what}: {count}")).collect()
    }
}

fn number_of(task: &str) -> Option<u64> {
    task.strip_prefix("soak-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::journal::{Line, What};

    fn ended(ends: &[(u64, End)]) -> Answers {
        let mut answers = Answers::default();
        for (number, end) in ends {
            answers.events.entry(super::super::task(*number)).or_default().push(end.clone());
            answers.records.insert(number.to_string(), "done".into());
        }
        answers
    }

    fn done(number: u64) -> (u64, End) {
        (number, End::Completed(answering::said(number)))
    }

    #[track_caller]
    fn check(answers: &Answers, expect: impl FnOnce(&mut Verdict)) {
        let mut expected = Verdict { completed: 2, ..Verdict::default() };
        expect(&mut expected);
        let mut found = Verdict::of(2, answers, &Journal::default(), &Killed::new());
        assert_eq!(found.told.is_empty(), found.faults().is_empty());
        found.told = Vec::new();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_job_has_one_end_which_is_its_own() {
        check(&ended(&[done(0), done(1)]), |_| {});
        check(&ended(&[done(0)]), |v| (v.completed, v.lost) = (1, 1));
        check(&ended(&[done(0), done(1), done(1)]), |v| v.repeated = 1);
        check(&ended(&[done(0), done(1), (1, End::Failed("late".into()))]), |v| v.repeated = 1);
        check(&ended(&[done(0), (1, done(0).1)]), |v| v.wrong = 1);
        check(&ended(&[done(0), done(1), done(2)]), |v| v.wrong = 1);
    }

    #[test]
    fn a_record_says_what_the_event_says() {
        let mut answers = ended(&[done(0), done(1)]);
        answers.records.remove("1");
        check(&answers, |v| v.unrecorded = 1);
        let failed = ended(&[done(0), (1, End::Failed("no".into()))]);
        check(&failed, |v| (v.completed, v.ended_as_failed, v.unrecorded) = (1, 1, 1));
    }

    #[test]
    fn requests_are_counted_and_so_are_those_that_are_repeated() {
        let mut journal = Journal::default();
        for (at, job, who) in [(1, 0, "w0g1"), (2, 1, "w1g1"), (3, 0, "w2g1"), (5, 0, "w0g2")] {
            journal.take(Line { at, job, who: who.into(), what: What::Asked });
        }
        journal.take(Line { at: 6, job: 0, who: "w0g2".into(), what: What::Answered });
        let mut killed = Killed::from([("w0g1".into(), 2), ("w2g1".into(), 4)]);
        assert_eq!((journal.open("w0g1"), journal.open("w0g2")), (1, 0));
        let verdict = Verdict::of(2, &ended(&[done(0), done(1)]), &journal, &killed);
        let counted = (verdict.requests, verdict.requests_repeated, verdict.jobs_repeated);
        assert_eq!((counted, verdict.requests_of_one_job, verdict.requests_at_a_time), ((4, 2, 1), 3, 0));
        killed.insert("w2g1".into(), 6);
        let verdict = Verdict::of(2, &ended(&[done(0), done(1)]), &journal, &killed);
        assert_eq!(verdict.requests_at_a_time, 1);
        assert_eq!(verdict.faults(), Vec::<String>::new());
    }
}
