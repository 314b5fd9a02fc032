//! Stories that are opened, and stories of which nobody has told.

use cofferdam_sdk::{log::Level, rpc::Code};
use serde_json::json;

use super::support::*;

#[test]
fn contract_5_6_a_created_story_is_a_draft() {
    let mut host = host();
    let created =
        json!({"story_id": "S", "title": "Login", "created_by": "ann", "timestamp": "2026-01-01T00:00:00Z"});
    let run = run(&mut host, CREATED, created);
    assert_eq!((run.result.clone(), run.published.len()), (Ok(()), 0), "that is no step");
    let story = shown(&mut host);
    assert_eq!(
        (story.state.as_str(), story.title.as_str(), story.created_by.as_str()),
        ("DRAFT", "Login", "ann")
    );
    assert_eq!(story.created_at, "2026-01-01T00:00:00.000000Z");
}

#[test]
fn a_created_story_may_say_where_it_is() {
    let mut host = host();
    run(&mut host, CREATED, json!({"story_id": "S", "state": "po_review"}));
    assert_eq!(state(&host), "PO_REVIEW");
    let mut odd = self::host();
    let told = run(&mut odd, CREATED, json!({"story_id": "S", "state": "LIMBO"}));
    assert_eq!((state(&odd).as_str(), told.logged(Level::Warn).len()), ("DRAFT", 1));
}

#[test]
fn a_story_that_is_on_its_way_is_not_opened_again() {
    let mut host = host_at("TESTING");
    run(&mut host, CREATED, json!({"story_id": "S", "title": "Login"}));
    run(&mut host, CREATED, json!({"story_id": "S", "title": "Another", "brief": "By mail"}));
    let story = shown(&mut host);
    assert_eq!(
        (story.state.as_str(), story.title.as_str(), story.brief.as_str()),
        ("TESTING", "Login", "By mail")
    );
}

#[test]
fn contract_5_6_a_derivation_of_a_story_that_nobody_told_of_means_that_it_was_ready_for_planning() {
    let mut host = host();
    assert_eq!(way(&run(&mut host, DERIVED, derived())), "READY_FOR_PLANNING>PLANNED");
}

#[test]
fn other_triggers_of_a_story_that_nobody_told_of_move_nothing() {
    let mut host = host();
    for (subject, data) in
        [(CHANGED, task_in("implementing")), (TASK, json!({"task_id": "T", "story_id": "S"}))]
    {
        assert_eq!(run(&mut host, subject, data).published.len(), 0, "{subject}");
    }
    let run = run(&mut host, THROUGH, through());
    assert_eq!((run.result.clone(), run.published.len(), run.logged(Level::Warn).len()), (Ok(()), 0, 1));
    assert_eq!(get(&mut host, "S").status().code, Code::NotFound, "its tasks are no story yet");
    assert_eq!(ask(&mut host, "S", "DRAFT").status().code, Code::NotFound);
}

#[test]
fn a_configured_machine_replaces_the_fleets() {
    let table = r#"{"initial": "IDEA", "states": [
        {"state": "IDEA", "phase": "DESIGN", "next": ["CODING"], "triggers": {"workflow.state.changed:coding": "CODING"}},
        {"state": "CODING", "phase": "BUILD", "next": ["SHIPPED"], "triggers": {"workflow.story.tasks_completed": "SHIPPED"}},
        {"state": "SHIPPED", "phase": "DONE", "next": [], "ends": true}]}"#;
    let mut host = host().config("machine", table);
    run(&mut host, CREATED, json!({"story_id": "S"}));
    assert_eq!(way(&run(&mut host, CHANGED, task_in("coding"))), "IDEA>CODING");
    assert!(!go(&mut host, "IDEA").success, "without `reset` there is none");
    let shipped = run(&mut host, THROUGH, through());
    assert_eq!(way(&shipped), "CODING>SHIPPED");
    assert_eq!(shipped.on(TRANSITIONED)[0]["to_phase"], "DONE");

    let mut faulty = self::host().config("machine", table.replace("\"SHIPPED\"]", "\"GONE\"]"));
    let failed = run(&mut faulty, CREATED, json!({"story_id": "S"}));
    assert!(
        matches!(&failed.result, Err(cofferdam_sdk::Failure::Retry { reason, .. }) if reason.contains("\"GONE\""))
    );
    assert_eq!(
        ask(&mut host_at("DRAFT").config("machine", "{}"), "S", "PO_REVIEW").status().code,
        Code::Unavailable
    );
}
