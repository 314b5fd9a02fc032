//! A task that is next in the queue: its council is asked, and the queue gets the winner.

use cofferdam_sdk::{
    Failure,
    fleet::{Incoming, QueueConstraints, QueueDeliberated, QueueReady, Seen, Timestamp},
    state,
};
use fleet_proto::orchestrator::v1::TaskConstraints;

use crate::{
    WRITER, councils, dropped, malformed, orchestrate, settings::Settings, task::Task, telling, totals::What,
    verdict::Verdict,
};

const SEEN: &str = "seen";

/// `cofferdam.queue.ready`.
pub(crate) fn ready(message: &Incoming) -> Result<(), Failure> {
    let ready = QueueReady::read(message).map_err(malformed)?;
    message.keyed_by(&ready.task_id).map_err(malformed)?;
    let mut seen: Seen = state::load(SEEN)?.unwrap_or_default();
    if !seen.first_time(message) {
        return dropped("duplicate");
    }
    let settings = Settings::read()?;
    let task = task(&ready);
    let verdict = orchestrate::event(&task, &settings)?;
    let cause = message.cause();
    let execution_id = cause.event_id.clone();
    verdict.conclude(&cause, &task, &execution_id, What::Orchestration)?;
    let deliberated = answer(&ready, &verdict);
    WRITER.emit(&cause, &deliberated, &format!("deliberated:{}:{execution_id}", ready.attempt))?;
    Ok(state::save(SEEN, &seen)?)
}

fn task(ready: &QueueReady) -> Task {
    let QueueConstraints { rubric, requirements, metadata, max_iterations, timeout_seconds } =
        ready.constraints.clone();
    Task {
        task_id: ready.task_id.clone(),
        description: if ready.description.is_empty() {
            format!("Task {}", ready.task_id)
        } else {
            ready.description.clone()
        },
        role: councils::canonical(&ready.role),
        constraints: TaskConstraints { rubric, requirements, metadata, max_iterations, timeout_seconds },
        story_id: ready.story_id.clone(),
    }
}

fn answer(ready: &QueueReady, verdict: &Verdict) -> QueueDeliberated {
    let failed = |text: &str| Some(text.to_owned()).filter(|_| verdict.winner.is_none());
    QueueDeliberated {
        task_id: ready.task_id.clone(),
        story_id: ready.story_id.clone(),
        attempt: ready.attempt,
        agent_id: verdict.winner_id().to_owned(),
        proposal: verdict.won().map(telling::winners_text).unwrap_or_default(),
        error: failed(&verdict.error),
        error_type: failed(&verdict.error_type),
        timestamp: Timestamp::now(),
    }
}
