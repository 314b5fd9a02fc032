//! A call that writes: it is stored in the plugin's inbox, once, and waits for the answer that its run commits, wherever that runs.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cofferdam_bus::{Bus, Error, Publish};
use cofferdam_sandbox::Reply;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    answers,
    answers::Missing,
    front::{Front, Target},
    incoming::Incoming,
    keys::{self, Claim, Claimed, Taken},
};
use crate::{
    app::LAST_WORD,
    dispatch::inbox::{self, Envelope},
};

/// From the look at a key to the last send of its call. What is sent later could arrive when the inbox has forgotten that the call
/// was stored, and run.
const SOON: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is asked, as far as the host knows it.
pub(super) struct Asked {
    pub(super) request: Bytes,
    /// What it says, hashed, if it has a key.
    pub(super) identity: [u8; 32],
    pub(super) order_key: Option<String>,
    pub(super) cell: Option<String>,
}

/// Which call it was, and how it was answered.
pub(super) struct Written {
    pub(super) call: String,
    pub(super) reply: Result<Reply, Status>,
}

pub(super) async fn write(front: &Front, target: &Target, incoming: &Incoming, asked: Asked) -> Written {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let (bus, plugin) = (front.bus(), target.plugin.name.as_str());
    let until = (Instant::now() + SOON).min(incoming.deadline);
    let taken = match &incoming.key {
        None => keys::once(now),
        Some(key) => {
            let claim = Claim { plugin, method: &target.method.path, key, request: asked.identity, note: "" };
            let claimed = claim.make(bus, now, until);
            match tokio::time::timeout_at(until.into(), claimed).await {
                Ok(Ok(Claimed::Taken(taken))) => taken,
                Ok(Ok(Claimed::Answered(reply))) => return Written { call: String::new(), reply: Ok(reply) },
                Ok(Err(status)) => return Written { call: String::new(), reply: Err(status) },
                Err(_) => return Written { call: String::new(), reply: Err(keys::out_of_reach("")) },
            }
        }
    };
    halt().await;
    let call = taken.call.clone();
    let reply = run(front, target, incoming, asked, taken, until).await;
    Written { call, reply }
}

async fn run(
    front: &Front,
    target: &Target,
    incoming: &Incoming,
    asked: Asked,
    taken: Taken,
    until: Instant,
) -> Result<Reply, Status> {
    let plugin = target.plugin.name.as_str();
    let waiting = front.answers().wait(answers::subject(plugin, &taken.call, taken.life));
    let call = inbox::NewCall {
        id: taken.call,
        life: taken.life,
        method: target.method.path.clone(),
        request: asked.request,
        timestamp: taken.at,
        key: asked.order_key,
        cell: asked.cell,
    };
    let message = Envelope::of_call(&incoming.metadata, call).message(plugin);
    let there = store(front.bus(), &message, until).await?;
    // Many may wait for long.
    drop(message);
    let missing = tokio::select! {
        answer = waiting.answer(there, incoming.deadline, front.given_up()) => match answer {
            Ok(reply) => return Ok(reply),
            Err(missing) => missing,
        },
        // The event that makes the call is handed back then, and is not to hold up the stop.
        () = stopped(front.stop()), if incoming.within.is_some() => Missing::Stopped,
    };
    let again = match incoming.key {
        Some(_) => "repeat it with its idempotency key to learn what came of it",
        None => "whoever repeats it makes another call; with an idempotency key it would be the same",
    };
    Err(match missing {
        Missing::Late if incoming.within.is_some() => Status::deadline_exceeded(format!(
            "the call was stored, and has not been answered in its time; if it waits for what its caller has, it runs once the \
             caller is through: {again}"
        )),
        Missing::Late => Status::deadline_exceeded(format!(
            "the call was stored, and has not been answered in its time; it still runs: {again}"
        )),
        Missing::Stopped => Status::unavailable(format!(
            "the host stops; the call is stored, and runs on another host or after a restart: {again}"
        )),
        Missing::Unreadable(error) => {
            Status::internal(format!("the call was answered, and the answer can't be read: {error}"))
        }
    })
}

/// For what was about to be answered.
async fn stopped(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_WORD).await;
}

/// Between a key and its call a test may stop the daemon for good. In no release build.
async fn halt() {
    #[cfg(debug_assertions)]
    if std::env::var_os("COFFERDAM_HALT").is_some_and(|at| at == "key") {
        tracing::warn!("halted between a key and its call");
        std::future::pending::<()>().await;
    }
}

/// Stores the call, if it is not there; true if it was.
async fn store(bus: &dyn Bus, message: &cofferdam_bus::Message, until: Instant) -> Result<bool, Status> {
    let mut pause = FIRST_PAUSE;
    let mut sent = false;
    loop {
        let how = Publish { expected_last_subject_sequence: Some(0), ..Publish::default() };
        let stored = tokio::time::timeout_at(until.into(), bus.publish(message.clone(), how)).await;
        let silent = || Error::Unavailable("no answer in time".to_owned());
        match stored.unwrap_or_else(|_| Err(silent())) {
            Ok(_) => return Ok(false),
            Err(Error::WrongLastSequence { .. }) => return Ok(true),
            Err(Error::TooLarge { size, max, .. }) => {
                return Err(Status::resource_exhausted(format!(
                    "the request takes {size} bytes as it is stored, and the bus takes {max}"
                )));
            }
            Err(Error::Unavailable(why)) => {
                sent = true;
                if Instant::now() + pause >= until {
                    return Err(Status::unavailable(format!(
                        "the host's bus is out of reach: {why}; whether the call was taken is not known; under an \
                         idempotency key it can be repeated"
                    )));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) if sent => {
                return Err(Status::internal(format!("whether the call was taken is not known: {error}")));
            }
            Err(error) => return Err(Status::internal(format!("the call can't be taken: {error}"))),
        }
    }
}
