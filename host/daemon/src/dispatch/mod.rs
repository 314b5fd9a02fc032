//! An event's way through the daemon, one file a step, in this order:
//! `subscribe -> decode -> route -> admit -> invoke -> outcome -> commit -> settle`.
//! Only `settle` hands back (the bus acks what `commit` committed); only `commit` makes an effect visible.

mod admit;
mod again;
#[cfg(debug_assertions)]
mod broken;
mod commit;
mod dead_letter;
mod decode;
mod endings;
mod grip;
pub(crate) mod inbox;
pub(crate) mod invoke;
mod outcome;
mod places;
mod quarantine;
mod route;
mod settle;
mod subscribe;
mod weight;

use std::{sync::Arc, time::Instant};

pub use admit::Admission;
use admit::Permits;
use again::Times;
use cofferdam_bus::{Delivery, Error, Opened, OtherCell, Point, Snapshot};
use cofferdam_sandbox::Limits;
pub use dead_letter::undeliverable;
use decode::Decoded;
pub(crate) use decode::cell;
use endings::Endings;
pub(crate) use grip::Grip;
pub use grip::Held;
pub(crate) use outcome::Policy;
pub(crate) use outcome::judge;
pub use outcome::{Failed, Outcome};
pub use places::{Comer, DEPTH, Places};
use quarantine::{Solo, Verdict};
pub use route::Route;
pub use settle::Finished;
pub(crate) use settle::hand_back;
pub use subscribe::Subscriber;

use crate::{capabilities::Services, clock, config::DispatchConfig, letters, plugins::Plugin};

/// Runs repeated because another host changed the cell, before the event is handed back.
const CONFLICT_RUNS: u32 = 5;

/// What all subscriptions of a host share.
pub struct Dispatch {
    pub services: Arc<Services>,
    pub admission: Admission,
    pub config: DispatchConfig,
    pub advisories: bool,
}

/// An event as its subscription has it.
#[derive(Clone, Copy)]
struct Taken<'a> {
    delivery: &'a Delivery,
    decoded: &'a Decoded,
    held: &'a Held,
    endings: &'a Endings,
}

/// One run of an event from its admission to its end. Nothing here fails: whatever happens is an outcome. `solo` if it runs
/// alone.
async fn dispatch<'a>(
    dispatch: &Dispatch,
    plugin: Arc<Plugin>,
    taken: Taken<'a>,
    permits: Permits,
    solo: Option<&Solo<'_>>,
) -> Finished<'a> {
    let Taken { delivery, decoded, held, endings } = taken;
    let began = Instant::now();
    let id = delivery.id();
    let subscription = &decoded.subscription;
    // What it is told in its config, but no longer than any run of the plugin may last.
    let wall = subscription.deadline.map_or(plugin.limits.wall, |deadline| deadline.min(plugin.limits.wall));
    let limits = Limits { wall, ..plugin.limits.clone() };
    let times = endings.times(id).unwrap_or(decoded.past.times).seen(clock::now());
    let attempt = 1 + decoded.past.failed + endings.failures(id);
    let work = Work { dispatch, plugin, limits, delivery, decoded, held, attempt, times };
    let outcome = work.run(permits, solo).await;
    Finished {
        event: &decoded.event,
        plugin: work.plugin,
        order_key: decoded.order_key.as_deref(),
        attempt,
        times: times.failed(clock::now()),
        took: began.elapsed(),
        outcome,
    }
}

/// One attempt at one event.
struct Work<'a> {
    dispatch: &'a Dispatch,
    plugin: Arc<Plugin>,
    limits: Limits,
    delivery: &'a Delivery,
    decoded: &'a Decoded,
    held: &'a Held,
    attempt: u32,
    /// Before this attempt, but for the first sight.
    times: Times,
}

impl Work<'_> {
    fn policy(&self) -> Policy<'_> {
        let Decoded { event, past, subscription, .. } = self.decoded;
        let seed = format!("{}.{}.{}", event.id, past.life, self.attempt);
        Policy { failure: &subscription.failure, attempt: self.attempt, seed }
    }

    async fn run(&self, mut permits: Permits, solo: Option<&Solo<'_>>) -> Outcome {
        // What is acked is forgotten some day, and is not to be redriven a second time then.
        let (bus, plugin) = (self.dispatch.services.bus.as_ref(), self.plugin.name.as_str());
        let (event, past) = (&self.decoded.event.id, &self.decoded.past);
        if let Err(error) = letters::forget_redriven(bus, plugin, event, past.life, past.dead_letter).await {
            return Outcome::HandedBack(error.to_string());
        }
        for _ in 0..CONFLICT_RUNS {
            let snapshot = match self.open().await {
                Ok(Opened::Fresh(snapshot)) => snapshot,
                Ok(Opened::Settled) => return Outcome::Duplicate,
                Err(error) => return Outcome::HandedBack(error.to_string()),
            };
            if let Some(solo) = solo {
                match solo.begin(self.dispatch.config.max_deliveries).await {
                    Ok(Verdict::Run) => {}
                    Ok(Verdict::Deadly(runs)) => {
                        return commit::failure(self, Outcome::deadly(runs, self.decoded.is_call), &[]).await;
                    }
                    Err(error) => return Outcome::HandedBack(error.to_string()),
                }
            }
            if !permits.has_room() {
                drop(permits);
                let comer = self.decoded.comer();
                match self.dispatch.admission.permits(&self.plugin.places, comer).await {
                    Some(anew) => permits = anew,
                    None => return Outcome::HandedBack("the host is closing".into()),
                }
            }
            // What it takes is given back before the commit, for which many wait at a time.
            let ran = Box::pin(invoke::invoke(self, &snapshot)).await;
            if ran.residue.light {
                permits.make_room();
            }
            let (samples, answer) = (ran.residue.samples.clone(), ran.answer.clone());
            if let Some(reason) = &ran.residue.missing {
                return Outcome::HandedBack(reason.clone());
            }
            let failure = match outcome::judge(&ran, &self.limits, || self.policy()) {
                Outcome::Done => match commit::commit(self, snapshot, ran.residue, answer).await {
                    commit::Ending::Over(outcome) => return outcome,
                    commit::Ending::Conflict => {
                        self.count_conflict();
                        continue;
                    }
                    commit::Ending::Unfit(failure) => failure.but(self.policy().decide(Failed::Unfit, None)),
                },
                outcome => match self.is_torn(&snapshot, &ran.residue.change.others).await {
                    Ok(false) => outcome,
                    Ok(true) => {
                        self.count_conflict();
                        continue;
                    }
                    Err(error) => return Outcome::HandedBack(error.to_string()),
                },
            };
            return commit::failure(self, failure, &samples).await;
        }
        Outcome::HandedBack(format!("its cells were changed by others during each of {CONFLICT_RUNS} runs"))
    }

    /// Whether a run that failed may have seen several cells as they never were at one time.
    async fn is_torn(&self, base: &Snapshot, others: &[OtherCell]) -> Result<bool, Error> {
        if others.is_empty() {
            return Ok(false);
        }
        self.dispatch.services.bus.is_stale(self.delivery, base, others).await
    }

    fn count_conflict(&self) {
        let plugin = [self.plugin.name.as_str()];
        self.dispatch.services.metrics.conflicts.with_label_values(&plugin).inc();
    }

    /// What its delivery's own id does not say.
    fn cause(&self) -> Option<String> {
        let id = &self.decoded.event.id;
        (id != self.delivery.id()).then(|| id.clone())
    }

    /// Of the class `publish` only failures can be looked for: a message that is sent again is known by its id.
    async fn open(&self) -> Result<Opened, Error> {
        let (bus, point) = (&self.dispatch.services.bus, &self.decoded.point);
        if *point == Point::Publish
            && let Opened::Settled = bus.open(self.delivery, self.decoded.failure_point()).await?
        {
            return Ok(Opened::Settled);
        }
        bus.open(self.delivery, point).await
    }
}
