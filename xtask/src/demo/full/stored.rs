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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt;
    use crate::steps::Steps;
    use crate::tool::Tool;
    use std::time::{Duration, Instant};

    #[test]
    fn a_reader_that_has_ended_begins_anew_and_nothing_counts_twice() {
        let folder = tempfile::tempdir().unwrap();
        // Shows one message more each time, from the beginning, and ends.
        let script = r#"#!/bin/sh
echo x >> runs
n=0
while read -r _; do
  n=$((n+1))
  echo "{\"time\":\"1970-01-01T00:00:00Z\",\"subject\":\"a.$n\",\"stream\":\"S\",\"sequence\":$n}"
done < runs"#;
        // A shell writes it: were the file open here while another test forks, it could not be started for a moment.
        let program = folder.path().join("sub");
        let write = format!("cat > '{0}' <<'END'\n{script}\nEND\nchmod +x '{0}'", program.display());
        let tool = Tool::new("sh", &folder.path().join("log"), "again").args(["-c", &write]);
        Steps::new().run("write", |step| tool.run(step)).unwrap();

        let mut processes = Processes::new(folder.path(), false);
        let mut stored = Stored::start(&program, "127.0.0.1:1", &mut processes).unwrap();
        let mut seen = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        let ended = loop {
            assert!(Instant::now() < deadline, "{seen:?}");
            match stored.read(&mut processes) {
                Ok(messages) => seen.extend(messages.into_iter().map(|message| message.subject)),
                Err(error) => break error.to_string(),
            }
            interrupt::pause(Duration::from_millis(5));
        };
        let expect: Vec<String> = (1..=RESTARTS).map(|n| format!("a.{n}")).collect();
        assert_eq!(seen[..expect.len()], expect);
        assert!(ended.contains("can't be read: `cofferdam sub` ended with exit code 0"), "{ended}");
    }
}
