//! Dead letters as they are read back: what they tell, and what it takes to redo what they stand for. Written by
//! `dispatch/dead_letter.rs`, perhaps by another version; whatever lies among them is shown.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cofferdam_bus::{Bus, Error, Headers, Stored};
use serde::Deserialize;

const PREFIX: &str = "cofferdam.dead.";
/// All of them; one of them, to look for their stream with.
pub(crate) const ALL: &str = "cofferdam.dead.>";

/// Of a plugin.
pub(crate) fn subject(plugin: &str) -> String {
    format!("{PREFIX}{plugin}")
}

/// A dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) stored: Stored,
    pub(crate) body: Body,
}

/// What it says. Everything may be missing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Body {
    pub(crate) plugin: String,
    pub(crate) outcome: String,
    pub(crate) fault: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) order_key: Option<String>,
    pub(crate) stream: String,
    pub(crate) durable: String,
    pub(crate) sequence: u64,
    pub(crate) life: Option<u64>,
    pub(crate) event: Option<Event>,
    pub(crate) effect: Option<Effect>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) subject: String,
    pub(crate) headers: Option<Headers>,
    pub(crate) timestamp: u64,
    pub(crate) data: Payload,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Effect {
    pub(crate) subject: String,
    pub(crate) headers: Headers,
    /// Some headers or their values are not whole.
    pub(crate) headers_cut: bool,
    pub(crate) data: Payload,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Payload {
    text: Option<String>,
    base64: Option<String>,
    pub(crate) omitted_bytes: Option<u64>,
}

impl Payload {
    /// `None` if it is left out.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        match (&self.text, &self.base64) {
            (Some(text), _) => Some(Bytes::from(text.clone())),
            (_, Some(text)) => STANDARD.decode(text).ok().map(Bytes::from),
            _ => None,
        }
    }
}

impl Letter {
    /// `None` if it is no dead letter, but something else that its stream holds.
    pub(crate) fn read(stored: Stored) -> Option<Letter> {
        let named = stored.message.subject.strip_prefix(PREFIX)?.to_owned();
        let mut body = match serde_json::from_slice::<Body>(&stored.message.data) {
            Ok(body) => body,
            Err(error) => {
                Body { reason: Some(format!("the dead letter can't be read: {error}")), ..Body::default() }
            }
        };
        if body.plugin.is_empty() {
            body.plugin = named;
        }
        Some(Letter { stored, body })
    }

    pub(crate) fn id(&self) -> u64 {
        self.stored.sequence
    }

    /// Of the event, or of the effect that was refused.
    pub(crate) fn subject(&self) -> &str {
        match (&self.body.event, &self.body.effect) {
            (Some(event), _) => &event.subject,
            (None, Some(effect)) => &effect.subject,
            (None, None) => "",
        }
    }

    pub(crate) fn event_id(&self) -> &str {
        self.body.event.as_ref().map_or("", |event| &event.id)
    }

    pub(crate) fn payload(&self) -> Option<Bytes> {
        match (&self.body.event, &self.body.effect) {
            (Some(event), _) => event.data.bytes(),
            (None, Some(effect)) => effect.data.bytes(),
            (None, None) => None,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.stored.message.headers.iter();
        headers.find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// How often the event had been redriven when it failed. Told by the letter, or by its message id,
    /// `<event>.dead.<life>.<n>`.
    fn life(&self) -> u64 {
        let of_id = || {
            let rest = self.header("Nats-Msg-Id")?.strip_prefix(self.event_id())?.strip_prefix(".dead.")?;
            rest.split('.').next()?.parse().ok()
        };
        self.body.life.or_else(of_id).unwrap_or(0)
    }

    /// The life that a redrive gives its event. It follows from the event and its earlier lives, not from where this letter is
    /// stored: one that is stored a second time, because whoever committed it died too soon, must not give the event a second
    /// run.
    pub(crate) fn next_life(&self) -> u64 {
        self.life() + 1
    }
}

/// The stream of dead letters.
pub(crate) async fn stream(bus: &dyn Bus) -> Result<String, Error> {
    let found = bus.covering(&subject("x")).await?;
    found.map(|stream| stream.name).ok_or_else(|| Error::NoStream { subject: ALL.to_owned() })
}

/// Deletes the dead letter from which an event was redriven, if whoever redrove it did not come to it. What is in the inbox
/// is what keeps the letter from being redriven twice, so this comes before anything that lets the inbox forget.
pub(crate) async fn forget_redriven(
    bus: &dyn Bus,
    plugin: &str,
    event: &str,
    life: u64,
    letter: u64,
) -> Result<(), Error> {
    if letter == 0 {
        return Ok(());
    }
    let forgotten = async {
        let stream = stream(bus).await?;
        let Some(stored) = bus.message(&stream, letter).await? else { return Ok(false) };
        let same = stored.message.subject == subject(plugin)
            && Letter::read(stored).is_some_and(|l| l.event_id() == event && l.next_life() == life);
        // A stream that was made anew counts from 1 again: this is another letter then.
        if same { bus.delete_message(&stream, letter).await } else { Ok(false) }
    };
    match forgotten.await {
        Ok(true) => tracing::info!(
            plugin,
            event,
            letter,
            "redriven before its dead letter was deleted, which is done now"
        ),
        // There is nothing left to be redriven.
        Ok(false) | Err(Error::NoStream { .. } | Error::Gone { .. }) => {}
        Err(error @ Error::Unavailable(_)) => return Err(error),
        // For good: the event is not to wait for ever for it.
        Err(error) => tracing::warn!(
            plugin,
            event,
            letter,
            "redriven, and its dead letter can't be deleted: {error}; drop it yourself, for a day later a redrive runs the event \
             again"
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cofferdam_bus::Message;
    use serde_json::json;

    use super::*;

    fn letter(subject: &str, headers: &[(&str, &str)], data: impl ToString) -> Option<Letter> {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let message = Message { subject: subject.into(), headers, data: data.to_string().into() };
        Letter::read(Stored { message, sequence: 7, timestamp: 1 })
    }

    #[test]
    fn a_letter_tells_of_its_event() {
        let body = json!({
            "plugin": "p", "outcome": "rejected", "fault": null, "reason": "no", "attempts": 2,
            "event": { "id": "0a.9", "subject": "a.b", "headers": [["A", "1"]], "timestamp": 5,
                       "data": { "base64": "AP8=" } },
        });
        let letter = letter("cofferdam.dead.p", &[], &body).unwrap();
        assert_eq!((letter.id(), letter.subject(), letter.event_id()), (7, "a.b", "0a.9"));
        assert_eq!(letter.payload().unwrap(), Bytes::from_static(&[0, 255]));
    }

    #[test]
    fn what_is_no_letter_is_none_and_what_cannot_be_read_is_still_one() {
        assert!(letter("cofferdam.derivation.parsed", &[], "{}").is_none());
        let empty = letter("cofferdam.dead.p", &[], "").unwrap();
        assert_eq!((empty.body.plugin.as_str(), empty.subject(), empty.payload()), ("p", "", None));
        assert!(empty.body.reason.unwrap().contains("can't be read"));
    }

    #[test]
    fn a_redrive_follows_from_the_lives_before_it() {
        let body = |life: Option<u64>| match life {
            Some(life) => json!({ "life": life, "event": { "id": "0a.9" } }),
            None => json!({ "event": { "id": "0a.9" } }),
        };
        for (life, id, next) in [
            (None, "", 1),
            (None, "0a.9.0", 1),
            (None, "0a.9.dead.0.0", 1),
            (None, "0a.9.dead.4.0", 5),
            (None, "0a.8.dead.4.0", 1),
            (Some(2), "0a.9.dead.4.0", 3),
        ] {
            let letter = letter("cofferdam.dead.p", &[("Nats-Msg-Id", id)], body(life)).unwrap();
            assert_eq!(letter.next_life(), next, "{life:?} {id}");
        }
    }
}
