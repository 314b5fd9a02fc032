//! What a group of operations leads to, kept back until it is synced: answers, deliveries, what listeners hear. Of a group
//! that failed nothing is told but that.

use std::sync::Arc;

use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::{durable::Arrival, fault::Fault};
use crate::api::Stored;

/// What is told once the group is synced.
#[derive(Default)]
pub(super) struct Outcome {
    answers: Vec<Box<dyn FnOnce() + Send>>,
    /// Whoever asked for what failed. Dropped with the rest, so that all hear of it when the reason is known.
    unanswered: Vec<Box<dyn Send>>,
    pub(super) sends: Vec<(UnboundedSender<Arrival>, Arrival)>,
    pub(super) stored: Vec<Arc<Stored>>,
    /// Keys were written.
    pub(super) keys: bool,
}

impl Outcome {
    pub(super) fn answer<T: Send + 'static>(
        &mut self,
        to: oneshot::Sender<T>,
        value: Result<T, Fault>,
    ) -> Result<(), Fault> {
        match value {
            // Whoever asked may have gone.
            Ok(value) => self.answers.push(Box::new(move || drop(to.send(value)))),
            Err(fault) => {
                self.unanswered.push(Box::new(to));
                return Err(fault);
            }
        }
        Ok(())
    }

    pub(super) fn tell(&mut self) {
        for answer in self.answers.drain(..) {
            answer();
        }
        for (arrivals, arrival) in self.sends.drain(..) {
            // One that has gone says so by itself.
            drop(arrivals.send(arrival));
        }
    }
}
