//! Tasks that Planning creates.

use cofferdam_sdk::{Failure, testing::event};
use serde_json::{Value, json};

use super::support::*;

fn created() -> Value {
    json!({"task_id": "T-1", "story_id": "S-1", "plan_id": "P-1", "title": "Login", "type": "feature",
           "assigned_to": "DEVELOPER", "estimated_hours": 8, "priority": 2, "depends_on": ["T-0"],
           "created_at": "2026-01-01T00:00:00Z"})
}

#[test]
fn a_created_task_is_opened_and_assigned_at_once() {
    let mut host = host();
    let run = run(&mut host, CREATED, created());
    assert_eq!((run.result.clone(), run.subjects()), (Ok(()), vec![CHANGED, ASSIGNED, OPENED]));
    assert_eq!(state(&host, "T-1"), "implementing");
    assert_eq!(run.metric("workflow_transitions"), 1.0);
    let task: Value = host.value("task/T-1", "task").unwrap();
    assert_eq!(
        (&task["title"], &task["depends_on"], &task["priority"]),
        (&json!("Login"), &json!(["T-0"]), &json!(2))
    );
}

#[test]
fn the_events_have_exactly_the_keys_of_the_contract() {
    let run = run(&mut host().config("wire.envelope", "bare"), CREATED, created());
    let keys =
        |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
    let changed = &run.on(CHANGED)[0];
    assert_eq!(
        keys(changed),
        [
            "event_type",
            "task_id",
            "story_id",
            "from_state",
            "to_state",
            "action",
            "actor_role",
            "role_in_charge",
            "required_action",
            "feedback",
            "retry_count",
            "timestamp",
        ]
        .map(str::to_owned)
        .into()
    );
    for (key, value) in [
        ("event_type", "workflow.state.changed"),
        ("from_state", "todo"),
        ("to_state", "implementing"),
        ("action", "assign_to_developer"),
        ("actor_role", "system"),
        ("role_in_charge", "developer"),
        ("required_action", "commit_code"),
        ("feedback", ""),
    ] {
        assert_eq!(changed[key], value, "{key}");
    }
    let assigned = &run.on(ASSIGNED)[0];
    assert_eq!(
        keys(assigned),
        [
            "task_id",
            "story_id",
            "role",
            "assigned_to_role",
            "action",
            "required_action",
            "action_required",
            "current_state",
            "timestamp",
        ]
        .map(str::to_owned)
        .into()
    );
    for (key, value) in [
        ("task_id", "T-1"),
        ("story_id", "S-1"),
        ("role", "developer"),
        ("assigned_to_role", "developer"),
        ("action", "IMPLEMENT_FEATURE"),
        ("required_action", "IMPLEMENT_FEATURE"),
        ("action_required", "commit_code"),
        ("current_state", "implementing"),
    ] {
        assert_eq!(assigned[key], value, "{key}");
    }
}

#[test]
fn the_correlation_is_carried_over() {
    let enveloped =
        json!({"event_type": CREATED, "idempotency_key": "k", "correlation_id": "c", "payload": created()});
    let run = run(&mut host(), CREATED, enveloped);
    for message in &run.published {
        let message = message.json();
        assert_eq!((&message["correlation_id"], &message["causation_id"]), (&json!("c"), &json!("k")));
    }
    assert_ne!(run.on(CHANGED)[0]["idempotency_key"], run.on(ASSIGNED)[0]["idempotency_key"]);
}

#[test]
fn an_existing_task_is_left_alone() {
    let mut host = host();
    run(&mut host, CREATED, created());
    let again = run(&mut host, CREATED, created());
    assert!(again.acked_without_effect());
    assert_eq!(again.metric("workflow_dropped"), 1.0);
    let changed = json!({"task_id": "T-1", "story_id": "S-1", "title": "Another title"});
    assert!(run(&mut host, CREATED, changed).acked_without_effect());
    assert!(
        run(&mut host, OPEN, json!({"task_id": "T-1", "story_id": "S-1", "assign": true}))
            .acked_without_effect()
    );
}

#[test]
fn a_task_that_its_story_opened_is_completed_and_assigned() {
    let mut host = host();
    let open = |assign: bool| json!({"task_id": "T-1", "story_id": "S-1", "assign": assign});
    assert_eq!(run(&mut host, OPEN, open(false)).subjects(), [OPENED]);
    let late = run(&mut host, CREATED, created());
    assert_eq!((late.result.clone(), late.subjects()), (Ok(()), vec![CHANGED, ASSIGNED]));
    let task: Value = host.value("task/T-1", "task").unwrap();
    assert_eq!((&task["state"], &task["plan_id"]), (&json!("implementing"), &json!("P-1")));
    assert_eq!(
        (&task["title"], &task["depends_on"], &task["priority"]),
        (&json!("Login"), &json!(["T-0"]), &json!(2))
    );
    assert!(run(&mut host, CREATED, created()).acked_without_effect());

    let mut assigned = self::host();
    run(&mut assigned, OPEN, open(true));
    assert!(run(&mut assigned, CREATED, created()).acked_without_effect());
}

#[test]
fn a_message_without_identity_is_rejected_and_counted() {
    for (subject, message) in [
        (CREATED, "{\"task_id\":".to_owned()),
        (CREATED, json!({"task_id": "T-1"}).to_string()),
        (CREATED, json!({"story_id": "S-1"}).to_string()),
        (TRANSITIONED, json!({"to_state": "READY_FOR_EXECUTION"}).to_string()),
        (TRANSITIONED, json!({"story_id": "S-1"}).to_string()),
        (DERIVED, json!({"plan_id": "P-1", "task_count": 3}).to_string()),
        (OPEN, json!({"task_id": "T-1"}).to_string()),
    ] {
        let run = host().run(crate::handle, event(subject, &message));
        assert!(matches!(run.result, Err(Failure::Reject(_))), "{subject} {message}");
        assert_eq!(run.metric("workflow_dropped"), 1.0, "{subject} {message}");
    }
}
