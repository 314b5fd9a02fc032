//! What is checked of the class `cell`, and the machine as the checker takes it.

use stateright::{Model, Property};

use super::*;

impl Cells {
    /// What the cells say is in the target, in their order, as far as it has come.
    fn in_order(&self, s: &State, cell: usize) -> bool {
        let here = |e: &Effect| self.events[e.event()].point == cell;
        let committed = s.cells[cell].counted.iter().filter(here).flat_map(|counted| {
            let (event, branch) = (counted.event(), counted.branch());
            (0..self.effects((event, branch))).map(move |at| Effect::new(event, branch, at))
        });
        let mut committed = committed.collect::<Vec<_>>().into_iter();
        s.target.log.iter().filter(here).all(|effect| committed.next() == Some(effect))
    }

    fn counted(&self, s: &State, e: usize, cell: usize) -> usize {
        s.cells[cell].counted.of(e).count()
    }

    /// An acked event is in its cells, with all its effects out; or it has none and is nowhere.
    fn whole(&self, s: &State, e: usize) -> bool {
        let point = self.events[e].point;
        match s.cells[point].counted.of(e).next() {
            Some(counted) => {
                let effects = self.effects((e, counted.branch()));
                s.target.log.of(e).count() == usize::from(effects)
            }
            None => self.events[e].branches.contains(&0) && !self.rules.commit_nothing,
        }
    }

    /// Nothing is left to do.
    pub fn at_rest(&self, s: &State) -> bool {
        let acked = s.acked.iter().take(self.events.len()).all(|acked| *acked);
        acked && s.ghosts.is_empty() && s.hosts.iter().all(Option::is_none)
    }
}

pub const COUNTED_ONCE: &str = "state counts each event once, in all its cells";
pub const IN_ORDER: &str = "effects are those of the commits, each once, in their order";
pub const ACKED_APPLIED: &str = "what is acked is committed and applied, whole";
pub const ONE_BY_ONE: &str = "events that read each other's cells are as one after the other";

impl Model for Cells {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            cells: Default::default(),
            acked: [false; EVENTS],
            target: Target::default(),
            hosts: [None; HOSTS],
            ghosts: Vec::new(),
            left: self.faults,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        use Action::*;
        let left = &s.left;
        let fault = |budget: u8, action: Action| (budget > 0).then_some(action);
        for (h, task) in s.hosts.iter().enumerate() {
            let Some(task) = task else {
                for e in 0..self.events.len() {
                    actions.push(Deliver(h, e));
                    actions.extend(fault(left.again, DeliverAgain(h, e)));
                }
                continue;
            };
            match task.step {
                Step::Delivered => actions.push(Open(h)),
                Step::Opened => {
                    let branches = 0..self.events[task.event].branches.len() as u8;
                    actions.extend(branches.map(|branch| Run(h, branch)));
                }
                Step::Ran(_) => {
                    actions.push(Write(h));
                    actions.extend(fault(left.lost, WriteUnanswered(h)));
                    actions.extend(fault(left.ghosts, WriteDelayed(h)));
                }
                Step::Unsure(_) => actions.push(Read(h)),
                Step::Half(_) => actions.push(GoOn(h)),
                Step::Apply { .. } => actions.push(Prepare(h)),
                Step::Send { .. } => {
                    actions.push(Send(h));
                    actions.extend(fault(left.lost, SendUnanswered(h)));
                    actions.extend(fault(left.ghosts, SendDelayed(h)));
                }
                Step::Done => {
                    actions.push(Acknowledge(h));
                    actions.extend(fault(left.lost, AckLost(h)));
                }
            }
            actions.extend(fault(left.crashes, Crash(h)));
            actions.extend(fault(left.crashes.min(left.ghosts), CrashLeavingGhost(h)));
        }
        actions.extend((0..s.ghosts.len()).map(GhostArrives));
        if left.forgotten > 0 {
            actions.extend((0..self.events.len()).map(ServerForgetsAck));
        }
        actions.extend(fault(left.windows, HalfWindowPasses));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, action)?;
        state.hosts.sort_unstable();
        state.ghosts.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(COUNTED_ONCE, |m: &Cells, s: &State| {
                m.events.iter().enumerate().all(|(e, event)| {
                    let own = m.counted(s, e, event.point);
                    let foreign = m.counted(s, e, 1 - event.point);
                    own <= 1 && foreign == if event.other == Other::Written { own } else { 0 }
                })
            }),
            Property::always(IN_ORDER, |m, s: &State| (0..CELLS).all(|cell| m.in_order(s, cell))),
            Property::always(ACKED_APPLIED, |m, s: &State| {
                (0..m.events.len()).all(|e| !s.acked[e] || m.whole(s, e))
            }),
            // Of two events that read each other's cells, the second sees the first.
            Property::always(ONE_BY_ONE, |m, s: &State| {
                let blind = m.events.iter().enumerate().filter(|(e, event)| {
                    let mut counted = s.cells[event.point].counted.of(*e);
                    event.other == Other::Read && counted.next().is_some_and(|c| c.ordinal() == 0)
                });
                let mut cells: Vec<usize> = blind.map(|(_, event)| event.point).collect();
                cells.dedup();
                cells.len() <= 1
            }),
            // That the dangers are there at all.
            Property::sometimes("a run is on a cell that has changed", |m, s: &State| {
                s.hosts.iter().flatten().any(|task| {
                    let point = m.events[task.event].point;
                    let stale = task.base[point].revision != s.cells[point].revision;
                    stale && matches!(task.step, Step::Ran(_))
                })
            }),
            Property::sometimes("one host finishes what another has begun", |_, s: &State| {
                let finishing =
                    |task: &Task| matches!(task.step, Step::Send { of, .. } if of.0 != task.event);
                s.hosts.iter().flatten().any(finishing)
            }),
        ]
    }
}
