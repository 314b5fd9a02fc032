//! The plugin's own events, by which it tells itself when to go on.

use cofferdam_sdk::fleet::{Incoming, Malformed, Outgoing, Stage};
use serde::Serialize;

/// `cofferdam.derivation.queued`: a derivation asks for its requester's leave to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Queued {
    #[serde(flatten)]
    pub(crate) stage: Stage,
    pub(crate) requester: String,
}

impl Queued {
    pub(crate) fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self { stage: Stage::read(message)?, requester: message.required(&["requester"])? })
    }
}

impl Outgoing for Queued {
    const SUBJECT: &'static str = "cofferdam.derivation.queued";

    fn entity(&self) -> &str {
        &self.stage.plan_id
    }
}

/// `cofferdam.derivation.due`: the attempt that it names may be submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Due {
    #[serde(flatten)]
    pub(crate) stage: Stage,
}

impl Due {
    pub(crate) fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self { stage: Stage::read(message)? })
    }

    /// Part of its idempotency key.
    pub(crate) fn operation(&self) -> String {
        format!("due:{}:{}", self.stage.run.unwrap_or_default(), self.stage.attempt)
    }
}

impl Outgoing for Due {
    const SUBJECT: &'static str = "cofferdam.derivation.due";

    fn entity(&self) -> &str {
        &self.stage.plan_id
    }
}
