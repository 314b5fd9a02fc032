//! One run of one event in the sandbox, on one snapshot of its cell.

use std::time::Instant;

use cofferdam_bus::Snapshot;
use cofferdam_sandbox::Ending;

use super::Work;
use crate::{
    capabilities::{Occasion, Residue, Run, State},
    observe::trace::TraceContext,
};

pub(super) struct Ran {
    pub(super) ending: Ending,
    pub(super) residue: Residue,
    /// In an instance of its own.
    fresh: bool,
}

impl Ran {
    /// An earlier event may be to blame, for what it left in the instance: nothing follows for this one.
    fn may_be_anothers_doing(&self) -> bool {
        !self.fresh && self.ending.broke_off()
    }
}

pub(super) async fn invoke(work: &Work<'_>, snapshot: &Snapshot) -> Ran {
    let ran = run(work, snapshot, false).await;
    if !ran.may_be_anothers_doing() {
        return ran;
    }
    tracing::debug!(
        plugin = work.plugin.name,
        event = work.decoded.event.id,
        ending = ?ran.ending,
        "broke off in an instance that had served other events; run again in a fresh one"
    );
    run(work, snapshot, true).await
}

async fn run(work: &Work<'_>, snapshot: &Snapshot, in_fresh: bool) -> Ran {
    let Work { dispatch, plugin, decoded, attempt, limits, .. } = work;
    let event = decoded.event.clone();
    let occasion = Occasion {
        event_id: event.id.clone(),
        timestamp: event.timestamp,
        attempt: *attempt,
        last_attempt: decoded.subscription.failure.is_last(*attempt),
        deadline: Instant::now() + limits.wall,
        order_key: decoded.order_key.clone(),
        trace: TraceContext::of_event(&event.headers, &event.id, *attempt),
        held: work.held.clone(),
    };
    let state = State::of(snapshot);
    #[cfg(debug_assertions)]
    super::broken::die_on(&event.subject);
    let host = Box::new(Run::new(dispatch.services.clone(), plugin.clone(), occasion, state));
    let run = match in_fresh {
        false => plugin.component.handle(host, event, limits).await,
        true => plugin.component.handle_in_fresh(host, event, limits).await,
    };
    let fresh = run.usage.fresh;
    let cpu = run.usage.cpu.as_micros() as u64;
    let meters = plugin.meters(&dispatch.services.metrics);
    meters.cpu.inc_by(cpu);
    if fresh {
        meters.instances.inc();
    }
    let ending = run.ending.clone();
    // It is the host that went in; if it were not, the run would have no effects.
    let residue = run.into_host::<Run>().map(|host| host.into_residue()).unwrap_or_default();
    Ran { ending, residue, fresh }
}
