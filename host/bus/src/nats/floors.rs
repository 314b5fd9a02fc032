//! How far each durable has been acked. Acked implies applied, so what lies at or below the ack floor needs no memory
//! in a cell. Also notices a durable that was deleted or made anew.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::{
    NatsBus, consumers,
    jsapi::{CallError, code},
    link::{Link, Silence},
};
use crate::api::Origin;

/// A cell remembers a few bytes per event settled since; at 10,000 events/s for one key, 20,000 would have gone by.
const EVERY: Duration = Duration::from_secs(2);

/// What is known of one origin.
#[derive(Debug)]
pub(super) struct OriginState {
    stream: String,
    durable: String,
    durable_created: u64,
    /// Highest seen: a killed server may count back, what was applied stays applied.
    floor: AtomicU64,
    gone: watch::Sender<bool>,
}

impl OriginState {
    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Relaxed)
    }

    pub(super) fn gone(&self) -> watch::Receiver<bool> {
        self.gone.subscribe()
    }

    /// Asks the server. `Ok(false)`: the durable is no more, or another under the same name.
    pub(super) async fn refresh(&self, link: &Link) -> Result<bool, CallError> {
        let there = match consumers::info(link, &self.stream, &self.durable).await {
            Ok(answer) if answer.created.0 == self.durable_created => {
                self.floor.fetch_max(answer.ack_floor.stream_seq, Ordering::Relaxed);
                true
            }
            Ok(_) => false,
            Err(e) if e.is(code::CONSUMER_NOT_FOUND) || e.is(code::STREAM_NOT_FOUND) => false,
            Err(e) => return Err(e),
        };
        if !there {
            self.gone.send_replace(true);
        }
        Ok(there)
    }
}

/// All origins in use, by id.
#[derive(Debug, Default)]
pub(super) struct Floors {
    origins: Mutex<HashMap<String, Arc<OriginState>>>,
}

impl Floors {
    pub(super) fn follow(&self, origin: &Origin, durable_created: u64) {
        let state = || {
            Arc::new(OriginState {
                stream: origin.stream.clone(),
                durable: origin.durable.clone(),
                durable_created,
                floor: AtomicU64::new(0),
                gone: watch::Sender::new(false),
            })
        };
        self.lock().entry(origin.id.clone()).or_insert_with(state);
    }

    pub(super) fn get(&self, origin: &str) -> Option<Arc<OriginState>> {
        self.lock().get(origin).cloned()
    }

    /// The durables of a stream, or the one of this name, were deleted.
    pub(super) fn forget(&self, stream: &str, durable: Option<&str>) {
        self.lock().retain(|_, origin| {
            let deleted = origin.stream == stream && durable.is_none_or(|d| origin.durable == d);
            if deleted {
                origin.gone.send_replace(true);
            }
            !deleted
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<OriginState>>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for all of them now and then, for as long as the bus is in use.
pub(super) async fn poll(bus: Weak<NatsBus>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(bus) = bus.upgrade() else { return };
        let origins: Vec<(String, Arc<OriginState>)> =
            bus.floors.lock().iter().map(|(id, o)| (id.clone(), o.clone())).collect();
        for (id, origin) in origins {
            match origin.refresh(&bus.link).await {
                Ok(true) => {}
                Ok(false) => {
                    bus.floors.lock().remove(&id);
                }
                Err(CallError::Silence(Silence::Unknown(_))) => break,
                Err(e) => tracing::debug!(?e, durable = origin.durable, "no ack floor"),
            }
        }
    }
}
