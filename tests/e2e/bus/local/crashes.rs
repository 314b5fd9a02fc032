//! Processes killed at random moments of a load, one after another on the same directory.

use std::time::Duration;

use harness::{child::Driven, churn::Told, dice::Dice, ledger::Ledger};

use super::super::*;

const CHILD: &str = env!("CARGO_BIN_EXE_bus-child");
const KILLS: u64 = 24;

/// Lets a process put its load on the bus until chance kills it; gives what it said.
async fn killed(directory: &tempfile::TempDir, name: &str, dice: &mut Dice) -> Vec<String> {
    let path = directory.path().to_str().expect("a path of text");
    let mut child = Driven::start(CHILD, &["local", path, name, &dice.draw().to_string()]);
    let mut lines = Vec::new();
    match dice.below(10) {
        // While it opens what the one before it left.
        0 => tokio::time::sleep(Duration::from_micros(dice.below(40_000))).await,
        // Right after a confirmation.
        1..=5 => {
            for _ in 0..=dice.below(400) {
                lines.push(soon("a confirmation", child.line()).await.expect("it lives"));
            }
        }
        // At any time.
        _ => {
            lines.push(soon("a confirmation", child.line()).await.expect("it lives"));
            tokio::time::sleep(Duration::from_micros(dice.below(150_000))).await;
        }
    }
    lines.extend(child.kill_and_hear().await);
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_confirmed_and_repeats_nothing_settled() {
    let mut dice = Dice::new();
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    for round in 0..KILLS {
        let lines = killed(&directory, &format!("round{round}"), &mut dice).await;
        let shown = format!("COFFERDAM_SEED={} round {round}", dice.seed());
        for line in &lines {
            ledger.hear(line.parse::<Told>().unwrap_or_else(|e| panic!("{shown}: {e:#}")));
        }
        let bus = open(&directory).await;
        let checked = match round + 1 == KILLS {
            true => ledger.finish(&bus).await,
            false => ledger.check(&bus).await,
        };
        checked.unwrap_or_else(|e| panic!("{shown}: {e:#}"));
    }
    assert!(ledger.confirmed() > 200, "only {} confirmations: this tested nothing", ledger.confirmed());
}
