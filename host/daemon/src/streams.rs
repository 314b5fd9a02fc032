//! The streams of the fleet contract, created at start where no stream covers their subjects yet.

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

/// Cofferdam's own events between plugins, dead letters among them.
const OWN: (&str, &str, u64, Option<u64>) = ("COFFERDAM_EVENTS", "cofferdam.>", 7 * DAY, None);

/// Makes sure that every subject of the contract is stored somewhere. With `create_fleet` off, the fleet's own services
/// have to create theirs.
pub async fn ensure(bus: &Arc<dyn Bus>, create_fleet: bool) -> Result<(), Error> {
    let fleet = create_fleet.then_some(FLEET).into_iter().flatten();
    for (name, subjects, max_age, max_messages) in fleet.chain([OWN]) {
        let spec = StreamSpec {
            name: name.to_owned(),
            subjects: vec![subjects.to_owned()],
            max_age: Some(Duration::from_secs(max_age)),
            max_messages,
            max_bytes: None,
            duplicate_window: None,
        };
        let info = bus.ensure_stream(&spec).await?;
        if info.name != name {
            tracing::info!(
                subjects,
                stream = info.name,
                "an existing stream covers the subjects; it is used as it is"
            );
        }
    }
    Ok(())
}
