//! What became of an event, and whose doing it was. The outcome is a type; what follows from it is decided here and
//! done elsewhere.

use std::time::Duration;

use cofferdam_sandbox::{Ending, Failure, Limits, ServeError};
use sha2::{Digest, Sha256};

use super::invoke::Ran;
use crate::{
    config::{FailurePolicy, OnFailure},
    fault::Fault,
    observe::text,
};

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
    /// A call was answered with this status, by its gRPC number.
    Status(u8),
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
            Failed::Status(_) => "status",
        }
    }
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is given up, with a dead letter.
    Dead,
    /// After this pause the inbox brings it again: committed, whatever becomes of this host.
    Inbox(Duration),
    /// The same by its own durable, where it is too large for a commit: this host counts.
    Back(Duration),
    /// After this pause it is run again in its place: this host counts.
    Here(Duration),
    /// It is a call, and this is its answer.
    Answer,
}

impl Then {
    pub(super) fn pause(self) -> Option<Duration> {
        match self {
            Then::Dead | Then::Answer => None,
            Then::Inbox(pause) | Then::Back(pause) | Then::Here(pause) => Some(pause),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled and committed.
    Done,
    /// An earlier run had committed it.
    Duplicate,
    Failure {
        how: Failed,
        fault: Fault,
        reason: String,
        then: Then,
    },
    /// The bus would not have it now, or the host failed: given back, no attempt used up.
    HandedBack(String),
}

impl Outcome {
    pub(super) fn failure(how: Failed, fault: Fault, reason: &str) -> Self {
        Outcome::Failure {
            how,
            fault,
            reason: text::excerpt(reason, MAX_REASON).into_owned(),
            then: Then::Dead,
        }
    }

    pub(super) fn deadly(runs: u32, is_call: bool) -> Self {
        let remedy = match is_call {
            false => "`cofferdam dlq redrive` brings it to its plugin again",
            true => "its client can call again, with another idempotency key",
        };
        Self::failure(
            Failed::Deadly,
            Fault::Guest,
            &format!(
                "it ran {runs} times while nothing else did, and each time the host died before it came to an end \
                 (dispatch.max-deliveries); once the cause is found, {remedy}"
            ),
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
            // A plugin that says no to its client does what it is there for.
            Outcome::Failure { how: Failed::Status(_), fault: Fault::Guest, .. } => None,
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

    /// The same, with something else to follow.
    pub(super) fn but(self, then: Then) -> Self {
        match self {
            Outcome::Failure { how, fault, reason, .. } => Outcome::Failure { how, fault, reason, then },
            other => other,
        }
    }
}

/// A guest may ask for a pause, not for eternity.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// What a subscription does about failures of one attempt.
pub(crate) struct Policy<'a> {
    pub(crate) failure: &'a FailurePolicy,
    pub(crate) attempt: u32,
    /// What tells this attempt from all others: the jitter follows from it.
    pub(crate) seed: String,
}

impl Policy<'_> {
    /// Another attempt, unless this was the last or the failure is for good. What the handler asked for wins over the
    /// back-off.
    pub(super) fn decide(&self, how: Failed, asked: Option<Duration>) -> Then {
        if self.failure.is_last(self.attempt) || matches!(how, Failed::Rejected | Failed::Deadly) {
            return Then::Dead;
        }
        let pause = asked.map_or_else(|| self.pause(), |asked| asked.min(MAX_PAUSE));
        match self.failure.on_failure {
            OnFailure::LosePlace => Then::Inbox(pause),
            OnFailure::Hold => Then::Here(pause),
        }
    }

    /// The back-off, longer by a share that follows from the attempt, so that every host agrees.
    fn pause(&self) -> Duration {
        let hash = Sha256::digest(&self.seed);
        let share = f64::from(u16::from_be_bytes([hash[0], hash[1]])) / f64::from(u16::MAX);
        self.failure.pause(self.attempt).mul_f64(1.0 + self.failure.jitter * share)
    }
}

/// From how the sandbox ended to what it means.
pub(crate) fn judge<'p>(ran: &Ran, limits: &Limits, policy: impl FnOnce() -> Policy<'p>) -> Outcome {
    // A capability that failed knows better whose fault it was than the guest that gave up over it.
    let blamed = ran.residue.blame.unwrap_or(Fault::Guest);
    let (how, fault, asked) = match &ran.ending {
        Ending::Ok => return Outcome::Done,
        Ending::Failed(Failure::Retry { after_ms, .. }) => {
            (Failed::Retry, blamed, after_ms.map(Duration::from_millis))
        }
        Ending::Failed(Failure::Reject(_)) => (Failed::Rejected, blamed, None),
        Ending::Refused(ServeError { code, .. }) => (Failed::Status(*code), blamed, None),
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
        Ending::Refused(ServeError { message, .. }) => message.clone(),
        other => other.describe(limits),
    };
    let reason = text::excerpt(&reason, MAX_REASON).into_owned();
    Outcome::Failure { how, fault, reason, then: policy().decide(how, asked) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(on_failure: OnFailure) -> FailurePolicy {
        FailurePolicy {
            max_attempts: 3,
            backoff: Duration::from_secs(5),
            factor: 2.0,
            longest: Duration::from_secs(60),
            jitter: 0.2,
            on_failure,
        }
    }

    fn policy(failure: &FailurePolicy, attempt: u32) -> Policy<'_> {
        Policy { failure, attempt, seed: format!("e.{attempt}") }
    }

    #[test]
    fn attempts_end_and_a_reject_ends_at_once() {
        let failure = failure(OnFailure::LosePlace);
        assert!(matches!(policy(&failure, 2).decide(Failed::Trapped, None), Then::Inbox(_)));
        assert_eq!(policy(&failure, 3).decide(Failed::Trapped, None), Then::Dead);
        for for_good in [Failed::Rejected, Failed::Deadly] {
            assert_eq!(policy(&failure, 1).decide(for_good, None), Then::Dead);
        }
    }

    #[test]
    fn a_pause_is_never_shorter_than_the_back_off_and_longer_by_the_jitter_at_most() {
        let failure = failure(OnFailure::Hold);
        for (attempt, least) in [(1, 5.0), (2, 10.0)] {
            let Then::Here(pause) = policy(&failure, attempt).decide(Failed::Retry, None) else { panic!() };
            assert!((least..=least * 1.2).contains(&pause.as_secs_f64()), "{pause:?}");
        }
        let of = |seed: &str| Policy { failure: &failure, attempt: 1, seed: seed.into() }.pause();
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
    }

    #[test]
    fn a_guest_may_ask_for_a_pause_of_an_hour_at_most_and_gets_what_it_asks_for() {
        let failure = failure(OnFailure::LosePlace);
        let asked = |pause| policy(&failure, 1).decide(Failed::Retry, Some(pause));
        assert_eq!(asked(Duration::from_secs(1 << 40)), Then::Inbox(MAX_PAUSE));
        assert_eq!(asked(Duration::ZERO), Then::Inbox(Duration::ZERO));
    }
}
