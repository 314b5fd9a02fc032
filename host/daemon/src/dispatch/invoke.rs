//! One run of one event in the sandbox, on one snapshot of its cell.

use std::time::Instant;

use cofferdam_bus::{Point, Snapshot};
use cofferdam_sandbox::Ending;

use super::Work;
use crate::{
    capabilities::{Cell, Occasion, Residue, Run},
    observe::trace::TraceContext,
};

pub(super) struct Ran {
    pub(super) ending: Ending,
    pub(super) residue: Residue,
}

pub(super) async fn invoke(work: &Work<'_>, snapshot: &Snapshot) -> Ran {
    let Work { dispatch, plugin, decoded, attempt, .. } = work;
    let event = decoded.event.clone();
    let occasion = Occasion {
        event_id: event.id.clone(),
        timestamp: event.timestamp,
        attempt: *attempt,
        last_attempt: *attempt >= work.policy.max_attempts,
        deadline: Instant::now() + plugin.limits.wall,
        order_key: decoded.order_key.clone(),
        trace: TraceContext::of_event(&event.headers, &event.id, *attempt),
    };
    let cell = matches!(snapshot.point, Point::Cell { .. }).then(|| Cell::new(snapshot.state.clone()));
    let host = Box::new(Run::new(dispatch.services.clone(), plugin.clone(), occasion, cell));
    let run = plugin.component.handle(host, event, &plugin.limits).await;
    let cpu = run.usage.cpu.as_micros() as u64;
    dispatch.services.metrics.cpu.with_label_values(&[plugin.name.as_str()]).inc_by(cpu);
    let ending = run.ending.clone();
    // It is the host that went in; if it were not, the run would have no effects.
    let residue = run.into_host::<Run>().map(|host| host.into_residue()).unwrap_or_default();
    Ran { ending, residue }
}
