//! What happens when: follows from the seed. Each step is due at a share of the events, so that the same seed does the same
//! things at the same places of the feed, but for the timing of processes.

use std::time::Duration;

use harness::dice::Dice;

use crate::options::{BusKind, Kind, Options};

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) host: usize,
    /// On NATS: the message at which it happens; else at any moment.
    pub(crate) aim: Option<Aim>,
    /// How long what is down stays down, or what is slow stays slow.
    pub(crate) lasts: Duration,
    /// Of each piece that a slow line carries.
    pub(crate) delay: Duration,
    /// Of the cluster.
    pub(crate) node: usize,
    /// For what else is left to chance.
    pub(crate) seed: u64,
}

/// The first message with this prefix after so many others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aim {
    pub(crate) subject: &'static str,
    pub(crate) skip: u32,
    /// How long the fault waits for it; then it happens anyway, for a host that stands by sends few messages.
    pub(crate) patience: Duration,
}

/// The messages of an event's way: commit points, effects, acks.
const AIMS: [&str; 6] = ["cd.s.", "cd.c.", "cofferdam.story.soak.", "cd.j.", "cofferdam.story.soak.", ACK];
const ACK: &str = "$JS.ACK.PLANNING_EVENTS.";
/// Every other of the first kills is of a daemon that sends one of these, so that a short soak hits each window, too.
const FIRST_AIMS: [&str; 4] = ["cofferdam.story.soak.", ACK, "cd.j.", "cd.c."];
/// For one of these, and for others. A host that was just killed needs a take-over before it sends anything.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_millis(700);

pub(crate) fn schedule(options: &Options, seed: u64) -> Vec<Step> {
    let mut dice = Dice::of(seed);
    let kinds = options.kinds();
    let (killing, others): (Vec<Kind>, Vec<Kind>) = kinds.iter().partition(|kind| kind.kills());
    let mut steps = Vec::new();
    for number in 0..options.kills as usize {
        let aims = options.bus == BusKind::Nats && number % 2 == 0 && kinds.contains(&Kind::Daemon);
        let first = FIRST_AIMS.get(number / 2).filter(|_| aims);
        // Without a kind that kills, the others take their place.
        let kind = match killing.as_slice() {
            [] => dice.pick(&others),
            _ if first.is_some() => Kind::Daemon,
            // Most are kills of daemons: those have windows.
            some if some.contains(&Kind::Torn) && dice.percent(40) => Kind::Torn,
            some if some.contains(&Kind::Daemon) && dice.percent(60) => Kind::Daemon,
            some => dice.pick(some),
        };
        let mut kill = step(&mut dice, options, kind);
        if let Some(subject) = first {
            kill.aim = Some(Aim { subject, skip: dice.below(4) as u32, patience: FIRST_PATIENCE });
        }
        steps.push(kill);
        if !killing.is_empty() && !others.is_empty() && dice.percent(20) {
            let kind = dice.pick(&others);
            steps.push(step(&mut dice, options, kind));
        }
    }
    steps
}

fn step(dice: &mut Dice, options: &Options, kind: Kind) -> Step {
    let host = dice.below(options.hosts() as u64) as usize;
    let aims = options.bus == BusKind::Nats && matches!(kind, Kind::Daemon | Kind::Cut);
    let aimed = dice.percent(60);
    let aim = Aim { subject: dice.pick(&AIMS), skip: dice.below(30) as u32, patience: PATIENCE };
    let lasts = match kind {
        Kind::Pause => crate::place::ACK_WAIT * 3 / 2 + Duration::from_millis(dice.below(2000)),
        Kind::Delay => Duration::from_millis(500 + dice.below(1500)),
        // Longer than a duplicate window now and then.
        Kind::Server | Kind::Upstream => Duration::from_millis(dice.below(1500)),
        Kind::Daemon | Kind::Torn | Kind::Cut => Duration::from_millis(dice.below(300)),
    };
    let delay = Duration::from_millis(5 + dice.below(80));
    let node = dice.below(options.nodes() as u64) as usize;
    Step { kind, host, aim: (aims && aimed).then_some(aim), lasts, delay, node, seed: dice.draw() }
}
