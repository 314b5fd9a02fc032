//! Failures on demand, for tests and for people who want to see what happens. They touch the calls of the fleet's
//! contract only; the admin calls always work.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tonic::Status;

#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Before each call.
    delay: Duration,
    /// Calls still to be refused, undone.
    fail: AtomicU32,
    /// Calls still to be done and then answered with an error: the answer is lost on the way.
    lose: AtomicU32,
}

impl Faults {
    pub(crate) fn new(delay: Duration, fail: u32, lose: u32) -> Faults {
        Faults { delay, fail: AtomicU32::new(fail), lose: AtomicU32::new(lose) }
    }

    /// Before the work of a call.
    pub(crate) async fn before(&self, method: &'static str) -> Result<(), Status> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if take(&self.fail) {
            tracing::warn!(method, "refused on demand (--planning-fail)");
            return Err(Status::unavailable("refused on demand (--planning-fail)"));
        }
        Ok(())
    }

    /// After the work of a call that went well.
    pub(crate) fn after(&self, method: &'static str) -> Result<(), Status> {
        if take(&self.lose) {
            tracing::warn!(method, "answer lost on demand (--planning-lose)");
            return Err(Status::unavailable("done, but the answer was lost on demand (--planning-lose)"));
        }
        Ok(())
    }
}

/// Counts down to zero; whether there was something left.
fn take(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}
