//! A load on a bus that tells what was confirmed to it, for tests that crash it: what was told must be true afterwards
//! (see [`crate::ledger`]).

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use cofferdam_bus::{
    Bus, Change, CommitError, ConsumerSpec, Deliveries, Delivery, Error, Message, Opened, Point, Publish,
    StreamSpec, Write,
};
use tokio::task::JoinSet;

use crate::dice::Dice;

/// How many messages the stream `CAP` keeps.
pub const CAP: u64 = 20;
/// Events published and not yet taken on.
const BACKLOG: i64 = 48;
const AT_ONCE: usize = 12;

/// What the load learned, each after it was confirmed, but for [`Told::Delivered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Stored {
        sequence: u64,
        data: String,
    },
    /// An event came; what becomes of it is open.
    Delivered {
        sequence: u64,
        data: String,
    },
    Committed {
        sequence: u64,
    },
    Acked {
        sequence: u64,
    },
    /// The bucket's key; its value is the same number.
    Set {
        revision: u64,
    },
    Capped {
        sequence: u64,
    },
    Job {
        number: u64,
    },
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Stored { sequence, data } => write!(f, "stored {sequence} {data}"),
            Told::Delivered { sequence, data } => write!(f, "delivered {sequence} {data}"),
            Told::Committed { sequence } => write!(f, "committed {sequence}"),
            Told::Acked { sequence } => write!(f, "acked {sequence}"),
            Told::Set { revision } => write!(f, "set {revision}"),
            Told::Capped { sequence } => write!(f, "capped {sequence}"),
            Told::Job { number } => write!(f, "job {number}"),
        }
    }
}

impl FromStr for Told {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Told> {
        let mut words = line.split(' ');
        let what = words.next().unwrap_or_default();
        let number = words.next().and_then(|n| n.parse().ok());
        let sequence = number.with_context(|| format!("no number in {line:?}"))?;
        let mut data = || words.next().unwrap_or_default().to_owned();
        Ok(match what {
            "stored" => Told::Stored { sequence, data: data() },
            "delivered" => Told::Delivered { sequence, data: data() },
            "committed" => Told::Committed { sequence },
            "acked" => Told::Acked { sequence },
            "set" => Told::Set { revision: sequence },
            "capped" => Told::Capped { sequence },
            "job" => Told::Job { number: sequence },
            _ => bail!("{line:?}"),
        })
    }
}

/// What is done with an event; it follows from its sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    Commit {
        point: Point,
        effects: u64,
    },
    Ack,
    /// Left unsettled or handed back, by chance, else acked.
    Maybe,
}

pub fn role(sequence: u64) -> Role {
    match sequence % 7 {
        0 | 1 => Role::Commit { point: cell(sequence % 3), effects: 2 },
        2 => Role::Commit { point: Point::Record, effects: 3 },
        3 => Role::Commit { point: Point::Publish, effects: 1 },
        4 => Role::Ack,
        _ => Role::Maybe,
    }
}

pub fn cell(number: u64) -> Point {
    Point::Cell { space: "churn".into(), cell: number.to_string() }
}

pub fn spec() -> ConsumerSpec {
    ConsumerSpec {
        stream: "IN".into(),
        durable: "d".into(),
        filter: "in.>".into(),
        ack_wait: Duration::from_millis(700),
        max_deliver: None,
        max_ack_pending: 1000,
        ordered: false,
    }
}

/// The streams of the load, and of the check.
pub async fn plant(bus: &Arc<dyn Bus>) -> Result<(), Error> {
    for (name, subject, cap) in
        [("IN", "in.>", None), ("OUT", "out.>", None), ("CAP", "cap", Some(CAP)), ("PROBE", "probe", None)]
    {
        bus.ensure_stream(&StreamSpec {
            name: name.into(),
            subjects: vec![subject.into()],
            max_age: None,
            max_messages: cap,
            max_bytes: None,
            duplicate_window: None,
        })
        .await?;
    }
    Ok(())
}

pub fn message(subject: impl Into<String>, data: impl Into<String>) -> Message {
    Message { subject: subject.into(), headers: Vec::new(), data: data.into().into() }
}

/// The load. What is published has `name` in it, so that no two loads on the same data say the same.
pub struct Churn {
    pub bus: Arc<dyn Bus>,
    pub name: String,
    pub seed: u64,
    /// An operation whose bus was out of reach is tried again, until it is known to have happened.
    pub patient: bool,
    pub tell: Arc<dyn Fn(Told) + Send + Sync>,
}

impl Churn {
    /// Until something fails; never ends by itself. Dropping it ends it.
    pub async fn run(self) -> anyhow::Result<()> {
        plant(&self.bus).await?;
        let origin = self.bus.ensure_consumer(&spec()).await?;
        let deliveries = self.bus.deliveries(&origin, 16).await?;
        let (me, backlog) = (Arc::new(self), Arc::new(AtomicI64::new(0)));
        let mut tasks = JoinSet::new();
        for number in 0..3 {
            tasks.spawn(me.clone().publish(number, backlog.clone()));
        }
        tasks.spawn(me.clone().take(deliveries, backlog));
        tasks.spawn(me.clone().set());
        tasks.spawn(me.clone().count());
        tasks.join_next().await.context("tasks")??
    }

    /// Whether to do it again.
    async fn again(&self, error: &Error) -> bool {
        let again = self.patient && matches!(error, Error::Unavailable(_));
        if again {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        again
    }

    async fn store(&self, message: Message, id: &str) -> anyhow::Result<u64> {
        loop {
            let how = Publish { message_id: Some(id.to_owned()), ..Publish::default() };
            match self.bus.publish(message.clone(), how).await {
                Ok(ack) => return Ok(ack.sequence),
                Err(e) if self.again(&e).await => {}
                Err(e) => return Err(e).context("publish"),
            }
        }
    }

    async fn publish(self: Arc<Self>, number: u64, backlog: Arc<AtomicI64>) -> anyhow::Result<()> {
        for n in 0.. {
            while backlog.load(Ordering::Relaxed) > BACKLOG {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let data = format!("{}.{number}.{n}", self.name);
            let sequence = self.store(message(format!("in.{number}"), &data), &data).await?;
            backlog.fetch_add(1, Ordering::Relaxed);
            (self.tell)(Told::Stored { sequence, data });
        }
        Ok(())
    }

    async fn take(
        self: Arc<Self>,
        mut deliveries: Box<dyn Deliveries>,
        backlog: Arc<AtomicI64>,
    ) -> anyhow::Result<()> {
        let mut runs = JoinSet::new();
        loop {
            while runs.len() >= AT_ONCE {
                runs.join_next().await.context("runs")???;
            }
            let delivery = deliveries.next().await.context("next delivery")?;
            backlog.fetch_sub(1, Ordering::Relaxed);
            let sequence = delivery.stored.sequence;
            let data = String::from_utf8(delivery.stored.message.data.to_vec())?;
            (self.tell)(Told::Delivered { sequence, data });
            let me = self.clone();
            runs.spawn(async move {
                me.settle(delivery).await.map(|told| told.into_iter().for_each(|told| (me.tell)(told)))
            });
            while let Some(run) = runs.try_join_next() {
                run??;
            }
        }
    }

    async fn settle(&self, delivery: Delivery) -> anyhow::Result<Option<Told>> {
        let sequence = delivery.stored.sequence;
        let mut dice = Dice::of(self.seed ^ sequence);
        match role(sequence) {
            Role::Commit { point, effects } => {
                return self.commit(&delivery, &point, effects).await.map(Some);
            }
            Role::Maybe if dice.percent(30) => return Ok(None),
            Role::Maybe if dice.percent(40) => {
                let delay = dice.percent(50).then(|| Duration::from_millis(dice.below(300)));
                delivery.nak(delay).await.context("nak")?;
                return Ok(None);
            }
            Role::Maybe | Role::Ack => delivery.ack().await.context("ack")?,
        }
        // An ack has no answer, but what is sent after it is not done before it; unless a failure came between.
        self.store(message("cd.j.mark", ""), &format!("{}.ack.{sequence}", self.name)).await?;
        Ok((!self.patient).then_some(Told::Acked { sequence }))
    }

    async fn commit(&self, delivery: &Delivery, point: &Point, effects: u64) -> anyhow::Result<Told> {
        let sequence = delivery.stored.sequence;
        let told = Told::Committed { sequence };
        loop {
            let base = match self.bus.open(delivery, point).await {
                Ok(Opened::Fresh(base)) => base,
                Ok(Opened::Settled) => return Ok(told),
                Err(e) => return Err(e).context("open"),
            };
            let mut change = Change::default();
            for ordinal in 0..effects {
                change.effects.push(message(format!("out.{ordinal}"), format!("{sequence} {ordinal}")));
            }
            if let Point::Cell { .. } = point {
                let sum =
                    base.state.entries.get("sum").map_or(Ok(0), |v| {
                        std::str::from_utf8(v)?.parse::<u64>().map_err(anyhow::Error::from)
                    })?;
                change
                    .writes
                    .push(Write::Put { key: "sum".into(), value: (sum + sequence).to_string().into() });
            }
            match self.bus.commit(delivery, base, change).await {
                Ok(_) | Err(CommitError::Settled) => return Ok(told),
                Err(CommitError::Conflict) => {}
                Err(e) => return Err(e).context("commit"),
            }
        }
    }

    /// A key that is set to its own next revision.
    async fn set(self: Arc<Self>) -> anyhow::Result<()> {
        let bucket = self.bus.bucket("churn").await.context("bucket")?;
        loop {
            let set = async {
                let revision = bucket.get("k").await?.map_or(0, |e| e.revision);
                bucket.put("k", (revision + 1).to_string().into(), Some(revision)).await
            };
            match set.await {
                Ok(revision) => (self.tell)(Told::Set { revision }),
                Err(e) if self.again(&e).await => {}
                Err(e) => return Err(e).context("put"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A stream that keeps few messages, and a subject that keeps one.
    async fn count(self: Arc<Self>) -> anyhow::Result<()> {
        let last = self.bus.last("cd.j.x").await.context("last")?;
        let last = last.map_or(Ok(0), |s| {
            std::str::from_utf8(&s.message.data)?.parse::<u64>().map_err(anyhow::Error::from)
        })?;
        for number in last + 1.. {
            let id = format!("{}.{number}", self.name);
            let sequence = self.store(message("cap", "x".repeat(500)), &id).await?;
            (self.tell)(Told::Capped { sequence });
            self.store(message("cd.j.x", number.to_string()), &id).await?;
            (self.tell)(Told::Job { number });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}
