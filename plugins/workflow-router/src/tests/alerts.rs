//! Tasks that wait for long: "Alert after" of section 5.2, and section 9 of the fleet's contract.

use cofferdam_sdk::testing::{Host, Run};
use serde_json::json;

use super::support::*;

/// T, having come so far on its way.
fn after(actions: usize) -> (Host, Run) {
    let mut host = opened();
    let mut last = None;
    for (action, role) in &STRAIGHT[..actions] {
        last = Some(does(&mut host, action, role));
    }
    (host, last.unwrap())
}

#[test]
fn contract_5_2_whoever_keeps_a_task_waiting_is_told_of_in_an_hour_two_or_a_day() {
    for (actions, state, role, seconds) in [
        (1, "pending_arch_review", "architect", 3_600),
        (2, "pending_qa", "qa", 7_200),
        (3, "pending_po_approval", "po", 86_400),
    ] {
        let (host, run) = after(actions);
        let [timer] = &run.timers[..] else { panic!("one alert: {:?}", run.timers) };
        assert_eq!(timer.subject, WAITING);
        let waiting = timer.json();
        for (key, value) in [
            ("task_id", json!("T")),
            ("story_id", json!("S")),
            ("state", json!(state)),
            ("role_in_charge", json!(role)),
            ("waiting_seconds", json!(seconds)),
        ] {
            assert_eq!(waiting[key], value, "{key}");
        }
        let task = stored(&host, "T");
        assert_eq!(task["alert"], timer.id.as_str());
        let due = cofferdam_sdk::fleet::Timestamp::read(&task["since"]).unwrap().plus_seconds(seconds);
        // To the microsecond, as times are written.
        assert_eq!((timer.at / 1_000, waiting["timestamp"].clone()), (due.nanos() / 1_000, json!(due)));
    }
}

#[test]
fn contract_5_2_an_alert_is_taken_back_when_the_task_moves_on() {
    for (action, role) in [
        ("claim_review", "architect"),
        ("approve_design", "architect"),
        ("reject_design", "architect"),
        ("cancel", "po"),
        ("retry", "system"),
    ] {
        let (mut host, waiting) = after(1);
        let run = does(&mut host, action, role);
        assert_eq!(run.cancelled, [waiting.timers[0].id.clone()], "{action}");
        let next = usize::from(action == "approve_design");
        assert_eq!(run.timers.len(), next, "{action} leads to QA, or to nobody who is waited for");
    }
}

#[test]
fn contract_5_2_what_is_claimed_does_not_wait_and_what_is_recorded_does() {
    let (mut host, waiting) = after(1);
    let claimed = try_claim(&mut host, "T", "a-1", "architect");
    assert_eq!((claimed.cancelled.clone(), claimed.timers.len()), (vec![waiting.timers[0].id.clone()], 0));
    // The product owner's claim is only recorded: the task stays where it is.
    let (mut host, _) = after(3);
    let recorded = try_claim(&mut host, "T", "a-1", "po");
    assert!(recorded.cancelled.is_empty() && recorded.timers.is_empty());
}

#[test]
fn what_a_message_does_not_move_keeps_its_alert() {
    let (mut host, _) = after(1);
    for (action, role) in [("approve_design", "developer"), ("approve_tests", "qa")] {
        let run = does(&mut host, action, role);
        assert!(run.cancelled.is_empty() && run.timers.is_empty(), "{action}");
    }
}

#[test]
fn a_teams_own_table_says_how_long_is_long() {
    let table = include_str!("../machine/standard.json")
        .replace("\"alert_after_seconds\": 3600", "\"alert_after_seconds\": 60");
    let mut host = opened().config("machine", table);
    let run = does(&mut host, "commit_code", "developer");
    assert_eq!(run.timers[0].json()["waiting_seconds"], 60);
}
