//! The bare loop: what a program does with the same events without us. Written to be fast: batches are pulled ahead, what is
//! published goes out without a wait, one task awaits the acks in their order, and events are acked without an answer.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_nats::jetstream::{
    self, Message,
    consumer::{self, PullConsumer},
    context::PublishAckFuture,
    message::PublishMessage,
    stream,
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    compare::{Round, Side},
    rig::{Rig, Route},
    track::Track,
    work::{KEYS, Work, output},
};

const DURABLE: &str = "bare";
/// The bucket of `state`, made as a key-value bucket of NATS is.
const BUCKET: &str = "BARE_KV";
const BUCKET_SUBJECT: &str = "bare.kv";

pub(crate) struct Bare<'a> {
    track: Track<'a>,
    program: Program,
    events: u64,
}

/// The loop itself.
#[derive(Clone)]
pub(crate) struct Program {
    jetstream: jetstream::Context,
    consumer: PullConsumer,
    output: String,
    work: Work,
    in_flight: usize,
    cells: Arc<Vec<Cell>>,
}

/// A key's value and its revision, as they were when last written.
#[derive(Default)]
struct Cell {
    count: AtomicU64,
    revision: AtomicU64,
}

/// An event whose outputs are sent.
#[derive(Debug)]
struct Sent {
    message: Message,
    /// Of its key, and the new count.
    cell: Option<(usize, u64, PublishAckFuture)>,
    outputs: Vec<PublishAckFuture>,
}

impl<'a> Bare<'a> {
    pub(crate) async fn start(rig: &'a Rig, work: Work, events: u64) -> Bare<'a> {
        let route = rig.route("bare").await;
        let program = Program::start(rig, &route, work).await;
        let track = Track::new(rig, route, DURABLE.to_owned(), work, events);
        Bare { track, program, events }
    }

    pub(crate) async fn end(self, rig: &Rig) {
        rig.end(&self.track.route).await;
        if self.program.work == Work::Count {
            rig.jetstream.delete_stream(BUCKET).await.expect("the end of the bucket");
        }
    }
}

impl Side for Bare<'_> {
    async fn round(&mut self) -> Result<Round, String> {
        let loaded = self.track.load().await;
        self.program.run(self.events).await;
        self.track.finish(loaded).await
    }
}

impl Program {
    /// On a connection of its own.
    pub(crate) async fn start(rig: &Rig, route: &Route, work: Work) -> Program {
        let jetstream = rig.connection().await;
        let in_flight = rig.options.in_flight;
        let config = consumer::pull::Config {
            durable_name: Some(DURABLE.to_owned()),
            ack_policy: consumer::AckPolicy::Explicit,
            // More than are in flight: the server is never to wait for an ack.
            max_ack_pending: i64::try_from(4 * in_flight).expect("a small number"),
            ..Default::default()
        };
        let input = jetstream.get_stream(&route.input_stream).await.expect("the stream");
        let consumer = input.create_consumer(config).await.expect("a durable");
        if work == Work::Count {
            let bucket = stream::Config {
                name: BUCKET.to_owned(),
                subjects: vec![format!("{BUCKET_SUBJECT}.>")],
                max_messages_per_subject: 1,
                discard: stream::DiscardPolicy::New,
                allow_rollup: true,
                deny_delete: true,
                allow_direct: true,
                ..Default::default()
            };
            jetstream.create_stream(bucket).await.expect("a bucket");
        }
        Program {
            jetstream,
            consumer,
            output: route.output.clone(),
            work,
            in_flight: usize::try_from(in_flight).expect("a small number"),
            cells: Arc::new((0..KEYS).map(|_| Cell::default()).collect()),
        }
    }

    /// Takes so many events; ends when all of them are acked.
    pub(crate) async fn run(&self, events: u64) {
        let stream = self.consumer.stream().max_messages_per_batch(2 * self.in_flight);
        let mut messages = stream.messages().await.expect("a subscription");
        let (sent, under_way) = mpsc::channel(self.in_flight);
        let program = self.clone();
        let acked = tokio::spawn(program.await_acks(under_way));
        for _ in 0..events {
            let message = messages.next().await.expect("no end").expect("an event");
            let handled = self.handle(message).await;
            sent.send(handled).await.expect("somebody who awaits the acks");
        }
        drop(sent);
        acked.await.expect("every ack");
    }

    async fn handle(&self, message: Message) -> Sent {
        let event: Value = serde_json::from_slice(&message.payload).expect("JSON");
        let id = event["id"].as_u64().expect("a number");
        let mut cell = None;
        let mut count = 0;
        if self.work == Work::Count {
            let key = usize::try_from(id % KEYS).expect("a small number");
            count = self.cells[key].count.load(Ordering::Acquire) + 1;
            let change = PublishMessage::build()
                .payload(json!({ "count": count }).to_string().into())
                .expected_last_subject_sequence(self.cells[key].revision.load(Ordering::Acquire));
            let subject = format!("{BUCKET_SUBJECT}.{}", event["key"].as_str().expect("a key"));
            cell = Some((key, count, self.send(subject, change).await));
        }
        let mut outputs = Vec::with_capacity(usize::try_from(self.work.outputs()).expect("a small number"));
        for part in 0..self.work.outputs() {
            let message = PublishMessage::build()
                .payload(output(&event, part, count))
                .message_id(format!("{id}.{part}"));
            outputs.push(self.send(self.output.clone(), message).await);
        }
        Sent { message, cell, outputs }
    }

    async fn send(&self, subject: String, message: PublishMessage) -> PublishAckFuture {
        self.jetstream.send_publish(subject, message).await.expect("a message to be sent")
    }

    async fn await_acks(self, mut under_way: mpsc::Receiver<Sent>) {
        while let Some(Sent { message, cell, outputs }) = under_way.recv().await {
            if let Some((key, count, ack)) = cell {
                let ack = ack.await.expect("a key to be written by nobody else");
                self.cells[key].revision.store(ack.sequence, Ordering::Release);
                self.cells[key].count.store(count, Ordering::Release);
            }
            for ack in outputs {
                let ack = ack.await.expect("an output to be stored");
                assert!(!ack.duplicate, "an output was there already");
            }
            message.ack().await.expect("an ack to be sent");
        }
    }
}
