//! Repeats of a call by the host: whether what came of it allows one, and when.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tonic::{Code, Status};

use super::upstreams::{Failed, Outgoing, Reached, Upstreams};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// By which a server says when it wants to be asked again, if at all.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// What may be repeated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Doing it twice does no harm: it is idempotent, or whoever does it knows the key.
    pub(super) twice: bool,
    pub(super) retries: u32,
}

impl Rule {
    fn allows(self, failed: &Failed) -> bool {
        let code = failed.status.code();
        match failed.reached {
            Reached::Nobody => code == Code::Unavailable,
            Reached::Perhaps => {
                let passing = matches!(
                    code,
                    Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::ResourceExhausted
                );
                self.twice && (passing || is_broken(&failed.status))
            }
            Reached::Done | Reached::Withheld => false,
        }
    }
}

/// Not the upstream's word: the connection broke under the call, which tonic gives various codes.
fn is_broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Calls until there is an answer, a status that forbids a repeat, or no time left. `on_repeat` hears of each repeat.
pub(super) async fn call(
    upstreams: &Upstreams,
    call: Outgoing<'_>,
    timeout: Duration,
    rule: Rule,
    mut on_repeat: impl FnMut(&Status),
) -> Result<Bytes, Failed> {
    let until = Instant::now() + timeout;
    let mut pause = FIRST_PAUSE;
    let mut left = rule.retries;
    let mut call = call;
    loop {
        call.timeout = Some(until.saturating_duration_since(Instant::now()));
        let failed = match upstreams.exchange(&call).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        if left == 0 || !rule.allows(&failed) {
            return Err(failed);
        }
        let wait = match pushback(&failed.status) {
            None => jittered(pause),
            Some(Some(wanted)) => wanted,
            Some(None) => return Err(failed),
        };
        // No time to wait so long and be answered: what is known now is all that will be known.
        if Instant::now() + wait >= until {
            return Err(failed);
        }
        on_repeat(&failed.status);
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        left -= 1;
    }
}

/// Whether the server says when to ask again: `Some(None)` is never.
fn pushback(status: &Status) -> Option<Option<Duration>> {
    let value = status.metadata().get(PUSHBACK)?;
    // What is not a number is never, as gRPC has it.
    let millis = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
    Some(millis.map(Duration::from_millis))
}

/// From half of it to all of it, so that callers who failed together don't come back together.
fn jittered(pause: Duration) -> Duration {
    let share = random() % 1024;
    pause / 2 + pause / 2 * u32::try_from(share).unwrap_or(0) / 1024
}

/// Random enough to tell two apart: the standard library seeds its hashers so.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn failed(code: Code, reached: Reached) -> Failed {
        Failed { status: Status::new(code, ""), reached }
    }

    const CODES: [Code; 16] = [
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    #[test]
    fn what_may_have_been_done_is_repeated_only_where_twice_does_no_harm() {
        let allowed = |twice, reached| {
            let rule = Rule { twice, retries: 1 };
            CODES.into_iter().filter(|code| rule.allows(&failed(*code, reached))).collect::<Vec<_>>()
        };
        assert_eq!(allowed(false, Reached::Perhaps), []);
        let passing = [Code::DeadlineExceeded, Code::ResourceExhausted, Code::Aborted, Code::Unavailable];
        assert_eq!(allowed(true, Reached::Perhaps), passing);
        for twice in [false, true] {
            assert_eq!(allowed(twice, Reached::Nobody), [Code::Unavailable]);
            assert_eq!(allowed(twice, Reached::Done), []);
        }
    }

    #[test]
    fn a_connection_that_breaks_is_no_word_of_the_upstream() {
        let mut broken = failed(Code::Unknown, Reached::Perhaps);
        broken.status.set_source(Arc::new(std::io::Error::other("reset")));
        assert!(Rule { twice: true, retries: 1 }.allows(&broken));
        assert!(!Rule { twice: false, retries: 1 }.allows(&broken));
    }

    #[test]
    fn a_server_says_when_to_come_again() {
        let told = |text: Option<&str>| {
            let mut status = Status::unavailable("");
            if let Some(text) = text {
                status.metadata_mut().insert(PUSHBACK, text.parse().unwrap());
            }
            pushback(&status)
        };
        assert_eq!(told(None), None);
        assert_eq!(told(Some("250")), Some(Some(Duration::from_millis(250))));
        assert_eq!(told(Some("-1")), Some(None));
        assert_eq!(told(Some("soon")), Some(None));
    }

    #[test]
    fn a_pause_is_half_of_it_or_more() {
        for _ in 0..100 {
            let pause = jittered(FIRST_PAUSE);
            assert!(pause >= FIRST_PAUSE / 2 && pause <= FIRST_PAUSE, "{pause:?}");
        }
    }
}
