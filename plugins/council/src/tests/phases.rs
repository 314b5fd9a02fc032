//! Stories that go on to another phase.

use cofferdam_sdk::testing::Run;
use serde_json::{Value, json};

use super::support::*;

const TRANSITIONED: &str = "planning.story.transitioned";
const CHANGED: &str = "orchestration.phase.changed";

fn moves(data: Value) -> Run {
    run(&mut host(), TRANSITIONED, data)
}

#[test]
fn a_story_in_another_phase_is_told() {
    let run = moves(json!({"story_id": "S", "from_state": "PLANNED", "to_state": "READY_FOR_EXECUTION",
        "from_phase": "DESIGN", "to_phase": "BUILD"}));
    let told = &run.on(CHANGED)[0];
    assert_eq!(
        (&told["story_id"], &told["from_phase"], &told["to_phase"]),
        (&json!("S"), &json!("DESIGN"), &json!("BUILD"))
    );
    assert!(told["timestamp"].is_string());
}

#[test]
fn a_step_within_a_phase_is_not() {
    let run = moves(json!({"story_id": "S", "from_state": "IN_PROGRESS", "to_state": "CODE_REVIEW",
        "from_phase": "BUILD", "to_phase": "BUILD"}));
    assert!(run.acked_without_effect());
}

#[test]
fn states_stand_in_for_phases_where_there_are_none() {
    let run = moves(
        json!({"story_id": "S", "from_state": "PLANNED", "to_state": "READY_FOR_EXECUTION", "to_phase": "BUILD"}),
    );
    assert_eq!(
        (&run.on(CHANGED)[0]["from_phase"], &run.on(CHANGED)[0]["to_phase"]),
        (&json!("DESIGN"), &json!("BUILD")),
        "by the phases that states are in"
    );
    let unknown = moves(json!({"story_id": "S", "from_state": "idea", "to_state": "ready_for_planning"}));
    assert_eq!(
        (&unknown.on(CHANGED)[0]["from_phase"], &unknown.on(CHANGED)[0]["to_phase"]),
        (&json!("idea"), &json!("DESIGN"))
    );
    for within in [
        json!({"story_id": "S", "from_state": "DRAFT", "to_state": "PO_REVIEW"}),
        json!({"story_id": "S", "to_state": "DRAFT"}),
    ] {
        assert!(moves(within).acked_without_effect());
    }
}

#[test]
fn contract_2_1_dedupe_a_step_that_is_told_twice_is_one() {
    let mut host = host();
    let step = json!({"story_id": "S", "from": "A", "to": "B"});
    assert_eq!(run(&mut host, TRANSITIONED, &step).on(CHANGED).len(), 1);
    assert!(run(&mut host, TRANSITIONED, &step).acked_without_effect());
}
