//! The fleet's messages: read tolerantly, written as the fleet's readers expect. What a message means for a task or a
//! derivation is the plugins' business, not this module's.
//!
//! [`Incoming`] takes a message apart, enveloped or bare; the typed messages read from it and are published with a
//! [`Writer`]. [`Record`] is the document that the plugins of task derivation share.

mod agent;
mod decision;
mod derivation;
mod digest;
mod envelope;
mod incoming;
pub mod lenient;
mod orchestration;
mod record;
mod role;
mod seen;
mod stages;
mod story;
mod time;
mod work;
mod workflow;

pub use agent::{AgentAnswer, AgentResponse};
pub use decision::{DecisionApproved, DecisionRejected};
pub use derivation::{DerivationCompleted, DerivationFailed, DerivationRequested, PlanApproved};
pub use envelope::{Cause, Outgoing, Writer};
pub use incoming::{Envelope, Incoming, Malformed};
pub use orchestration::{
    ContextUpdated, Decision, DeliberationCompleted, OrchestratedPlanApproved, OrchestratedTaskCompleted,
    OrchestratedTaskFailed, PhaseChanged, QueueConstraints, QueueDeliberated, QueueReady, Snapshot,
    TaskDispatched,
};
pub use record::{Attempt, Outcome, Record, RecordStatus, Timer};
pub use role::{Role, requested_roles};
pub use seen::Seen;
pub use stages::{
    DerivationParsed, DerivationRejected, DerivationTimeout, Dropped, ParsedTask, Rejection, Stage,
};
pub use story::{StoryCreated, StoryStep};
pub use time::Timestamp;
pub use work::{AgentWork, Artifacts, StoryTasksCompleted, TaskCompleted, ValidationRequired};
pub use workflow::{StateChanged, StoryTransitioned, TaskAssigned, TaskCreated, TaskWaiting};

/// What a derivation's task ids begin with on their way through the executor.
pub const DERIVE_PREFIX: &str = "derive-";

/// `derive-<plan_id>`.
pub fn derivation_id(plan_id: &str) -> String {
    format!("{DERIVE_PREFIX}{plan_id}")
}
