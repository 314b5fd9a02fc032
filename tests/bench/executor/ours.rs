//! Our side: a client that stores jobs on the queue and waits for their events to be stored, so many at a time, and one `cofferdam executor`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, consumer, stream};
use futures_util::StreamExt as _;
use harness::{
    answering,
    daemon::Daemon,
    jobs::{Queue, job},
    nats::Server,
    setup::Setup,
};
use serde::Deserialize;
use tokio::{sync::oneshot, task::JoinSet};

use super::{Load, endpoint::Endpoint};
use crate::{
    compare::{Round, Side},
    outputs::{self, Output},
    rig::context,
};

const MODEL: &str = "plain";
/// Without an answer for so long, a job is taken for lost.
const STUCK: Duration = Duration::from_secs(60);
/// As the fleet has it, but that it forgets nothing.
const ANSWERS: &str = "AGENT_RESPONSES";

/// Where jobs wait to be heard of, by number.
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>>;

pub(crate) struct Ours<'a> {
    endpoint: &'a Endpoint,
    jetstream: jetstream::Context,
    queue: Queue,
    waiting: Waiting,
    worker: Daemon,
    load: Load,
    next: u64,
    _setup: Setup,
    _nats: Server,
}

#[derive(Deserialize)]
struct Event {
    task_id: String,
    #[serde(default)]
    status: String,
    proposal: Option<Proposal>,
}

#[derive(Deserialize)]
struct Proposal {
    content: String,
}

impl<'a> Ours<'a> {
    pub(crate) async fn start(endpoint: &'a Endpoint, load: Load) -> Ours<'a> {
        let nats = Server::start().await;
        let client = nats.client().await;
        let jetstream = context(client.clone());
        let config = stream::Config {
            name: ANSWERS.to_owned(),
            subjects: vec!["agent.response.>".to_owned()],
            ..Default::default()
        };
        let answers = jetstream.create_stream(config).await.expect("a stream for answers");
        let setup = setup(&nats, endpoint, load);
        let worker = setup.start_worker().await;
        let queue = Queue::new("bench", MODEL);
        queue.open(&jetstream).await;
        let waiting = Waiting::default();
        // Not a plain subscription: that hears what is not stored yet.
        let config = consumer::push::Config {
            deliver_subject: client.new_inbox(),
            deliver_policy: consumer::DeliverPolicy::New,
            ack_policy: consumer::AckPolicy::None,
            memory_storage: true,
            ..Default::default()
        };
        let ears = answers.create_consumer(config).await.expect("a consumer");
        let mut heard = ears.messages().await.expect("a subscription");
        let told = waiting.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = heard.next().await {
                let number = number(&message.payload);
                let waits = number.and_then(|number| told.lock().expect("no poison").remove(&number));
                if waits.is_some_and(|waits| waits.send(()).is_err()) {
                    // Its slot has given up, and the round with it.
                    return;
                }
            }
        });
        Ours { endpoint, jetstream, queue, waiting, worker, load, next: 0, _setup: setup, _nats: nats }
    }

    /// The body of a request that our side sends.
    pub(crate) async fn sample(&mut self) -> Result<String, String> {
        let one = Load { in_flight: 1, jobs: 1 };
        let load = std::mem::replace(&mut self.load, one);
        let driven = self.drive().await;
        self.load = load;
        driven?;
        let stream = self.jetstream.get_stream(ANSWERS).await.expect("the stream");
        stream.purge().await.expect("a purge");
        Ok(self.endpoint.seen().await.last)
    }

    /// How long each job took, and all of them.
    pub(crate) async fn drive(&mut self) -> Result<(Vec<Duration>, Duration), String> {
        let next = Arc::new(AtomicU64::new(self.next));
        self.next += self.load.jobs;
        let (began, end) = (Instant::now(), self.next);
        let mut slots = JoinSet::new();
        for _ in 0..self.load.in_flight {
            let (jetstream, queue) = (self.jetstream.clone(), self.queue.clone());
            let (waiting, next) = (self.waiting.clone(), next.clone());
            slots.spawn(async move {
                let mut took = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return Ok(took);
                    }
                    let (tell, told) = oneshot::channel();
                    waiting.lock().expect("no poison").insert(number, tell);
                    let began = Instant::now();
                    let job = job(&task(number), MODEL, &answering::prompt(number));
                    let stored = queue.submit(&jetstream, &number.to_string(), &job).await;
                    stored.map_err(|e| format!("job {number} was not stored: {e}"))?;
                    match tokio::time::timeout(STUCK, told).await {
                        Ok(Ok(())) => took.push(began.elapsed()),
                        _ => return Err(format!("nothing was heard of job {number}")),
                    }
                }
            });
        }
        let mut all = Vec::new();
        while let Some(took) = slots.join_next().await {
            let took: Result<Vec<Duration>, String> = took.expect("a slot");
            // What the worker has to say at this level is never good.
            all.extend(took.map_err(|why| match self.worker.log().lines().last() {
                Some(line) => format!("{why}; the worker's last line: {line}"),
                None => why,
            })?);
        }
        Ok((all, began.elapsed()))
    }

    /// There is one event of each job of the round, as it should be, and one request. Leaves no events.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let stored = outputs::read(&self.jetstream, ANSWERS).await;
        let first = self.next - self.load.jobs;
        complete(&stored, first, self.load.jobs)?;
        let stream = self.jetstream.get_stream(ANSWERS).await.expect("the stream");
        stream.purge().await.expect("a purge");
        let asked = self.endpoint.seen().await.requests;
        if asked == self.load.jobs {
            Ok(())
        } else {
            Err(format!("the endpoint was asked {asked} times for {} jobs", self.load.jobs))
        }
    }

    pub(crate) async fn end(mut self) {
        self.worker.stop().await;
    }
}

impl Side for Ours<'_> {
    async fn round(&mut self) -> Result<Round, String> {
        // What the other side has asked.
        self.endpoint.seen().await;
        let (took, all) = self.drive().await?;
        self.check().await?;
        Ok(Round { rate: took.len() as f64 / all.as_secs_f64(), fed: None })
    }
}

/// What a user with this load would set, and nothing else.
fn setup(nats: &Server, endpoint: &Endpoint, load: Load) -> Setup {
    let in_flight = i64::try_from(load.in_flight).expect("a small number");
    Setup::new(&nats.url())
        .with("log.level", "warn")
        .with("log.format", "text")
        .with("executor.backend", "queue")
        .with("executor.model", MODEL)
        .with("executor.concurrency", in_flight)
        .with("executor.endpoints.plain.url", format!("http://{}/v1", endpoint.address))
        .with("executor.endpoints.plain.concurrency", in_flight)
}

fn task(number: u64) -> String {
    format!("bench-{number}")
}

fn number(event: &[u8]) -> Option<u64> {
    let event: Event = serde_json::from_slice(event).ok()?;
    event.task_id.strip_prefix("bench-")?.parse().ok()
}

fn complete(stored: &[Output], first: u64, jobs: u64) -> Result<(), String> {
    let mut seen = vec![false; usize::try_from(jobs).expect("a number")];
    for output in stored {
        let told = || String::from_utf8_lossy(&output.data).into_owned();
        let event: Event = serde_json::from_slice(&output.data).map_err(|e| format!("{}: {e}", told()))?;
        let number = event.task_id.strip_prefix("bench-").and_then(|n| n.parse::<u64>().ok());
        let number = number.ok_or_else(|| format!("an event of no job: {}", told()))?;
        let place = number.checked_sub(first).and_then(|n| seen.get_mut(usize::try_from(n).ok()?));
        let place = place.ok_or_else(|| format!("an event of no job of this round: {}", told()))?;
        if std::mem::replace(place, true) {
            return Err(format!("an event is there twice: {}", told()));
        }
        let said = event.proposal.map(|proposal| proposal.content);
        if event.status != "completed" || said != Some(answering::said(number)) {
            return Err(format!("not the answer of job {number}: {}", told()));
        }
    }
    match seen.iter().filter(|seen| !**seen).count() {
        0 => Ok(()),
        missing => Err(format!("the events of {missing} of {jobs} jobs are missing")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(numbers: impl IntoIterator<Item = u64>) -> Vec<Output> {
        let event = |number| {
            let proposal = json!({ "content": answering::said(number) });
            json!({ "task_id": task(number), "status": "completed", "proposal": proposal }).to_string()
        };
        numbers.into_iter().map(|number| Output { at: 0, data: event(number).into() }).collect()
    }

    #[test]
    fn what_is_missing_repeated_foreign_or_wrong_is_told() {
        assert_eq!(complete(&stored(5..8), 5, 3), Ok(()));
        assert!(complete(&stored(5..7), 5, 3).unwrap_err().contains("1 of 3 jobs are missing"));
        assert!(complete(&stored([5, 6, 7, 6]), 5, 3).unwrap_err().contains("twice"));
        assert!(complete(&stored(4..8), 5, 3).unwrap_err().contains("no job of this round"));
        let mut other = stored(5..8);
        other[1].data = other[0].data.clone();
        assert!(complete(&other, 5, 3).is_err());
        let failed = json!({ "task_id": "bench-5", "error": "no" }).to_string();
        let failed = [Output { at: 0, data: failed.into() }];
        assert!(complete(&failed, 5, 1).unwrap_err().contains("not the answer"));
    }
}
