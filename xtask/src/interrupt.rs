//! Ctrl-C and SIGTERM become a flag that everything that waits looks at. Who stops what is decided elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Somebody wants us to stop. `main` turns it into exit code 130.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

pub(crate) fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        // The second time means now; the kernel takes the children along.
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })?;
    Ok(())
}

pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

pub(crate) fn check() -> Result<(), Interrupted> {
    if requested() { Err(Interrupted) } else { Ok(()) }
}

/// Rests between two looks at a condition that offers no event to wait for.
pub(crate) fn pause(time: Duration) {
    std::thread::park_timeout(time);
}
