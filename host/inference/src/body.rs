//! The bytes of an answer as they come: in time, and no end of them is not an answer.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use tokio::time::{Instant, timeout_at};

use crate::{
    call::{Call, Clock},
    failure::{Failure, Kind, Late, Work},
};

/// Once a model has said why it ended, what still comes is its count of tokens: not worth more than this.
const AFTER_THE_END: Duration = Duration::from_secs(2);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Body {
    bytes: BoxStream<'static, Result<Bytes, BoxError>>,
    clock: Clock,
    begun: bool,
    /// Since when only a remainder is waited for.
    over: Option<Instant>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl Body {
    pub(crate) fn new<E>(bytes: impl Stream<Item = Result<Bytes, E>> + Send + 'static, clock: Clock) -> Self
    where
        E: Into<BoxError> + 'static,
    {
        let bytes = bytes.map(|read| read.map_err(Into::into)).boxed();
        Self { bytes, clock, begun: false, over: None }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The model has ended; what comes now comes at once or not at all.
    pub(crate) fn nearly_over(&mut self) {
        self.over.get_or_insert_with(Instant::now);
    }

    /// The next bytes. Whatever comes counts as a sign of life, also the comments that proxies send to say so.
    pub(crate) async fn read(&mut self, call: &Call) -> Result<Option<Bytes>, Failure> {
        let limits = &self.clock.limits;
        let (patience, late) =
            if self.begun { (limits.idle, Late::Idle) } else { (limits.first, Late::Answer) };
        let (until, late) = match self.over {
            Some(over) => (over + AFTER_THE_END, late),
            None => self.clock.sooner(patience, late, self.begun),
        };
        match timeout_at(until, self.bytes.next()).await {
            Ok(Some(Ok(bytes))) => {
                self.begun = true;
                Ok(Some(bytes))
            }
            Ok(None) => Ok(None),
            Ok(Some(Err(error))) => {
                let detail = format!("the connection broke in the middle of the answer: {}", chain(&*error));
                Err(call.failure(Kind::Truncated, Work::Unknown, detail))
            }
            Err(_) => Err(call.late(late, &self.clock)),
        }
    }

    /// All that is left of it, if that is at most `max` bytes.
    pub(crate) async fn whole(&mut self, call: &Call, max: usize) -> Result<Bytes, Failure> {
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.read(call).await? {
            if whole.len() + bytes.len() > max {
                return Err(call.too_large(self.clock.limits.max_answer));
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    /// As much of it as comes in a short time, up to `max` bytes: of an error, for an excerpt.
    pub(crate) async fn beginning(mut self, max: usize) -> Bytes {
        let mut beginning = BytesMut::new();
        let until = Instant::now() + AFTER_THE_END;
        while let Ok(Some(Ok(bytes))) = timeout_at(until, self.bytes.next()).await {
            beginning.extend_from_slice(&bytes);
            if beginning.len() >= max {
                beginning.truncate(max);
                break;
            }
        }
        beginning.freeze()
    }
}

/// An error with what caused it.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_told = cause.to_string();
        if !told.contains(&cause_told) {
            told.push_str(": ");
            told.push_str(&cause_told);
        }
        source = cause.source();
    }
    told
}
