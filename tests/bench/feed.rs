//! Stores events as fast as one publisher can that waits for every ack. Its rate is the publish-only rate of the run.

use std::time::Instant;

use async_nats::jetstream::{self, message::PublishMessage};
use tokio::sync::mpsc;

use crate::work::{Work, event};

/// Events with these numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) first: u64,
    pub(crate) events: u64,
    pub(crate) work: Work,
    pub(crate) size: u64,
}

/// Gives messages a second.
pub(crate) async fn feed(
    jetstream: &jetstream::Context,
    subject: &str,
    to: &str,
    batch: Batch,
    in_flight: u64,
) -> f64 {
    let events: Vec<_> = (batch.first..batch.first + batch.events)
        .map(|n| (n, event(n, batch.work, to, batch.size)))
        .collect();
    let (sent, mut acks) = mpsc::channel(usize::try_from(in_flight).expect("a small number"));
    let began = Instant::now();
    let acked = tokio::spawn(async move {
        while let Some(ack) = acks.recv().await {
            let ack: jetstream::context::PublishAckFuture = ack;
            ack.await.expect("an event to be stored");
        }
    });
    for (number, data) in events {
        let message = PublishMessage::build().payload(data).message_id(format!("f{number}"));
        let ack = jetstream.send_publish(subject.to_owned(), message).await.expect("an event to be sent");
        sent.send(ack).await.expect("somebody who awaits it");
    }
    drop(sent);
    acked.await.expect("every ack");
    batch.events as f64 / began.elapsed().as_secs_f64()
}
