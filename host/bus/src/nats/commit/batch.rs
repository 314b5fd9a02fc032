//! A commit point, and the other cells that its event touched, as one atomic write: all of it is stored, or nothing.
//! What was only read is in it as a marker, which holds the server to an expectation and says nothing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    cell::Notes,
    run_mark, store,
    store::{Attempt, Write},
};
use crate::{
    api::OtherCell,
    error::{CommitError, Error},
    nats::{
        NatsBus,
        link::ANSWER,
        publish::{Sent, send},
    },
};

const ID: &str = "Nats-Batch-Id";
const SEQUENCE: &str = "Nats-Batch-Sequence";
const COMMIT: &str = "Nats-Batch-Commit";
/// The subject that an expectation is about, if not the message's own.
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
/// Of markers, with a number. All batches share them: nobody reads them, and the stream keeps one message of a subject.
const MARKERS: &str = "cd.m";

/// A server takes 50 open batches of a stream; more than these of one host wait their turn here.
const OPEN: usize = 16;
/// How long a batch keeps its place after one that was not answered for: the server may still have it open.
const BUSY: Duration = Duration::from_millis(50);

/// Batches of this host that the server may have open.
#[derive(Debug, Clone)]
pub(in crate::nats) struct Open(Arc<Semaphore>);

impl Default for Open {
    fn default() -> Open {
        Open(Arc::new(Semaphore::new(OPEN)))
    }
}

/// To be repeated as it is.
pub(super) struct Batch {
    /// The last of the batch: its sequence is the one that the server answers with.
    point: Write,
    others: Vec<Member>,
}

/// What the batch has of another cell.
struct Member {
    write: Write,
    /// Where the cell is stored.
    cell: String,
    expected: u64,
}

impl Batch {
    /// Of the commit point's own write, and the cells as they are to be. What those held unapplied was applied when they were
    /// read, so it is left out.
    pub(super) fn new(
        bus: &NatsBus,
        event: &str,
        point: Write,
        others: &[OtherCell],
    ) -> Result<Batch, CommitError> {
        let member = |(number, other): (usize, &OtherCell)| {
            let notes = other.notes.as_ref().and_then(|n| n.downcast_ref::<Notes>());
            let notes = notes.ok_or_else(|| {
                CommitError::Unfit(format!("the cell {:?} was not read from this bus", other.cell))
            })?;
            let (cell, expected) = (notes.subject.clone(), other.revision);
            let write = if other.writes.is_empty() {
                let subject = format!("{MARKERS}.{number}");
                let mut marker = Write::new(bus, event, &subject, expected, Bytes::new())?;
                marker.headers.insert(EXPECTED_SUBJECT, cell.as_str());
                marker
            } else {
                let mut after = notes.cell.clone();
                after.write(&other.writes);
                after.pending.clear();
                Write::new(bus, event, &cell, expected, after.encoded()).map_err(|e| match e {
                    CommitError::Unfit(why) => CommitError::Unfit(format!("cell {:?}: {why}", other.cell)),
                    e => e,
                })?
            };
            Ok(Member { write, cell, expected })
        };
        let others = others.iter().enumerate().map(member).collect::<Result<_, CommitError>>()?;
        Ok(Batch { point, others })
    }

    /// The sequence of a stored one is the commit point's.
    pub(super) async fn attempt(&self, bus: &NatsBus) -> Result<Attempt, Error> {
        let _turn = self.turn(bus).await;
        self.attempt_now(bus).await
    }

    /// To be held during the attempt. Whoever checks something before the attempt takes it first, because it may take long.
    pub(super) async fn turn<'b>(&self, bus: &'b NatsBus) -> Option<SemaphorePermit<'b>> {
        if self.others.is_empty() {
            return None;
        }
        // Never closed.
        bus.batches.0.acquire().await.ok()
    }

    /// With the turn in hand.
    pub(super) async fn attempt_now(&self, bus: &NatsBus) -> Result<Attempt, Error> {
        if self.others.is_empty() {
            return self.point.attempt(bus).await;
        }
        self.point.outcome(self.send(bus).await).await
    }

    /// All messages on their way one after another, an answer to the last: what the server misses of them, or did not like,
    /// it tells there.
    async fn send(&self, bus: &NatsBus) -> Sent {
        // What waits in the client for a connection would be sent long after we gave up.
        let Ok(epoch) = tokio::time::timeout(ANSWER, bus.link.up()).await else {
            return Sent::Unknown("no connection".into());
        };
        let id = format!("{:016x}{:016x}", run_mark(), run_mark());
        let headers = |write: &Write, number: usize| {
            let mut headers = write.headers.clone();
            headers.insert(ID, id.as_str());
            headers.insert(SEQUENCE, number.to_string());
            headers
        };
        let members = async {
            for (number, Member { write, .. }) in (1..).zip(&self.others) {
                let (subject, data) = (write.subject.clone(), write.data.clone());
                let sent = bus.link.client.publish_with_headers(subject, headers(write, number), data).await;
                sent.map_err(|e| e.to_string())?;
            }
            Ok(())
        };
        // The client waits for room in its queue, without a limit of its own.
        let sent = tokio::select! {
            biased;
            () = bus.link.lost(epoch) => Err("the connection was lost".to_owned()),
            sent = tokio::time::timeout(ANSWER, members) => {
                sent.unwrap_or_else(|_| Err(format!("not sent within {ANSWER:?}")))
            }
        };
        if let Err(reason) = sent {
            tokio::time::sleep(BUSY).await;
            return Sent::Unknown(reason);
        }
        let mut last = headers(&self.point, self.others.len() + 1);
        last.insert(COMMIT, "1");
        let sent = send(&bus.link, &self.point.subject, last, self.point.data.clone()).await;
        if let Sent::Unknown(_) = sent {
            tokio::time::sleep(BUSY).await;
        }
        sent
    }

    /// Whether one of the other cells is not as it was read. Then the batch can't be stored any more, whenever it may
    /// arrive: the revisions of a cell never come back.
    pub(super) async fn is_outdated(&self, bus: &NatsBus) -> Result<bool, Error> {
        for Member { cell, expected, .. } in &self.others {
            let now = store::read(bus, cell).await?.map_or(0, |stored| stored.sequence);
            if now != *expected {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
