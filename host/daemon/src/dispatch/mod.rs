//! An event's way through the daemon, one file a step, in this order:
//! `subscribe -> decode -> route -> admit -> invoke -> outcome -> commit -> settle`.
//! Only `settle` acks (the bus acks what `commit` committed); only `commit` makes an effect visible.

mod admit;
mod commit;
mod dead_letter;
mod decode;
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
pub use outcome::{Fault, Outcome};
pub use route::Route;
pub use settle::Finished;
pub(crate) use settle::hand_back;
pub use subscribe::Subscriber;

use crate::{capabilities::Services, config::DispatchConfig};

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
    delivery: &Arc<Delivery>,
    decoded: &Decoded,
    attempts: &settle::Attempts,
) {
    let began = Instant::now();
    let plugin = route.plugin();
    let policy = outcome::Policy::of(route.subscription());
    let attempt = attempts.of(&decoded.event.id);
    let mut conflicts = 0;
    let outcome = loop {
        if delivery.count > dispatch.config.max_deliveries && attempt == 1 {
            break commit::dead_letter(
                dispatch,
                &plugin,
                delivery,
                decoded,
                attempt,
                Outcome::deadly(delivery.count),
            )
            .await;
        }
        let snapshot = match dispatch.services.bus.open(delivery, &decoded.point).await {
            Ok(Opened::Fresh(snapshot)) => snapshot,
            Ok(Opened::Settled) => break Outcome::Duplicate,
            Err(error) => break Outcome::Bus(error.to_string()),
        };
        let ran = invoke::invoke(dispatch, &plugin, decoded, &snapshot, attempt, &policy).await;
        let outcome = outcome::judge(&ran, &plugin.limits, &policy, attempt);
        if outcome.is_repeated() {
            break outcome;
        }
        match commit::commit(dispatch, &plugin, delivery, decoded, snapshot, attempt, outcome, ran.residue)
            .await
        {
            commit::Ending::Over(outcome) => break outcome,
            commit::Ending::Failed(failure) => {
                let failure = policy.decide(failure, attempt);
                if failure.is_repeated() {
                    break failure;
                }
                break commit::dead_letter(dispatch, &plugin, delivery, decoded, attempt, failure).await;
            }
            commit::Ending::Conflict => {
                conflicts += 1;
                dispatch.services.metrics.conflicts.with_label_values(&[plugin.name.as_str()]).inc();
                if conflicts == CONFLICT_RUNS {
                    break Outcome::Bus(format!("the cell changed during each of {CONFLICT_RUNS} runs"));
                }
            }
        }
    };
    let finished = Finished {
        event: decoded.event.id.clone(),
        subject: decoded.event.subject.clone(),
        plugin: plugin.name.clone(),
        order_key: decoded.order_key.clone(),
        attempt,
        took: began.elapsed(),
        outcome,
    };
    settle::settle(dispatch, delivery, finished, attempts, &policy).await;
}
