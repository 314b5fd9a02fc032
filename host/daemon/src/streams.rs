//! The streams of the fleet contract and our own, created at start where no stream covers their subjects yet.

use std::{sync::Arc, time::Duration};

use cofferdam_bus::{Bus, Error, StreamSpec};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Name, subjects, maximal age in seconds, maximal number of messages: as the fleet's own services create them.
const FLEET: [(&str, &str, u64, Option<u64>); 10] = [
    ("PLANNING_EVENTS", "planning.>", 30 * DAY, Some(1_000_000)),
    ("CONTEXT", "context.>", 7 * DAY, Some(100_000)),
    ("ORCHESTRATOR_EVENTS", "orchestration.>", 7 * DAY, Some(50_000)),
    ("AGENT_COMMANDS", "agent.cmd.>", HOUR, Some(10_000)),
    ("AGENT_RESPONSES", "agent.response.>", HOUR, Some(10_000)),
    ("AGENT_WORK", "agent.work.>", 2 * HOUR, Some(50_000)),
    ("WORKFLOW_EVENTS", "workflow.>", 7 * DAY, Some(100_000)),
    ("task_derivation", "task.derivation.>", 7 * DAY, Some(100_000)),
    ("AGENT_RESULTS", "agent.results.>", HOUR, None),
    ("VLLM_STREAMING", "vllm.streaming.>", 10 * MINUTE, None),
];

/// Cofferdam's own events, between plugins and about them. Every family of them but the dead letters, which are kept until
/// somebody drops them: no stream may overlap with another.
const EVENTS: (&str, [&str; 11]) = (
    "COFFERDAM_EVENTS",
    [
        "cofferdam.*",
        "cofferdam.agent.>",
        "cofferdam.derivation.>",
        "cofferdam.executor.>",
        "cofferdam.orchestration.>",
        "cofferdam.plan.>",
        "cofferdam.plugin.>",
        "cofferdam.rollout.>",
        "cofferdam.story.>",
        "cofferdam.task.>",
        "cofferdam.workflow.>",
    ],
);
/// Families that came later. In a stream of their own, for a stream that exists keeps the subjects that it was made with.
const LATER: (&str, [&str; 2]) = ("COFFERDAM_ORCHESTRATION", ["cofferdam.council.>", "cofferdam.queue.>"]);
const EVENTS_AGE: u64 = 7 * DAY;

/// Given up, and kept for whoever redoes or drops them.
const DEAD: (&str, &str) = ("COFFERDAM_DEAD", "cofferdam.dead.>");

/// Makes sure that every subject of the contract is stored somewhere. With `create_fleet` off, the fleet's own services
/// have to create theirs.
pub async fn ensure(bus: &Arc<dyn Bus>, create_fleet: bool) -> Result<(), Error> {
    let fleet = create_fleet.then_some(FLEET).into_iter().flatten();
    for (name, subjects, max_age, max_messages) in fleet {
        ensure_one(bus, name, &[subjects], Some(max_age), max_messages).await?;
    }
    ensure_one(bus, EVENTS.0, &EVENTS.1, Some(EVENTS_AGE), None).await?;
    ensure_one(bus, LATER.0, &LATER.1, Some(EVENTS_AGE), None).await?;
    ensure_one(bus, DEAD.0, &[DEAD.1], None, None).await
}

async fn ensure_one(
    bus: &Arc<dyn Bus>,
    name: &str,
    subjects: &[&str],
    max_age: Option<u64>,
    max_messages: Option<u64>,
) -> Result<(), Error> {
    let spec = StreamSpec {
        name: name.to_owned(),
        subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
        max_age: max_age.map(Duration::from_secs),
        max_messages,
        max_bytes: None,
        duplicate_window: None,
    };
    let info = bus.ensure_stream(&spec).await?;
    if info.name != name {
        tracing::info!(
            subjects = subjects.join(", "),
            stream = info.name,
            "an existing stream covers the subjects; it is used as it is"
        );
    }
    Ok(())
}
