//! One event in, parsed, one message out: a bare loop against the daemon, by class of commit and by isolation, and the embedded
//! bus against JetStream through the same daemon.

use crate::{
    bare::Bare,
    compare::compare,
    local::Local,
    ours::Ours,
    outcome::{Goal, Outcome},
    rig::{Isolation, Rig},
    work::{Class, Work},
};

pub(crate) async fn run(rig: &Rig) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let goals = [
        ("dispatch/batch", Class::Publish, Isolation::Batch, 0.80),
        ("dispatch/event", Class::Publish, Isolation::Event, 0.55),
        ("dispatch/record", Class::Record, Isolation::Batch, 0.55),
    ];
    for (name, class, isolation, goal) in goals {
        if rig.wants(name) {
            outcomes.push(against_bare(rig, name, Work::Publish, class, isolation, goal, 1).await);
        }
    }
    if rig.wants("dispatch/local") {
        outcomes.push(local(rig).await);
    }
    outcomes
}

/// `part`: of a round's events, where one costs more.
pub(crate) async fn against_bare(
    rig: &Rig,
    name: &str,
    work: Work,
    class: Class,
    isolation: Isolation,
    goal: f64,
    part: u64,
) -> Outcome {
    let events = rig.options.events / part;
    let mut bare = Bare::start(rig, work, events).await;
    let mut ours = Ours::start(rig, work, class, isolation, events).await;
    let goal = Some(Goal::AtLeast(goal));
    let outcome =
        compare((name, "events/s"), rig.options.rounds, goal, Some(work.writes()), &mut bare, &mut ours)
            .await;
    ours.end().await;
    bare.end(rig).await;
    outcome
}

/// Exactly once on both, by records.
async fn local(rig: &Rig) -> Outcome {
    let (work, class, isolation) = (Work::Publish, Class::Record, Isolation::Batch);
    let events = rig.options.events;
    let mut nats = Ours::start(rig, work, class, isolation, events).await;
    let mut local = Local { rig, work, class, isolation, events };
    let goal = Some(Goal::AtLeast(2.0));
    let outcome =
        compare(("dispatch/local", "events/s"), rig.options.rounds, goal, None, &mut nats, &mut local).await;
    nats.end().await;
    outcome
}
