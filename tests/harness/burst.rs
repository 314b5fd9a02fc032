//! A burst of events on one daemon: how many come through, how often, and what memory it takes against a steady trickle.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, consumer};
use bytes::Bytes;
use fleet_proto::bus::v1::{
    Message, PublishRequest, ReadRequest, bus_service_client::BusServiceClient, read_request::Start,
};
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::Channel;

use crate::{daemon::Daemon, nats::Server, plugin::Plugin, setup::Setup};

/// Both in the daemon's own stream for plugins, which has no limit but its age.
const STREAM: &str = "COFFERDAM_EVENTS";
const IN: &str = "cofferdam.burst-in";
const OUT: &str = "cofferdam.burst-out";

/// Publishes under way.
const AT_ONCE: usize = 256;
/// Between two samples of the daemon's memory.
const SAMPLE: Duration = Duration::from_millis(50);
/// Without anything new for so long, the rest is taken for lost.
const STUCK: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
pub struct Burst {
    pub nats: bool,
    pub events: u64,
    /// Of a payload.
    pub bytes: usize,
    /// Events before anything is measured.
    pub warm_up: u64,
    /// A second, and for so many seconds.
    pub trickle: (u64, u64),
    /// The burst lies on its stream before a daemon takes the first of it, one that has just started. NATS only: the embedded
    /// bus is not there without its daemon.
    pub waiting: bool,
}

/// What came of it. Memory is what the daemon has resident, in KiB.
#[derive(Debug, Serialize)]
pub struct Report {
    pub bus: &'static str,
    pub events: u64,
    pub bytes: usize,
    /// Events, of all that were published, whose effect is not there, or more than once.
    pub lost: u64,
    pub repeated: u64,
    pub seconds_published: f64,
    pub seconds: f64,
    pub events_per_second: f64,
    pub trickle_per_second: u64,
    /// The middle of the samples under the trickle, and the highest.
    pub steady_kib: u64,
    pub steady_peak_kib: u64,
    pub burst_peak_kib: u64,
    /// Of what is not backed by a file: neither the program nor compiled plugins.
    pub steady_anonymous_kib: u64,
    pub burst_anonymous_peak_kib: u64,
    pub after_kib: u64,
    /// The burst's peak by the steady state.
    pub ratio: f64,
}

impl Burst {
    pub async fn run(self) -> Report {
        let server = if self.nats { Some(Server::start().await) } else { None };
        let setup = match &server {
            Some(server) => Setup::new(&server.url()),
            None => Setup::local(),
        };
        let plugin = Plugin::fixture("echo").on(IN, "").reports_to(OUT);
        // A line for each event would be held here.
        let setup = setup.env("LOG_LEVEL", "warn").plugin(plugin);
        let mut daemon = setup.start().await;
        let plain = match &server {
            Some(server) => {
                let client = server.client().await;
                Plain::Nats(jetstream::new(client))
            }
            None => {
                let address = format!("http://{}", daemon.admin());
                Plain::Local(BusServiceClient::connect(address).await.expect("the admin port"))
            }
        };
        let mut feed = Feed { plain: plain.clone(), bytes: self.bytes, next: 0 };

        feed.publish(self.warm_up).await;
        settled(&daemon, feed.next).await;
        let (rate, seconds) = self.trickle;
        let steady = Memory::watch(daemon.id());
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..seconds * 10 {
            tick.tick().await;
            feed.publish(rate / 10).await;
        }
        settled(&daemon, feed.next).await;
        let steady = steady.stop().await;

        let (burst, began, published) = if self.waiting {
            daemon.stop().await;
            let began = Instant::now();
            feed.publish(self.events).await;
            let published = began.elapsed();
            daemon = setup.start().await;
            (Memory::watch(daemon.id()), Instant::now(), published)
        } else {
            let (burst, began) = (Memory::watch(daemon.id()), Instant::now());
            feed.publish(self.events).await;
            (burst, began, began.elapsed())
        };
        settled(&daemon, if self.waiting { self.events } else { feed.next }).await;
        let took = began.elapsed();
        let burst = burst.stop().await;

        let seen = plain.seen(feed.next).await;
        let after = resident(daemon.id()).0;
        daemon.stop().await;
        Report {
            bus: if self.nats { "nats" } else { "local" },
            events: self.events,
            bytes: self.bytes,
            lost: seen.iter().filter(|count| **count == 0).count() as u64,
            repeated: seen.iter().filter(|count| **count > 1).count() as u64,
            seconds_published: published.as_secs_f64(),
            seconds: took.as_secs_f64(),
            events_per_second: self.events as f64 / took.as_secs_f64(),
            trickle_per_second: rate,
            steady_kib: steady.middle(),
            steady_peak_kib: steady.peak(),
            burst_peak_kib: burst.peak(),
            steady_anonymous_kib: steady.anonymous_middle(),
            burst_anonymous_peak_kib: burst.anonymous_peak(),
            after_kib: after,
            ratio: burst.peak() as f64 / steady.middle().max(1) as f64,
        }
    }
}

/// Waits until so many events are through, or nothing moves any more.
async fn settled(daemon: &Daemon, events: u64) {
    let (mut done, mut moved) = (0.0, Instant::now());
    while done < events as f64 && moved.elapsed() < STUCK {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = daemon.scrape().await.sum("cofferdam_events_total", &[("outcome", "done")]);
        if now > done {
            (done, moved) = (now, Instant::now());
        }
    }
}

/// A client that shares no code with the bus under test.
#[derive(Clone)]
enum Plain {
    Nats(jetstream::Context),
    Local(BusServiceClient<Channel>),
}

struct Feed {
    plain: Plain,
    bytes: usize,
    /// Number of the next event.
    next: u64,
}

impl Feed {
    /// Publishes the next events, and waits until they are stored.
    async fn publish(&mut self, events: u64) {
        let mut under_way = JoinSet::new();
        for n in self.next..self.next + events {
            while under_way.len() >= AT_ONCE {
                under_way.join_next().await.expect("one under way").expect("a publish");
            }
            let (plain, data) = (self.plain.clone(), format!("{n:0>width$}", width = self.bytes.max(1)));
            under_way.spawn(plain.publish(n, data.into()));
        }
        while let Some(published) = under_way.join_next().await {
            published.expect("a publish");
        }
        self.next += events;
    }
}

impl Plain {
    /// Until it is stored. The id makes a repeat harmless.
    async fn publish(self, n: u64, data: Bytes) {
        loop {
            let stored = match self.clone() {
                Plain::Nats(jetstream) => {
                    let mut headers = async_nats::HeaderMap::new();
                    headers.insert("Nats-Msg-Id", format!("burst-{n}"));
                    match jetstream.publish_with_headers(IN, headers, data.clone()).await {
                        Ok(ack) => ack.await.is_ok(),
                        Err(_) => false,
                    }
                }
                Plain::Local(mut bus) => {
                    let message =
                        Message { subject: IN.to_owned(), data: data.clone(), ..Message::default() };
                    let request = PublishRequest {
                        message: Some(message),
                        message_id: format!("burst-{n}"),
                        ..PublishRequest::default()
                    };
                    bus.publish(request).await.is_ok()
                }
            };
            if stored {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How often the effect of each event is stored.
    async fn seen(&self, events: u64) -> Vec<u8> {
        let mut seen = vec![0u8; usize::try_from(events).expect("a number")];
        let mut count = |data: &[u8]| {
            let n: usize = std::str::from_utf8(data).expect("text").parse().expect("a number");
            seen[n] = seen[n].saturating_add(1);
        };
        match self {
            Plain::Nats(jetstream) => {
                let stream = jetstream.get_stream(STREAM).await.expect("the stream");
                let config = consumer::pull::Config {
                    filter_subject: OUT.to_owned(),
                    ack_policy: consumer::AckPolicy::None,
                    memory_storage: true,
                    ..Default::default()
                };
                let reader = stream.create_consumer(config).await.expect("a reader");
                let mut owed = reader.cached_info().num_pending;
                while owed > 0 {
                    let mut batch = reader.fetch().max_messages(1000).messages().await.expect("a batch");
                    while let Some(message) = batch.next().await {
                        count(&message.expect("a message").payload);
                        owed -= 1;
                    }
                }
            }
            Plain::Local(bus) => {
                let request = ReadRequest {
                    subject: OUT.to_owned(),
                    start: Some(Start::Sequence(0)),
                    ..ReadRequest::default()
                };
                let mut messages = bus.clone().read(request).await.expect("a reader").into_inner();
                while let Some(stored) = messages.message().await.expect("a message") {
                    count(&stored.message.expect("a message").data);
                }
            }
        }
        seen
    }
}

/// Samples of a process's memory, in KiB: all that is resident, and the part that no file backs.
struct Memory {
    samples: Vec<(u64, u64)>,
}

struct Watching {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<(u64, u64)>>,
}

impl Memory {
    fn watch(pid: u32) -> Watching {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                let mut samples = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    samples.push(resident(pid));
                    tokio::time::sleep(SAMPLE).await;
                }
                samples
            }
        });
        Watching { stop, task }
    }

    fn peak(&self) -> u64 {
        self.samples.iter().map(|(all, _)| *all).max().unwrap_or_default()
    }

    fn anonymous_peak(&self) -> u64 {
        self.samples.iter().map(|(_, anonymous)| *anonymous).max().unwrap_or_default()
    }

    fn middle(&self) -> u64 {
        middle(self.samples.iter().map(|(all, _)| *all).collect())
    }

    fn anonymous_middle(&self) -> u64 {
        middle(self.samples.iter().map(|(_, anonymous)| *anonymous).collect())
    }
}

fn middle(mut samples: Vec<u64>) -> u64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

impl Watching {
    async fn stop(self) -> Memory {
        self.stop.store(true, Ordering::Relaxed);
        Memory { samples: self.task.await.expect("samples") }
    }
}

/// `VmRSS` and `RssAnon` of `/proc/<pid>/status`.
fn resident(pid: u32) -> (u64, u64) {
    let file = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or_default()
    };
    (of("VmRSS:"), of("RssAnon:"))
}
