//! The way in from outside, as any program has it: publish, subscribe and read on a daemon's admin port.

use fleet_proto::bus::v1::{
    Header, Message, PublishRequest, PublishResponse, ReadRequest, StoredMessage, SubscribeRequest,
    bus_service_client::BusServiceClient,
};
use serde_json::Value;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    daemon::Daemon,
    wait::{wait_for, within},
};

/// A client of an admin port. Connects with its first call, and again to whatever daemon is there after a restart.
#[derive(Clone)]
pub struct Client(pub BusServiceClient<Channel>);

impl Client {
    /// Of an address with its port.
    pub fn of(admin: &str) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{admin}")).expect("an address");
        Client(BusServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(usize::MAX))
    }

    pub async fn send(&self, request: PublishRequest) -> Result<PublishResponse, Status> {
        within("a publish", self.0.clone().publish(request)).await.map(tonic::Response::into_inner)
    }

    /// Publishes and waits until it is stored; gives its sequence.
    pub async fn publish(&self, subject: &str, data: impl ToString) -> u64 {
        self.publish_with(subject, &[], data).await
    }

    pub async fn publish_with(&self, subject: &str, headers: &[(&str, &str)], data: impl ToString) -> u64 {
        let header = |(name, value): &(&str, &str)| Header { name: (*name).into(), value: (*value).into() };
        let mut request = request(subject, data.to_string());
        request.message.get_or_insert_default().headers = headers.iter().map(header).collect();
        self.send(request).await.unwrap_or_else(|e| panic!("{subject}: {e}")).sequence
    }

    pub async fn subscribe(&self, subjects: &[&str]) -> Streaming<Message> {
        let subjects = subjects.iter().map(|s| (*s).to_owned()).collect();
        let heard = within("a subscription", self.0.clone().subscribe(SubscribeRequest { subjects })).await;
        heard.expect("a subscription").into_inner()
    }

    pub async fn read(&self, request: ReadRequest) -> Result<Streaming<StoredMessage>, Status> {
        within("a read", self.0.clone().read(request)).await.map(tonic::Response::into_inner)
    }

    /// To the end of what is stored.
    pub async fn read_all(&self, request: ReadRequest) -> Result<Vec<StoredMessage>, Status> {
        let mut stream = self.read(request).await?;
        let mut all = Vec::new();
        while let Some(stored) = within("a stored message", stream.message()).await? {
            all.push(stored);
        }
        Ok(all)
    }

    /// All that is stored under a filter, oldest first.
    pub async fn stored(&self, filter: &str) -> Result<Vec<StoredMessage>, Status> {
        self.read_all(ReadRequest { subject: filter.to_owned(), ..ReadRequest::default() }).await
    }
}

/// What a test of one daemon does most.
impl Daemon {
    /// With a connection of its own.
    pub fn client(&self) -> Client {
        Client::of(self.admin())
    }

    /// Publishes and waits until it is stored; gives its sequence.
    pub async fn publish(&self, subject: &str, data: impl ToString) -> u64 {
        self.client().publish(subject, data).await
    }

    pub async fn publish_with(&self, subject: &str, headers: &[(&str, &str)], data: impl ToString) -> u64 {
        self.client().publish_with(subject, headers, data).await
    }

    /// All that is stored under a filter, oldest first.
    pub async fn stored(&self, filter: &str) -> Vec<StoredMessage> {
        self.client().stored(filter).await.unwrap_or_else(|e| panic!("{filter}: {e}"))
    }

    /// Waits until there are so many messages, and gives all there are.
    pub async fn wait_stored(&self, filter: &str, count: usize) -> Vec<StoredMessage> {
        wait_for(&format!("{count} messages on {filter}"), async || {
            Some(self.stored(filter).await).filter(|stored| stored.len() >= count)
        })
        .await
    }
}

/// To publish this, without headers.
pub fn request(subject: &str, data: impl Into<Vec<u8>>) -> PublishRequest {
    let data = data.into().into();
    let message = Message { subject: subject.to_owned(), headers: Vec::new(), data };
    PublishRequest { message: Some(message), ..PublishRequest::default() }
}

/// The message itself.
pub fn content(stored: &StoredMessage) -> &Message {
    stored.message.as_ref().expect("a message")
}

pub fn text(stored: &StoredMessage) -> &str {
    std::str::from_utf8(&content(stored).data).expect("text")
}

pub fn body(stored: &StoredMessage) -> Value {
    serde_json::from_slice(&content(stored).data).expect("JSON")
}

pub fn header<'a>(stored: &'a StoredMessage, name: &str) -> Option<&'a str> {
    let headers = &content(stored).headers;
    headers.iter().find(|header| header.name == name).map(|header| header.value.as_str())
}
