//! Hearing what is published, as it is published: a plain subscription. Streams have no part in it.

use async_nats::Subscriber;
use async_trait::async_trait;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{headers, link::Link};
use crate::{
    api::{Listener, Message},
    error::Error,
    outgoing, subject,
};

pub(super) async fn open(link: &Link, filter: &str) -> Result<Box<dyn Listener>, Error> {
    subject::check_filter(filter)?;
    let subscribed = link.client.subscribe(filter.to_owned()).await;
    let subscriber = subscribed.map_err(|e| Error::Unavailable(e.to_string()))?;
    // Any answer tells that the server has seen the subscription: it takes a connection's requests in order, and the
    // client's own flush waits for none.
    link.call::<Value>("INFO", &json!({})).await?;
    Ok(Box::new(Ears { subscriber }))
}

struct Ears {
    /// Made anew by the client on every connection.
    subscriber: Subscriber,
}

#[async_trait]
impl Listener for Ears {
    async fn next(&mut self) -> Result<Message, Error> {
        while let Some(heard) = self.subscriber.next().await {
            let subject = heard.subject.to_string();
            if !is_internal(&subject, heard.reply.as_deref()) {
                let headers = headers::incoming(heard.headers.as_ref());
                return Ok(Message { subject, headers, data: heard.payload });
            }
        }
        Err(Error::Unavailable("the connection was closed".into()))
    }
}

/// What servers, clients and the bus say among themselves. A consumer's deliveries go to the inbox of whoever pulls, so
/// that a filter of wildcards may hear them, and bear the subject of the stored message: the reply subject tells.
fn is_internal(subject: &str, reply: Option<&str>) -> bool {
    let delivered = reply.is_some_and(|reply| reply.starts_with("$JS.ACK."));
    delivered || subject.starts_with('$') || outgoing::is_reserved(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_bus_says_to_itself_is_not_heard() {
        for internal in ["$JS.API.INFO", "$KV.b.k", "_INBOX.a.b", "cd.s.space.hash", "cd.f.origin"] {
            assert!(is_internal(internal, None), "{internal}");
        }
        for heard in ["a", "a.$b", "cd.job.x", "_INBOXES.a"] {
            assert!(!is_internal(heard, Some("_INBOX.a.b")), "{heard}");
        }
        assert!(is_internal("a", Some("$JS.ACK.S.d.1.1.1.1.1")));
    }
}
