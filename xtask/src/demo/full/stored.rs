//! Reads what is stored, from the beginning and on: `cofferdam sub --all`, which goes on after the last message that it has
//! shown when the daemon was away. So nothing is missed, whoever is killed.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};

use crate::demo::TRAIL;
use crate::demo::message::Message;
use crate::demo::processes::Processes;

/// Everything of the fleet that is stored.
const SUBJECTS: [&str; 7] = [
    "planning.>",
    "task.derivation.>",
    "agent.>",
    "workflow.>",
    "orchestration.>",
    "context.>",
    "cofferdam.>",
];
/// How often it is started anew before that is a fault.
const RESTARTS: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Stored {
    shown: BTreeSet<(String, u64)>,
    restarts: usize,
}

impl Stored {
    pub(super) fn start(cofferdam: &Path, admin: &str, processes: &mut Processes) -> Result<Self> {
        processes.start(TRAIL, cofferdam, |command| {
            command.arg("sub").args(SUBJECTS).args([
                "--all",
                "--json",
                "--admin",
                &format!("http://{admin}"),
            ]);
        })?;
        Ok(Self::default())
    }

    /// What came since the last look. A reader that has ended, because the daemon was not there yet or answered something that it
    /// does not wait out, begins anew; what it shows again is known by its place.
    pub(super) fn read(&mut self, processes: &mut Processes) -> Result<Vec<Message>> {
        if let Some(end) = processes.ended(TRAIL)? {
            self.restarts += 1;
            if self.restarts > RESTARTS {
                bail!("what is stored can't be read: `cofferdam sub` {end}");
            }
            processes.kill_and_restart(TRAIL)?;
        }
        let lines = processes.lines(TRAIL)?;
        let messages = lines.iter().filter_map(|line| Message::read(line));
        Ok(messages.filter(|message| message.place().is_some_and(|place| self.shown.insert(place))).collect())
    }
}
