//! An event's way through the daemon, one file a step, in this order:
//! `subscribe -> decode -> route -> admit -> invoke -> outcome -> commit -> settle`.
//! Only `settle` acks (the bus acks what `commit` committed); only `commit` makes an effect visible.

mod admit;
mod commit;
mod dead_letter;
mod decode;
mod endings;
mod invoke;
mod outcome;
mod route;
mod settle;
mod subscribe;

use std::{sync::Arc, time::Instant};

pub use admit::Admission;
use cofferdam_bus::{Delivery, Opened};
pub use dead_letter::undeliverable;
use decode::Decoded;
use endings::Endings;
pub use outcome::Outcome;
use outcome::Policy;
pub use route::Route;
pub use settle::Finished;
pub(crate) use settle::hand_back;
pub use subscribe::Subscriber;

use crate::{capabilities::Services, config::DispatchConfig, plugins::Plugin};

/// Runs repeated because another host changed the cell, before the event is handed back.
const CONFLICT_RUNS: u32 = 5;

/// What all subscriptions of a host share.
pub struct Dispatch {
    pub services: Arc<Services>,
    pub admission: Admission,
    pub config: DispatchConfig,
    pub advisories: bool,
}

/// One event from its admission to its end. Nothing here fails: whatever happens is an outcome.
async fn dispatch(
    dispatch: &Dispatch,
    route: &Route,
    delivery: &Delivery,
    decoded: &Decoded,
    endings: &Endings,
) -> Finished {
    let began = Instant::now();
    let work = Work {
        dispatch,
        plugin: route.plugin(),
        policy: Policy::of(route.subscription()),
        delivery,
        decoded,
        attempt: endings.attempt(&decoded.event.id),
    };
    let unended = delivery.count.saturating_sub(endings.count(&decoded.event.id));
    let outcome = if unended > dispatch.config.max_deliveries + work.policy.max_attempts {
        commit::dead_letter(&work, Outcome::deadly(unended), Vec::new()).await
    } else {
        work.run().await
    };
    Finished {
        event: decoded.event.id.clone(),
        subject: decoded.event.subject.clone(),
        plugin: work.plugin.name.clone(),
        order_key: decoded.order_key.clone(),
        attempt: work.attempt,
        took: began.elapsed(),
        outcome,
    }
}

/// One attempt at one event.
struct Work<'a> {
    dispatch: &'a Dispatch,
    plugin: Arc<Plugin>,
    policy: Policy,
    delivery: &'a Delivery,
    decoded: &'a Decoded,
    attempt: u32,
}

impl Work<'_> {
    async fn run(&self) -> Outcome {
        for _ in 0..CONFLICT_RUNS {
            let snapshot = match self.dispatch.services.bus.open(self.delivery, &self.decoded.point).await {
                Ok(Opened::Fresh(snapshot)) => snapshot,
                Ok(Opened::Settled) => return Outcome::Duplicate,
                Err(error) => return Outcome::HandedBack(error.to_string()),
            };
            let ran = invoke::invoke(self, &snapshot).await;
            let samples = ran.residue.samples.clone();
            let failure = match outcome::judge(&ran, &self.plugin.limits, &self.policy, self.attempt) {
                Outcome::Done => match commit::commit(self, snapshot, ran.residue).await {
                    commit::Ending::Over(outcome) => return outcome,
                    commit::Ending::Conflict => {
                        let plugin = [self.plugin.name.as_str()];
                        self.dispatch.services.metrics.conflicts.with_label_values(&plugin).inc();
                        continue;
                    }
                    commit::Ending::Unfit(failure) => self.policy.decide(failure, self.attempt),
                },
                outcome => outcome,
            };
            return if failure.is_final() {
                commit::dead_letter(self, failure, samples).await
            } else {
                failure
            };
        }
        Outcome::HandedBack(format!("the cell was changed by others during each of {CONFLICT_RUNS} runs"))
    }
}
