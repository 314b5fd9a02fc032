//! Working the job queue: jobs are messages, worked at least once by job id; their results come out once.

pub(crate) mod backends;
mod budget;
pub mod cancel;
mod ending;
mod in_flight;
pub mod job;
pub(crate) mod limits;
pub(crate) mod look;
pub mod queues;
pub mod report;
mod response;
pub(crate) mod sampling;
pub mod service;
mod split;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
mod tries;
mod worker;

pub use backends::examine;
pub use job::QueuedJob;
pub use queues::Queues;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
pub use worker::{Worker, prepare};

/// When a worker begins no more jobs, when it leaves even those that it works, and what it says of itself meanwhile.
pub struct Shift {
    pub stop: CancellationToken,
    /// What is still worked is handed back, for others to have it at once; its tasks end then.
    pub abort: CancellationToken,
    /// Whether jobs are taken.
    pub taking: watch::Sender<bool>,
    /// The jobs that are worked.
    pub tasks: TaskTracker,
}
