//! The forwarder: every host takes what is due from `cd.d.>` and stores the message that it carries, once. What can't be
//! stored now stays, and is tried again.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::fire;
use crate::{
    api::{Bus, ConsumerSpec, Deliveries, Delivery, Message},
    error::Error,
    nats::{
        NatsBus,
        commit::{
            apply::{self, Commit, Refusal},
            format::Due,
            store,
        },
        jsapi::code,
        link::Backoff,
        publish::check_size,
        streams,
    },
    outgoing::{self, Added, outgoing},
};

const PREFIX: &str = "cd.d.";
/// What a killed host held comes to another after this long.
const ACK_WAIT: Duration = Duration::from_secs(15);
/// Forwarded at a time.
const AT_ONCE: usize = 64;
/// Before what no stream takes is tried again.
const LATER: Duration = Duration::from_secs(60);
/// How long a stop waits for what is being forwarded; what is not done by then comes to another host.
const ENDING: Duration = Duration::from_secs(5);

fn durable() -> ConsumerSpec {
    ConsumerSpec {
        stream: streams::OURS.to_owned(),
        durable: "cofferdam-timers".to_owned(),
        filter: format!("{PREFIX}>"),
        ack_wait: ACK_WAIT,
        max_deliver: None,
        // Those that wait for a stream count, too.
        max_ack_pending: 1 << 20,
        ordered: false,
    }
}

/// Forwards until the guard is dropped. `bus` is the forwarder's own, so that it keeps nobody else's alive.
pub(in crate::nats) async fn start(bus: Arc<NatsBus>) -> Result<DropGuard, Error> {
    bus.ensure_consumer(&durable()).await?;
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    tokio::spawn(run(bus, stop));
    Ok(guard)
}

async fn run(bus: Arc<NatsBus>, stop: CancellationToken) {
    let mut work = JoinSet::new();
    let mut backoff = Backoff::new();
    while !stop.is_cancelled() {
        let e = match deliveries(&bus).await {
            Ok(mut deliveries) => {
                backoff = Backoff::new();
                let ended = take(&bus, &stop, deliveries.as_mut(), &mut work).await;
                deliveries.close().await;
                ended
            }
            Err(e) => Err(e),
        };
        if let Err(e) = e {
            // Whoever needs our stream makes it anew; until then nothing is due.
            tracing::debug!(%e, "no timers for now");
            tokio::select! {
                () = stop.cancelled() => {}
                () = backoff.wait() => {}
            }
        }
    }
    let rest = async { while work.join_next().await.is_some() {} };
    if tokio::time::timeout(ENDING, rest).await.is_err() {
        tracing::debug!("timers are left to another host");
    }
}

async fn deliveries(bus: &Arc<NatsBus>) -> Result<Box<dyn Deliveries>, Error> {
    let origin = bus.ensure_consumer(&durable()).await?;
    bus.deliveries(&origin, AT_ONCE).await
}

/// Until the stop (`Ok`) or the end of the durable.
async fn take(
    bus: &Arc<NatsBus>,
    stop: &CancellationToken,
    deliveries: &mut dyn Deliveries,
    work: &mut JoinSet<()>,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = work.join_next() => {}
            delivery = deliveries.next(), if work.len() < AT_ONCE => {
                let (bus, delivery) = (bus.clone(), delivery?);
                work.spawn(async move { handle(&bus, &delivery).await });
            }
        }
    }
}

/// Forwards one, and keeps it ours meanwhile.
async fn handle(bus: &NatsBus, delivery: &Delivery) {
    let mut beat = tokio::time::interval_at(Instant::now() + ACK_WAIT / 3, ACK_WAIT / 3);
    let work = forward(bus, delivery);
    // One whose stream has no leader must not keep its place among those that are forwarded. To stop is as a crash.
    let long = tokio::time::sleep(LATER);
    tokio::pin!(work, long);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            () = &mut long => break Err(format!("no answer within {LATER:?}")),
            _ = beat.tick() => {
                if let Err(e) = delivery.in_progress().await {
                    tracing::debug!(%e, "no heartbeat");
                }
            }
        }
    };
    let settled = match done {
        Ok(()) => {
            store::ack(delivery).await;
            return;
        }
        Err(reason) => {
            let timer = delivery.stored.message.subject.as_str();
            tracing::error!(timer, reason, "what is due can't be stored; trying again in {LATER:?}");
            delivery.nak(Some(LATER)).await
        }
    };
    if let Err(e) = settled {
        tracing::debug!(%e, "not handed back");
    }
}

async fn forward(bus: &NatsBus, delivery: &Delivery) -> Result<(), String> {
    let Message { subject, data, .. } = &delivery.stored.message;
    let id = subject.strip_prefix(PREFIX).unwrap_or(subject);
    let (cause, message) = Due::decode_from(subject, data).map_err(|e| e.to_string())?;
    // Before the mark: as long as nothing takes it, it can be cancelled.
    check(bus, &cause, id, &message).await.map_err(|e| e.to_string())?;
    if let Some(since) = fire(bus, id).await.map_err(|e| e.to_string())? {
        let commit = Commit { event: &cause, at: since, acked: false };
        match apply::store(bus, commit, id, &message).await {
            Ok(_) => {}
            Err(Refusal::Final(reason)) => return Err(reason),
            Err(Refusal::Unknowable(reason)) => apply::bury(bus, commit, id, &message, &reason).await,
        }
    }
    forget(bus, delivery.stored.sequence).await
}

/// Whether a stream takes it.
async fn check(bus: &NatsBus, cause: &str, id: &str, message: &Message) -> Result<(), Error> {
    let mut backoff = Backoff::new();
    let facts = loop {
        match bus.streams.covering(&bus.link, &message.subject).await {
            Ok(Some(facts)) => break facts,
            Ok(None) => return Err(Error::NoStream { subject: message.subject.clone() }),
            Err(e) if e.is_passing() => backoff.wait().await,
            Err(e) => return Err(e.into()),
        }
    };
    let headers = outgoing(message, Added { cause: Some(cause), message_id: Some(id), expected: None })?;
    let weight = outgoing::weight(&headers) + message.data.len() as u64;
    check_size(&bus.link, &facts, &message.subject, weight)
}

/// Deletes what was due: it has no time to live, because nothing is to be lost while all hosts are away.
async fn forget(bus: &NatsBus, sequence: u64) -> Result<(), String> {
    let mut backoff = Backoff::new();
    let body = json!({ "seq": sequence, "no_erase": true });
    loop {
        match bus.link.call::<Value>(&format!("STREAM.MSG.DELETE.{}", streams::OURS), &body).await {
            Ok(_) => return Ok(()),
            Err(e) if e.is(code::NO_MESSAGE_TO_DELETE) || e.is(code::STREAM_NOT_FOUND) => return Ok(()),
            Err(e) if e.is_passing() => backoff.wait().await,
            Err(e) => return Err(Error::from(e).to_string()),
        }
    }
}
