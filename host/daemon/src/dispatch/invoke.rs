//! One run of one event in the sandbox, on one snapshot of its cell; and of a call, which is another thing only to the guest.

use std::time::Instant;

use bytes::Bytes;
use cofferdam_bus::Snapshot;
use cofferdam_sandbox::{Ending, Event, Limits, Request};

use super::Work;
use crate::{
    capabilities::{Occasion, Residue, Run, State, Within},
    observe::{metrics::Metrics, trace::TraceContext},
    plugins::Plugin,
};

pub(crate) struct Ran {
    pub(crate) ending: Ending,
    /// To a call that ended well.
    pub(crate) answer: Option<Bytes>,
    pub(crate) residue: Residue,
    /// In an instance of its own.
    fresh: bool,
}

/// What the guest is given.
pub(crate) enum Task {
    Event(Event),
    Call(Request),
}

impl Task {
    /// A call as the guest knows it.
    fn call(event: Event) -> Task {
        let Event { id, subject: method, headers: metadata, data: request, timestamp } = event;
        Task::Call(Request { id, method, metadata, request, timestamp })
    }
}

impl Ran {
    /// An earlier event may be to blame, for what it left in the instance: nothing follows for this one.
    fn may_be_anothers_doing(&self) -> bool {
        !self.fresh && self.ending.broke_off()
    }
}

/// An event, or a call that writes.
pub(super) async fn invoke(work: &Work<'_>, snapshot: &Snapshot) -> Ran {
    let Work { dispatch, plugin, decoded, attempt, limits, .. } = work;
    let begin = || {
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
            within: Within::of_event(decoded.turn()),
            only_reads: None,
        };
        #[cfg(debug_assertions)]
        super::broken::die_on(&event.subject);
        let host = Run::new(dispatch.services.clone(), plugin.clone(), occasion, State::of(snapshot));
        (host, if decoded.is_call { Task::call(event) } else { Task::Event(event) })
    };
    run(&dispatch.services.metrics, plugin, limits, begin).await
}

/// Runs what `begin` makes, which may be asked twice.
pub(crate) async fn run(
    metrics: &Metrics,
    plugin: &Plugin,
    limits: &Limits,
    begin: impl Fn() -> (Run, Task) + Send + Sync,
) -> Ran {
    let (host, task) = begin();
    let ran = once(metrics, plugin, limits, host, task, false).await;
    if !ran.may_be_anothers_doing() {
        return ran;
    }
    let (host, task) = begin();
    tracing::debug!(
        plugin = plugin.name,
        ending = ?ran.ending,
        "broke off in an instance that had served other events; run again in a fresh one"
    );
    once(metrics, plugin, limits, host, task, true).await
}

async fn once(
    metrics: &Metrics,
    plugin: &Plugin,
    limits: &Limits,
    host: Run,
    task: Task,
    in_fresh: bool,
) -> Ran {
    let (host, component) = (Box::new(host), &plugin.component);
    let run = match (task, in_fresh) {
        (Task::Event(event), false) => component.handle(host, event, limits).await,
        (Task::Event(event), true) => component.handle_in_fresh(host, event, limits).await,
        (Task::Call(request), false) => component.serve(host, request, limits).await,
        (Task::Call(request), true) => component.serve_in_fresh(host, request, limits).await,
    };
    let fresh = run.usage.fresh;
    let cpu = run.usage.cpu.as_micros() as u64;
    let meters = plugin.meters(metrics);
    meters.cpu.inc_by(cpu);
    if fresh {
        meters.instances.inc();
    }
    let (ending, answer) = (run.ending.clone(), run.answer.clone());
    // It is the host that went in; if it were not, the run would have no effects.
    let residue = run.into_host::<Run>().map(|host| host.into_residue()).unwrap_or_default();
    Ran { ending, answer, residue, fresh }
}
