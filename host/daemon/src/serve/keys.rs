//! The keys by which clients repeat their calls: one message for each, `cd.k.<plugin>.<hash of method and key>`, says which call
//! the key stands for. It is written before the call is stored, so that whoever repeats the call, on whichever host, finds the same
//! one, and compared and set where a repeat runs anew.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cofferdam_bus::{Bus, Error, Message, Publish, Stored};
use cofferdam_sandbox::Reply;
use prost::Message as _;
use sha2::{Digest, Sha256};
use tonic::Status;

use super::{answers, status};
use crate::observe::trace::hex;

/// For an hour less than answers are: a key that is found without an answer is of a call that goes on. And for less than inboxes
/// remember calls: one that is found is stored once.
const KEPT: &str = "82800s";
/// The newest that this version writes and reads.
const FORMAT: u32 = 1;
/// Of a hash, in bytes: nobody finds another key with the same.
const SLOT: usize = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The call that a key stands for.
#[derive(Clone, PartialEq, prost::Message)]
struct Key {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(string, tag = "2")]
    call: String,
    /// How often the call was to be run anew.
    #[prost(uint64, tag = "3")]
    life: u64,
    /// What the call asks, hashed.
    #[prost(bytes = "bytes", tag = "4")]
    request: Bytes,
    /// When the call was first taken, in nanoseconds since the epoch: the same on all its runs.
    #[prost(fixed64, tag = "5")]
    taken: u64,
    /// For whoever looks into the stream.
    #[prost(string, tag = "6")]
    method: String,
    /// See [`Claim::note`].
    #[prost(string, tag = "7")]
    note: String,
}

/// One life of a call, to be stored and run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Unique, the same in all lives.
    pub(crate) call: String,
    pub(super) life: u64,
    /// In nanoseconds since the epoch.
    pub(super) at: u64,
    /// As whoever took it first wrote it.
    pub(crate) note: String,
}

#[derive(Debug)]
pub(crate) enum Claimed {
    /// It is to be stored, unless it has been.
    Taken(Taken),
    /// It was answered, for good.
    Answered(Reply),
}

/// What a client asks, and by which key.
pub(crate) struct Claim<'a> {
    pub(crate) plugin: &'a str,
    pub(crate) method: &'a str,
    pub(crate) key: &'a str,
    pub(crate) request: [u8; 32],
    /// What a repeat is to know of the first, whoever takes it.
    pub(crate) note: &'a str,
}

/// A call that nobody can repeat.
pub(crate) fn once(at: u64) -> Taken {
    Taken { call: call(&random(), at), life: 0, at, note: String::new() }
}

/// Unique: no two calls of a slot are taken at one time. Two tokens, as other events' ids have.
fn call(slot: &str, at: u64) -> String {
    format!("{slot}.{at:x}")
}

impl Claim<'_> {
    fn slot(&self) -> String {
        let mut hash = Sha256::new();
        for part in [self.method, self.key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex(&hash.finalize()[..SLOT])
    }

    /// Finds out which call this is, and begins another life of one whose answer does not count for repeats. `now`: what the
    /// clock says. Gives up at `until`.
    pub(crate) async fn make(&self, bus: &dyn Bus, now: u64, until: Instant) -> Result<Claimed, Status> {
        let slot = self.slot();
        let subject = format!("cd.k.{}.{slot}", self.plugin);
        let first = Taken { call: call(&slot, now), life: 0, at: now, note: self.note.to_owned() };
        let mut pause = FIRST_PAUSE;
        // What is there, if that is known: mostly nothing.
        let (mut wanted, mut revision) = (first.clone(), 0);
        loop {
            let trouble = match self.write(bus, &subject, &wanted, revision).await {
                Ok(()) => return Ok(Claimed::Taken(wanted)),
                // Somebody else, or this very write if its answer was lost.
                Err(Error::WrongLastSequence { .. }) => None,
                Err(error @ Error::Unavailable(_)) => Some(error),
                Err(error) => return Err(failed(&error)),
            };
            match self.look(bus, &subject).await {
                Ok(None) => (wanted, revision) = (first.clone(), 0),
                Ok(Some((key, _))) if key.request != self.request.as_slice() => return Err(self.another()),
                Ok(Some((key, at))) => {
                    let found = Taken { call: key.call, life: key.life, at: key.taken, note: key.note };
                    if found == wanted {
                        return Ok(Claimed::Taken(found));
                    }
                    let answer = answers::subject(self.plugin, &found.call, found.life);
                    match answers::stored(bus, &answer).await {
                        Ok(None) => return Ok(Claimed::Taken(found)),
                        Ok(Some(Err(error))) if !status::is_kept(error.code) => {
                            (wanted, revision) = (Taken { life: found.life + 1, ..found }, at);
                        }
                        Ok(Some(reply)) => return Ok(Claimed::Answered(reply)),
                        Err(Error::Unavailable(_)) => {}
                        Err(error) => return Err(failed(&error)),
                    }
                }
                Err(Error::Unavailable(_)) => {}
                Err(error) => return Err(failed(&error)),
            }
            if Instant::now() + pause >= until {
                return Err(out_of_reach(&trouble.map_or_else(String::new, |error| format!(": {error}"))));
            }
            if trouble.is_some() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    async fn write(&self, bus: &dyn Bus, subject: &str, taken: &Taken, revision: u64) -> Result<(), Error> {
        let key = Key {
            format: FORMAT,
            call: taken.call.clone(),
            life: taken.life,
            request: Bytes::copy_from_slice(&self.request),
            taken: taken.at,
            method: self.method.to_owned(),
            note: taken.note.clone(),
        };
        let message = Message {
            subject: subject.to_owned(),
            headers: vec![("Nats-TTL".to_owned(), KEPT.to_owned())],
            data: key.encode_to_vec().into(),
        };
        let how = Publish { expected_last_subject_sequence: Some(revision), ..Publish::default() };
        bus.publish(message, how).await.map(|_| ())
    }

    async fn look(&self, bus: &dyn Bus, subject: &str) -> Result<Option<(Key, u64)>, Error> {
        let Some(Stored { message, sequence, .. }) = bus.last(subject).await? else { return Ok(None) };
        let unreadable = |reason: String| Error::Unreadable { subject: subject.to_owned(), reason };
        let key = Key::decode(message.data).map_err(|error| unreadable(error.to_string()))?;
        match key.format {
            FORMAT => Ok(Some((key, sequence))),
            other => Err(unreadable(format!("format {other}; this version knows {FORMAT}"))),
        }
    }

    fn another(&self) -> Status {
        Status::invalid_argument(format!(
            "the idempotency key of this call was used for another request to {} within the last day; give each call a key of \
             its own, and repeat a call as it was",
            self.method
        ))
    }
}

pub(crate) fn out_of_reach(why: &str) -> Status {
    Status::unavailable(format!("the host's bus is out of reach{why}; the call was not run, repeat it"))
}

fn failed(error: &Error) -> Status {
    Status::internal(format!("the call can't be taken: {error}"))
}

/// 32 hex digits that nobody has had.
fn random() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let half = || RandomState::new().build_hasher().finish();
    let bytes: Vec<u8> = [half(), half()].into_iter().flat_map(u64::to_be_bytes).collect();
    hex(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_methods_own() {
        let slot = |method: &'static str, key: &'static str| {
            Claim { plugin: "p", method, key, request: [0; 32], note: "" }.slot()
        };
        assert_eq!(slot("a.B/C", "k"), slot("a.B/C", "k"));
        assert_ne!(slot("a.B/C", "k"), slot("a.B/D", "k"));
        assert_ne!(slot("a.B/C", "k"), slot("a.B/Ck", ""));
    }

    #[test]
    fn calls_have_ids_like_events() {
        let taken = once(0x1f);
        let (slot, at) = taken.call.split_once('.').unwrap();
        assert_eq!((slot.len(), at), (32, "1f"));
        assert_ne!(once(0x1f).call, taken.call);
        assert!(taken.call.split('.').all(cofferdam_bus::subject::is_plain_token));
    }
}
