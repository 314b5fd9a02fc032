//! `fleet agents`: the fleet's agents and its product owner. They do what the workflow asks for, after a moment's thought, find
//! fault with some of it, and tell; what they have heard, have to do and have to tell is in one SQLite file, so they may be
//! killed at any time.
//!
//! ```text
//! bus ─▶ ears ─▶ developer, reviewers ─▶ work ─▶ messages ─▶ outbox ─▶ bus
//!            └─▶ owner ─▶ moves ─▶ gRPC
//! ```

mod developer;
mod ears;
mod looks;
mod messages;
mod moves;
mod owner;
mod pieces;
mod reviewers;
mod stories;
mod tables;
mod tasks;
mod work;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::stories::Stories;
use crate::{
    bus::{self, Bus},
    cli,
    events::Style,
    outbox, output,
    store::{Error, Store},
};

/// How they go about it.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    pub(crate) envelope: Style,
    /// For each piece of work.
    pub(crate) think: Duration,
    /// Tasks of which an architect rejects the first design.
    pub(crate) architect_rejects: u32,
    /// Tasks of which QA rejects the first tests.
    pub(crate) qa_rejects: u32,
    /// Tasks that the system starts over once.
    pub(crate) retries: u32,
    /// Tasks that an agent fails at.
    pub(crate) fail: u32,
}

/// What all of them share.
pub(crate) struct Agents {
    store: Store,
    manner: Manner,
    bus: Arc<dyn Bus>,
    stories: Stories,
    /// Moved on by everything that is taken in.
    news: watch::Sender<u64>,
}

impl Agents {
    /// Everything is checked but for a daemon and for whoever keeps stories, who may come later.
    pub(crate) async fn new(args: &cli::Agents) -> anyhow::Result<Agents> {
        let store = tables::open(&args.data)?;
        let stories = Stories::new(&args.stories)?;
        let bus = bus::connect(&args.on, "fleet-agents").await?;
        bus.prepare(&[&messages::PUBLISHED[..], &ears::SUBJECTS[..]].concat(), &[]).await?;
        Ok(Agents { store, manner: args.manner(), bus, stories, news: watch::channel(0).0 })
    }

    /// All that they do, until `shutdown`. One that fails takes the others with it: half of them would only look alive.
    pub(crate) async fn live(&self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let outbox = outbox::run(self.store.clone(), self.bus.clone(), shutdown.clone());
        let all = async { tokio::try_join!(outbox, ears::run(self), work::run(self), moves::run(self)) };
        tokio::select! {
            ended = all => ended.map(drop),
            () = shutdown.cancelled() => Ok(()),
        }
    }

    /// Something was taken in: whoever waits looks again.
    fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// Changes from now on.
    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}

/// Runs until `shutdown`.
pub(crate) async fn run(args: cli::Agents, shutdown: CancellationToken) -> anyhow::Result<()> {
    let agents = Agents::new(&args).await?;
    let ready = json!({
        "agents": ["developer", "architect", "qa", "po"],
        "data": agents.store.path(),
        "stories": args.stories,
    });
    output::json(&ready).context("can't print the ready line")?;
    agents.live(shutdown).await
}

/// What an event hangs on.
#[derive(Debug, Clone)]
struct Cause {
    correlation_id: String,
    /// The idempotency key of the event that caused it.
    causation_id: Option<String>,
}

/// Why an event was not taken in.
#[derive(Debug)]
enum Refusal {
    /// It never will be.
    ForGood(String),
    /// It may be later.
    ForNow(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::ForNow(error)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Refusal {
        Refusal::ForNow(error.into())
    }
}
