//! How a task moves through the machine: as far as it goes by itself. Nothing is published here.

use cofferdam_sdk::fleet::{
    Artifacts, StateChanged, TaskAssigned, TaskCompleted, Timestamp, ValidationRequired,
};

use super::{Hop, Task, telling::Told};
use crate::{
    machine::{Feedback, Guard, Machine, Move, SYSTEM, Step},
    own::Moved,
};

const KEPT_HOPS: usize = 200;
/// Bytes of feedback in all of the history; JSON may write six for one.
const KEPT_FEEDBACK: usize = 48 * 1024;

/// What somebody does to a task, in the machine's names.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Act<'a> {
    pub(crate) action: &'a str,
    pub(crate) role: &'a str,
    pub(crate) agent: Option<&'a str>,
    pub(crate) feedback: Option<&'a str>,
    /// Handed in with it, if anything is.
    pub(crate) artifacts: Option<&'a Artifacts>,
    /// When they say that they did it.
    pub(crate) at: Option<Timestamp>,
}

impl<'a> Act<'a> {
    pub(super) fn of_system(action: &'a str) -> Self {
        Self { action, role: SYSTEM, ..Self::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    Done,
    /// Nobody of this role does that, in no state.
    NotTheirs,
    /// Not in this state.
    NotHere,
}

impl Task {
    /// Moves the task as far as it goes by itself, and notes what is to be told of that: each hop first, then what is to be done
    /// where it rests. Where the action is not to be done here, or not by this role, nothing happens.
    pub(crate) fn apply(&mut self, machine: &Machine, act: &Act<'_>) -> Applied {
        let moves = match machine.step(&self.state, act.action, act.role) {
            Step::Moves(moves) => moves,
            Step::NotTheirs => return Applied::NotTheirs,
            Step::NotHere => return Applied::NotHere,
        };
        let from = self.state.clone();
        let mut last = None;
        for row in moves {
            if row.claims && row.to == self.state {
                // It leads nowhere, so whoever has the task keeps it.
                if self.claimed_by.is_none() {
                    self.claim(act.agent);
                }
                continue;
            }
            self.hop(machine, row, act);
            last = Some(row);
            for row in machine.after(row) {
                self.hop(machine, row, &Act::of_system(&row.action));
                last = Some(row);
            }
        }
        while let Some(row) = machine.automatic(&self.state) {
            self.hop(machine, row, &Act::of_system(&row.action));
            last = Some(row);
        }
        if let Some(last) = last {
            self.rest(machine, &from, last);
        }
        Applied::Done
    }

    /// Notes who has the task now.
    pub(crate) fn claim(&mut self, agent: Option<&str>) {
        self.claimed_by = agent.map(str::to_owned);
        self.claimed_at = agent.map(|_| Timestamp::now());
    }

    fn hop(&mut self, machine: &Machine, row: &Move, act: &Act<'_>) {
        let now = Timestamp::now();
        let from = std::mem::replace(&mut self.state, row.to.clone());
        let asked_for = row.action == act.action;
        let feedback = act.feedback.filter(|_| asked_for).map(str::to_owned);
        match row.feedback {
            Some(Feedback::Keep) => self.feedback.clone_from(&feedback),
            Some(Feedback::Clear) => self.feedback = None,
            None => {}
        }
        if row.guard == Some(Guard::CommitSha) {
            self.work = act.artifacts.map(Artifacts::shortened);
        }
        self.retry_count += u32::from(row.retries);
        self.claim(act.agent.filter(|_| row.claims));
        let (before, after) = (machine.in_charge(&from), machine.in_charge(&self.state));
        if before != after {
            self.figures.stayed(before, self.in_charge_since.unwrap_or(now), now);
            self.in_charge_since = Some(now);
        }
        self.figures.moved(row);
        self.since = Some(now);
        self.updated_at = now;
        self.keep(Hop {
            from: from.clone(),
            to: row.to.clone(),
            action: row.action.clone(),
            actor: act.role.into(),
            at: act.at.unwrap_or(now),
            feedback,
        });
        let duty = machine.duty(&self.state);
        self.told.push(Told::Changed(StateChanged {
            event_type: "workflow.state.changed".into(),
            task_id: self.task_id.clone(),
            story_id: self.story_id.clone(),
            from_state: from,
            to_state: row.to.clone(),
            action: row.action.clone(),
            actor_role: act.role.into(),
            role_in_charge: duty.map(|duty| duty.role.clone()).unwrap_or_default(),
            required_action: duty.map(|duty| duty.action.clone()).unwrap_or_default(),
            feedback: self.feedback.clone().unwrap_or_default(),
            retry_count: self.retry_count,
            timestamp: now,
        }));
    }

    /// Adds it to the history, of which the cell holds the end.
    fn keep(&mut self, hop: Hop) {
        self.hops += 1;
        self.history.push(hop);
        self.history.drain(..self.history.len().saturating_sub(KEPT_HOPS));
        let mut room = KEPT_FEEDBACK;
        for hop in self.history.iter_mut().rev() {
            let size = hop.feedback.as_ref().map_or(0, String::len);
            room = room.checked_sub(size).unwrap_or_else(|| {
                hop.feedback = None;
                0
            });
        }
    }

    /// What others have to know of where it rests now, after the `last` of its hops, the first of which left `from`.
    fn rest(&mut self, machine: &Machine, from: &str, last: &Move) {
        let Some(state) = machine.state(&self.state) else { return };
        let (task_id, story_id) = (self.task_id.clone(), self.story_id.clone());
        if let Some(duty) = state.duty.as_ref().filter(|_| last.assigns || state.assigns) {
            self.told.push(Told::Assigned(TaskAssigned {
                feedback: self.feedback.clone().filter(|_| state.rework),
                ..TaskAssigned::new(&task_id, &story_id, &duty.role, &duty.label, &duty.action, &state.name)
            }));
            if let Some(artifact) = &state.validates {
                self.told.push(Told::Validation(ValidationRequired {
                    task_id: task_id.clone(),
                    story_id: story_id.clone(),
                    validator_role: duty.role.clone(),
                    artifact_type: artifact.clone(),
                    timestamp: self.updated_at,
                }));
            }
        }
        if state.ends.is_some() {
            self.told.push(Told::Completed(TaskCompleted {
                task_id: task_id.clone(),
                story_id: story_id.clone(),
                final_state: state.name.clone(),
                timestamp: self.updated_at,
            }));
        }
        let leaves = !self.left && self.leaves_first_owner(machine, from);
        self.left |= leaves;
        if leaves || state.ends.is_some() {
            let (state, ended, figures) = (state.name.clone(), state.ends, self.figures);
            self.told.push(Told::Moved(Moved { task_id, story_id, state, ended, figures }));
        }
    }

    /// Whether it is with somebody else now, or was with its first owner and is no more. Before the first owner nobody has it.
    fn leaves_first_owner(&self, machine: &Machine, from: &str) -> bool {
        let owner = machine.first_owner();
        let (before, now) = (machine.in_charge(from), machine.in_charge(&self.state));
        self.state != machine.initial() && now != owner && (now.is_some() || before == owner)
    }
}
