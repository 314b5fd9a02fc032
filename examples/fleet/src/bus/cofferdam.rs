//! The bus behind the admin port of a daemon, whichever that is. The daemon needs Planning's address and Planning the
//! daemon's, so it may come after us, and it may go and come back: the connection is made when it is needed.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use fleet_proto::bus::v1::{
    Header, Message, PublishRequest, ReadRequest, StoredMessage, SubscribeRequest,
    bus_service_client::BusServiceClient, read_request::Start,
};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};
use tonic::{
    Code, Request, Status, Streaming, async_trait,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use super::{Bus, Ear, Heard, LOOK, Mark, Passing, Place, Watch, earliest};

/// Carries the message id to whoever looks whether a message is there: the bus keeps the id for itself.
const MESSAGE_ID: &str = "Fleet-Message-Id";
/// How long a connection, and a call that is answered at once, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A daemon that is silent for so long is asked whether it is there: who only listens would never know.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Of one message; more than any bus takes by default.
const LARGEST: usize = 64 << 20;

pub(super) struct Cofferdam {
    client: BusServiceClient<Channel>,
    token: Option<MetadataValue<Ascii>>,
    url: String,
}

impl Cofferdam {
    /// Fails only on what will never work.
    pub(super) fn new(url: &str, token: Option<&str>) -> anyhow::Result<Cofferdam> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let told = || {
            format!(
                "{url:?} is no address of a daemon's admin port, such as http://127.0.0.1:8080 (--cofferdam or \
                 COFFERDAM_ADMIN)"
            )
        };
        let mut endpoint = Endpoint::from_shared(url.clone()).with_context(told)?;
        if url.starts_with("https://") {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_enabled_roots()).with_context(told)?;
        }
        let channel = endpoint
            .connect_timeout(PATIENCE)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(PATIENCE)
            .keep_alive_while_idle(true)
            .connect_lazy();
        let bearer = |token| format!("Bearer {token}").parse();
        let token = token.filter(|token| !token.is_empty()).map(bearer).transpose();
        let token = token.map_err(|_| anyhow!("the token is no ASCII text (--token or COFFERDAM_TOKEN)"))?;
        let client = BusServiceClient::new(channel).max_decoding_message_size(LARGEST);
        Ok(Cofferdam { client, token, url })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }

    async fn read(&self, request: ReadRequest) -> Result<Streaming<StoredMessage>, Status> {
        let request = self.request(request);
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(PATIENCE, client.read(request)).await;
        Ok(answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??.into_inner())
    }

    /// Whether the message that was marked is still where it was. If not, its stream was made anew, or has let go of it.
    async fn has(&self, mark: &Mark) -> anyhow::Result<bool> {
        let request = ReadRequest {
            subject: mark.subject.clone(),
            limit: 1,
            start: Some(Start::Sequence(mark.place.sequence)),
            ..ReadRequest::default()
        };
        let look = async { self.read(request).await?.message().await };
        let found = tokio::time::timeout(LOOK, look).await.context("the daemon did not show its messages")?;
        let found = found.map_err(|status| self.refused(&status))?;
        Ok(found.is_some_and(|message| mark_of(&mark.subject, &message) == *mark))
    }

    fn refused(&self, status: &Status) -> anyhow::Error {
        refused(&self.url, status)
    }
}

/// What an answer means, and what to do about it.
fn refused(url: &str, status: &Status) -> anyhow::Error {
    let said = anyhow!("{}", status.message());
    // Only what this side made up has a source.
    if let Some(cause) = std::error::Error::source(status) {
        return anyhow!("{}", innermost(cause)).context(format!(
            "can't reach the daemon at {url}; start it with `cofferdam run`, or name another with --cofferdam URL or \
             COFFERDAM_ADMIN"
        ));
    }
    match status.code() {
        // What it said is the same in other words.
        Code::Unauthenticated | Code::PermissionDenied => anyhow!(
            "the daemon at {url} wants its [admin] token, and was given none or another; give it with --token or \
             COFFERDAM_TOKEN"
        ),
        Code::Unimplemented => {
            said.context(format!("what answers at {url} offers no bus; name a daemon's admin port"))
        }
        code => said.context(format!("the daemon at {url} refuses ({code:?})")),
    }
}

fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[async_trait]
impl Bus for Cofferdam {
    async fn prepare(&self, _: &[&str], _: &[&str]) -> anyhow::Result<()> {
        tracing::info!(url = self.url, "events go through this daemon");
        Ok(())
    }

    async fn publish(&self, subject: &str, message_id: &str, data: &str) -> anyhow::Result<Place> {
        let message = Message {
            subject: subject.to_owned(),
            headers: vec![Header { name: MESSAGE_ID.to_owned(), value: message_id.to_owned() }],
            data: data.to_owned().into(),
        };
        let mut request = self.request(PublishRequest {
            message: Some(message),
            message_id: message_id.to_owned(),
            ..PublishRequest::default()
        });
        request.set_timeout(PATIENCE);
        match self.client.clone().publish(request).await {
            Ok(stored) => {
                let stored = stored.into_inner();
                Ok(Place { stream: stored.stream, sequence: stored.sequence })
            }
            Err(status) if status.code() == Code::NotFound => {
                Err(anyhow!("{}", status.message()).context(format!(
                    "no stream stores {subject:?}; the daemon makes the fleet's, unless its bus.create-streams is false"
                )))
            }
            Err(status) => Err(self.refused(&status)),
        }
    }

    /// The duplicate window is not ours to know, so the stream is asked every time.
    async fn find(
        &self,
        subject: &str,
        message_id: &str,
        since: SystemTime,
    ) -> anyhow::Result<Option<Place>> {
        let request = ReadRequest {
            subject: subject.to_owned(),
            start: Some(Start::Time(earliest(since).into())),
            ..ReadRequest::default()
        };
        let search = async {
            let mut messages = self.read(request).await?;
            while let Some(stored) = messages.message().await? {
                let headers = stored.message.iter().flat_map(|message| &message.headers);
                let mut ids = headers.filter(|header| header.name.eq_ignore_ascii_case(MESSAGE_ID));
                if ids.any(|header| header.value == message_id) {
                    let place = Place { stream: stored.stream, sequence: stored.sequence };
                    return Ok::<_, Status>(Some(place));
                }
            }
            Ok(None)
        };
        match tokio::time::timeout(LOOK, search).await.context("the daemon did not show its messages")? {
            // No stream: nothing is there.
            Err(status) if status.code() == Code::NotFound => Ok(None),
            found => found.map_err(|status| self.refused(&status)),
        }
    }

    async fn follow(&self, subject: &str, after: Option<Mark>) -> anyhow::Result<Box<dyn Ear>> {
        let start = match after {
            Some(mark) if self.has(&mark).await? => Some(Start::Sequence(mark.place.sequence + 1)),
            Some(mark) => {
                // Events that come again change nothing; one that is passed over would be lost.
                tracing::info!(
                    subject,
                    stream = mark.place.stream,
                    sequence = mark.place.sequence,
                    "what was heard last is not there any more: hearing all there is"
                );
                None
            }
            None => None,
        };
        let request = ReadRequest { subject: subject.to_owned(), follow: true, start, limit: 0 };
        let messages = self.read(request).await.map_err(|status| self.refused(&status))?;
        let (subject, url) = (subject.to_owned(), self.url.clone());
        Ok(Box::new(Following { messages, subject, url, last: None, due: false }))
    }

    /// Who follows here keeps count anyway.
    async fn read_on(&self, subject: &str, after: Option<Mark>) -> anyhow::Result<Box<dyn Ear>> {
        self.follow(subject, after).await
    }

    async fn watch(&self, subjects: &[String]) -> anyhow::Result<Watch> {
        let request = self.request(SubscribeRequest { subjects: subjects.to_vec() });
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(PATIENCE, client.subscribe(request)).await;
        let answer = answer.with_context(|| format!("the daemon at {} does not answer", self.url))?;
        let messages = answer.map_err(|status| self.refused(&status))?.into_inner();
        let url = self.url.clone();
        let passing = move |message: Result<Message, Status>| {
            message.map(passing).map_err(|status| refused(&url, &status))
        };
        Ok(messages.map(passing).boxed())
    }
}

/// A subject's messages as they are stored.
struct Following {
    messages: Streaming<StoredMessage>,
    subject: String,
    url: String,
    last: Option<Heard>,
    /// `last` is to be heard once more.
    due: bool,
}

#[async_trait]
impl Ear for Following {
    async fn next(&mut self) -> anyhow::Result<Heard> {
        if let Some(heard) = self.last.take_if(|_| self.due) {
            self.due = false;
            self.last = Some(heard.clone());
            return Ok(heard);
        }
        let message = self.messages.message().await.map_err(|status| refused(&self.url, &status))?;
        let message = message.with_context(|| format!("the daemon at {} stopped telling", self.url))?;
        let mark = mark_of(&self.subject, &message);
        let data = message.message.unwrap_or_default().data.to_vec();
        let heard = Heard { data, mark: Some(mark) };
        self.last = Some(heard.clone());
        Ok(heard)
    }

    /// The mark says so.
    async fn done(&mut self) -> anyhow::Result<()> {
        self.last = None;
        Ok(())
    }

    async fn again(&mut self, delay: Duration) -> anyhow::Result<()> {
        tokio::time::sleep(delay).await;
        self.due = true;
        Ok(())
    }
}

fn mark_of(subject: &str, message: &StoredMessage) -> Mark {
    let stored_at = message
        .stored_at
        .as_ref()
        .map_or(0, |time| time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos)));
    Mark {
        subject: subject.to_owned(),
        place: Place { stream: message.stream.clone(), sequence: message.sequence },
        stored_at,
    }
}

fn passing(message: Message) -> Passing {
    let headers: Map<String, Value> =
        message.headers.into_iter().map(|header| (header.name, json!(header.value))).collect();
    Passing { subject: message.subject, headers, data: message.data.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_missing_is_told_once() {
        let told = format!("{:#}", refused("http://a:1", &Status::unauthenticated("a token is wanted")));
        assert!(
            told.contains("the daemon at http://a:1 wants its [admin] token") && told.contains("--token"),
            "{told}"
        );
        assert!(!told.contains("is wanted"), "{told}");
    }
}
