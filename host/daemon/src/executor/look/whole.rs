//! One job as it stands: what lies on its queue, what its record says, and the same of its parts.

use std::{collections::HashMap, sync::Arc};

use cofferdam_bus::{Bus, Error};
use cofferdam_sandbox::JobPhase;
use futures_util::future::try_join_all;

use crate::executor::{
    job::{self, QueuedJob},
    report::Running,
    status::{self, Answer, Record},
};

/// A part of which nothing is left ended long ago, and nobody was told how.
const LOST: &str = "nobody worked it as long as it was kept";

/// A job and its parts, as far as they are kept.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) id: String,
    pub(crate) queued: Option<QueuedJob>,
    /// Nanoseconds since the epoch; 0 if it is not kept.
    pub(crate) submitted: u64,
    pub(crate) record: Option<Record>,
    pub(crate) parts: Vec<Part>,
}

/// The job of one agent of several.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) id: String,
    pub(crate) record: Option<Record>,
    /// It is there, ended or not.
    kept: bool,
}

/// How a job stands, its parts taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) phase: JobPhase,
    /// Nanoseconds since the epoch; 0 where it has not come so far, or nobody knows.
    pub(crate) started: u64,
    pub(crate) ended: u64,
    pub(crate) worker: String,
    pub(crate) tokens_in: u64,
    pub(crate) tokens_out: u64,
    pub(crate) error: Option<String>,
    pub(crate) kind: Option<String>,
}

/// Who works which job.
type Worked<'a> = HashMap<&'a str, (&'a str, &'a Running)>;

impl Whole {
    /// Nothing if there is no such job, or it is forgotten.
    pub(crate) async fn find(bus: &Arc<dyn Bus>, id: &str) -> Result<Option<Self>, Error> {
        let Some(place) = job::subject(id) else { return Ok(None) };
        let Some(stored) = bus.last(&place).await? else {
            let Some(record) = status::record(bus, id).await? else { return Ok(None) };
            return Self::with(bus, id.to_owned(), None, 0, Some(record)).await.map(Some);
        };
        let unreadable =
            |error: serde_json::Error| Error::Unreadable { subject: place, reason: error.to_string() };
        let queued = serde_json::from_slice(&stored.message.data).map_err(unreadable)?;
        Self::of(bus, queued, stored.timestamp).await.map(Some)
    }

    /// Of a job that was read.
    pub(crate) async fn of(bus: &Arc<dyn Bus>, queued: QueuedJob, submitted: u64) -> Result<Self, Error> {
        let record = status::record(bus, &queued.id).await?;
        Self::with(bus, queued.id.clone(), Some(queued), submitted, record).await
    }

    async fn with(
        bus: &Arc<dyn Bus>,
        id: String,
        queued: Option<QueuedJob>,
        submitted: u64,
        record: Option<Record>,
    ) -> Result<Self, Error> {
        let parts = record.iter().flat_map(|record| &record.parts).map(|part| Part::find(bus, part));
        let parts = try_join_all(parts).await?;
        let submitted =
            if submitted == 0 { record.as_ref().map_or(0, |record| record.submitted) } else { submitted };
        Ok(Self { id, queued, submitted, record, parts })
    }

    /// Whatever the workers say of it, it stands as it does.
    pub(crate) fn is_settled(&self) -> bool {
        self.record.is_some() && self.parts.is_empty()
    }

    /// `worked`: what the workers say that they work.
    pub(crate) fn standing(&self, worked: &Worked<'_>) -> Standing {
        if self.parts.is_empty() {
            return of_one(&self.id, self.record.as_ref(), true, worked);
        }
        let parts: Vec<Standing> = self.parts.iter().map(|part| part.standing(worked)).collect();
        let count = |phase: JobPhase| parts.iter().filter(|part| part.phase == phase).count();
        let (done, failed, cancelled) =
            (count(JobPhase::Done), count(JobPhase::Failed), count(JobPhase::Cancelled));
        let phase = match () {
            () if done + failed + cancelled < parts.len() => JobPhase::Running,
            () if done > 0 => JobPhase::Done,
            () if failed > 0 => JobPhase::Failed,
            () => JobPhase::Cancelled,
        };
        // Why there is no answer; with one, nobody asks.
        let worst = parts.iter().find(|part| part.phase == phase && phase != JobPhase::Done);
        Standing {
            phase,
            started: parts.iter().map(|part| part.started).filter(|at| *at > 0).min().unwrap_or(0),
            ended: match phase {
                JobPhase::Running => 0,
                _ => parts.iter().map(|part| part.ended).max().unwrap_or(0),
            },
            worker: parts
                .iter()
                .map(|part| part.worker.clone())
                .find(|name| !name.is_empty())
                .unwrap_or_default(),
            tokens_in: parts.iter().map(|part| part.tokens_in).sum(),
            tokens_out: parts.iter().map(|part| part.tokens_out).sum(),
            error: worst.and_then(|part| part.error.clone()),
            kind: worst.and_then(|part| part.kind.clone()),
        }
    }

    /// The answer that came first, with the record that has it; and how many there are.
    pub(crate) fn answer(&self) -> (Option<(&Record, Option<&Answer>)>, usize) {
        let records = self.record.iter().chain(self.parts.iter().filter_map(|part| part.record.as_ref()));
        let done: Vec<&Record> = records.filter(|record| record.phase == JobPhase::Done).collect();
        let first =
            done.iter().min_by_key(|record| record.ended).map(|record| (*record, record.answer.as_ref()));
        (first, done.len())
    }
}

impl Part {
    async fn find(bus: &Arc<dyn Bus>, id: &str) -> Result<Self, Error> {
        let record = status::record(bus, id).await?;
        let kept = match (&record, job::subject(id)) {
            (Some(_), _) => true,
            (None, Some(place)) => bus.last(&place).await?.is_some(),
            (None, None) => false,
        };
        Ok(Self { id: id.to_owned(), record, kept })
    }

    pub(crate) fn standing(&self, worked: &Worked<'_>) -> Standing {
        of_one(&self.id, self.record.as_ref(), self.kept, worked)
    }
}

fn of_one(id: &str, record: Option<&Record>, kept: bool, worked: &Worked<'_>) -> Standing {
    let mut standing = Standing {
        phase: JobPhase::Queued,
        started: 0,
        ended: 0,
        worker: String::new(),
        tokens_in: 0,
        tokens_out: 0,
        error: None,
        kind: None,
    };
    match (record, worked.get(id)) {
        (Some(record), _) => {
            standing.phase = record.phase;
            (standing.started, standing.ended) = (record.started, record.ended);
            standing.worker.clone_from(&record.worker);
            (standing.tokens_in, standing.tokens_out) = (record.tokens_in, record.tokens_out);
            (standing.error, standing.kind) = (record.error.clone(), record.kind.clone());
        }
        (None, Some((worker, running))) => {
            standing.phase = JobPhase::Running;
            standing.started = running.started;
            (*worker).clone_into(&mut standing.worker);
        }
        (None, None) if !kept => {
            standing.phase = JobPhase::Failed;
            standing.error = Some(LOST.to_owned());
        }
        (None, None) => {}
    }
    standing
}

/// A phase as it is written for people and on the wire.
pub(crate) fn word(phase: JobPhase) -> &'static str {
    match phase {
        JobPhase::Unknown => "unknown",
        JobPhase::Queued => "queued",
        JobPhase::Running => "running",
        JobPhase::Done => "done",
        JobPhase::Failed => "failed",
        JobPhase::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(phase: JobPhase, ended: u64) -> Record {
        Record {
            started: 5,
            ended,
            tokens_out: 3,
            error: (phase == JobPhase::Failed).then(|| "no".to_owned()),
            answer: (phase == JobPhase::Done)
                .then(|| Answer { agent: format!("a{ended}"), ..Answer::default() }),
            ..Record::new(phase)
        }
    }

    fn whole(parts: &[Option<JobPhase>]) -> Whole {
        let part = |(n, phase): (usize, &Option<JobPhase>)| Part {
            id: format!("p_normal_aa_{n}"),
            record: phase.map(|phase| record(phase, 20 - n as u64)),
            kept: true,
        };
        Whole {
            id: "p_normal_aa_x".into(),
            queued: None,
            submitted: 1,
            record: Some(Record::new(JobPhase::Running)),
            parts: parts.iter().enumerate().map(part).collect(),
        }
    }

    #[test]
    fn parts_are_taken_together() {
        use JobPhase::{Cancelled, Done, Failed, Running};
        for (parts, phase) in [
            (&[Some(Done), None][..], Running),
            (&[None, None], Running),
            (&[Some(Done), Some(Done)], Done),
            (&[Some(Failed), Some(Done)], Done),
            (&[Some(Cancelled), Some(Done)], Done),
            (&[Some(Failed), Some(Failed)], Failed),
            (&[Some(Cancelled), Some(Failed)], Failed),
            (&[Some(Cancelled), Some(Cancelled)], Cancelled),
        ] {
            let standing = whole(parts).standing(&HashMap::new());
            assert_eq!(standing.phase, phase, "{parts:?}");
            assert_eq!(standing.error.as_deref(), (phase == Failed).then_some("no"), "{parts:?}");
            assert_eq!(standing.ended > 0, phase != Running, "{parts:?}");
        }
        let standing = whole(&[Some(Done), Some(Done)]).standing(&HashMap::new());
        assert_eq!((standing.started, standing.ended, standing.tokens_out), (5, 20, 6));
    }

    #[test]
    fn the_answer_is_the_one_that_came_first() {
        let whole = whole(&[Some(JobPhase::Done), Some(JobPhase::Failed), Some(JobPhase::Done)]);
        let (first, done) = whole.answer();
        let agent = first.and_then(|(_, answer)| answer).map(|answer| answer.agent.as_str());
        assert_eq!((agent, done), (Some("a18"), 2));
    }

    #[test]
    fn a_job_without_a_record_is_queued_unless_a_worker_says_that_it_works_it() {
        let mut whole = whole(&[]);
        whole.record = None;
        assert_eq!(whole.standing(&HashMap::new()).phase, JobPhase::Queued);
        let running = Running { started: 7, ..Running::default() };
        let worked = HashMap::from([("p_normal_aa_x", ("w1", &running))]);
        let standing = whole.standing(&worked);
        assert_eq!(
            (standing.phase, standing.started, standing.worker.as_str()),
            (JobPhase::Running, 7, "w1")
        );
        // Whatever a report says that is a moment old.
        whole.record = Some(record(JobPhase::Done, 9));
        assert_eq!(whole.standing(&worked).phase, JobPhase::Done);
    }

    #[test]
    fn a_part_of_which_nothing_is_left_is_no_reason_to_wait() {
        let mut whole = whole(&[Some(JobPhase::Cancelled), None]);
        whole.parts[1].kept = false;
        assert_eq!(whole.standing(&HashMap::new()).phase, JobPhase::Failed);
    }
}
