//! What is checked of the class `record`, and the machine as the checker takes it.

use stateright::{Model, Property};

use super::*;

impl Records {
    /// All effects of one run are there, and of the committed one, if that is still known.
    fn whole(&self, s: &State, e: usize) -> bool {
        let Some((branch, count)) = s.target.single_run(e) else { return false };
        match s.records[e] {
            Some(record) if self.effects(e, record.branch) == 0 => count == 0,
            Some(record) => record.branch == branch && count == self.effects(e, branch),
            None if count == 0 => self.events[e].contains(&0),
            None => count == self.effects(e, branch),
        }
    }

    /// Nothing is left to do.
    pub fn at_rest(&self, s: &State) -> bool {
        let acked = s.acked.iter().take(self.events.len()).all(|acked| *acked);
        acked && s.ghosts.is_empty() && s.hosts.iter().all(|host| host.tasks == IDLE.tasks)
    }
}

pub const ONE_RUN: &str = "effects are those of one run, each once";
pub const ACKED_APPLIED: &str = "what is acked is applied, whole";

impl Model for Records {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            records: [None; EVENTS],
            acked: [false; EVENTS],
            floor: 0,
            passed: [0; EVENTS],
            target: Target::default(),
            hosts: [IDLE; HOSTS],
            ghosts: Vec::new(),
            left: self.faults,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        use Action::*;
        let left = &s.left;
        let fault = |budget: u8, action: Action| (budget > 0).then_some(action);
        for h in 0..HOSTS {
            for e in 0..self.events.len() {
                match s.hosts[h].tasks[e] {
                    Task::None => {
                        actions.push(Deliver(h, e));
                        actions.extend(fault(left.again, DeliverAgain(h, e)));
                    }
                    Task::Delivered => {
                        actions.push(Look(h, e));
                        actions.extend((0..self.events[e].len() as u8).map(|branch| Run(h, e, branch)));
                    }
                    Task::Ran(_) => actions.push(Check(h, e)),
                    Task::Cleared(..) => {
                        actions.push(Write(h, e));
                        actions.extend(fault(left.lost, WriteUnanswered(h, e)));
                        actions.extend(fault(left.ghosts, WriteDelayed(h, e)));
                    }
                    Task::Unsure(_) => actions.push(Read(h, e)),
                    Task::Apply { .. } => actions.push(Prepare(h, e)),
                    Task::Send { .. } => {
                        actions.push(Send(h, e));
                        actions.extend(fault(left.lost, SendUnanswered(h, e)));
                        actions.extend(fault(left.ghosts, SendDelayed(h, e)));
                    }
                    Task::Done => {
                        actions.push(Acknowledge(h, e));
                        actions.extend(fault(left.lost, AckLost(h, e)));
                    }
                }
            }
            actions.extend(fault(left.crashes, Crash(h)));
            actions.extend(fault(left.crashes.min(left.ghosts), CrashLeavingGhosts(h)));
        }
        actions.extend((0..s.ghosts.len()).map(GhostArrives));
        for e in 0..self.events.len() {
            actions.push(Purge(e));
            actions.extend(fault(left.forgotten, ServerForgetsAck(e)));
        }
        actions.push(PersistFloor);
        actions.extend(fault(left.windows, HalfWindowPasses));
        actions.extend(fault(left.leases, LeasePasses));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, action)?;
        // Records' events know no order among each other, hosts are alike.
        state.target.log.sort();
        state.hosts.sort_unstable();
        state.ghosts.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_RUN, |m: &Records, s: &State| {
                (0..m.events.len()).all(|e| s.target.single_run(e).is_some())
            }),
            Property::always(ACKED_APPLIED, |m, s: &State| {
                (0..m.events.len()).all(|e| !s.acked[e] || m.whole(s, e))
            }),
            // That the dangers are there at all.
            Property::sometimes("a run comes second", |_, s: &State| {
                let second = |e: usize, task: &Task| match (task, s.records[e]) {
                    (Task::Cleared(branch, _), Some(record)) => *branch != record.branch,
                    _ => false,
                };
                s.hosts.iter().any(|host| host.tasks.iter().enumerate().any(|(e, t)| second(e, t)))
            }),
            Property::sometimes("only a search can tell", |m, s: &State| {
                let forgotten = |e: usize, task: &Task| match *task {
                    Task::Apply { branch, at, .. } if at < m.effects(e, branch) => {
                        let effect = Effect::new(e, branch, at);
                        s.target.holds(effect) && !s.target.remembers(effect)
                    }
                    _ => false,
                };
                s.hosts.iter().any(|host| host.tasks.iter().enumerate().any(|(e, t)| forgotten(e, t)))
            }),
            Property::sometimes("a run outlives the record", |m, s: &State| {
                let outlived = |e: usize, task: &Task| {
                    *task == Task::Delivered
                        && s.records[e].is_none()
                        && usize::from(s.floor) > e
                        && m.whole(s, e)
                };
                s.hosts.iter().any(|host| host.tasks.iter().enumerate().any(|(e, t)| outlived(e, t)))
            }),
        ]
    }
}
