//! `cargo xtask burst`: builds what the burst needs, runs it (tests/harness/burst.rs), and says what came of it.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cli::Burst;
use crate::guests::{self, Selection};
use crate::repo::Repo;
use crate::steps::Steps;
use crate::tool::Tool;
use crate::{crash, terminal, tools};

pub(crate) fn run(repo: &Repo, steps: &Steps, args: &Burst) -> Result<()> {
    let tools = tools::setup(repo, steps, None)?;
    guests::build(repo, steps, &tools.wasm, Selection { names: &[], fixtures: true })?;
    let burst = steps.run("build programs", |step| crash::build(repo, step, "burst"))?;
    let words = ["--bus".to_owned(), args.bus.clone(), "--events".to_owned(), args.events.to_string()];
    let words: Vec<String> =
        words.into_iter().chain(["--bytes".to_owned(), args.bytes.to_string()]).collect();
    let again = format!("cargo xtask burst {}", words.join(" "));
    let (document, status) = steps.run("burst", |step| {
        Tool::new(burst, &repo.log("burst"), &again)
            .args(words)
            .env("NATS_SERVER", &tools.nats.path)
            .without_fleet_settings()
            .run_to_status(step)
    })?;
    // What was found is told whether it is good or bad.
    if !document.is_empty() {
        let document = document.join("\n");
        terminal::out(&if args.json { document } else { summary(&document)? });
    }
    status
}

fn summary(document: &str) -> Result<String> {
    let report: Value = serde_json::from_str(document).context("the burst's document")?;
    let whole = |name: &str| report[name].as_f64().unwrap_or_default().round();
    let mebibytes = |name: &str| format!("{:.1} MiB", report[name].as_f64().unwrap_or_default() / 1024.0);
    Ok(format!(
        "{} events on {}: {} lost, {} repeated; {} s, {} events/s\n\
         memory of the daemon: {} at {} events/s, at most {} in the burst: {:.2} times as much",
        whole("events"),
        report["bus"].as_str().unwrap_or_default(),
        whole("lost"),
        whole("repeated"),
        whole("seconds"),
        whole("events_per_second"),
        mebibytes("steady_kib"),
        whole("trickle_per_second"),
        mebibytes("burst_peak_kib"),
        report["ratio"].as_f64().unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_was_lost_and_what_memory_it_took() {
        let document = r#"{ "events": 500, "bus": "nats", "lost": 0, "repeated": 1, "seconds": 2.2, "events_per_second": 227.3,
            "steady_kib": 102400, "trickle_per_second": 1000, "burst_peak_kib": 112640, "ratio": 1.1 }"#;
        let text = summary(document).unwrap();
        for part in [
            "500 events on nats: 0 lost, 1 repeated",
            "100.0 MiB at 1000 events/s",
            "110.0 MiB",
            "1.10 times",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
}
