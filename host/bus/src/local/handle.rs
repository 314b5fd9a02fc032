//! What everything that came from a bus holds on to: the way to the writer. The last one to go closes the bus.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use tokio::sync::oneshot;

use super::{Storage, fault::Fault, op::Op, shared::Shared, writer::Writer};
use crate::error::Error;

pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    /// Taken when it is dropped.
    ops: Option<mpsc::Sender<Op>>,
    writer: Option<JoinHandle<()>>,
}

impl Handle {
    pub(super) async fn open(storage: Arc<dyn Storage>) -> Result<Handle, Error> {
        let shared = Arc::new(Shared::new());
        let (ops, waiting) = mpsc::channel();
        let (opened, open) = oneshot::channel();
        let name = storage.name();
        let writer = std::thread::Builder::new().name("bus-writer".to_owned()).spawn({
            let shared = shared.clone();
            // The store stops at some kinds of damage by a panic.
            move || match catch_unwind(AssertUnwindSafe(|| Writer::open(storage, shared, waiting)))
                .unwrap_or(Err(Fault::Panic))
            {
                Ok(writer) => {
                    // Nobody waits any more if the start was given up; then nobody asks, either.
                    drop(opened.send(Ok(())));
                    writer.run();
                }
                Err(fault) => drop(opened.send(Err(fault))),
            }
        });
        let unusable = |why: String| {
            Error::Unusable(format!(
                "the embedded bus in {name} can't be opened: {why}; if the file is damaged, put a backup in its place, or \
                 move it away to begin empty (what it holds is lost to the bus then)"
            ))
        };
        let writer = writer.map_err(|e| unusable(e.to_string()))?;
        let handle = Handle { shared, ops: Some(ops), writer: Some(writer) };
        match open.await {
            Ok(Ok(())) => Ok(handle),
            Ok(Err(fault)) => Err(unusable(fault.to_string())),
            Err(_) => Err(unusable("its writer ended".to_owned())),
        }
    }

    /// Without waiting for an answer.
    pub(super) fn send(&self, op: Op) {
        if let Some(ops) = &self.ops {
            // A writer that has ended answers nothing.
            drop(ops.send(op));
        }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask<T>(&self, op: impl FnOnce(oneshot::Sender<T>) -> Op) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.send(op(answer));
        answered.await.map_err(|_| self.shared.down())
    }
}

impl Drop for Handle {
    /// Waits for the writer, so that the directory is free when the last handle has gone.
    fn drop(&mut self) {
        drop(self.ops.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the embedded bus panicked");
        }
    }
}
