//! `cofferdam jobs`: looking at jobs, ending them, and watching how they come along.

mod args;
mod cancel;
mod list;
mod show;
mod watch;

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

pub use args::JobsCommand;
use args::{CancelArgs, ListArgs, ShowArgs, WatchArgs};
use fleet_proto::admin::v1::JobSummary;
use serde_json::{Value, json};

use super::{door::Door, lines::time};

/// What is asked takes milliseconds, or some seconds where much is to be read; a bus that is out of reach is not waited for.
const ANSWER: Duration = Duration::from_secs(30);

/// The code is a failure if something that was asked for could not be done, and said so.
pub async fn jobs(command: JobsCommand) -> anyhow::Result<ExitCode> {
    let door = Door::open(command.reach()).await?;
    match command {
        JobsCommand::List(args) => list::list(door, args).await.map(|()| ExitCode::SUCCESS),
        JobsCommand::Show(args) => show::show(door, args).await.map(|()| ExitCode::SUCCESS),
        JobsCommand::Cancel(args) => cancel::cancel(door, args).await,
        JobsCommand::Watch(args) => watch::watch(door, args).await.map(|()| ExitCode::SUCCESS),
    }
}

/// What is known is there, and the rest is null.
fn as_json(job: &JobSummary) -> Value {
    let given = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    let at = |at: Option<&prost_types::Timestamp>| at.map(|at| rfc3339(time(Some(at))));
    json!({
        "id": job.id,
        "state": job.state,
        "plugin": job.plugin,
        "task_id": given(&job.task_id),
        "role": given(&job.role),
        "model": given(&job.model),
        "priority": given(&job.priority),
        "agents": job.agents,
        "submitted": at(job.submitted_at.as_ref()),
        "started": at(job.started_at.as_ref()),
        "ended": at(job.ended_at.as_ref()),
        "worker": given(&job.worker),
        "tokens_in": job.tokens_in,
        "tokens_out": job.tokens_out,
        "error": given(&job.error),
        "error_type": given(&job.error_type),
    })
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// How long it was worked, or has been; of the whole where nobody knows when it began.
fn took(job: &JobSummary, now: SystemTime) -> Option<Duration> {
    let began = time(Some(job.started_at.as_ref()?));
    let ended = job.ended_at.as_ref().map_or(now, |at| time(Some(at)));
    Some(ended.duration_since(began).unwrap_or_default())
}

/// Short enough to be read at a glance.
fn brief(took: Duration) -> String {
    let rounded = match took.as_millis() {
        0..1000 => Duration::from_millis(took.as_millis().try_into().unwrap_or(0)),
        _ if took.as_secs() < 60 => return format!("{:.1}s", took.as_secs_f64()),
        _ => Duration::from_secs(took.as_secs()),
    };
    humantime::format_duration(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_short() {
        for (ms, expected) in [(0, "0s"), (12, "12ms"), (999, "999ms"), (1234, "1.2s"), (61_999, "1m 1s")] {
            assert_eq!(brief(Duration::from_millis(ms)), expected);
        }
    }
}
