//! How tasks open and come to their first owner: section 5.1 of the fleet's contract.

use cofferdam_sdk::{Failure, rpc::Code, testing::event};
use serde_json::{Value, json};

use super::support::*;

fn created() -> Value {
    json!({"task_id": "T-1", "story_id": "S-1", "plan_id": "P-1", "title": "Login", "type": "feature",
           "assigned_to": "QA", "estimated_hours": 8, "priority": 2, "depends_on": ["T-0"],
           "created_at": "2026-01-01T00:00:00Z"})
}

fn ready(tasks: Value) -> Value {
    json!({"story_id": "S-1", "from_state": "PLANNED", "to_state": "READY_FOR_EXECUTION", "tasks": tasks})
}

/// What agents say of a task of S-1, each a message of its own, with all that follows.
fn acts(host: &mut cofferdam_sdk::testing::Host, task: &str, action: &str, role: &str) {
    let nonce = stored(host, task)["version"].clone();
    let message = json!({"task_id": task, "story_id": "S-1", "action": action, "actor_role": role, "feedback": WHY, "nonce": nonce});
    settle(host, WORK, message);
}

#[test]
fn contract_5_1_a_created_task_is_opened_and_assigned_at_once() {
    let mut host = host();
    let run = run(&mut host, CREATED, created());
    assert_eq!((run.result.clone(), told(&run)), (Ok(()), vec![CHANGED, ASSIGNED, OPENED]));
    assert_eq!(state(&host, "T-1"), "implementing");
    assert_eq!(run.metric("workflow_transitions"), 1.0);
    let task: Value = host.value("task/T-1", "task").unwrap();
    assert_eq!(
        (&task["title"], &task["depends_on"], &task["priority"]),
        (&json!("Login"), &json!(["T-0"]), &json!(2))
    );
}

#[test]
fn contract_2_3_the_events_have_exactly_the_keys_of_the_contract() {
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
fn contract_5_1_assigning_is_an_action_of_the_system_and_the_first_owner_is_always_developer() {
    let run = run(&mut host(), CREATED, created());
    let changed = &run.on(CHANGED)[0];
    for (key, value) in [
        ("from_state", "todo"),
        ("to_state", "implementing"),
        ("action", "assign_to_developer"),
        ("actor_role", "system"),
    ] {
        assert_eq!(changed[key], value, "{key}");
    }
    // Whoever Planning had in mind.
    assert_eq!(run.on(ASSIGNED)[0]["role"], "developer");
}

#[test]
fn contract_2_1_the_correlation_is_carried_over() {
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
fn contract_5_1_a_task_that_is_created_again_is_left_alone() {
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
fn contract_5_1_a_task_that_its_story_opened_is_assigned_when_planning_creates_it() {
    let mut host = host();
    let open = |assign: bool| json!({"task_id": "T-1", "story_id": "S-1", "assign": assign});
    assert_eq!(told(&run(&mut host, OPEN, open(false))), [OPENED]);
    let late = run(&mut host, CREATED, created());
    assert_eq!((late.result.clone(), told(&late)), (Ok(()), vec![CHANGED, ASSIGNED]));
    let task: Value = host.value("task/T-1", "task").unwrap();
    assert_eq!((&task["state"], &task["plan_id"]), (&json!("implementing"), &json!("P-1")));
    assert_eq!(
        (&task["title"], &task["depends_on"], &task["priority"]),
        (&json!("Login"), &json!(["T-0"]), &json!(2))
    );
    assert!(run(&mut host, CREATED, created()).acked_without_effect());

    // Or learns what Planning says, if its turn came before.
    let mut assigned = self::host();
    run(&mut assigned, OPEN, open(true));
    assert!(told(&run(&mut assigned, CREATED, created())).is_empty());
    assert_eq!(stored(&assigned, "T-1")["title"], "Login");
    assert!(run(&mut assigned, CREATED, created()).acked_without_effect());
}

#[test]
fn contract_2_1_a_message_without_identity_is_rejected_and_counted() {
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

#[test]
fn contract_5_1_a_ready_story_opens_its_tasks_and_the_first_is_assigned_and_the_others_wait() {
    let mut host = host();
    let published = settle(&mut host, TRANSITIONED, ready(json!(["A", "B", "A", "C"])));
    assert_eq!(assigned(&published), ["A"]);
    for (task, expect) in [("A", "implementing"), ("B", "todo"), ("C", "todo")] {
        assert_eq!(state(&host, task), expect, "{task}");
    }
    let story: Value = host.value("story/S-1", "story").unwrap();
    assert_eq!(story["planned"], json!(["A", "B", "C"]));
    assert_eq!(story["tasks"].as_array().unwrap().len(), 3);
}

#[test]
fn contract_5_1_empty_ids_are_skipped() {
    let mut host = host();
    let published = settle(&mut host, TRANSITIONED, ready(json!(["", " ", "A", null, "B"])));
    assert_eq!(assigned(&published), ["A"]);
    assert_eq!(host.value::<Value>("story/S-1", "story").unwrap()["tasks"], json!(["A", "B"]));
}

#[test]
fn contract_5_1_all_are_assigned_where_the_operator_says_so() {
    let mut host = host().config("assign_policy", "all");
    let published = settle(&mut host, TRANSITIONED, ready(json!(["A", "B"])));
    assert_eq!(assigned(&published), ["A", "B"]);
}

#[test]
fn contract_5_1_a_task_that_exists_is_left_alone() {
    let mut host = host();
    settle(&mut host, CREATED, json!({"task_id": "A", "story_id": "S-1"}));
    let published = settle(&mut host, TRANSITIONED, ready(json!(["A", "B"])));
    assert_eq!(assigned(&published), [] as [&str; 0]);
    assert_eq!(state(&host, "B"), "todo");
    let others = published.iter().filter(|message| message.subject != OPEN);
    assert!(others.into_iter().all(|message| message.json()["task_id"] == "B"), "A has no more to tell");
}

#[test]
fn contract_5_1_the_next_is_assigned_when_one_reaches_dev_completed_for_the_first_time() {
    let mut host = host();
    settle(&mut host, TRANSITIONED, ready(json!(["A", "B", "C"])));
    assert_eq!((state(&host, "A"), state(&host, "B")), (json!("implementing"), json!("todo")));
    acts(&mut host, "A", "commit_code", "developer");
    assert_eq!((state(&host, "B"), state(&host, "C")), (json!("implementing"), json!("todo")));
    acts(&mut host, "A", "reject_design", "architect");
    acts(&mut host, "A", "commit_code", "developer");
    assert_eq!(state(&host, "C"), "todo", "only the first time");
    for (action, role) in &STRAIGHT[1..] {
        acts(&mut host, "A", action, role);
    }
    assert_eq!(
        (state(&host, "A"), state(&host, "C")),
        (json!("done"), json!("todo")),
        "not at its end again"
    );
}

#[test]
fn contract_5_1_the_next_is_assigned_when_one_ends_before() {
    let mut host = host();
    settle(&mut host, TRANSITIONED, ready(json!(["A", "B", "C"])));
    acts(&mut host, "B", "cancel", "po");
    assert_eq!((state(&host, "B"), state(&host, "C")), (json!("cancelled"), json!("implementing")));
    acts(&mut host, "A", "cancel", "po");
    assert_eq!(state(&host, "C"), "implementing");
}

/// Else nobody would ever be given one.
#[test]
fn contract_5_1_the_first_that_has_not_left_its_developer_is_assigned() {
    let mut host = host();
    settle(&mut host, CREATED, json!({"task_id": "A", "story_id": "S-1"}));
    acts(&mut host, "A", "commit_code", "developer");
    let published = settle(&mut host, TRANSITIONED, ready(json!(["A", "B", "C"])));
    assert_eq!(assigned(&published), ["B"]);
    // Another list, while B is at work: C waits for its turn in this one, and it has come.
    let published = settle(&mut host, TRANSITIONED, ready(json!(["C", "D"])));
    assert_eq!(assigned(&published), ["C"]);
    acts(&mut host, "C", "commit_code", "developer");
    assert_eq!(state(&host, "D"), "implementing");
}

#[test]
fn contract_5_1_every_spelling_of_the_target_is_understood_and_other_targets_are_ignored() {
    for data in [
        json!({"story_id": "S-1", "to_phase": "READY_FOR_EXECUTION", "tasks": ["A"]}),
        json!({"story_id": "S-1", "to": "ready_for_execution", "tasks": ["A"]}),
        json!({"story_id": "S-1", "to_state": "READY_FOR_EXECUTION", "to_phase": "BUILD", "tasks": ["A"]}),
    ] {
        assert_eq!(assigned(&settle(&mut host(), TRANSITIONED, &data)), ["A"], "{data}");
    }
    for target in ["PLANNED", "IN_PROGRESS", "BUILD"] {
        let data = json!({"story_id": "S-1", "to_state": target, "tasks": ["A"]});
        assert!(run(&mut host(), TRANSITIONED, data).acked_without_effect(), "{target}");
    }
}

#[test]
fn contract_2_1_a_repeated_transition_has_no_effect() {
    let mut host = host();
    assert_eq!(run(&mut host, TRANSITIONED, ready(json!(["A"]))).subjects(), [OPEN]);
    let again = run(&mut host, TRANSITIONED, ready(json!(["A"])));
    assert!(again.acked_without_effect());
    assert_eq!(again.metric("workflow_dropped"), 1.0);
}

#[test]
fn contract_5_1_without_a_list_the_known_tasks_are_taken() {
    for list in [json!(null), Value::Null] {
        let mut host = host();
        run(&mut host, OPENED, json!({"task_id": "A", "story_id": "S-1", "state": "todo"}));
        settle(&mut host, OPEN, json!({"task_id": "A", "story_id": "S-1", "assign": false}));
        let mut message = ready(list);
        message.as_object_mut().unwrap().remove("tasks");
        let known = run(&mut host, TRANSITIONED, message);
        assert_eq!((known.result.clone(), known.calls.len()), (Ok(()), 0), "Planning is not asked");
        assert_eq!(assigned(&follow(&mut host, known.published)), ["A"]);
    }
}

#[test]
fn contract_5_1_without_a_list_and_known_tasks_planning_is_asked() {
    let mut asking = host_storing(&["X", "", "Y"]);
    let published = settle(&mut asking, TRANSITIONED, ready(json!(null)));
    assert_eq!(assigned(&published), ["X"]);
    assert_eq!(state(&asking, "Y"), "todo");
}

#[test]
fn contract_5_1_an_empty_list_opens_nothing() {
    let run = run(&mut host(), TRANSITIONED, ready(json!([])));
    assert_eq!(run.result, Ok(()));
    assert!(run.published.is_empty() && run.calls.is_empty());
}

#[test]
fn contract_5_1_planning_out_of_reach_is_a_retry_and_an_unknown_story_is_not() {
    let mut down = host().fails("planning", LIST_TASKS, Code::Unavailable, "down");
    let failed = run(&mut down, TRANSITIONED, ready(json!(null)));
    assert!(matches!(failed.result, Err(Failure::Retry { .. })));
    let mut unknown = host().fails("planning", LIST_TASKS, Code::NotFound, "no story");
    let run = run(&mut unknown, TRANSITIONED, ready(json!(null)));
    assert_eq!((run.result, run.published.len()), (Ok(()), 0));
}

#[test]
fn what_planning_says_late_is_learned_once() {
    let says = |what: Value| {
        let mut message = json!({"task_id": "T", "story_id": "S"});
        message.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        message
    };
    for what in [json!({"plan_id": "P"}), json!({"title": "Login"}), json!({"priority": 3})] {
        let mut host = host();
        run(&mut host, OPEN, json!({"task_id": "T", "story_id": "S", "assign": true}));
        assert!(
            run(&mut host, CREATED, says(json!({"type": "nothing that is kept"}))).acked_without_effect()
        );
        assert_eq!(run(&mut host, CREATED, says(what.clone())).subjects(), [BOARD], "{what}");
        for other in [json!({"plan_id": "Q", "title": "x"}), json!({"title": "x"}), json!({"priority": 9})] {
            assert!(run(&mut host, CREATED, says(other)).acked_without_effect(), "{what} was said first");
        }
    }
}

/// A team's table: what is committed rests with nobody, and what is parked has been nobody's.
#[test]
fn with_nobody_is_away_from_the_developer_and_was_with_nobody_before_is_not() {
    let table = include_str!("../machine/standard.json")
        .replace("\"to\": \"pending_arch_review\", \"automatic\": true", "\"to\": \"pending_arch_review\"")
        .replace("{\"name\": \"todo\"},", "{\"name\": \"todo\"}, {\"name\": \"parked\"},")
        .replace(
            "\"moves\": [",
            "\"moves\": [{\"from\": [\"todo\"], \"action\": \"park\", \"by\": [\"po\"], \"to\": \"parked\"}, \
             {\"from\": [\"parked\"], \"action\": \"assign_to_developer\", \"by\": [\"system\"], \"to\": \"implementing\"},",
        );
    let mut host = host().config("machine", table);
    settle(&mut host, TRANSITIONED, ready(json!(["A", "B", "C"])));
    acts(&mut host, "C", "park", "po");
    assert_eq!(
        (state(&host, "C"), state(&host, "B")),
        (json!("parked"), json!("todo")),
        "it has left nobody"
    );
    acts(&mut host, "A", "commit_code", "developer");
    assert_eq!((state(&host, "A"), state(&host, "B")), (json!("dev_completed"), json!("implementing")));
}

#[test]
fn where_all_are_assigned_nobody_waits_for_a_turn() {
    let mut host = host().config("assign_policy", "all");
    settle(&mut host, TRANSITIONED, ready(json!(["A", "B"])));
    settle(&mut host, OPEN, json!({"task_id": "C", "story_id": "S-1", "assign": false}));
    settle(&mut host, TRANSITIONED, ready(json!(["A", "B", "C"])));
    acts(&mut host, "A", "commit_code", "developer");
    assert_eq!(state(&host, "C"), "todo", "it was known, and left alone");
}
