//! A process that uses the bus and can be killed. `bus-child URL` takes one JSON command per line on stdin and answers
//! with one line on stdout; `bus-child local DIRECTORY NAME SEED` puts a load on an embedded bus and says what was
//! confirmed to it; `bus-child halting DIRECTORY PLACE` commits an event on one, and stops at a place for good.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use cofferdam_bus::{
    Bus, Change, CommitError, ConsumerSpec, Deliveries, Delivery, Message, Opened, Point, Publish, Write,
    local::{self, LocalConfig},
    nats,
};
use harness::{
    churn::{Churn, Told},
    halting::{Halt, Halting},
};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [url] => obey(url).await,
        ["local", directory, name, seed] => churn(directory, name, seed.parse()?).await,
        ["halting", directory, place] => halting(directory, place).await,
        _ => bail!("usage: bus-child URL | local DIRECTORY NAME SEED | halting DIRECTORY PLACE"),
    }
}

/// Each line leaves the process whole, and after what it says has been confirmed.
async fn churn(directory: &str, name: &str, seed: u64) -> anyhow::Result<()> {
    let bus = local::open(LocalConfig { directory: directory.into() }).await?;
    let tell = |told: Told| {
        let line = format!("{told}\n");
        if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
            std::process::exit(1);
        }
    };
    Churn { bus, name: name.to_owned(), seed, patient: false, tell: Arc::new(tell) }.run().await
}

/// Says so when it is there.
async fn halting(directory: &str, place: &str) -> anyhow::Result<()> {
    let there = || {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "there").and_then(|()| out.flush()).is_err() {
            std::process::exit(1);
        }
    };
    let halt = if place == "before-sync" { Halt::BeforeSync } else { Halt::AfterSync };
    let armed = Arc::new(AtomicBool::new(false));
    let bus = local::open_on(Arc::new(Halting::new(directory, halt, armed.clone(), there))).await?;
    let spec = ConsumerSpec {
        stream: "IN".into(),
        durable: "d".into(),
        filter: "in.>".into(),
        ack_wait: Duration::from_secs(30),
        max_deliver: None,
        max_ack_pending: 1000,
        ordered: false,
    };
    let mut deliveries = bus.deliveries(&bus.ensure_consumer(&spec).await?, 16).await?;
    let delivery = deliveries.next().await?;
    let point = Point::Cell { space: "test".into(), cell: "c".into() };
    let Opened::Fresh(base) = bus.open(&delivery, &point).await? else { bail!("settled already") };
    let effect = |(subject, data): (&str, &'static str)| Message {
        subject: subject.to_owned(),
        headers: Vec::new(),
        data: Bytes::from(data),
    };
    let change = Change {
        writes: vec![Write::Put { key: "k".into(), value: Bytes::from("child") }],
        effects: [("out.a", "1"), ("out.b", "2"), ("out.a", "3")].map(effect).into(),
        ..Change::default()
    };
    if place != "before-commit" {
        armed.store(place.ends_with("-sync"), Ordering::Relaxed);
        bus.commit(&delivery, base, change).await?;
    }
    there();
    std::future::pending().await
}

async fn obey(url: &str) -> anyhow::Result<()> {
    let dead = |m: &Message, reason: &str| Message {
        subject: "dead".into(),
        headers: vec![("Reason".into(), reason.replace('\n', " "))],
        data: m.data.clone(),
    };
    let bus = nats::connect(nats::NatsConfig::new(url), Arc::new(dead)).await?;
    let mut child = Child { bus, deliveries: None, held: Vec::new() };
    let (lines, mut commands) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = commands.recv().await {
        let answer = match child.run(&serde_json::from_str(&line)?).await {
            Ok(answer) => answer,
            Err(e) => json!({ "error": format!("{e:#}") }),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

struct Child {
    bus: Arc<dyn Bus>,
    deliveries: Option<Box<dyn Deliveries>>,
    held: Vec<Delivery>,
}

impl Child {
    async fn run(&mut self, command: &Value) -> anyhow::Result<Value> {
        let text = |key: &str| command[key].as_str().unwrap_or_default().to_owned();
        match text("do").as_str() {
            "follow" => {
                let origin = self
                    .bus
                    .ensure_consumer(&ConsumerSpec {
                        stream: text("stream"),
                        durable: text("durable"),
                        filter: text("filter"),
                        ack_wait: Duration::from_millis(command["ack_wait_ms"].as_u64().unwrap_or(1000)),
                        max_deliver: None,
                        max_ack_pending: 1000,
                        ordered: command["ordered"] == true,
                    })
                    .await?;
                self.deliveries = Some(self.bus.deliveries(&origin, 16).await?);
                Ok(json!({ "origin": origin.id }))
            }
            "take" => {
                let delivery = self.deliveries.as_mut().context("follow first")?.next().await?;
                let answer = json!({ "id": delivery.id(), "sequence": delivery.stored.sequence });
                self.held.push(delivery);
                Ok(answer)
            }
            "nak" => {
                let delivery = self.held.pop().context("take first")?;
                delivery.nak(command["delay_ms"].as_u64().map(Duration::from_millis)).await?;
                self.bus.flush().await;
                Ok(json!({}))
            }
            "publish" => {
                let message =
                    Message { subject: text("subject"), headers: Vec::new(), data: text("data").into() };
                let how = Publish { message_id: Some(text("id")), ..Publish::default() };
                let ack = self.bus.publish(message, how).await?;
                Ok(json!({ "sequence": ack.sequence, "duplicate": ack.duplicate }))
            }
            "commit" => self.commit(command).await,
            other => bail!("unknown command {other:?}"),
        }
    }

    /// Opens and commits the delivery taken last.
    async fn commit(&mut self, command: &Value) -> anyhow::Result<Value> {
        let delivery = self.held.pop().context("take first")?;
        let point = match command["cell"].as_str() {
            Some(cell) => Point::Cell { space: "test".into(), cell: cell.to_owned() },
            None if command["publish"] == true => Point::Publish,
            None => Point::Record,
        };
        let Opened::Fresh(base) = self.bus.open(&delivery, &point).await? else {
            return Ok(json!({ "settled": true }));
        };
        let mut change = Change::default();
        for (key, value) in command["writes"].as_object().into_iter().flatten() {
            let value = Bytes::from(value.as_str().unwrap_or_default().to_owned());
            change.writes.push(Write::Put { key: key.clone(), value });
        }
        // Each with what is written to it, perhaps nothing.
        for (cell, writes) in command["others"].as_object().into_iter().flatten() {
            let mut other = self.bus.cell("test", cell).await?;
            for (key, value) in writes.as_object().into_iter().flatten() {
                let value = Bytes::from(value.as_str().unwrap_or_default().to_owned());
                other.writes.push(Write::Put { key: key.clone(), value });
            }
            change.others.push(other);
        }
        for effect in command["effects"].as_array().into_iter().flatten() {
            let text = |at: usize| effect[at].as_str().unwrap_or_default().to_owned();
            change.effects.push(Message { subject: text(0), headers: Vec::new(), data: text(1).into() });
        }
        match self.bus.commit(&delivery, base, change).await {
            Ok(_) => Ok(json!({ "committed": true })),
            Err(CommitError::Settled) => Ok(json!({ "settled": true })),
            Err(e) => Err(e.into()),
        }
    }
}
