//! A plugin's inbox: events that come to it again, alone, after a failure or because somebody redrove them, and calls that it
//! serves. What is stored there is an envelope around the event as it was first delivered, or around the call.

use std::time::Duration;

use bytes::Bytes;
use cofferdam_bus::Message;
use prost::Message as _;

/// Of the durable. Not a setting: hosts with different ones could not share it. What a host that died held comes again after so long, and
/// nothing else of the inbox before it; three heartbeats go into it.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(10);

/// Of an event, and of a call, which versions that know none are not to take for an event.
const EVENT: u32 = 1;
const CALL: u32 = 2;

/// An event on its way to another attempt, or a call.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Envelope {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    /// The event's id, `<origin>.<sequence>` of its first delivery, which it keeps for good.
    #[prost(string, tag = "2")]
    pub(crate) root: String,
    #[prost(string, tag = "3")]
    pub(crate) subject: String,
    #[prost(message, repeated, tag = "4")]
    pub(crate) headers: Vec<Header>,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) data: Bytes,
    /// When the event was stored, in nanoseconds since the epoch.
    #[prost(fixed64, tag = "6")]
    pub(crate) timestamp: u64,
    /// Of the subscription that it came by.
    #[prost(string, tag = "7")]
    pub(crate) durable: String,
    /// The attempt that this brings, from 1.
    #[prost(uint32, tag = "8")]
    pub(crate) attempt: u32,
    /// How often the event was redriven.
    #[prost(uint64, tag = "9")]
    pub(crate) life: u64,
    /// Where the event was first stored.
    #[prost(string, tag = "10")]
    pub(crate) stream: String,
    #[prost(uint64, tag = "11")]
    pub(crate) sequence: u64,
    /// When its first attempt began, and when its first and its last one so far failed, in nanoseconds since the epoch; 0:
    /// not yet.
    #[prost(fixed64, tag = "12")]
    pub(crate) first_seen: u64,
    #[prost(fixed64, tag = "13")]
    pub(crate) first_failed: u64,
    #[prost(fixed64, tag = "14")]
    pub(crate) last_failed: u64,
    /// Deliveries so far, of all attempts.
    #[prost(uint32, tag = "15")]
    pub(crate) deliveries: u32,
    /// The sequence of the dead letter that this was redriven from, which may still be there; 0: of none.
    #[prost(uint64, tag = "16")]
    pub(crate) dead_letter: u64,
    /// What a call has besides: then the root is its id, the subject its method, the headers its metadata, and the life
    /// counts how often it was to be run anew.
    #[prost(message, optional, tag = "17")]
    pub(crate) call: Option<Call>,
}

/// Of a call.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Call {
    /// Decided by whoever took it, so that all who run it agree.
    #[prost(string, optional, tag = "1")]
    pub(crate) key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(crate) cell: Option<String>,
}

/// A call to store.
pub(crate) struct NewCall {
    pub(crate) id: String,
    pub(crate) life: u64,
    /// `package.Service/Method`
    pub(crate) method: String,
    pub(crate) request: Bytes,
    /// Nanoseconds since the epoch.
    pub(crate) timestamp: u64,
    pub(crate) key: Option<String>,
    pub(crate) cell: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Header {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// Read before anything else, so that a newer format is told apart from damage.
#[derive(Clone, PartialEq, prost::Message)]
struct Version {
    #[prost(uint32, tag = "1")]
    format: u32,
}

/// Why an inbox message can't be read here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("it is of format {0}, and this version knows none after {CALL}; update this host")]
    Unknown(u32),
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl Envelope {
    /// With the format and the headers set; the rest is the caller's.
    pub(crate) fn new(headers: &[(String, String)]) -> Self {
        let headers = headers.iter().map(|(name, value)| Header { name: name.clone(), value: value.clone() });
        Self { format: EVENT, headers: headers.collect(), ..Self::default() }
    }

    /// Around a call.
    pub(crate) fn of_call(metadata: &[(String, String)], new: NewCall) -> Self {
        Self {
            format: CALL,
            root: new.id,
            durable: durable_of_calls(&new.method),
            subject: new.method,
            data: new.request,
            timestamp: new.timestamp,
            attempt: 1,
            life: new.life,
            call: Some(Call { key: new.key, cell: new.cell }),
            ..Self::new(metadata)
        }
    }

    /// The event's headers, as they were first delivered.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        self.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect()
    }

    /// What brings it to the plugin.
    pub(crate) fn message(&self, plugin: &str) -> Message {
        Message {
            subject: subject(plugin, &self.root, self.life, self.attempt),
            headers: vec![("Cofferdam-Plugin".to_owned(), plugin.to_owned())],
            data: self.encode_to_vec().into(),
        }
    }

    pub(crate) fn read(data: &Bytes) -> Result<Self, EnvelopeError> {
        let damaged = |error: prost::DecodeError| EnvelopeError::Damaged(error.to_string());
        match Version::decode(data.clone()).map_err(damaged)?.format {
            EVENT | CALL => {}
            // Of no format that ever was: not ours.
            0 => return Err(EnvelopeError::Damaged("it has no format".to_owned())),
            other => return Err(EnvelopeError::Unknown(other)),
        }
        let envelope = Self::decode(data.clone()).map_err(damaged)?;
        if envelope.root.is_empty() || envelope.attempt == 0 {
            return Err(EnvelopeError::Damaged("it names no event, or no attempt".to_owned()));
        }
        if (envelope.format == CALL) != envelope.call.is_some() {
            return Err(EnvelopeError::Damaged("it is half a call".to_owned()));
        }
        Ok(envelope)
    }
}

/// Where one attempt at an event is stored, once. `root` is the event's id.
pub(crate) fn subject(plugin: &str, root: &str, life: u64, attempt: u32) -> String {
    format!("cd.in.{plugin}.{root}.{life}.{attempt}")
}

/// What an inbox is made of.
pub(crate) fn filter(plugin: &str) -> String {
    format!("cd.in.{plugin}.>")
}

/// The durable of a plugin's inbox.
pub(crate) fn durable(plugin: &str) -> String {
    format!("cofferdam-inbox-{plugin}")
}

/// What stands for the durable by which a call came: no durable can be called so.
pub(crate) fn durable_of_calls(method: &str) -> String {
    format!("grpc:{method}")
}

/// Of the timer that brings an attempt.
pub(crate) fn timer(plugin: &str, root: &str, life: u64, attempt: u32) -> String {
    format!("{plugin}.{root}.retry.{life}.{attempt}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            root: "0a.7".into(),
            subject: "orders.created".into(),
            data: Bytes::from_static(&[0, 255]),
            timestamp: 42,
            durable: "d".into(),
            attempt: 2,
            stream: "ORDERS".into(),
            sequence: 7,
            ..Envelope::new(&[("A".into(), "1".into()), ("A".into(), "2".into())])
        }
    }

    #[test]
    fn what_is_stored_is_read_back_under_a_subject_of_its_own() {
        let message = envelope().message("p");
        assert_eq!(message.subject, "cd.in.p.0a.7.0.2");
        let read = Envelope::read(&message.data).unwrap();
        assert_eq!(read, envelope());
        assert_eq!(read.headers(), [("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())]);
        assert!(cofferdam_bus::subject::covers(&filter("p"), &message.subject));
        assert!(!cofferdam_bus::subject::covers(&filter("p-2"), &message.subject));
    }

    #[test]
    fn a_call_has_a_format_of_its_own_and_a_place_for_each_life() {
        let call = Envelope::of_call(
            &[("x".into(), "1".into())],
            NewCall {
                id: "0a.1b".into(),
                life: 3,
                method: "a.B/C".into(),
                request: Bytes::from_static(&[1]),
                timestamp: 42,
                key: Some("k".into()),
                cell: None,
            },
        );
        let message = call.message("p");
        assert_eq!(message.subject, "cd.in.p.0a.1b.3.1");
        assert_eq!(Envelope::read(&message.data).unwrap(), call);
        assert_eq!((call.format, envelope().format), (2, 1));
        assert!(!cofferdam_bus::subject::is_plain_token(&call.durable), "no subscription has it");
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let newer = Envelope { format: CALL + 1, ..envelope() }.encode_to_vec();
        assert_eq!(Envelope::read(&newer.into()), Err(EnvelopeError::Unknown(CALL + 1)));
        let half = Envelope { format: CALL, ..envelope() }.encode_to_vec();
        assert!(matches!(Envelope::read(&half.into()), Err(EnvelopeError::Damaged(_))));
        for damaged in [&b""[..], b"{}", &[8, 1], &[0xff; 9]] {
            let read = Envelope::read(&Bytes::copy_from_slice(damaged));
            assert!(matches!(read, Err(EnvelopeError::Damaged(_))), "{damaged:?}");
        }
    }
}
