//! What is printed: a document for programs, a table for people, and progress on standard error.

use std::io::Write as _;

use serde::Serialize;

use crate::{machine::Machine, options::Options, outcome::Outcome, rig::Rig};

#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    settings: Settings,
    results: Vec<Judged>,
}

#[derive(Serialize)]
struct Settings {
    #[serde(flatten)]
    options: Options,
    storage: &'static str,
}

#[derive(Serialize)]
struct Judged {
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

impl Report {
    pub(crate) fn of(rig: &Rig, results: Vec<Outcome>) -> Report {
        let judged = results.into_iter().map(|outcome| Judged { met: outcome.met(), outcome });
        Report {
            machine: Machine::this(),
            settings: Settings { options: rig.options.clone(), storage: "file" },
            results: judged.collect(),
        }
    }

    /// Is every figure one to rely on? Whether it reaches its goal is another matter.
    pub(crate) fn is_good(&self) -> bool {
        self.results.iter().all(|judged| judged.outcome.void.is_none())
    }

    pub(crate) fn document(&self) -> String {
        serde_json::to_string_pretty(self).expect("JSON")
    }

    pub(crate) fn table(&self) -> String {
        let Options { events, rounds, payload, in_flight, .. } = &self.settings.options;
        let mut text = format!(
            "{}\n{events} events a round, {rounds} rounds, {payload} B, {in_flight} in flight, storage: {}\n\n",
            self.machine.line(),
            self.settings.storage
        );
        text += &row(&["", "ratio", "spread", "ours", "against", "", "goal", ""]);
        for Judged { outcome, met } in &self.results {
            if let Some(why) = &outcome.void {
                text += &format!("{:<26} void: {why}\n", outcome.name);
                continue;
            }
            let spread = outcome.spread.map(|[least, most]| format!("{least:.2} - {most:.2}"));
            text += &row(&[
                &outcome.name,
                &outcome.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
                &spread.unwrap_or_default(),
                &outcome.value.map(figure).unwrap_or_default(),
                &outcome.baseline.map(figure).unwrap_or_default(),
                outcome.unit.unwrap_or_default(),
                &outcome.goal.map(|goal| goal.text()).unwrap_or_default(),
                met.map(|met| if met { "met" } else { "not met" }).unwrap_or_default(),
            ]);
        }
        text.truncate(text.trim_end().len());
        text
    }
}

fn row([name, ratio, spread, ours, bare, unit, goal, met]: &[&str; 8]) -> String {
    let line = format!("{name:<26}{ratio:>7}  {spread:<14}{ours:>11}{bare:>11} {unit:<12}{goal:<9}{met}");
    format!("{}\n", line.trim_end())
}

/// With as many digits as mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A line of progress.
pub(crate) fn say(line: &str) {
    // Nobody may be there to read it.
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}
