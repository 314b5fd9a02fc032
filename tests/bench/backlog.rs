//! Half a million events wait on a stream, and a daemon that starts takes them: what memory it has at most, against what it has
//! under a trickle.

use harness::burst::Burst;

use crate::{
    outcome::{Goal, Outcome},
    report::say,
    rig::Rig,
};

/// Events that wait, for each event of a round of `dispatch`: 500,000 unless somebody says otherwise.
const PER_EVENT: f64 = 500_000.0 / 30_000.0;
/// A second, and for so many seconds.
const TRICKLE: (u64, u64) = (1000, 20);

pub(crate) async fn run(rig: &Rig) -> Vec<Outcome> {
    let name = "backlog/peak-memory";
    if !rig.wants(name) {
        return Vec::new();
    }
    let burst = Burst {
        nats: true,
        events: (rig.options.events as f64 * PER_EVENT) as u64,
        bytes: usize::try_from(rig.options.payload).expect("a size"),
        warm_up: 20_000,
        trickle: TRICKLE,
        waiting: true,
    };
    let report = burst.run().await;
    say(&format!(
        "{name}: {} events in {:.1} s: at most {} KiB, {} KiB under a trickle",
        report.events, report.seconds, report.burst_peak_kib, report.steady_kib
    ));
    if report.lost + report.repeated > 0 {
        return vec![Outcome::void(name, format!("{} lost, {} repeated", report.lost, report.repeated))];
    }
    let mebibytes = |kib: u64| kib as f64 / 1024.0;
    vec![Outcome {
        name: name.to_owned(),
        ratio: Some(report.ratio),
        value: Some(mebibytes(report.burst_peak_kib)),
        unit: Some("MiB"),
        baseline: Some(mebibytes(report.steady_kib)),
        spread: None,
        goal: Some(Goal::AtMost(1.2)),
        void: None,
    }]
}
