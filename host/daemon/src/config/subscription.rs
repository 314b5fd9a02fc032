//! `[[subscriptions]]` of a manifest: which events a plugin takes, in which order, and where they commit. Which subjects no
//! plugin may take is said here.

use std::time::Duration;

use cofferdam_bus::subject;

use super::{
    failure::FailurePolicy,
    place::Place,
    reader::{At, Item, Table},
    words::{bad_name, is_name},
};
use crate::{dispatch::inbox, executor::job};

/// Heartbeats come three times in an ack wait; with less than this a busy host would miss them, and its events would be
/// delivered twice.
const SHORTEST_ACK_WAIT: Duration = Duration::from_secs(1);
/// A host that died is noticed after the ack wait; a day is long past any use of that.
const LONGEST_ACK_WAIT: Duration = Duration::from_secs(24 * 3600);
const ACK_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    pub subject: String,
    pub durable: String,
    /// Tried in order; the first that is found and not empty is the key.
    pub order_key: Vec<KeySource>,
    /// With `{key}` in it.
    pub cell: String,
    pub class: Class,
    pub ack_wait: Duration,
    /// Of a run from its start to its end; `None`: as long as the plugin's limit of wall time.
    pub deadline: Option<Duration>,
    pub failure: FailurePolicy,
}

impl Subscription {
    /// What stands for one where there is none: a call is tried once, and has its order and its cell by itself.
    pub(crate) fn of_calls(method: &str) -> Self {
        Self {
            subject: method.to_owned(),
            durable: inbox::durable_of_calls(method),
            order_key: Vec::new(),
            cell: String::new(),
            class: Class::Record,
            ack_wait: inbox::ACK_WAIT,
            deadline: None,
            failure: FailurePolicy::once(),
        }
    }

    /// Does the order of its events count?
    pub fn is_ordered(&self) -> bool {
        !self.order_key.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySource {
    pub place: KeyPlace,
    /// Taken off once, if the value begins with it; a value that doesn't is not a key.
    pub strip_prefix: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// A JSON pointer (RFC 6901) into the payload.
    Pointer(String),
    Header(String),
}

/// Where events of a subscription commit (see `cofferdam_bus::Point`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Cell,
    Record,
    Publish,
}

/// `wall` is what a run of the plugin may last. `None` only along with a fault.
pub(super) fn subscription(table: &Table<'_>, place: &mut Place<'_>, wall: Duration) -> Option<Subscription> {
    let filter = table.required("subject", "\"orders.created\"");
    let order_key = order_key(table);
    let class = class(table, !order_key.is_empty());
    let cell = table.string("cell");
    if let Some(cell) = &cell {
        if !cell.value.contains("{key}") {
            table.fault_at(
                cell,
                format!("cell is {:?}, so all keys would share it; put {{key}} in it", cell.value),
            );
        }
        if !table.has("order-key") {
            table.fault_at(cell, "cell needs an order-key to fill in; add one, or remove cell");
        }
    }
    let ack_wait = table.duration_within("ack-wait", SHORTEST_ACK_WAIT, LONGEST_ACK_WAIT).or(ACK_WAIT);
    let deadline = deadline(table, place.name, wall);
    let failure = FailurePolicy::read(table, table.has("order-key"));
    let durable = table.string("durable");
    let filter = filter?;
    if subject::check_filter(&filter.value).is_err() {
        table.fault_at(&filter, format!("{:?} is not a subject", filter.value));
    } else if let Some(why) = closed(&filter.value, place.name) {
        table.fault_at(&filter, why);
    }
    Some(Subscription {
        durable: durable_of(table, durable, &filter, place),
        subject: filter.value,
        order_key,
        cell: cell.map_or_else(|| "{key}".to_owned(), |c| c.value),
        class,
        ack_wait,
        deadline,
        failure,
    })
}

/// No longer than the plugin's runs may last.
fn deadline(table: &Table<'_>, name: &str, wall: Duration) -> Option<Duration> {
    let deadline = table.duration("deadline").optional()?;
    if deadline > wall {
        let time = humantime::format_duration;
        table.fault_of(
            "deadline",
            format!(
                "deadline is {}, and no run of the plugin lasts longer than {}, its limit of wall time; lower it, or raise \
                 wall in [limits] of the manifest or in [plugins.{name}.limits] of the config",
                time(deadline),
                time(wall)
            ),
        );
    }
    Some(deadline)
}

fn order_key(table: &Table<'_>) -> Vec<KeySource> {
    let mut sources = Vec::new();
    for item in table.mixed("order-key") {
        match item {
            Item::String(pointer) => sources.push(key_source(table, pointer, None)),
            Item::Table(inner) => {
                let strip = inner.string("strip-prefix").map(|s| s.value);
                match (inner.string("pointer"), inner.string("header")) {
                    (Some(pointer), None) => sources.push(key_source(table, pointer, strip)),
                    (None, Some(header)) => {
                        sources
                            .push(KeySource { place: KeyPlace::Header(header.value), strip_prefix: strip });
                    }
                    _ => inner.fault("a part of order-key has either pointer or header"),
                }
                inner.finish();
            }
        }
    }
    sources
}

fn key_source(table: &Table<'_>, pointer: At<String>, strip_prefix: Option<String>) -> KeySource {
    if !pointer.value.starts_with('/') {
        table.fault_at(
            &pointer,
            format!("order-key has {:?}, which is not a JSON pointer; begin it with /", pointer.value),
        );
    }
    KeySource { place: KeyPlace::Pointer(pointer.value), strip_prefix }
}

/// Only cells keep an order, so an order key with another class would promise what nobody keeps.
fn class(table: &Table<'_>, keyed: bool) -> Class {
    let class = table.parsed("commit", "one of cell, record, publish", |s| match s {
        "cell" => Some(Class::Cell),
        "record" => Some(Class::Record),
        "publish" => Some(Class::Publish),
        _ => None,
    });
    match class {
        Some(Class::Cell) if !keyed => {
            table
                .fault_of("commit", "commit = \"cell\" needs an order-key; add one, or write commit = \"record\"");
        }
        Some(Class::Record | Class::Publish) if keyed => table.fault_of(
            "commit",
            "only commit = \"cell\" keeps the order of an order-key; write commit = \"cell\", or remove order-key",
        ),
        _ => {}
    }
    class.unwrap_or(if keyed { Class::Cell } else { Class::Record })
}

/// Why the plugin may not take the events of a filter that is well-formed, if so.
fn closed(filter: &str, plugin: &str) -> Option<String> {
    let first = filter.split('.').next().unwrap_or_default();
    if first == "*" || first == ">" {
        return Some(format!(
            "{filter:?} covers the host's own subjects (cd.>) and NATS's ($JS.>, _INBOX.>); begin it with a whole word, such \
             as \"orders.>\""
        ));
    }
    if first.starts_with('$') || first == "_INBOX" {
        return Some(format!("{filter:?} is one of NATS's own subjects; subscribe to those of your fleet"));
    }
    if first == "cd" {
        return Some(format!(
            "{filter:?} is one of the host's own subjects (cd.>: state, records and jobs of every plugin); subscribe to \
             those of your fleet"
        ));
    }
    let own = [
        ("dead letters", format!("cofferdam.dead.{plugin}")),
        ("advisories", format!("cofferdam-advisory.{plugin}.*")),
    ];
    own.into_iter().find(|(_, own)| subject::overlaps(filter, own)).map(|(what, own)| {
        format!(
            "{filter:?} would bring the plugin its own {what} ({own}), and each may make another; narrow it"
        )
    })
}

/// The durable's name, which nobody else has.
fn durable_of(
    table: &Table<'_>,
    own: Option<At<String>>,
    filter: &At<String>,
    place: &mut Place<'_>,
) -> String {
    let (at, name) = match own {
        Some(own) => {
            if !is_name(&own.value) {
                table.fault_at(&own, bad_name(&own.value));
            }
            (own.with(""), own.value)
        }
        None => {
            let name = durable_name(place.name, &filter.value);
            // A bad subject or name has been told.
            let fine = |c: char| !matches!(c, '/' | '\\' | '.' | '*' | '>') && !c.is_control();
            if subject::check_filter(&filter.value).is_ok() && is_name(place.name) && !name.chars().all(fine)
            {
                table.fault_at(
                    filter,
                    format!(
                        "{:?} has characters that a durable's name can't have; add durable = \"...\"",
                        filter.value
                    ),
                );
            }
            (filter.with(""), name)
        }
    };
    if job::is_durable(&name) {
        table
            .fault_at(&at, format!("the durable {name:?} is the executor's; give this subscription another"));
    }
    match place.durables.get(&name) {
        Some(owner) if owner == place.name => table.fault_at(
            &at,
            format!(
                "two subscriptions of plugins.{owner} would share the durable {name:?}; remove one, or give it a durable of \
                 its own"
            ),
        ),
        Some(owner) => table.fault_at(
            &at,
            format!(
                "plugins.{owner} and plugins.{} would share the durable {name:?}, and each would get a part of the events; \
                 give this subscription another durable, or remove durable, and it follows the plugin's name",
                place.name
            ),
        ),
        None => {
            place.durables.insert(name.clone(), place.name.to_owned());
        }
    }
    name
}

/// `cofferdam-<plugin>-<subject with dashes>`, wildcards in words.
fn durable_name(plugin: &str, filter: &str) -> String {
    let words: Vec<&str> = filter
        .split('.')
        .map(|token| match token {
            "*" => "any",
            ">" => "all",
            other => other,
        })
        .collect();
    format!("cofferdam-{plugin}-{}", words.join("-"))
}

#[cfg(test)]
mod tests {
    use super::{super::manifest::tests::*, *};

    #[test]
    fn a_subscription_has_the_contracts_defaults() {
        let manifest = parse("[[subscriptions]]\nsubject = \"a.b.>\"\n").unwrap();
        let subscription = &manifest.subscriptions[0];
        assert_eq!(subscription.durable, "cofferdam-p-a-b-all");
        assert_eq!((subscription.ack_wait, subscription.deadline), (Duration::from_secs(10), None));
        assert_eq!(subscription.class, Class::Record);
    }

    #[test]
    fn an_order_key_makes_it_a_cell_and_may_strip_a_prefix() {
        let manifest = parse(
            "[[subscriptions]]\nsubject = \"a\"\norder-key = [\"/id\", { pointer = \"/t\", strip-prefix = \"x-\" }]\n",
        )
        .unwrap();
        let subscription = &manifest.subscriptions[0];
        assert_eq!(subscription.class, Class::Cell);
        assert_eq!(subscription.order_key[1].strip_prefix.as_deref(), Some("x-"));
    }

    #[test]
    fn an_order_key_without_a_cell_is_refused() {
        for class in ["record", "publish"] {
            let text =
                format!("[[subscriptions]]\nsubject = \"a\"\norder-key = \"/id\"\ncommit = \"{class}\"\n");
            check(&text, 4, "write commit = \"cell\", or remove order-key");
        }
        check("[[subscriptions]]\nsubject = \"a\"\ncell = \"{key}\"\n", 3, "cell needs an order-key");
        check("[[subscriptions]]\nsubject = \"a\"\ncommit = \"cell\"\n", 3, "needs an order-key");
    }

    #[test]
    fn the_hosts_subjects_and_natss_are_closed() {
        for (subject, why) in [
            (">", "begin it with a whole word"),
            ("*", "begin it with a whole word"),
            ("*.created", "begin it with a whole word"),
            ("cd.>", "the host's own subjects"),
            ("cd.j.*", "the host's own subjects"),
            ("$JS.EVENT.>", "NATS's own"),
            ("$KV.bucket.*", "NATS's own"),
            ("_INBOX.>", "NATS's own"),
        ] {
            check(&format!("[[subscriptions]]\nsubject = \"{subject}\"\n"), 2, why);
        }
        for subject in ["cds.a", "orders.>", "cofferdam.derivation.*", "a.$JS"] {
            parse(&format!("[[subscriptions]]\nsubject = \"{subject}\"\n")).unwrap();
        }
    }

    #[test]
    fn its_own_dead_letters_are_closed_and_those_of_others_are_not() {
        for subject in
            ["cofferdam.>", "cofferdam.dead.>", "cofferdam.dead.*", "cofferdam.dead.p", "cofferdam.*.p"]
        {
            check(&format!("[[subscriptions]]\nsubject = \"{subject}\"\n"), 2, "its own dead letters");
        }
        check("[[subscriptions]]\nsubject = \"cofferdam-advisory.*.done\"\n", 2, "its own advisories");
        parse("[[subscriptions]]\nsubject = \"cofferdam.dead.q\"\n").unwrap();
    }

    #[test]
    fn a_durable_is_taken_once() {
        let two = "[[subscriptions]]\nsubject = \"a.b\"\n[[subscriptions]]\nsubject = \"a-b\"\n";
        check(two, 4, "two subscriptions of plugins.p would share the durable \"cofferdam-p-a-b\"");
        let executors =
            "[[subscriptions]]\nsubject = \"a\"\ndurable = \"cofferdam-jobs-p-low-0123456789abcdef\"\n";
        check(executors, 3, "is the executor's");
        check("[[subscriptions]]\nsubject = \"a/b\"\n", 2, "add durable = ");
    }

    #[test]
    fn an_ack_wait_leaves_time_for_heartbeats() {
        for bad in ["999ms", "25h"] {
            let text = format!("[[subscriptions]]\nsubject = \"a\"\nack-wait = \"{bad}\"\n");
            check(&text, 3, "which is not a duration from 1s to 1day");
        }
        parse("[[subscriptions]]\nsubject = \"a\"\nack-wait = \"1s\"\n").unwrap();
    }

    #[test]
    fn a_deadline_is_within_the_plugins_wall_time() {
        let text = "[[subscriptions]]\nsubject = \"a\"\ndeadline = \"61s\"\n";
        check(text, 3, "deadline is 1m 1s, and no run of the plugin lasts longer than 1m");
        let manifest = parse(&format!("{text}[limits]\nwall = \"61s\"\n")).unwrap();
        assert_eq!(manifest.subscriptions[0].deadline, Some(Duration::from_secs(61)));
    }
}
