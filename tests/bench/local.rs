//! The embedded bus. A durable there cannot be paused, so each round has a bus of its own: its events are stored by a daemon
//! whose plugin waits for others, then one whose plugin is subscribed to them takes them. That it begins cold lies in the part that is left out.

use std::time::{Duration, Instant};

use fleet_proto::bus::v1::{
    Message, PublishRequest, ReadRequest, bus_service_client::BusServiceClient, read_request::Start,
};
use harness::daemon::Daemon;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    compare::{Round, Side},
    feed::Batch,
    outputs::{self, Output},
    rig::{Isolation, Rig},
    work::{Class, Work, event},
};

/// All in the daemon's own stream for plugins.
const IN: &str = "cofferdam.bench-in";
const OTHERS: &str = "cofferdam.bench-others";
const OUT: &str = "cofferdam.bench-out";
/// Publishes under way: each waits for its group to be synced.
const AT_ONCE: usize = 1024;
/// Without anything new for so long, the rest is taken for lost.
const STUCK: Duration = Duration::from_secs(60);

pub(crate) struct Local<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) work: Work,
    pub(crate) class: Class,
    pub(crate) isolation: Isolation,
    pub(crate) events: u64,
}

impl Side for Local<'_> {
    async fn round(&mut self) -> Result<Round, String> {
        let options = &self.rig.options;
        let batch = Batch { first: 0, events: self.events, work: self.work, size: options.payload };
        let data = TempDir::new().expect("a temporary directory");
        let setup = |input| self.rig.local_setup(data.path(), input, OUT, self.class, self.isolation);
        let others = setup(OTHERS);
        let mut daemon = others.start().await;
        feed(&client(&daemon).await, batch).await;
        daemon.stop().await;
        let setup = setup(IN);
        let mut daemon = setup.start().await;
        settled(&daemon, batch.events).await?;
        let outputs = read(&mut client(&daemon).await).await;
        daemon.stop().await;
        Ok(Round { rate: outputs::rate(&outputs, batch)?, fed: None })
    }
}

async fn client(daemon: &Daemon) -> BusServiceClient<Channel> {
    BusServiceClient::connect(format!("http://{}", daemon.admin())).await.expect("the admin port")
}

async fn feed(bus: &BusServiceClient<Channel>, batch: Batch) {
    let mut under_way = JoinSet::new();
    for number in 0..batch.events {
        while under_way.len() >= AT_ONCE {
            under_way.join_next().await.expect("one under way").expect("a publish");
        }
        let mut bus = bus.clone();
        let data = event(number, batch.work, OUT, batch.size);
        let message = Message { subject: IN.to_owned(), data, ..Message::default() };
        let request = PublishRequest { message: Some(message), ..PublishRequest::default() };
        under_way.spawn(async move { bus.publish(request).await.expect("an event to be stored") });
    }
    while let Some(stored) = under_way.join_next().await {
        stored.expect("a publish");
    }
}

/// Waits until so many events are done.
async fn settled(daemon: &Daemon, events: u64) -> Result<(), String> {
    let (mut done, mut moved) = (0.0, Instant::now());
    while done < events as f64 {
        let now = daemon.scrape().await.sum("cofferdam_events_total", &[("outcome", "done")]);
        if now > done {
            (done, moved) = (now, Instant::now());
        } else if moved.elapsed() > STUCK {
            return Err(format!("{done} of {events} events are done, and nothing moves"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn read(bus: &mut BusServiceClient<Channel>) -> Vec<Output> {
    let request =
        ReadRequest { subject: OUT.to_owned(), start: Some(Start::Sequence(0)), ..ReadRequest::default() };
    let mut messages = bus.read(request).await.expect("a reader").into_inner();
    let mut all = Vec::new();
    while let Some(stored) = messages.message().await.expect("a message") {
        let at = stored.stored_at.expect("a time");
        let at = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
        all.push(Output { at, data: stored.message.expect("a message").data });
    }
    all
}
