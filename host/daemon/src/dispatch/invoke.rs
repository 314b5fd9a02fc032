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
}

pub(super) async fn invoke(work: &Work<'_>, snapshot: &Snapshot) -> Ran {
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
    let run = plugin.component.handle(host, event, limits).await;
    let cpu = run.usage.cpu.as_micros() as u64;
    dispatch.services.metrics.cpu.with_label_values(&[plugin.name.as_str()]).inc_by(cpu);
    if run.usage.fresh {
        dispatch.services.metrics.instances.with_label_values(&[plugin.name.as_str()]).inc();
    }
    let ending = run.ending.clone();
    // It is the host that went in; if it were not, the run would have no effects.
    let residue = run.into_host::<Run>().map(|host| host.into_residue()).unwrap_or_default();
    Ran { ending, residue }
}
