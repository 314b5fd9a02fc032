//! What runs may use: what authors ask for, the ceilings that the operator sets for that, and what he sets himself.

use std::time::Duration;

use super::{
    manifest::Place,
    reader::{Table, show_size},
};

/// No run may last longer, whoever asks: an event that takes an hour is a job, not an event.
const LONGEST: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_millis(1);

/// Limits where the author or the operator sets them; the rest are the host's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitsConfig {
    pub cpu: Option<Duration>,
    pub wall: Option<Duration>,
    pub memory: Option<usize>,
    pub host_calls: Option<u32>,
    pub concurrency: Option<u32>,
}

/// The most that a manifest may ask for: its author is not the one whose machine it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceilings {
    pub cpu: Duration,
    pub wall: Duration,
    pub memory: usize,
    pub host_calls: u32,
    pub concurrency: u32,
}

impl LimitsConfig {
    /// `[limits]` of a manifest or of a plugin in the config.
    pub(super) fn read(table: &Table<'_>) -> Self {
        Self {
            cpu: table.duration_within("cpu", SHORTEST, LONGEST),
            wall: table.duration_within("wall", SHORTEST, LONGEST),
            memory: table.size("memory"),
            host_calls: table.integer("host-calls", 1, u32::MAX.into()).map(|n| n as u32),
            concurrency: table.integer("concurrency", 1, 100_000).map(|n| n as u32),
        }
    }

    /// Nobody gets more memory than the sandbox has.
    pub(super) fn check_memory(&self, table: &Table<'_>, sandbox: usize) {
        if let Some(memory) = self.memory.filter(|m| *m > sandbox) {
            table.fault_of(
                "memory",
                format!(
                    "{} is {}, and the sandbox gives {}; lower it, or raise [sandbox] memory",
                    table.name("memory"),
                    show_size(memory),
                    show_size(sandbox)
                ),
            );
        }
    }

    /// The manifest's: what the operator doesn't set himself must be below the ceilings.
    pub(super) fn of_author(table: &Table<'_>, place: &Place<'_>) -> Self {
        let asked = Self::read(table);
        let time = |d: Duration| humantime::format_duration(d).to_string();
        let (own, ceilings) = (place.limits, place.ceilings);
        let checks = [
            above("cpu", asked.cpu, own.cpu, ceilings.cpu, time),
            above("wall", asked.wall, own.wall, ceilings.wall, time),
            above("memory", asked.memory, own.memory, ceilings.memory, show_size),
            above("host-calls", asked.host_calls, own.host_calls, ceilings.host_calls, |n| n.to_string()),
            above("concurrency", asked.concurrency, own.concurrency, ceilings.concurrency, |n| n.to_string()),
        ];
        for (key, asked, ceiling) in checks.into_iter().flatten() {
            let within = if key == "memory" { ", both within [sandbox] memory" } else { "" };
            table.fault_of(
                key,
                format!(
                    "limits.{key} is {asked}, and a manifest may ask for {ceiling} here; lower it, or in the config raise {key} \
                     in [limits] or set it for this plugin in [plugins.{}.limits]{within}",
                    place.name
                ),
            );
        }
        asked
    }

    /// The operator's word counts, then the author's.
    pub(super) fn or(&self, author: &Self) -> Self {
        Self {
            cpu: self.cpu.or(author.cpu),
            wall: self.wall.or(author.wall),
            memory: self.memory.or(author.memory),
            host_calls: self.host_calls.or(author.host_calls),
            concurrency: self.concurrency.or(author.concurrency),
        }
    }
}

fn above<T: PartialOrd + Copy>(
    key: &'static str,
    asked: Option<T>,
    own: Option<T>,
    ceiling: T,
    show: impl Fn(T) -> String,
) -> Option<(&'static str, String, String)> {
    let asked = asked.filter(|asked| own.is_none() && *asked > ceiling)?;
    Some((key, show(asked), show(ceiling)))
}

impl Ceilings {
    /// `[limits]` of the config. `memory` is what the sandbox gives.
    pub(super) fn read(table: Option<&Table<'_>>, memory: usize) -> Self {
        let defaults = Self::of_sandbox(memory);
        let Some(table) = table else { return defaults };
        let own = LimitsConfig::read(table);
        own.check_memory(table, memory);
        Self {
            cpu: own.cpu.unwrap_or(defaults.cpu),
            wall: own.wall.unwrap_or(defaults.wall),
            memory: own.memory.unwrap_or(defaults.memory),
            host_calls: own.host_calls.unwrap_or(defaults.host_calls),
            concurrency: own.concurrency.unwrap_or(defaults.concurrency),
        }
    }

    pub(super) fn of_sandbox(memory: usize) -> Self {
        Self {
            // The bundled parser asks for 3 s, for answers of the worst kind; three times that is no event any more.
            cpu: Duration::from_secs(10),
            // A few calls to slow upstreams; what runs holds its order key's other events, and a stop waits for it.
            wall: Duration::from_secs(300),
            // The sandbox's own bound; less is for hosts with many plugins.
            memory,
            // Ten times the default; who needs more of them in one event should need fewer.
            host_calls: 100_000,
            // As many as the sandbox runs at once by default: one plugin may fill the host, not queue on it.
            concurrency: 256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::{check, parse};

    #[test]
    fn an_author_may_ask_for_no_more_than_the_ceilings() {
        for (line, says) in [
            ("cpu = \"11s\"", "limits.cpu is 11s, and a manifest may ask for 10s here"),
            ("wall = \"301s\"", "limits.wall is 5m 1s, and a manifest may ask for 5m here"),
            ("memory = \"257MiB\"", "limits.memory is 257MiB, and a manifest may ask for 256MiB here"),
            ("host-calls = 100001", "limits.host-calls is 100001"),
            ("concurrency = 257", "in [limits] or set it for this plugin in [plugins.p.limits]"),
        ] {
            check(&format!("[limits]\n{line}\n"), 2, says);
        }
        parse("[limits]\ncpu = \"10s\"\nwall = \"5m\"\nmemory = \"256MiB\"\nhost-calls = 100000\nconcurrency = 256\n")
            .unwrap();
    }

    #[test]
    fn no_run_lasts_longer_than_an_hour() {
        for key in ["cpu", "wall"] {
            check(&format!("[limits]\n{key} = \"61m\"\n"), 2, "not a duration from 1ms to 1h");
        }
    }
}
