//! Failures on demand, for tests and for people who want to see what happens. They touch the calls of the fleet's
//! contract only; the admin calls always work.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tonic::Status;

#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// What the flags begin with.
    service: &'static str,
    /// Before each call.
    delay: Duration,
    /// Calls still to be refused, undone.
    fail: AtomicU32,
    /// Calls still to be done and then answered with an error: the answer is lost on the way.
    lose: AtomicU32,
}

impl Faults {
    /// Of the flags `--<service>-delay` and so on.
    pub(crate) fn new(service: &'static str, delay: Duration, fail: u32, lose: u32) -> Faults {
        Faults { service, delay, fail: AtomicU32::new(fail), lose: AtomicU32::new(lose) }
    }

    /// Before the work of a call.
    pub(crate) async fn before(&self, method: &'static str) -> Result<(), Status> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if take(&self.fail) {
            let told = format!("refused on demand (--{}-fail)", self.service);
            tracing::warn!(method, "{told}");
            return Err(Status::unavailable(told));
        }
        Ok(())
    }

    /// After the work of a call that went well.
    pub(crate) fn after(&self, method: &'static str) -> Result<(), Status> {
        if take(&self.lose) {
            let told = format!("answer lost on demand (--{}-lose)", self.service);
            tracing::warn!(method, "{told}");
            return Err(Status::unavailable(format!("done, but the {told}")));
        }
        Ok(())
    }
}

/// Counts down to zero; whether there was something left.
fn take(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}
