//! `isolation` and `batch-events`: how far a plugin's events are kept apart, as its author and the operator have it.

use cofferdam_sandbox::Isolation;
use toml::Value;

use super::{limits::Choice, literal, reader::Table, settings::Settings};

/// More is a guest that is never fresh.
const MOST_EVENTS: u32 = 1_000_000;

/// What one of the two says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IsolationConfig {
    batch: Option<bool>,
    events: Option<u32>,
}

impl IsolationConfig {
    /// `[plugin]` of a manifest, or a plugin's table of the config.
    pub(super) fn read(table: &Table<'_>) -> Self {
        let batch = table.parsed("isolation", "one of \"event\", \"batch\"", |text| match text {
            "event" => Some(false),
            "batch" => Some(true),
            _ => None,
        });
        Self { batch, events: table.integer("batch-events", 1, MOST_EVENTS).optional() }
    }

    /// The manifest's.
    pub(super) fn of_author(table: &Table<'_>) -> Self {
        let asked = Self::read(table);
        asked.check(table, asked.batch.unwrap_or_default());
        asked
    }

    /// The operator's word counts, then the author's. `table` is the operator's, `manifest` what was read of the author's,
    /// which may not be the `whole`.
    pub(super) fn choose(
        &self,
        table: &Table<'_>,
        author: &Self,
        manifest: &Settings,
        whole: bool,
    ) -> Isolation {
        let choice = Choice { table, manifest, section: "plugin" };
        let word = |batch: &bool| Value::from(if *batch { "batch" } else { "event" });
        let batch = choice.of("isolation", self.batch, author.batch, false, word);
        // What a manifest with faults does not say is no fault of the config.
        if whole {
            self.check(table, batch);
        }
        if !batch {
            return Isolation::Event;
        }
        let events =
            choice.of("batch-events", self.events, author.events, Isolation::BATCH_EVENTS, literal::integer);
        Isolation::Batch { events }
    }

    fn check(&self, table: &Table<'_>, batch: bool) {
        // A fault in `isolation` itself is told already.
        if self.events.is_some() && !batch && (self.batch.is_some() || !table.has("isolation")) {
            let (events, isolation) = (table.name("batch-events"), table.name("isolation"));
            table.fault_of(
                "batch-events",
                format!(
                    "{events} is set, and {isolation} is \"event\", which has no batches; remove it, or set \
                     isolation = \"batch\""
                ),
            );
        }
    }
}

/// For people: `event`, `batch of 1000`.
pub(crate) fn isolation_text(isolation: Isolation) -> String {
    match isolation {
        Isolation::Event => "event".to_owned(),
        Isolation::Batch { events } => format!("batch of {events}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::{reader, source::Source},
        *,
    };

    fn choose(own: &str, author: IsolationConfig) -> Result<Isolation, String> {
        let source = Source::new(Path::new("c.toml"), own.to_owned());
        let parsed = reader::parse(&source, |top| {
            IsolationConfig::read(top).choose(top, &author, &Settings::default(), true)
        });
        match &parsed.faults[..] {
            [] => Ok(parsed.value),
            [fault] => Err(fault.message.clone()),
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn the_operators_word_counts_then_the_authors_then_a_fresh_instance_each() {
        let batch = |events| Ok(Isolation::Batch { events });
        let nothing = IsolationConfig::default();
        let fifty = IsolationConfig { batch: Some(true), events: Some(50) };
        for (own, author, expected) in [
            ("", &nothing, Ok(Isolation::Event)),
            ("", &fifty, batch(50)),
            ("isolation = \"event\"", &fifty, Ok(Isolation::Event)),
            ("isolation = \"batch\"", &nothing, batch(Isolation::BATCH_EVENTS)),
            ("isolation = \"batch\"", &fifty, batch(50)),
            ("batch-events = 7", &fifty, batch(7)),
            ("isolation = \"batch\"\nbatch-events = 7", &nothing, batch(7)),
        ] {
            assert_eq!(choose(own, author.clone()), expected, "{own} {author:?}");
        }
    }

    #[test]
    fn what_would_do_nothing_is_a_fault() {
        let nothing = IsolationConfig::default();
        let told = choose("batch-events = 7", nothing.clone()).unwrap_err();
        assert!(told.contains("remove it, or set isolation = \"batch\""), "{told}");
        let told = choose("isolation = \"none\"\nbatch-events = 7", nothing.clone()).unwrap_err();
        assert!(told.contains("\"none\", which is not one of \"event\", \"batch\""), "{told}");
        let told = choose("isolation = \"batch\"\nbatch-events = 0", nothing).unwrap_err();
        assert!(told.contains("which is not a whole number of 1 to 1000000"), "{told}");
    }

    #[test]
    fn a_manifest_is_checked_as_such() {
        let text = "[plugin]\nname = \"x\"\nversion = \"1\"\nbatch-events = 5\n";
        let source = Source::new(Path::new("plugin.toml"), text.to_owned());
        let faults = reader::parse(&source, |top| {
            let table = top.table("plugin").unwrap();
            let asked = IsolationConfig::of_author(&table);
            assert_eq!(asked.events, Some(5));
        })
        .faults;
        let told: Vec<_> =
            faults.iter().filter(|f| f.message.contains("plugin.batch-events is set")).collect();
        assert_eq!(told.len(), 1, "{faults:?}");
        assert_eq!(told[0].line, Some(4));
    }
}
