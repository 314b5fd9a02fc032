//! `cofferdam jobs cancel`: one job after another, each waited for.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use fleet_proto::admin::v1::{CancelJobRequest, CancelJobResponse, JobSummary};
use serde_json::{Value, json};
use tonic::Code;

use super::{
    super::{
        door::Door,
        lines::{note, print, shown},
    },
    ANSWER, CancelArgs,
};

/// What became of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Cancelled,
    /// It had been before.
    Before,
    /// It has not ended in the time that was given it.
    Asked,
    /// It ended otherwise, before anybody was asked or at the same time.
    Late,
}

impl Done {
    fn of(answer: &CancelJobResponse, state: &str) -> Self {
        match (state, answer.late) {
            ("cancelled", true) => Done::Before,
            ("cancelled", false) => Done::Cancelled,
            ("queued" | "running", _) => Done::Asked,
            _ => Done::Late,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Done::Cancelled => "cancelled",
            Done::Before => "cancelled-before",
            Done::Asked => "asked",
            Done::Late => "late",
        }
    }
}

pub(super) async fn cancel(mut door: Door, args: CancelArgs) -> anyhow::Result<ExitCode> {
    let (mut out, mut read, mut failed) = (std::io::stdout(), true, false);
    for id in &args.ids {
        let wait_ms = u32::try_from(args.wait.as_millis()).unwrap_or(u32::MAX);
        let asked = door.jobs.cancel(CancelJobRequest { id: id.clone(), wait_ms });
        let Ok(answer) = tokio::time::timeout(ANSWER + args.wait, asked).await else {
            bail!("job {id}: no answer within {:?}; the same command again does no harm", ANSWER + args.wait);
        };
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status)
                if matches!(
                    status.code(),
                    Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition
                ) =>
            {
                failed = true;
                let why = status.message();
                match args.json {
                    true => read = read && print(&mut out, &refused(id, why).to_string())?,
                    false => note(why),
                }
                continue;
            }
            Err(status) => return Err(door.told(&status).context(format!("stopped at job {id}"))),
        };
        let job = answer.summary.clone().unwrap_or_default();
        let done = Done::of(&answer, &job.state);
        // Who does not wait wanted no more than to ask.
        failed |= done == Done::Late || done == Done::Asked && !args.wait.is_zero();
        match (args.json, done) {
            (true, done) => read = read && print(&mut out, &json(&job, done).to_string())?,
            (false, Done::Late) => note(&line(&job, done, args.wait)),
            (false, done) => read = read && print(&mut out, &line(&job, done, args.wait))?,
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn line(job: &JobSummary, done: Done, wait: Duration) -> String {
    let (id, state) = (shown(job.id.as_bytes()), shown(job.state.as_bytes()));
    let task = shown(job.task_id.as_bytes());
    match done {
        Done::Cancelled => format!("{id}  cancelled  {task}"),
        Done::Before => format!("{id}  had been cancelled  {task}"),
        Done::Asked => {
            let then = match state.as_str() {
                "queued" => "it is queued, and ends when a worker takes it",
                _ => "it is still worked",
            };
            format!("{id}  asked to end; after {wait:?} {then}  {task}")
        }
        Done::Late => format!("job {id} has ended as it is ({state}), and can't be cancelled any more"),
    }
}

fn json(job: &JobSummary, done: Done) -> Value {
    json!({ "id": job.id, "result": done.word(), "state": job.state, "task_id": job.task_id })
}

fn refused(id: &str, why: &str) -> Value {
    json!({ "id": id, "result": "failed", "error": why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_job_is_said() {
        for (state, late, done, said) in [
            ("cancelled", false, Done::Cancelled, "j  cancelled  t"),
            ("cancelled", true, Done::Before, "j  had been cancelled  t"),
            ("queued", false, Done::Asked, "ends when a worker takes it"),
            ("running", false, Done::Asked, "after 1s it is still worked"),
            ("done", true, Done::Late, "has ended as it is (done)"),
            ("failed", false, Done::Late, "has ended as it is (failed)"),
        ] {
            let job = JobSummary {
                id: "j".into(),
                state: state.into(),
                task_id: "t".into(),
                ..JobSummary::default()
            };
            let answer = CancelJobResponse { summary: Some(job.clone()), late };
            assert_eq!(Done::of(&answer, state), done, "{state}");
            let line = line(&job, done, Duration::from_secs(1));
            assert!(line.contains(said), "{line}");
        }
    }
}
