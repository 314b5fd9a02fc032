//! What calls that write were answered. The run's commit stores the answer, `cd.a.<plugin>.<call>.<life>`, as its last effect;
//! whichever host was asked hears it as it is published, or reads it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use cofferdam_bus::{Bus, Error, Message};
use cofferdam_sandbox::{Reply, ServeError};
use prost::Message as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// An hour longer than a client's key is remembered: whoever finds the key finds the answer.
const KEPT: &str = "86400s";
/// The newest that this version writes and reads.
const FORMAT: u32 = 1;
/// Between looks of who waits, for what was not heard.
const FIRST_LOOK: Duration = Duration::from_millis(500);
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// Of the last look, when there is no more time.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// Between tries to listen.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(uint32, tag = "1")]
    format: u32,
    /// The gRPC number; 0: `data` is the answer.
    #[prost(uint32, tag = "2")]
    code: u32,
    #[prost(string, tag = "3")]
    message: String,
    #[prost(bytes = "bytes", tag = "4")]
    data: Bytes,
}

/// Where the answer to one life of a call is. No two lives share one: what is stored again by whoever finishes an earlier life late
/// covers no later answer.
pub(crate) fn subject(plugin: &str, call: &str, life: u64) -> String {
    format!("cd.a.{plugin}.{call}.{life}")
}

/// What stores it.
pub(crate) fn message(plugin: &str, call: &str, life: u64, reply: &Reply) -> Message {
    let answer = match reply {
        Ok(data) => Answer { format: FORMAT, data: data.clone(), ..Answer::default() },
        Err(error) => Answer {
            format: FORMAT,
            code: u32::from(error.code),
            message: error.message.clone(),
            ..Answer::default()
        },
    };
    let headers = [("Cofferdam-Plugin", plugin), ("Nats-TTL", KEPT)];
    Message {
        subject: subject(plugin, call, life),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        data: answer.encode_to_vec().into(),
    }
}

pub(super) fn read(subject: &str, data: &Bytes) -> Result<Reply, Error> {
    let unreadable = |reason: String| Error::Unreadable { subject: subject.to_owned(), reason };
    let answer = Answer::decode(data.clone()).map_err(|error| unreadable(error.to_string()))?;
    match (answer.format, u8::try_from(answer.code)) {
        (FORMAT, Ok(0)) => Ok(Ok(answer.data)),
        (FORMAT, Ok(code)) => Ok(Err(ServeError { code, message: answer.message })),
        (other, _) => Err(unreadable(format!("format {other}; this version knows {FORMAT}"))),
    }
}

/// What is stored by now.
pub(super) async fn stored(bus: &dyn Bus, subject: &str) -> Result<Option<Reply>, Error> {
    let Some(stored) = bus.last(subject).await? else { return Ok(None) };
    read(subject, &stored.message.data).map(Some)
}

/// Who waits on this host, by the subjects of the answers.
pub(super) struct Answers {
    bus: Arc<dyn Bus>,
    waiting: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    waiting: HashMap<String, Vec<(u64, oneshot::Sender<Bytes>)>>,
    came: u64,
}

/// Somebody who waits for one answer.
pub(super) struct Waiting<'a> {
    answers: &'a Answers,
    subject: String,
    number: u64,
    heard: oneshot::Receiver<Bytes>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Missing {
    Late,
    Stopped,
    /// There is one, which this version can't read.
    Unreadable(Error),
}

impl Answers {
    pub(super) fn new(bus: Arc<dyn Bus>) -> Self {
        Self { bus, waiting: Mutex::default() }
    }

    /// Hears what is published to a plugin's calls, until `stop`. `listening` is cancelled once it does for the first time.
    pub(super) async fn listen(&self, plugin: &str, listening: CancellationToken, stop: CancellationToken) {
        let filter = format!("cd.a.{plugin}.>");
        let all = async {
            loop {
                let error = match self.bus.listen(&filter).await {
                    Ok(mut listener) => {
                        listening.cancel();
                        loop {
                            match listener.next().await {
                                Ok(message) => self.hear(&message),
                                Err(error) => break error,
                            }
                        }
                    }
                    Err(error) => error,
                };
                // Who waits reads, too.
                tracing::debug!(plugin, "no answers are heard: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = all => {}
            () = stop.cancelled() => {}
        }
    }

    fn hear(&self, message: &Message) {
        for (_, waiting) in self.lock().waiting.remove(&message.subject).unwrap_or_default() {
            // Whoever is gone needs none.
            drop(waiting.send(message.data.clone()));
        }
    }

    /// From now on nothing is missed, unless it is not heard at all.
    pub(super) fn wait(&self, subject: String) -> Waiting<'_> {
        let (send, heard) = oneshot::channel();
        let mut desk = self.lock();
        desk.came += 1;
        let number = desk.came;
        desk.waiting.entry(subject.clone()).or_default().push((number, send));
        Waiting { answers: self, subject, number, heard }
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting<'_> {
    /// Waits until the deadline, or `stop`. `look`: it may be there already.
    pub(super) async fn answer(
        mut self,
        look: bool,
        deadline: Instant,
        stop: &CancellationToken,
    ) -> Result<Reply, Missing> {
        let mut pause = if look { Duration::ZERO } else { FIRST_LOOK };
        let mut deaf = false;
        loop {
            let missing = tokio::select! {
                heard = &mut self.heard, if !deaf => match heard {
                    Ok(data) => return read(&self.subject, &data).map_err(Missing::Unreadable),
                    Err(_) => {
                        deaf = true;
                        None
                    }
                },
                () = tokio::time::sleep(pause) => None,
                () = tokio::time::sleep_until(deadline.into()) => Some(Missing::Late),
                () = stop.cancelled() => Some(Missing::Stopped),
            };
            let look = stored(self.answers.bus.as_ref(), &self.subject);
            match tokio::time::timeout(if missing.is_some() { LAST_LOOK } else { LONGEST_LOOK }, look).await {
                Ok(Ok(Some(reply))) => return Ok(reply),
                Ok(Err(error @ Error::Unreadable { .. })) => return Err(Missing::Unreadable(error)),
                Ok(Err(error)) => tracing::debug!(self.subject, "no answer can be read: {error}"),
                Ok(Ok(None)) | Err(_) => {}
            }
            if let Some(missing) = missing {
                return Err(missing);
            }
            pause = (pause * 2).clamp(FIRST_LOOK, LONGEST_LOOK);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut desk = self.answers.lock();
        if let Some(waiting) = desk.waiting.get_mut(&self.subject) {
            waiting.retain(|(number, _)| *number != self.number);
            if waiting.is_empty() {
                desk.waiting.remove(&self.subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back() {
        for reply in [
            Ok(Bytes::from_static(b"\0\xff")),
            Ok(Bytes::new()),
            Err(ServeError { code: 5, message: "no such task".into() }),
        ] {
            let message = message("p", "0a.1b", 2, &reply);
            assert_eq!(message.subject, "cd.a.p.0a.1b.2");
            assert_eq!(read(&message.subject, &message.data).unwrap(), reply);
        }
        let newer = Answer { format: FORMAT + 1, ..Answer::default() }.encode_to_vec();
        assert!(matches!(read("s", &newer.into()), Err(Error::Unreadable { .. })));
    }
}
