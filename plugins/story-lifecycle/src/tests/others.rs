//! Another service that moves stories, our own steps that come back, and messages that overtake each other.

use cofferdam_sdk::{
    log::Level,
    testing::{Host, event},
};
use serde_json::{Value, json};

use super::support::*;

fn told(to: &str) -> Value {
    json!({"story_id": "S", "to_state": to, "transitioned_by": "planning"})
}

#[test]
fn contract_2_3_k15_every_pair_of_keys_of_another_service_is_followed() {
    for data in [
        json!({"story_id": "S", "from_state": "PLANNED", "to_state": "READY_FOR_EXECUTION"}),
        json!({"story_id": "S", "from_phase": "PLANNED", "to_phase": "ready_for_execution"}),
        json!({"story_id": "S", "from": "PLANNED", "to": "READY_FOR_EXECUTION"}),
        json!({"story_id": "S", "to_state": "READY_FOR_EXECUTION", "to_phase": "BUILD"}),
        json!({"event_type": TRANSITIONED, "producer": "planning-service", "payload": told("READY_FOR_EXECUTION")}),
    ] {
        let mut host = host();
        let run = run(&mut host, TRANSITIONED, &data);
        assert_eq!((run.published.len(), state(&host).as_str()), (0, "READY_FOR_EXECUTION"), "{data}");
    }
}

#[test]
fn another_service_is_right_even_where_the_machine_has_no_such_way() {
    let mut host = host_at("DRAFT");
    let run = run(&mut host, TRANSITIONED, told("ACCEPTED"));
    assert_eq!((state(&host).as_str(), run.logged(Level::Warn).len()), ("ACCEPTED", 1));
}

#[test]
fn a_state_that_the_machine_does_not_have_is_not_followed() {
    let mut host = host_at("DRAFT");
    let run = run(&mut host, TRANSITIONED, told("LIMBO"));
    assert_eq!(
        (run.result.clone(), state(&host).as_str(), run.logged(Level::Warn).len()),
        (Ok(()), "DRAFT", 1)
    );
    assert_eq!(run.metric("story_dropped"), 1.0);
}

#[test]
fn the_same_message_of_another_service_is_followed_once() {
    let mut host = host_at("TESTING");
    run(&mut host, TRANSITIONED, told("IN_PROGRESS"));
    assert!(go(&mut host, "CODE_REVIEW").success);
    assert!(run(&mut host, TRANSITIONED, told("IN_PROGRESS")).acked_without_effect());
    assert_eq!(state(&host), "CODE_REVIEW");
}

/// All that is published comes back, later than what it led to.
fn echoes_of(host: &mut Host, subject: &str, data: Value) {
    let run = run(host, subject, data);
    let before = state(host);
    assert!(!run.published.is_empty());
    for message in run.published.iter().rev().chain(&run.published) {
        let echo = self::run(host, TRANSITIONED, message.json());
        assert!(echo.acked_without_effect(), "{:?}", echo.published);
        assert_eq!(state(host), before);
    }
}

#[test]
fn a_step_of_our_own_that_comes_back_is_known_in_every_shape() {
    for shape in ["mirror", "envelope", "bare"] {
        let mut host = host_at("READY_FOR_EXECUTION").config("wire.envelope", shape);
        echoes_of(&mut host, THROUGH, through());
        assert_eq!(state(&host), "TESTING", "{shape}");
        assert!(go(&mut host, "IN_PROGRESS").success);
    }
}

#[test]
fn an_echo_that_comes_after_many_more_steps_moves_nothing() {
    let mut host = host_at("TESTING");
    let first = ask(&mut host, "S", "IN_PROGRESS").published[0].json();
    for _ in 0..20 {
        for target in ["CODE_REVIEW", "IN_PROGRESS"] {
            assert!(go(&mut host, target).success);
        }
    }
    assert!(go(&mut host, "CODE_REVIEW").success);
    assert!(run(&mut host, TRANSITIONED, first).acked_without_effect());
    assert_eq!(state(&host), "CODE_REVIEW");
}

#[test]
fn our_own_steps_from_before_our_state_was_lost_are_followed() {
    let mut before = host_at("PLANNED");
    let step = ask(&mut before, "S", "READY_FOR_EXECUTION").published[0].json();
    let mut host = host();
    run(&mut host, TRANSITIONED, step);
    assert_eq!(state(&host), "READY_FOR_EXECUTION");
}

#[test]
fn a_trigger_that_overtakes_the_step_it_follows_is_heeded_when_that_comes() {
    for unknown in [true, false] {
        let mut host = if unknown { host() } else { host_at("PLANNED") };
        let ready = event(TRANSITIONED, told("READY_FOR_EXECUTION"));
        assert_eq!(way(&run(&mut host, CHANGED, task_in("implementing"))), "");
        assert_eq!(way(&run(&mut host, THROUGH, through())), "");
        assert_eq!(
            way(&take(&mut host, ready)),
            "READY_FOR_EXECUTION>IN_PROGRESS IN_PROGRESS>CODE_REVIEW CODE_REVIEW>TESTING"
        );
    }
    let mut created = host();
    let opening = event(CREATED, json!({"story_id": "S", "state": "READY_FOR_EXECUTION"}));
    run(&mut created, CHANGED, task_in("implementing"));
    assert_eq!(way(&take(&mut created, opening)), "READY_FOR_EXECUTION>IN_PROGRESS");
}

#[test]
fn contract_5_6_a_trigger_from_before_the_step_does_not_count() {
    // Tasks that Planning creates are assigned at once, long before the sprint.
    let mut host = host_at("PLANNED");
    run(&mut host, CHANGED, task_in("implementing"));
    assert_eq!(way(&run(&mut host, TRANSITIONED, told("READY_FOR_EXECUTION"))), "");
    let mut called = host_at("PLANNED");
    run(&mut called, CHANGED, task_in("implementing"));
    assert_eq!(go(&mut called, "READY_FOR_EXECUTION").story.unwrap().state, "READY_FOR_EXECUTION");
}

#[test]
fn what_another_service_told_before_our_step_is_past() {
    let mut host = host();
    let ready = event(TRANSITIONED, told("READY_FOR_PLANNING"));
    run(&mut host, DERIVED, derived());
    let late = take(&mut host, ready);
    assert_eq!((state(&host).as_str(), late.metric("story_dropped")), ("PLANNED", 1.0));

    // By a clock that is a little behind, it goes on from where the story is.
    let late = |from: &str, seconds: u64| {
        let mut host = host_at("PO_REVIEW");
        let mut on = told("PLANNED");
        on["from_state"] = json!(from);
        let mut on = event(TRANSITIONED, on);
        let called = ask(&mut host, "S", "READY_FOR_PLANNING");
        assert!(called.answer.is_ok());
        // The call came a second after it.
        on.timestamp -= (seconds - 1) * 1_000_000_000;
        take(&mut host, on);
        state(&host)
    };
    assert_eq!(late("READY_FOR_PLANNING", 3), "PLANNED");
    assert_eq!(late("ready_for_planning", 5), "PLANNED");
    assert_eq!(late("READY_FOR_PLANNING", 6), "READY_FOR_PLANNING");
    assert_eq!(late("PO_REVIEW", 3), "READY_FOR_PLANNING");
}

#[test]
fn another_services_step_is_not_taken_for_one_of_ours() {
    let mut host = host_at("TESTING");
    for target in ["IN_PROGRESS", "CODE_REVIEW", "TESTING"] {
        assert!(go(&mut host, target).success);
    }
    // To where we went before, by a clock that is behind.
    let mut back = told("IN_PROGRESS");
    back["timestamp"] = json!("2026-01-01T00:00:00Z");
    run(
        &mut host,
        TRANSITIONED,
        json!({"event_type": TRANSITIONED, "producer": "planning-service", "payload": back}),
    );
    assert_eq!(state(&host), "IN_PROGRESS");
}

#[test]
fn a_story_of_a_newer_version_is_handed_back() {
    let mut host = host_at("TESTING");
    let mut story: Value = host.value("story/S", "story").unwrap();
    story["schema"] = json!(2);
    host.set_value("story/S", "story", &story);
    let failed = run(&mut host, TRANSITIONED, told("IN_PROGRESS"));
    assert!(matches!(failed.result, Err(cofferdam_sdk::Failure::Retry { .. })));
    assert_eq!(get(&mut host, "S").status().code, cofferdam_sdk::rpc::Code::Unavailable);
}

#[test]
fn a_trigger_from_long_before_another_services_step_does_not_count() {
    let late = |seconds: u64| {
        let mut host = host();
        let mut tasks = event(THROUGH, through());
        let back = event(TRANSITIONED, told("IN_PROGRESS"));
        tasks.timestamp = back.timestamp - seconds * 1_000_000_000;
        take(&mut host, back);
        take(&mut host, tasks);
        state(&host)
    };
    assert_eq!(late(6), "IN_PROGRESS", "it was sent back since");
    assert_eq!(late(5), "TESTING", "nobody can have known");
}

#[test]
fn what_happened_before_the_plugin_was_switched_on_moves_nothing() {
    let mut host = host().config("since", "2026-01-01T00:00:00Z");
    let mut old = event(DERIVED, derived());
    old.timestamp = cofferdam_sdk::testing::EPOCH - 1;
    assert!(take(&mut host, old).acked_without_effect());
    let mut first = event(DERIVED, derived());
    first.timestamp = cofferdam_sdk::testing::EPOCH;
    assert_eq!(way(&take(&mut host, first)), "READY_FOR_PLANNING>PLANNED");
    let mut step = event(TRANSITIONED, json!({"story_id": "S", "to_state": "DONE"}));
    step.timestamp = cofferdam_sdk::testing::EPOCH - 1;
    let mut fresh = self::host().config("since", "2026-01-01T00:00:00Z");
    take(&mut fresh, step);
    assert_eq!(state(&fresh), "DONE", "where stories are is learnt from whenever it was told");
    let mut wrong = self::host().config("since", "yesterday");
    let failed = run(&mut wrong, DERIVED, derived());
    assert!(
        matches!(&failed.result, Err(cofferdam_sdk::Failure::Retry { reason, .. }) if reason.contains("yesterday"))
    );
}
