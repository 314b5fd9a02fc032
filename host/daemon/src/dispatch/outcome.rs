//! What became of an event, and whose doing it was. The outcome is a type; what follows from it is decided here and
//! done elsewhere.

use std::time::Duration;

use cofferdam_sandbox::{Ending, Failure, Limits};

use super::invoke::Ran;
use crate::{config::Subscription, fault::Fault, observe::text};

/// Of a reason in bytes: it is the guest's text, and goes into logs and dead letters.
const MAX_REASON: usize = 4 << 10;

/// How a run failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The handler asked for another try.
    Retry,
    /// The handler will never take it.
    Rejected,
    Trapped,
    /// Over its CPU or wall time.
    TimedOut,
    /// Over its memory, tables, stack or host calls.
    Limited,
    /// Its effects can't be stored as they are.
    Unfit,
    /// Each delivery of it ended without an outcome: it may be what kills the host.
    Deadly,
}

impl Failed {
    fn name(self) -> &'static str {
        match self {
            Failed::Retry => "retry",
            Failed::Rejected => "rejected",
            Failed::Trapped => "trapped",
            Failed::TimedOut => "timed-out",
            Failed::Limited => "limited",
            Failed::Unfit => "unfit",
            Failed::Deadly => "deadly",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled and committed.
    Done,
    /// An earlier run had committed it.
    Duplicate,
    /// Failed; `again` after so long, or `None`: it becomes (or became) a dead letter.
    Failure { how: Failed, fault: Fault, reason: String, again: Option<Duration> },
    /// The bus would not have it now, or the host failed: given back, no attempt used up.
    HandedBack(String),
}

impl Outcome {
    pub(super) fn failure(how: Failed, fault: Fault, reason: &str) -> Self {
        Outcome::Failure { how, fault, reason: text::excerpt(reason, MAX_REASON), again: None }
    }

    pub(super) fn deadly(deliveries: u32) -> Self {
        Self::failure(
            Failed::Deadly,
            Fault::Guest,
            &format!("delivered {deliveries} times and no run came to an end: it may be what stops the host"),
        )
    }

    /// As in metrics and advisories.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Duplicate => "duplicate",
            Outcome::Failure { how, .. } => how.name(),
            Outcome::HandedBack(_) => "handed-back",
        }
    }

    pub fn fault(&self) -> Option<Fault> {
        match self {
            Outcome::Done | Outcome::Duplicate => None,
            Outcome::Failure { fault, .. } => Some(*fault),
            Outcome::HandedBack(_) => Some(Fault::Host),
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Outcome::Done | Outcome::Duplicate => None,
            Outcome::Failure { reason, .. } | Outcome::HandedBack(reason) => Some(reason),
        }
    }

    /// A failure after which the event is given up.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Outcome::Failure { again: None, .. })
    }
}

/// What a subscription does about failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) max_attempts: u32,
    backoff: Duration,
    pub(super) ack_wait: Duration,
}

/// A guest may ask for a pause, not for eternity.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

impl Policy {
    pub(super) fn of(subscription: &Subscription) -> Self {
        Self {
            max_attempts: subscription.max_attempts,
            backoff: subscription.backoff,
            ack_wait: subscription.ack_wait,
        }
    }

    /// Another attempt, unless this was the last or the failure is for good.
    pub(super) fn decide(&self, outcome: Outcome, attempt: u32) -> Outcome {
        match outcome {
            Outcome::Failure { how, fault, reason, again } => {
                let for_good = matches!(how, Failed::Rejected | Failed::Deadly);
                let pause = again.unwrap_or(self.backoff).min(MAX_PAUSE);
                let again = (!for_good && attempt < self.max_attempts).then_some(pause);
                Outcome::Failure { how, fault, reason, again }
            }
            other => other,
        }
    }
}

/// From how the sandbox ended to what it means.
pub(super) fn judge(ran: &Ran, limits: &Limits, policy: &Policy, attempt: u32) -> Outcome {
    // A capability that failed knows better whose fault it was than the guest that gave up over it.
    let blamed = ran.residue.blame.unwrap_or(Fault::Guest);
    let (how, fault, again) = match &ran.ending {
        Ending::Ok => return Outcome::Done,
        Ending::Failed(Failure::Retry { after_ms, .. }) => {
            (Failed::Retry, blamed, after_ms.map(Duration::from_millis))
        }
        Ending::Failed(Failure::Reject(_)) => (Failed::Rejected, blamed, None),
        Ending::Trap { .. } => (Failed::Trapped, Fault::Guest, None),
        Ending::CpuLimit => (Failed::TimedOut, Fault::Guest, None),
        Ending::WallLimit => (Failed::TimedOut, blamed, None),
        Ending::MemoryLimit | Ending::TableLimit | Ending::HostCallLimit | Ending::StackOverflow => {
            (Failed::Limited, Fault::Guest, None)
        }
        Ending::HostFault { message } => return Outcome::HandedBack(message.clone()),
    };
    let reason = match &ran.ending {
        Ending::Failed(Failure::Retry { reason, .. } | Failure::Reject(reason)) => reason.clone(),
        other => other.describe(limits),
    };
    let reason = text::excerpt(&reason, MAX_REASON);
    policy.decide(Outcome::Failure { how, fault, reason, again }, attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy =
        Policy { max_attempts: 3, backoff: Duration::from_secs(5), ack_wait: Duration::from_secs(30) };

    #[test]
    fn attempts_end_and_a_reject_ends_at_once() {
        let retry = || Outcome::failure(Failed::Trapped, Fault::Guest, "x");
        assert!(!POLICY.decide(retry(), 2).is_final());
        assert!(POLICY.decide(retry(), 3).is_final());
        assert!(POLICY.decide(Outcome::failure(Failed::Rejected, Fault::Guest, "x"), 1).is_final());
    }

    #[test]
    fn a_guest_may_ask_for_a_pause_of_an_hour_at_most() {
        let asked = Outcome::Failure {
            how: Failed::Retry,
            fault: Fault::Guest,
            reason: String::new(),
            again: Some(Duration::from_secs(1 << 40)),
        };
        let Outcome::Failure { again, .. } = POLICY.decide(asked, 1) else { unreachable!() };
        assert_eq!(again, Some(MAX_PAUSE));
    }
}
