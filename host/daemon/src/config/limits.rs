//! What runs may use: what authors ask for, the ceilings that the operator sets for that, and what he sets himself.

use std::time::Duration;

use cofferdam_sandbox::Limits;
use toml::Value;

use super::{
    literal::{self, show_size},
    reader::Table,
    settings::{Origin, Settings},
};

/// No run may last longer, whoever asks: an event that takes an hour is a job, not an event.
const LONGEST: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_millis(1);

const MOST_AT_ONCE: u32 = 100_000;
/// Events of one plugin running at once, unless its limits say otherwise.
const CONCURRENCY: u32 = 64;

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
            cpu: table.duration_within("cpu", SHORTEST, LONGEST).optional(),
            wall: table.duration_within("wall", SHORTEST, LONGEST).optional(),
            memory: table.size("memory").optional(),
            host_calls: table.integer("host-calls", 1, u32::MAX).optional(),
            concurrency: table.integer("concurrency", 1, MOST_AT_ONCE).optional(),
        }
    }

    /// The manifest's, for the plugin of this name: what the operator doesn't set himself must be below the ceilings.
    pub(super) fn of_author(table: &Table<'_>, name: &str, own: &Self, ceilings: &Ceilings) -> Self {
        let asked = Self::read(table);
        let time = |d: Duration| humantime::format_duration(d).to_string();
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
                     in [limits] or set it for this plugin in [plugins.{name}.limits]{within}"
                ),
            );
        }
        asked
    }
}

impl LimitsConfig {
    /// The wall time of the author's plugin, as [`PluginLimits::of`] has it.
    pub(super) fn wall_in(&self, own: &Self, ceilings: &Ceilings) -> Duration {
        own.wall.or(self.wall).unwrap_or_else(|| Limits::default().wall.min(ceilings.wall))
    }
}

/// What a plugin may use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginLimits {
    pub cpu: Duration,
    pub wall: Duration,
    pub memory: usize,
    pub host_calls: u32,
    /// Its events running at once on this host.
    pub concurrency: u32,
}

impl PluginLimits {
    /// The operator's word counts, then the author's, then the defaults, as far as the ceilings let them. `table` is the
    /// operator's, `manifest` what was read of the author's.
    pub(super) fn of(
        table: &Table<'_>,
        own: &LimitsConfig,
        author: &LimitsConfig,
        manifest: &Settings,
        ceilings: &Ceilings,
    ) -> Self {
        let defaults = Limits::default();
        let choice = Choice { table, manifest, section: "limits" };
        let time = literal::duration;
        Self {
            cpu: choice.of("cpu", own.cpu, author.cpu, defaults.cpu.min(ceilings.cpu), time),
            wall: choice.of("wall", own.wall, author.wall, defaults.wall.min(ceilings.wall), time),
            memory: choice.of(
                "memory",
                own.memory,
                author.memory,
                defaults.memory.min(ceilings.memory),
                literal::size,
            ),
            host_calls: choice.of(
                "host-calls",
                own.host_calls,
                author.host_calls,
                defaults.host_calls.min(ceilings.host_calls),
                literal::integer,
            ),
            concurrency: choice.of(
                "concurrency",
                own.concurrency,
                author.concurrency,
                CONCURRENCY.min(ceilings.concurrency),
                literal::integer,
            ),
        }
    }
}

pub(super) struct Choice<'a> {
    pub table: &'a Table<'a>,
    pub manifest: &'a Settings,
    /// Of the manifest.
    pub section: &'a str,
}

impl Choice<'_> {
    /// One limit, or the like. What the operator set has been recorded as it was read.
    pub(super) fn of<T>(
        &self,
        key: &str,
        own: Option<T>,
        author: Option<T>,
        default: T,
        write: fn(&T) -> Value,
    ) -> T {
        let (value, origin) = match (own, author) {
            (Some(own), _) => return own,
            (None, Some(author)) => {
                let origin = self.manifest.get(self.section, key).map(|s| s.origin.clone().of_manifest());
                (author, origin.unwrap_or(Origin::Default))
            }
            (None, None) => (default, Origin::Default),
        };
        self.table.set(key, write(&value), origin);
        value
    }
}

/// Nobody gets more memory than the sandbox has.
pub(super) fn check_memory(table: &Table<'_>, memory: usize, sandbox: usize) {
    if memory > sandbox {
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
    pub(super) fn read(table: &Table<'_>, memory: usize) -> Self {
        let defaults = Self::of_sandbox(memory);
        let ceilings = Self {
            cpu: table.duration_within("cpu", SHORTEST, LONGEST).or(defaults.cpu),
            wall: table.duration_within("wall", SHORTEST, LONGEST).or(defaults.wall),
            memory: table.size("memory").or(defaults.memory),
            host_calls: table.integer("host-calls", 1, u32::MAX).or(defaults.host_calls),
            concurrency: table.integer("concurrency", 1, MOST_AT_ONCE).or(defaults.concurrency),
        };
        check_memory(table, ceilings.memory, memory);
        ceilings
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
    use std::path::Path;

    use super::{
        super::{
            manifest::tests::{check, parse},
            reader,
            source::Source,
        },
        *,
    };

    #[test]
    fn the_operators_limit_counts_then_the_authors_and_what_nobody_sets_stays_below_the_ceilings() {
        let ceilings = Ceilings {
            cpu: Duration::from_millis(100),
            wall: Duration::from_secs(300),
            memory: 1 << 20,
            host_calls: 7,
            concurrency: 1,
        };
        let author = LimitsConfig {
            cpu: Some(Duration::from_secs(1)),
            host_calls: Some(5),
            ..LimitsConfig::default()
        };
        let source = Source::new(Path::new("c.toml"), "cpu = \"60s\"\n".to_owned());
        let parsed = reader::parse(&source, |top| {
            let own = LimitsConfig::read(top);
            PluginLimits::of(top, &own, &author, &Settings::default(), &ceilings)
        });
        let limits = parsed.value;
        assert_eq!((limits.cpu, limits.wall), (Duration::from_secs(60), Limits::default().wall));
        assert_eq!((limits.memory, limits.host_calls, limits.concurrency), (1 << 20, 5, 1));
        let shown = |key| parsed.settings.get("", key).and_then(|s| s.value.clone());
        assert_eq!(shown("cpu"), Some(Value::from("60s")));
        assert_eq!(shown("memory"), Some(Value::from("1MiB")));
    }

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
