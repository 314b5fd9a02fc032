//! Once for each message: repeats, and runs that came to nothing.

use cofferdam_sdk::{
    Failure,
    rpc::Code,
    testing::{Host, event},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::*;

#[test]
fn contract_2_1_the_same_message_again_tells_nobody() {
    let mut host = host();
    let mut keys = Vec::new();
    for (subject, data) in [
        (DECIDED, decided()),
        (APPROVED, json!({"story_id": "S", "decision_id": "DEC-T"})),
        (REJECTED, json!({"story_id": "S", "decision_id": "DEC-U", "reason": "Too often."})),
    ] {
        let first = run(&mut host, subject, &data);
        assert_eq!(first.on(UPDATED).len(), 1, "{subject}");
        keys.push(first.on(UPDATED)[0]["idempotency_key"].clone());
        let again = run(&mut host, subject, &data);
        assert!(again.acked_without_effect() && again.calls.is_empty(), "{subject}");
        assert_eq!(again.metric("context_dropped"), 1.0);
    }
    assert!(keys[0] != keys[1] && keys[1] != keys[2], "{keys:?}");
}

#[test]
fn a_second_deliberation_over_the_same_task_is_another_one() {
    let mut host = host();
    run(&mut host, DECIDED, decided());
    let mut second = decided();
    second["deliberation_id"] = json!("dlb-2");
    let run = run(&mut host, DECIDED, second);
    assert_eq!(updated(&run)["snapshot"]["version"], 2);
}

#[test]
fn every_run_of_an_event_asks_the_very_same() {
    // The host's idempotency key follows from the request.
    let event = event(DECIDED, decided());
    let mut down = bare_host().fails("context", UPDATE, Code::Unavailable, "down");
    let (first, second) = (take(&mut down, event.clone()), take(&mut down, event.clone()));
    for run in [&first, &second] {
        assert!(matches!(run.result, Err(Failure::Retry { after: None, .. })), "{:?}", run.result);
        assert!(!run.wrote && run.published.is_empty());
    }
    let up = take(&mut host(), event);
    assert_eq!(
        (&first.calls[0].request, &up.calls[0].request),
        (&second.calls[0].request, &second.calls[0].request)
    );
}

#[test]
fn a_message_that_context_could_not_take_is_not_remembered() {
    let mut down = bare_host().fails("context", UPDATE, Code::Unavailable, "down");
    run(&mut down, DECIDED, decided());
    let mut host = host().sharing(down.cells());
    assert_eq!(updated(&run(&mut host, DECIDED, decided()))["snapshot"]["version"], 1);
}

#[test]
fn the_memory_of_a_newer_version_is_left_alone() {
    let mut host = host();
    host.set_value("story/S", "told", &json!({"schema": 2}));
    let run = run(&mut host, DECIDED, decided());
    assert!(matches!(run.result, Err(Failure::Retry { .. })) && run.calls.is_empty());
}

fn message(number: usize) -> (&'static str, Value) {
    let id = format!("DEC-{}", number % 3);
    match number % 4 {
        0 => (APPROVED, json!({"story_id": "S", "decision_id": id, "comment": number.to_string()})),
        1 => (REJECTED, json!({"story_id": "S", "decision_id": id, "reason": number.to_string()})),
        _ => (DECIDED, json!({"story_id": "S", "task_id": number, "decisions": [{"id": id}]})),
    }
}

proptest! {
    /// Deliveries in any order, some twice, some while Context is down: what got through is told once, in versions that count up.
    #[test]
    fn each_message_is_told_once_whatever_comes_when(deliveries in prop::collection::vec((0_usize..12, any::<bool>()), 1..60)) {
        let mut up = host();
        let mut down: Host = bare_host().fails("context", UPDATE, Code::Unavailable, "down").sharing(up.cells());
        let mut told = std::collections::BTreeSet::new();
        let mut versions = Vec::new();
        for (number, is_up) in deliveries {
            let (subject, data) = message(number);
            let run = run(if is_up { &mut up } else { &mut down }, subject, data);
            if told.contains(&number) {
                prop_assert!(run.acked_without_effect());
            } else if is_up {
                told.insert(number);
                versions.push(updated(&run)["snapshot"]["version"].as_u64().unwrap());
            } else {
                let retried = matches!(run.result, Err(Failure::Retry { .. }));
                prop_assert!(retried);
            }
        }
        prop_assert_eq!(versions, (1..=told.len() as u64).collect::<Vec<_>>());
    }
}
