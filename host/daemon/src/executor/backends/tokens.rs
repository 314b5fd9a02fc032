//! Tokens as they come: at once to whoever listens, and on a stream for the fleet where that is wanted.

use std::{
    hash::{BuildHasher as _, RandomState},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cofferdam_bus::{Bus, Message, Publish};
use cofferdam_inference::{Answer, Chunk, Failure, PooledStream};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{Answered, Task};

/// So long pieces are gathered, so that a fast model makes no flood of messages.
const GATHERED: Duration = Duration::from_millis(50);
/// More than this goes at once, and not in one message; in bytes.
const MUCH: usize = 32 << 10;
/// Of messages that the bus has not stored yet: when it is slow, more is gathered.
const AHEAD: usize = 8;
/// For the last of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the tokens of a job are told; stored nowhere.
pub(crate) fn subject(job: &str) -> String {
    format!("cofferdam-tokens.{job}")
}

/// Where they are stored for the fleet.
fn stored_subject(job: &str) -> String {
    format!("vllm.streaming.{job}")
}

/// The end of a job's stored tokens, for the commit that ends it. Nothing was answered: the job failed.
pub(crate) fn last_word(task: &Task<'_>, answered: Option<&Answered>) -> Message {
    let (index, offset) = answered.map_or((0, 0), |answered| (answered.chunks, answered.text.len()));
    let mut body = Names::of(task).body(index, offset, "", task.attempt);
    body["done"] = true.into();
    body["success"] = answered.is_some().into();
    message(&task.queued.id, &body)
}

/// How the tokens of one try of a job are told.
pub(super) struct Tokens {
    bus: Arc<dyn Bus>,
    job: String,
    /// Another one each time that a model is asked.
    run: String,
    attempt: u32,
    pending: Chunk,
    /// Bytes of text that were told.
    offset: usize,
    index: u64,
    stored: Option<Stored>,
}

/// The road to the fleet's stream.
struct Stored {
    names: Names,
    into: mpsc::Sender<Message>,
    /// Ends with us.
    writer: JoinSet<()>,
}

/// Whose tokens they are, as the fleet is told.
struct Names {
    job: String,
    task: String,
    agent: String,
    model: String,
}

impl Names {
    fn of(task: &Task<'_>) -> Self {
        Self {
            job: task.queued.id.clone(),
            task: task.queued.job.task_id.clone(),
            agent: task.agent.id.clone(),
            model: task.model.to_owned(),
        }
    }

    fn body(&self, index: u64, offset: usize, text: &str, attempt: u32) -> Value {
        json!({
            "job_id": self.job,
            "task_id": self.task,
            "agent_id": self.agent,
            "model": self.model,
            "index": index,
            "offset": offset,
            "text": text,
            "attempt": attempt,
            "done": false,
        })
    }
}

fn message(job: &str, body: &Value) -> Message {
    Message { subject: stored_subject(job), headers: Vec::new(), data: Bytes::from(body.to_string()) }
}

impl Tokens {
    /// `stored`: for the fleet, too. Nothing where nobody wants them.
    pub(super) fn wanted(bus: &Arc<dyn Bus>, task: &Task<'_>, stored: bool) -> Option<Self> {
        (stored || task.queued.stream).then(|| Self::new(bus, task, stored))
    }

    fn new(bus: &Arc<dyn Bus>, task: &Task<'_>, stored: bool) -> Self {
        let names = Names::of(task);
        Self {
            bus: bus.clone(),
            job: names.job.clone(),
            run: unlike(),
            attempt: task.attempt,
            pending: Chunk::default(),
            offset: 0,
            index: 0,
            stored: stored.then(|| Stored::begin(bus.clone(), names)),
        }
    }

    /// Tells what comes until all has come; gives that, and how many messages were stored of it.
    pub(super) async fn hear(mut self, mut stream: PooledStream) -> Result<(Answer, u64), Failure> {
        // The first goes at once.
        let mut next_at = Instant::now();
        loop {
            let chunk = {
                let mut next = pin!(stream.next());
                loop {
                    tokio::select! {
                        chunk = &mut next => break chunk?,
                        () = sleep_until(next_at), if self.is_pending() && self.has_room() => {
                            self.tell().await;
                            next_at = Instant::now() + GATHERED;
                        }
                        () = self.room(), if self.is_pending() && !self.has_room() => {}
                    }
                }
            };
            let Some(chunk) = chunk else { break };
            self.pending.content.push_str(&chunk.content);
            self.pending.reasoning.push_str(&chunk.reasoning);
            if self.pending.content.len() + self.pending.reasoning.len() > MUCH && self.has_room() {
                self.tell().await;
                next_at = Instant::now() + GATHERED;
            }
        }
        let answer = stream.finish().await?;
        Ok((answer, self.end().await))
    }

    /// Tells an answer that is there already.
    pub(super) async fn whole(mut self, answered: &mut Answered) {
        self.pending = Chunk { content: answered.text.clone(), reasoning: answered.reasoning.clone() };
        answered.chunks = self.end().await;
    }

    fn is_pending(&self) -> bool {
        self.pending != Chunk::default()
    }

    fn has_room(&self) -> bool {
        self.stored.as_ref().is_none_or(|stored| stored.into.capacity() > 0)
    }

    /// Waits for a message to be stored, where there are too many that are not.
    async fn room(&self) {
        if let Some(stored) = &self.stored {
            stored.into.reserve().await.ok();
        }
    }

    /// In messages that any bus takes.
    async fn tell(&mut self) {
        while self.is_pending() {
            let (content, reasoning) = (cut(&mut self.pending.content), cut(&mut self.pending.reasoning));
            let chunk = json!({
                "run": self.run,
                "attempt": self.attempt,
                "offset": self.offset,
                "text": content,
                "reasoning": reasoning,
            });
            self.bus.advise(&subject(&self.job), Bytes::from(chunk.to_string())).await;
            // Thoughts are nothing that the fleet reads.
            if let Some(stored) = &self.stored
                && !content.is_empty()
            {
                let body = stored.names.body(self.index, self.offset, &content, self.attempt);
                stored.into.send(message(&self.job, &body)).await.ok();
                self.index += 1;
            }
            self.offset += content.len();
        }
    }

    /// The rest; how many messages were stored in all.
    async fn end(mut self) -> u64 {
        let rest = async {
            self.tell().await;
            if let Some(Stored { into, mut writer, .. }) = self.stored.take() {
                drop(into);
                writer.join_next().await;
            }
        };
        // The last word is to come after them; an answer does not wait for more than that.
        timeout(PATIENCE, rest).await.ok();
        self.index
    }
}

impl Stored {
    fn begin(bus: Arc<dyn Bus>, names: Names) -> Self {
        let (into, mut from) = mpsc::channel::<Message>(AHEAD);
        let mut writer = JoinSet::new();
        writer.spawn(async move {
            while let Some(message) = from.recv().await {
                let subject = message.subject.clone();
                if let Err(error) = bus.publish(message, Publish::default()).await {
                    tracing::warn!(subject, "tokens were not stored: {error}");
                }
            }
        });
        Self { names, into, writer }
    }
}

/// What of a text goes in one message; the rest stays.
fn cut(text: &mut String) -> String {
    let rest = text.split_off(text.floor_char_boundary(MUCH));
    std::mem::replace(text, rest)
}

fn unlike() -> String {
    format!("{:016x}", RandomState::new().hash_one(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_goes_in_pieces_of_whole_characters() {
        let whole = format!("a{}", "ü".repeat(MUCH));
        let mut rest = whole.clone();
        let pieces: Vec<String> =
            std::iter::from_fn(|| Some(cut(&mut rest)).filter(|cut| !cut.is_empty())).collect();
        assert_eq!(pieces.iter().map(String::len).collect::<Vec<_>>(), [MUCH - 1, MUCH, 2]);
        assert_eq!(pieces.concat(), whole);
    }

    #[test]
    fn each_asking_has_a_name_of_its_own() {
        assert_ne!(unlike(), unlike());
    }
}
