//! A world of its own for each test: a nats-server, a plain client, a stream `TEST` for the subjects of fixtures, and
//! ways to publish, to read what is stored, and to know that nothing is under way any more.

use async_nats::{
    Client, HeaderMap,
    jetstream::{self, Context, consumer, stream},
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::Value;

use crate::{
    nats::Server,
    setup::Setup,
    wait::{wait_for, within},
};

/// What fixtures subscribe to and publish on.
const STREAM: &str = "TEST";
const SUBJECTS: &str = "test.>";

pub struct World {
    pub nats: Server,
    pub client: Client,
    pub jetstream: Context,
}

/// A message as a client or a stream has it.
#[derive(Debug, Clone)]
pub struct Message {
    pub subject: String,
    /// In its stream; 0 if it came by a plain subscription.
    pub sequence: u64,
    pub headers: Vec<(String, String)>,
    pub data: Bytes,
}

impl Message {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.data)
            .unwrap_or_else(|e| panic!("{}: {e}: {:?}", self.subject, self.data))
    }

    /// The payload of an enveloped message, else all of it.
    pub fn payload(&self) -> Value {
        let all = self.json();
        if all["payload"].is_object() { all["payload"].clone() } else { all }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn of(message: &async_nats::Message, sequence: u64) -> Message {
        let headers = message.headers.iter().flat_map(|map| map.iter());
        Message {
            subject: message.subject.to_string(),
            sequence,
            headers: headers
                .flat_map(|(name, values)| values.iter().map(move |v| (name.to_string(), v.to_string())))
                .collect(),
            data: message.payload.clone(),
        }
    }
}

impl World {
    pub async fn start() -> World {
        World::on(Server::start().await).await
    }

    /// On a server that was started in a special way.
    pub async fn on(nats: Server) -> World {
        let client = nats.client().await;
        let jetstream = jetstream::new(client.clone());
        let world = World { nats, client, jetstream };
        world.stream(STREAM, SUBJECTS).await;
        world
    }

    /// A daemon's configuration for this world.
    pub fn setup(&self) -> Setup {
        Setup::new(&self.nats.url())
    }

    pub async fn stream(&self, name: &str, subjects: &str) {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: vec![subjects.to_owned()],
            ..Default::default()
        };
        self.jetstream.create_stream(config).await.unwrap_or_else(|e| panic!("stream {name}: {e}"));
    }

    /// Publishes and waits until it is stored; gives its sequence.
    pub async fn publish(&self, subject: &str, data: impl ToString) -> u64 {
        self.publish_with(subject, &[], data).await
    }

    pub async fn publish_with(&self, subject: &str, headers: &[(&str, &str)], data: impl ToString) -> u64 {
        self.publish_bytes(subject, headers, Bytes::from(data.to_string())).await
    }

    pub async fn publish_bytes(&self, subject: &str, headers: &[(&str, &str)], data: Bytes) -> u64 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let sent = self.jetstream.publish_with_headers(subject.to_owned(), map, data).await;
        let stored = sent.unwrap_or_else(|e| panic!("{subject}: {e}")).await;
        stored.unwrap_or_else(|e| panic!("{subject}: {e}")).sequence
    }

    /// What a stream holds on these subjects, oldest first.
    pub async fn stored(&self, filter: &str) -> Vec<Message> {
        let stream = self.stream_of(filter).await;
        let config = consumer::pull::Config {
            filter_subject: filter.to_owned(),
            ack_policy: consumer::AckPolicy::None,
            memory_storage: true,
            ..Default::default()
        };
        let reader = stream.create_consumer(config).await.unwrap_or_else(|e| panic!("{filter}: {e}"));
        let info = reader.cached_info();
        let (name, mut owed) = (info.name.clone(), usize::try_from(info.num_pending).unwrap_or(usize::MAX));
        let mut messages = Vec::new();
        while owed > 0 {
            let mut batch = reader.fetch().max_messages(owed).messages().await.expect("a batch");
            while let Some(message) = within("a stored message", batch.next()).await {
                let message = message.expect("a message");
                let sequence = message.info().expect("a JetStream message").stream_sequence;
                messages.push(Message::of(&message.message, sequence));
                owed -= 1;
            }
        }
        stream.delete_consumer(&name).await.expect("the reader's end");
        messages
    }

    /// How many messages a stream holds on these subjects.
    pub async fn count(&self, filter: &str) -> usize {
        let stream = self.stream_of(filter).await;
        let subjects = stream.info_with_subjects(filter).await.unwrap_or_else(|e| panic!("{filter}: {e}"));
        subjects
            .map_ok(|(_, count)| count)
            .try_fold(0, |a, b| async move { Ok(a + b) })
            .await
            .expect("counts")
    }

    /// Waits until there are so many messages, and gives all there are.
    pub async fn wait_stored(&self, filter: &str, count: usize) -> Vec<Message> {
        wait_for(&format!("{count} messages on {filter}"), async || {
            (self.count(filter).await >= count).then_some(())
        })
        .await;
        self.stored(filter).await
    }

    /// The dead letters of a plugin, once there are so many.
    pub async fn dead_letters(&self, plugin: &str, count: usize) -> Vec<Value> {
        let letters = self.wait_stored(&format!("cofferdam.dead.{plugin}"), count).await;
        letters.iter().map(Message::json).collect()
    }

    async fn stream_of(&self, filter: &str) -> stream::Stream {
        let name = self.jetstream.stream_by_subject(filter).await;
        let name = name.unwrap_or_else(|e| panic!("no stream for {filter}: {e}"));
        self.jetstream.get_stream(name).await.expect("a stream")
    }

    /// What NATS knows of a durable.
    pub async fn durable(&self, stream: &str, name: &str) -> consumer::Info {
        let stream = self.jetstream.get_stream(stream).await.expect("a stream");
        stream.consumer_info(name).await.unwrap_or_else(|e| panic!("durable {name}: {e}"))
    }

    async fn durables(&self) -> Vec<consumer::Info> {
        let streams: Vec<_> = self.jetstream.stream_names().try_collect().await.expect("streams");
        let mut all = Vec::new();
        for name in streams {
            let stream = self.jetstream.get_stream(&name).await.expect("a stream");
            let found: Vec<consumer::Info> = stream.consumers().try_collect().await.expect("consumers");
            all.extend(found.into_iter().filter(|c| c.config.durable_name.is_some()));
        }
        all
    }

    /// Waits until every durable has had, and acked, all there is: whatever an event leads to is published before
    /// the event is acked. What leaves by another way (the fleet's outbox) must be waited for by itself.
    pub async fn quiet(&self) {
        let mut before = None;
        wait_for("every event to be settled", async || {
            // First: what a timer brings is seen at a durable after it.
            let later = self.retries_wait().await;
            let durables = self.durables().await;
            let busy = durables.iter().any(|c| c.num_pending > 0 || c.num_ack_pending > 0);
            let delivered: Vec<u64> = durables.iter().map(|c| c.delivered.consumer_sequence).collect();
            let same = before.replace(delivered.clone()) == Some(delivered);
            (!busy && !later && same).then_some(())
        })
        .await;
    }

    /// Does a timer of the host's wait to bring a failed event again?
    async fn retries_wait(&self) -> bool {
        let Ok(ours) = self.jetstream.get_stream("COFFERDAM").await else { return false };
        let subjects = ours.info_with_subjects("cd.t.*.*.*.retry.*.*").await.expect("subjects");
        let subjects: Vec<(String, usize)> = subjects.try_collect().await.expect("subjects");
        for (subject, _) in subjects {
            let timer = ours.get_last_raw_message_by_subject(&subject).await;
            if timer.is_ok_and(|timer| timer.headers.get("Nats-Schedule").is_some()) {
                return true;
            }
        }
        false
    }

    /// Listens from now on, as any client can.
    pub async fn watch(&self, subject: &str) -> Watch {
        let subscriber = self.client.subscribe(subject.to_owned()).await.expect("a subscription");
        self.client.flush().await.expect("a subscription that is confirmed");
        Watch { subject: subject.to_owned(), subscriber }
    }
}

/// A plain subscription.
pub struct Watch {
    subject: String,
    subscriber: async_nats::Subscriber,
}

impl Watch {
    pub async fn next(&mut self) -> Message {
        let next = within(&format!("a message on {}", self.subject), self.subscriber.next()).await;
        Message::of(&next.expect("a connection"), 0)
    }

    /// The next that fits; others are passed over.
    pub async fn find(&mut self, matches: impl Fn(&Message) -> bool) -> Message {
        loop {
            let message = self.next().await;
            if matches(&message) {
                return message;
            }
        }
    }
}
