//! Stores events at a fixed rate, each at its own time, whatever became of those before it: a slow reader does not slow its
//! feeder down, so what it makes wait is all counted.

use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::{self, message::PublishMessage};
use tokio::{runtime::Handle, sync::mpsc};

use crate::{feed::Batch, work::event};

/// Before the first event: the thread is up by then.
const AHEAD: Duration = Duration::from_millis(20);

/// When which event was to be sent.
pub(crate) struct Schedule {
    first: u64,
    /// Nanoseconds since the epoch.
    began: i128,
    interval: Duration,
    /// Events a second that were sent.
    pub(crate) rate: f64,
}

impl Schedule {
    pub(crate) fn due(&self, event: u64) -> i128 {
        self.began + (self.interval.as_nanos() * u128::from(event - self.first)).cast_signed()
    }
}

/// Until all are stored.
pub(crate) async fn pace(
    jetstream: &jetstream::Context,
    subject: &str,
    to: &str,
    batch: Batch,
    rate: f64,
) -> Schedule {
    let interval = Duration::from_secs_f64(1.0 / rate);
    let events: Vec<_> = (batch.first..batch.first + batch.events)
        .map(|n| (n, event(n, batch.work, to, batch.size)))
        .collect();
    let (sent, mut acks) = mpsc::unbounded_channel();
    let acked = tokio::spawn(async move {
        while let Some(ack) = acks.recv().await {
            let ack: jetstream::context::PublishAckFuture = ack;
            ack.await.expect("an event to be stored");
        }
    });
    let (jetstream, subject) = (jetstream.clone(), subject.to_owned());
    let feeder = tokio::task::spawn_blocking(move || {
        wake_in_time();
        let began = (Instant::now() + AHEAD, SystemTime::now() + AHEAD);
        let mut due = began.0;
        for (number, data) in events {
            wait_until(due);
            let message = PublishMessage::build().payload(data).message_id(format!("f{number}"));
            let ack = Handle::current().block_on(jetstream.send_publish(subject.clone(), message));
            sent.send(ack.expect("an event to be sent")).expect("somebody who awaits it");
            due += interval;
        }
        (began.1, began.0.elapsed())
    });
    let (began, took) = feeder.await.expect("the feeder");
    acked.await.expect("every ack");
    let began = began.duration_since(SystemTime::UNIX_EPOCH).expect("a clock that is set");
    Schedule {
        first: batch.first,
        began: began.as_nanos().cast_signed(),
        interval,
        rate: batch.events as f64 / took.as_secs_f64(),
    }
}

/// On a thread of its own: tokio's timers go by milliseconds, and several events may be due in one.
#[allow(clippy::disallowed_methods, reason = "it is the time that is waited for, not a condition")]
fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

/// Of 50 us, by which Linux may let a thread sleep longer, one nanosecond is left.
#[allow(unsafe_code, reason = "a plain libc call")]
fn wake_in_time() {
    // SAFETY: it changes a number of the calling thread.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1u64, 0u64, 0u64, 0u64)
    };
}
