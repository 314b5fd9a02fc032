//! When a worker is killed: as it waits for answers, or at a message of the commit that ends a job. It holds leases in either case.

use std::collections::BTreeMap;

use harness::{dice::Dice, proxy::Act};

/// What a worker sends to end a job, in this order: the commit point, the event, the record, the ack.
const MESSAGES: [&str; 4] = ["cd.c.", "agent.response.", "cd.e.", "$JS.ACK.COFFERDAM."];
/// The server never sees it, or sees it and the worker doesn't learn that it did.
const ACTS: [Act; 2] = [Act::Hold, Act::HoldAfter];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// With so many requests open, and more if they are slow to come.
    Asking { open: u64 },
    /// At the message after `skip` others that begin so.
    Ending { subject: &'static str, skip: u32, act: Act },
}

impl Aim {
    /// Every other kill is at a message; few of them hit each.
    pub(super) fn of(number: u64, places: u64, dice: &mut Dice) -> Aim {
        if !number.is_multiple_of(2) {
            return Aim::Asking { open: 1 + dice.below(places) };
        }
        let turn = (number / 2) as usize;
        let act = ACTS[(turn + turn / MESSAGES.len()) % ACTS.len()];
        Aim::Ending { subject: MESSAGES[turn % MESSAGES.len()], skip: dice.below(4) as u32, act }
    }

    pub(super) fn name(self) -> String {
        match self {
            Aim::Asking { .. } => "asking".to_owned(),
            Aim::Ending { subject, act: Act::Hold, .. } => format!("before {subject}"),
            Aim::Ending { subject, .. } => format!("behind {subject}"),
        }
    }
}

/// Kills by what they hit.
pub(super) type Windows = BTreeMap<String, u64>;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn sixteen_kills_are_before_and_behind_each_message() {
        let mut dice = Dice::of(1);
        let names: BTreeSet<String> = (0..16).map(|number| Aim::of(number, 4, &mut dice).name()).collect();
        assert_eq!(names.len(), 1 + MESSAGES.len() * ACTS.len(), "{names:?}");
    }
}
