//! How jobs and workers stand, in the words of the fleet's contract.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cofferdam_bus::{Bus, Error};
use cofferdam_sandbox::JobPhase;
use fleet_proto::ray_executor::v1::{
    DeliberationResult, GetActiveJobsResponse, GetDeliberationStatusResponse, JobInfo, RayExecutorStats,
};
use prost_types::Timestamp;
use tonic::Status;

use crate::executor::look::{Crew, Standing, Whole, depth};

/// Nobody judges answers here; the fleet's own executor says the same of one that came.
const SCORE: f32 = 1.0;
/// In the place of an answer's text.
const DROPPED: &str = "too large to be kept here; agent.response.completed has it";

pub(super) async fn standing(bus: &Arc<dyn Bus>, id: &str) -> Result<GetDeliberationStatusResponse, Status> {
    let Some(whole) = Whole::find(bus, id).await.map_err(failed)? else {
        return Ok(GetDeliberationStatusResponse { status: "not_found".to_owned(), ..Default::default() });
    };
    // Queued and worked are one to the contract, so nobody is asked who works it.
    Ok(told(&whole, &whole.standing(&Default::default())))
}

fn told(whole: &Whole, standing: &Standing) -> GetDeliberationStatusResponse {
    let of = |status: &str| GetDeliberationStatusResponse { status: status.to_owned(), ..Default::default() };
    let because = || standing.error.clone().unwrap_or_default();
    match standing.phase {
        JobPhase::Queued | JobPhase::Running => of("running"),
        JobPhase::Done => {
            GetDeliberationStatusResponse { result: Some(result(whole, standing)), ..of("completed") }
        }
        JobPhase::Failed => GetDeliberationStatusResponse {
            error_message: match &standing.kind {
                Some(kind) => format!("{kind}: {}", because()),
                None => because(),
            },
            ..of("failed")
        },
        JobPhase::Cancelled => GetDeliberationStatusResponse {
            error_message: match because() {
                why if why.is_empty() => "cancelled".to_owned(),
                why => format!("cancelled: {why}"),
            },
            ..of("failed")
        },
        JobPhase::Unknown => of("not_found"),
    }
}

fn result(whole: &Whole, standing: &Standing) -> DeliberationResult {
    let (first, answers) = whole.answer();
    let mut metadata: BTreeMap<String, String> =
        whole.queued.iter().flat_map(|queued| queued.job.metadata.iter().cloned()).collect();
    // Of a plugin's job no text is kept; who answered is known all the same.
    let asked = whole.queued.as_ref().and_then(|queued| queued.job.agents.first());
    let agent_id = asked.map(|agent| agent.id.clone()).unwrap_or_default();
    let mut result = DeliberationResult { agent_id, score: SCORE, ..Default::default() };
    let mut add = |name: &str, value: String| drop(metadata.insert(name.to_owned(), value));
    if let Some((record, answer)) = first {
        add("model", record.model.clone());
        let took = Duration::from_nanos(record.ended.saturating_sub(record.started));
        add("duration_ms", took.as_millis().to_string());
        if !record.worker.is_empty() {
            add("worker", record.worker.clone());
        }
        if let Some(answer) = answer {
            if !answer.model.is_empty() {
                add("model", answer.model.clone());
            }
            if let Some(finish) = &answer.finish {
                add("finish_reason", finish.clone());
            }
            add("cached", answer.cached.to_string());
            if answer.dropped {
                add("proposal", DROPPED.to_owned());
            }
            result.agent_id.clone_from(&answer.agent);
            result.proposal.clone_from(&answer.text);
            result.reasoning.clone_from(&answer.reasoning);
        }
    }
    add("tokens_in", standing.tokens_in.to_string());
    add("tokens_out", standing.tokens_out.to_string());
    add("num_agents", whole.parts.len().max(1).to_string());
    add("answers", answers.to_string());
    result.metadata = metadata;
    result
}

pub(super) async fn statistics(bus: &Arc<dyn Bus>) -> Result<RayExecutorStats, Status> {
    let totals = Crew::now(bus).await.map_err(failed)?.totals();
    let open = depth(bus).await.map_err(failed)?.open;
    let ended = totals.done + totals.failed + totals.cancelled;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Ok(RayExecutorStats {
        total_deliberations: number(open + ended),
        active_deliberations: number(open),
        completed_deliberations: number(totals.done),
        failed_deliberations: number(totals.failed + totals.cancelled),
        average_execution_time_ms: match ended {
            0 => 0.0,
            ended => (totals.worked_ms as f64 / ended as f64) as f32,
        },
    })
}

pub(super) async fn active(bus: &Arc<dyn Bus>) -> Result<GetActiveJobsResponse, Status> {
    let crew = Crew::now(bus).await.map_err(failed)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut running: Vec<_> = crew.running().map(|(_, job)| job).collect();
    running.sort_by(|a, b| (a.started, &a.job).cmp(&(b.started, &b.job)));
    let jobs = running.into_iter().map(|job| JobInfo {
        job_id: job.job.clone(),
        name: format!("deliberation {}", job.task_id),
        status: "RUNNING".to_owned(),
        submission_id: job.parent.clone().unwrap_or_else(|| job.job.clone()),
        role: job.role.clone(),
        task_id: job.task_id.clone(),
        start_time: Some(timestamp(job.started)),
        end_time: None,
        runtime: runtime(now.saturating_sub(Duration::from_nanos(job.started))),
    });
    Ok(GetActiveJobsResponse { jobs: jobs.collect() })
}

/// For people: nobody reads microseconds.
fn runtime(ran: Duration) -> String {
    let ran = match ran.as_secs() {
        0 => Duration::from_millis(u64::from(ran.subsec_millis())),
        seconds => Duration::from_secs(seconds),
    };
    humantime::format_duration(ran).to_string()
}

fn timestamp(nanos: u64) -> Timestamp {
    const SECOND: u64 = 1_000_000_000;
    Timestamp {
        seconds: i64::try_from(nanos / SECOND).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos % SECOND).unwrap_or(0),
    }
}

fn failed(error: Error) -> Status {
    match error {
        Error::Unavailable(_) => Status::unavailable(format!("{error}; call again")),
        error => Status::internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{
        status::{Answer, Record},
        testing,
    };

    fn whole(record: Option<Record>) -> Whole {
        let mut queued = testing::job(&["a"]);
        queued.job.metadata = vec![("attempt".into(), "2".into()), ("model".into(), "mine".into())];
        Whole { id: queued.id.clone(), queued: Some(queued), submitted: 1, record, parts: Vec::new() }
    }

    fn of(whole: &Whole) -> GetDeliberationStatusResponse {
        told(whole, &whole.standing(&Default::default()))
    }

    #[test]
    fn contract_3_a_job_is_running_until_it_has_ended() {
        assert_eq!(of(&whole(None)).status, "running");
        assert_eq!(of(&whole(Some(Record::new(JobPhase::Running)))).status, "running");
        for (phase, kind, status, message) in [
            (JobPhase::Failed, Some("timeout"), "failed", "timeout: too late"),
            (JobPhase::Failed, None, "failed", "too late"),
            (JobPhase::Cancelled, Some("cancelled"), "failed", "cancelled: too late"),
        ] {
            let kind = kind.map(str::to_owned);
            let record = Record { error: Some("too late".into()), kind, ..Record::new(phase) };
            let told = of(&whole(Some(record)));
            assert_eq!((told.status.as_str(), told.error_message.as_str()), (status, message));
            assert!(told.result.is_none());
        }
    }

    #[test]
    fn contract_3_a_completed_job_tells_its_answer_and_what_it_took() {
        let answer = Answer {
            agent: "a".into(),
            text: "TITLE: A".into(),
            reasoning: "because".into(),
            model: "m-0".into(),
            finish: Some("stop".into()),
            cached: false,
            dropped: false,
        };
        let record = Record {
            model: "m".into(),
            started: 1_000_000,
            ended: 13_000_000,
            tokens_in: 7,
            tokens_out: 9,
            answer: Some(answer),
            ..Record::new(JobPhase::Done)
        };
        let told = of(&whole(Some(record)));
        assert_eq!((told.status.as_str(), told.error_message.as_str()), ("completed", ""));
        let result = told.result.unwrap();
        assert_eq!((result.agent_id.as_str(), result.proposal.as_str()), ("a", "TITLE: A"));
        assert_eq!((result.reasoning.as_str(), result.score), ("because", 1.0));
        let metadata: Vec<(&str, &str)> =
            result.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected = [
            ("answers", "1"),
            ("attempt", "2"),
            ("cached", "false"),
            ("duration_ms", "12"),
            ("finish_reason", "stop"),
            ("model", "m-0"),
            ("num_agents", "1"),
            ("tokens_in", "7"),
            ("tokens_out", "9"),
        ];
        assert_eq!(metadata, expected);
    }

    #[test]
    fn an_answer_that_is_in_its_event_alone_is_told_as_such() {
        let answer = Answer { agent: "a".into(), dropped: true, ..Answer::default() };
        let told = of(&whole(Some(Record { answer: Some(answer), ..Record::new(JobPhase::Done) })));
        let result = told.result.expect("a result");
        assert_eq!((told.status.as_str(), result.proposal.as_str()), ("completed", ""));
        assert_eq!(result.metadata.get("proposal").map(String::as_str), Some(DROPPED));
    }

    #[test]
    fn how_long_a_job_has_run_is_told_for_people() {
        for (ran, expected) in [(12, "12ms"), (999, "999ms"), (61_234, "1m 1s"), (0, "0s")] {
            assert_eq!(runtime(Duration::from_millis(ran)), expected);
        }
    }
}
