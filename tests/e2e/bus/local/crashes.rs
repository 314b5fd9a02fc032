//! Processes killed: at each step of a commit, of which there are few here, and at random moments of a load, one after
//! another on the same directory.

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

/// A process is killed at a place of its commit; we finish the event. Gives what was stored, and the cell's value.
async fn killed_at(place: &str) -> (Vec<String>, String) {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory).await;
    let (_, mut deliveries) = super::super::commits::plant(&bus).await;
    put(&bus, "in.1", "event").await;
    deliveries.close().await;
    drop((bus, deliveries));
    let mut child =
        Driven::start(CHILD, &["halting", directory.path().to_str().expect("a path of text"), place]);
    assert_eq!(soon("the place", child.line()).await.as_deref(), Some("there"));
    child.kill().await;

    let bus = open(&directory).await;
    let (_, mut deliveries) = super::super::commits::plant(&bus).await;
    put(&bus, "in.1", "probe").await;
    let mut delivery = next(&mut deliveries).await;
    if text(&delivery) == "event" {
        let base = fresh(&bus, &delivery, &cell("c")).await;
        let change = effects(&[("out.a", "host 1"), ("out.b", "host 2"), ("out.a", "host 3")]);
        let change = Change { writes: vec![write("k", "host")], ..change };
        bus.commit(&delivery, base, change).await.unwrap();
        delivery = next(&mut deliveries).await;
    }
    assert_eq!(text(&delivery), "probe");
    let base = fresh(&bus, &delivery, &cell("c")).await;
    let found = stored(&bus, "OUT", "out.>").await;
    (found.into_iter().map(|(_, data)| data).collect(), value(&base, "k").unwrap_or_default().to_owned())
}

async fn run_of(place: &str) -> String {
    let (found, run) = killed_at(place).await;
    let expected = if run == "child" { ["1", "2", "3"] } else { ["host 1", "host 2", "host 3"] };
    assert_eq!(found, expected, "{place}: {run}");
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_the_commit() {
    assert_eq!(run_of("before-commit").await, "host");
}

/// What a killed process has written is in the file all the same: the commit may count, but then all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_the_group_is_synced() {
    let run = run_of("before-sync").await;
    assert!(run == "child" || run == "host", "{run}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_when_the_group_is_synced_and_its_answer_not_seen() {
    assert_eq!(run_of("after-sync").await, "child");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_the_answer() {
    assert_eq!(run_of("after-answer").await, "child");
}
