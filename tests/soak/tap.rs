//! What goes over a NATS server, as any client can hear it: commit points, effects and acks, with the time. It tells how far
//! an event was when a kill came; whether anything is lost or repeated is read from the streams, not from here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{Client, connection::State};
use futures_util::StreamExt as _;

use crate::mark::{Mark, Slot, now};

#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// When the first write of a commit point with the effects of this run (event, run) was sent.
    pub(crate) commits: HashMap<(u64, u64), u64>,
    /// When an effect was first sent.
    pub(crate) effects: HashMap<Mark, u64>,
    /// When the event was first acked after its last commit.
    pub(crate) acks: HashMap<u64, u64>,
    /// From when to when nothing was heard.
    pub(crate) blind: Vec<(u64, u64)>,
}

pub(crate) struct Tap {
    client: Client,
    heard: Arc<Mutex<Heard>>,
}

impl Tap {
    pub(crate) async fn on(client: Client) -> Tap {
        let heard = Arc::<Mutex<Heard>>::default();
        // One subscription for each, all on one connection; times are taken when a message is taken.
        for subject in ["cd.s.>", "cd.c.>", "cd.j.>", "cofferdam.story.soak.>", "$JS.ACK.PLANNING_EVENTS.>"] {
            let mut messages = client.subscribe(subject).await.expect("a subscription");
            let heard = heard.clone();
            tokio::spawn(async move {
                while let Some(message) = messages.next().await {
                    heard.lock().expect("no poison").take(&message.subject, &message.payload);
                }
            });
        }
        client.flush().await.expect("a connection");
        Tap { client, heard }
    }

    /// Returns when what was sent before has been heard.
    pub(crate) async fn flush(&self) {
        self.client.flush().await.expect("a connection");
        // The tasks that take the messages have to come to it.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    /// Nothing was heard since then; returns once it hears again.
    pub(crate) async fn blind(&self, since: u64) {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let asked = tokio::time::timeout(Duration::from_secs(1), self.client.flush()).await;
            if self.client.connection_state() == State::Connected && matches!(asked, Ok(Ok(()))) {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.heard.lock().expect("no poison").blind.push((since, now()));
    }

    pub(crate) fn heard(&self) -> Heard {
        std::mem::take(&mut *self.heard.lock().expect("no poison"))
    }
}

impl Heard {
    fn take(&mut self, subject: &str, data: &[u8]) {
        let at = now();
        if subject.starts_with("cd.s.") || subject.starts_with("cd.c.") {
            // Those of jobs carry no mark of the first publish.
            if let Some(mark) = Mark::find(data, "mark") {
                self.commits.entry((mark.event, mark.run)).or_insert(at);
                // An ack before it was of another kind.
                self.acks.remove(&mark.event);
            }
        } else if subject.starts_with("cd.j.") {
            if let Some(mark) = Mark::find(data, "task_id") {
                self.effects.entry(mark).or_insert(at);
            }
        } else if subject.starts_with("$JS.ACK.") {
            let acks = data.is_empty() || data == b"+ACK";
            // $JS.ACK.<stream>.<durable>.<deliveries>.<sequence>...
            let sequence = subject.split('.').nth(5).and_then(|word| word.parse().ok());
            if let (true, Some(sequence)) = (acks, sequence) {
                self.acks.entry(sequence).or_insert(at);
            }
        } else if let Some(mark) = Mark::find(data, "mark").filter(|mark| mark.slot != Slot::Later) {
            // A timer fires long after the event has ended.
            debug_assert_ne!(mark.slot, Slot::Job);
            self.effects.entry(mark).or_insert(at);
        }
    }
}
