//! A short soak on each bus, one of the executor's workers, and that a build which acks before it commits does not pass one. The soak is a program of its
//! own (`cargo xtask crash`); here it is only run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use serde_json::Value;

fn soak(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_soak"));
    command.arg("run").args(arguments.split(' '));
    command
}

/// What it printed, what it said beside that, and whether it was content.
fn run(mut command: Command) -> (Value, String, bool) {
    let Output { status, stdout, stderr } = command.output().expect("the soak");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    let report = serde_json::from_slice(&stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    (report, said, status.success())
}

#[track_caller]
fn passes(arguments: &str) {
    let (report, said, content) = run(soak(arguments));
    assert!(content, "{report:#}\n{said}");
    for zero in ["lost", "repeated_effects", "misordered", "once_calls_repeated"] {
        assert_eq!(report[zero], 0, "{report:#}");
    }
    assert!(report["reruns"].as_u64() > Some(0), "no kill hit anything: {report:#}");
}

#[test]
fn nothing_is_lost_or_repeated_in_a_short_soak_on_nats() {
    passes("--bus nats --events 1500 --kills 8 --fault daemon --fault server --fault upstream --fault cut");
}

#[test]
fn keys_stay_in_order_over_frozen_daemons_that_go_on_when_another_has_taken_over() {
    passes("--bus nats --daemons 2 --events 400 --kills 4 --fault pause");
}

#[test]
fn keys_stay_in_order_over_kills_of_the_only_daemon() {
    passes("--bus nats --daemons 1 --events 1200 --kills 8 --fault daemon");
}

#[test]
fn nothing_is_lost_or_repeated_in_a_short_soak_on_the_embedded_bus() {
    passes("--bus local --events 600 --kills 6 --fault daemon --fault torn");
}

#[test]
fn every_job_ends_once_in_a_short_soak_of_workers() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_soak"));
    command.args("jobs --jobs 120 --workers 3 --kills 2".split(' '));
    let (report, said, content) = run(command);
    assert!(content, "{report:#}\n{said}");
    assert_eq!((&report["lost"], &report["repeated"]), (&0.into(), &0.into()), "{report:#}");
    assert!(report["requests_repeated"].as_u64() > Some(0), "no kill hit anything: {report:#}");
}

#[test]
fn a_build_that_acks_before_it_commits_loses_jobs() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_soak"));
    command.args("jobs --jobs 60 --workers 3 --kills 1".split(' ')).env("COFFERDAM_BROKEN", "ack-first");
    let (report, _, content) = run(command);
    assert!(!content && report["lost"].as_u64() > Some(0), "an early ack went unnoticed: {report:#}");
}

/// `$COFFERDAM_BROKEN` is read by debug builds only.
#[track_caller]
fn fails_if_acked_first(arguments: &str) {
    let mut command = soak(arguments);
    command.env("COFFERDAM_BROKEN", "ack-first");
    let (report, _, content) = run(command);
    assert!(!content && report["lost"].as_u64() > Some(0), "an early ack went unnoticed: {report:#}");
}

#[test]
fn a_build_that_acks_before_it_commits_loses_events_on_nats() {
    fails_if_acked_first("--bus nats --events 400 --kills 6 --fault daemon");
}

#[test]
fn a_build_that_acks_before_it_commits_loses_events_on_the_embedded_bus() {
    fails_if_acked_first("--bus local --events 100 --kills 2 --fault daemon");
}
