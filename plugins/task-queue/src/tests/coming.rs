//! How tasks come into the queue, and how what failed comes again.

use cofferdam_sdk::{Failure, log::Level, testing::event};
use serde_json::{Value, json};

use super::support::*;

#[test]
fn contract_6_queue_a_created_task_goes_to_a_council_and_with_its_proposal_to_the_winner() {
    let mut host = host();
    let mut message = created("T");
    message["description"] = json!("with \"care\"");
    message["constraints"] = json!({
        "rubric": {"clarity": 1}, "requirements": ["must mention: tests"], "metadata": {"team": "red", "size": 3},
        "max_iterations": 2, "timeout_seconds": "60",
    });
    let told = settle(&mut host, CREATED, message);
    assert_eq!(told.subjects(), [READY]);
    let ready = &told.on(READY)[0];
    for (key, value) in [
        ("task_id", json!("T")),
        ("story_id", json!("S")),
        ("plan_id", json!("P")),
        ("role", json!("DEV")),
        ("description", json!("do T\n\nwith \"care\"")),
        ("attempt", json!(1)),
    ] {
        assert_eq!(ready[key], value, "{key}");
    }
    let constraints = json!({
        "rubric": "{\"clarity\":1}", "requirements": ["must mention: tests"], "metadata": {"team": "red", "size": "3"},
        "max_iterations": 2, "timeout_seconds": 60,
    });
    assert_eq!(ready["constraints"], constraints);
    assert_eq!(status(&mut host, "T"), "IN_PROGRESS");
    let told = settle(&mut host, DELIBERATED, deliberated("T", 1));
    assert_eq!(told.subjects(), [DISPATCHED]);
    let dispatched = &told.on(DISPATCHED)[0];
    for (key, value) in [
        ("task_id", json!("T")),
        ("story_id", json!("S")),
        ("agent_id", json!("agent-dev-002")),
        ("role", json!("DEV")),
        ("description", json!("do T\n\nwith \"care\"")),
        ("proposal", json!("thus")),
        ("attempt", json!(1)),
    ] {
        assert_eq!(dispatched[key], value, "{key}");
    }
}

#[test]
fn contract_6_queue_requires_pre_deliberation_is_the_tasks_word_wherever_it_is_else_the_operators() {
    for (place, value) in [
        (json!({"requires_pre_deliberation": false}), false),
        (json!({"constraints": {"requires_pre_deliberation": "false"}}), false),
        (json!({"constraints": {"metadata": {"requires_pre_deliberation": 0}}}), false),
        (json!({"metadata": {"requires_pre_deliberation": "True"}}), true),
        (json!({}), true),
    ] {
        let mut message = created("T");
        message.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
        let told = settle(&mut host(), CREATED, &message);
        assert_eq!(told.subjects(), [if value { READY } else { DISPATCHED }], "{message}");
    }
    let mut told_otherwise = created("T");
    told_otherwise["requires_pre_deliberation"] = json!(true);
    assert_eq!(settle(&mut one_by_one(), CREATED, told_otherwise).subjects(), [READY]);
    let told = settle(&mut one_by_one(), CREATED, created("T"));
    assert_eq!(told.subjects(), [DISPATCHED]);
    assert_eq!(told.on(DISPATCHED)[0]["agent_id"], "agent-dev-001");
    assert_eq!(told.on(DISPATCHED)[0].get("proposal"), None);
}

#[test]
fn the_role_is_plannings_by_any_alias_and_an_unknown_one_is_a_developers() {
    for (name, role, agent) in [
        ("tester", "QA", "agent-qa-001"),
        ("Architect", "ARCHITECT", "agent-architect-001"),
        ("ann", "DEV", "agent-dev-001"),
    ] {
        let mut message = created("T");
        message["assigned_to"] = json!(name);
        let told = settle(&mut direct(), CREATED, message);
        let dispatched = &told.on(DISPATCHED)[0];
        assert_eq!((dispatched["role"].as_str(), dispatched["agent_id"].as_str()), (Some(role), Some(agent)));
    }
}

#[test]
fn an_assigned_task_waits_a_little_for_what_planning_tells() {
    let mut host = direct();
    let first = settle(&mut host, ASSIGNED, assigned("T"));
    assert_eq!(first.subjects(), Vec::<&str>::new());
    let timer = first.timer(UNEXPLAINED);
    assert_eq!(status(&mut host, "T"), "QUEUED");
    let told = settle(&mut host, CREATED, created("T"));
    assert_eq!(told.subjects(), [DISPATCHED]);
    assert_eq!(told.cancelled, [timer.id.as_str()]);
    // It fired before it could be taken back.
    assert!(settle(&mut host, UNEXPLAINED, timer.json()).published.is_empty());
    assert!(settle(&mut host, ASSIGNED, assigned("T")).published.is_empty());
}

#[test]
fn an_assigned_task_of_which_planning_tells_nothing_is_queued_as_it_is() {
    let mut host = direct();
    let mut message = assigned("T");
    message["assigned_to_role"] = json!("qa");
    let timer = settle(&mut host, ASSIGNED, message).timer(UNEXPLAINED).clone();
    let run = run(&mut host, UNEXPLAINED, timer.json());
    assert_eq!(run.logged(Level::Warn).len(), 1);
    let told = follow(&mut host, run);
    assert_eq!((told.tasks(DISPATCHED), &told.on(DISPATCHED)[0]["role"]), (vec!["T".into()], &json!("QA")));
    assert!(settle(&mut host, UNEXPLAINED, timer.json()).published.is_empty(), "once");
}

#[test]
fn without_grace_an_assigned_task_is_queued_at_once() {
    let mut host = direct().config("assignment_grace_seconds", 0);
    assert_eq!(settle(&mut host, ASSIGNED, assigned("T")).subjects(), [DISPATCHED]);
}

#[test]
fn what_planning_tells_late_is_heard_before_the_task_goes() {
    let mut host = one_by_one().config("assignment_grace_seconds", 0);
    settle(&mut host, CREATED, created("busy"));
    settle(&mut host, ASSIGNED, assigned("T"));
    settle(&mut host, CREATED, depending("T", &["D"]));
    // Its turn would have come, had nobody told that it waits for D.
    assert_eq!(settle(&mut host, ANSWERED, answer("busy")).tasks(DISPATCHED), Vec::<String>::new());
    assert_eq!(list(&mut host, "")[0].waits_for, ["D"]);
    assert_eq!(settle(&mut host, CREATED, created("D")).tasks(DISPATCHED), ["D"]);
    assert_eq!(settle(&mut host, ANSWERED, answer("D")).tasks(DISPATCHED), ["T"]);
}

#[test]
fn a_turn_that_was_given_before_planning_told_of_dependencies_is_void() {
    let mut host = direct().config("assignment_grace_seconds", 0);
    let announced = run(&mut host, ASSIGNED, assigned("T"));
    let go = run(&mut host, CHANGED, announced.on(CHANGED)[0].clone());
    let explained = run(&mut host, CREATED, depending("T", &["D"]));
    assert_eq!(run(&mut host, GO, go.on(GO)[0].clone()).published, []);
    assert_eq!(follow(&mut host, explained).tasks(DISPATCHED), Vec::<String>::new());
    assert_eq!(
        (list(&mut host, "")[0].status.as_str(), list(&mut host, "")[0].waits_for.len()),
        ("QUEUED", 1)
    );
}

#[test]
fn a_council_that_was_asked_before_planning_told_of_the_task_is_asked_again_about_all_of_it() {
    let mut host = host().config("assignment_grace_seconds", 0);
    assert_eq!(settle(&mut host, ASSIGNED, assigned("T")).on(READY)[0]["description"], "");
    let told = settle(&mut host, CREATED, created("T"));
    let ready = &told.on(READY)[0];
    assert_eq!((&ready["description"], &ready["attempt"]), (&json!("do T"), &json!(2)));
    assert_eq!(told.cancelled.len(), 1, "the first attempt's time");
    assert!(settle(&mut host, DELIBERATED, deliberated("T", 1)).published.is_empty());
    assert_eq!(settle(&mut host, DELIBERATED, deliberated("T", 2)).tasks(DISPATCHED), ["T"]);
}

#[test]
fn a_review_is_nothing_to_queue_and_rework_neither_unless_the_task_failed() {
    for (label, action) in
        [("REVIEW_DESIGN", "approve_design"), ("REVISE_CODE", "revise_code"), ("WRITE", "write")]
    {
        let mut host = direct();
        let mut message = assigned("T");
        (message["action"], message["required_action"]) = (json!(label), json!(label));
        message["action_required"] = json!(action);
        assert!(run(&mut host, ASSIGNED, &message).acked_without_effect(), "{label}");
        settle(&mut host, CREATED, created("T"));
        settle(&mut host, AGENT_FAILED, failure("T"));
        message["n"] = json!(2);
        let again = settle(&mut host, ASSIGNED, message).tasks(DISPATCHED).len();
        assert_eq!(again, usize::from(label == "REVISE_CODE"), "{label}");
    }
    // As older versions write it.
    for message in [
        json!({"task_id": "T", "role": "developer", "action": "commit_code"}),
        json!({"task_id": "T", "role": "developer", "action_required": "COMMIT_CODE"}),
        json!({"task_id": "T", "role": "developer"}),
        json!({"task_id": "T"}),
    ] {
        assert_eq!(settle(&mut direct(), ASSIGNED, message).timers.len(), 1);
    }
}

#[test]
fn contract_6_queue_enqueue_of_a_known_id_is_a_no_op() {
    let mut host = host();
    settle(&mut host, CREATED, created("T"));
    let mut again = prior("T", 9);
    again["title"] = json!("another");
    let run = self::run(&mut host, CREATED, &again);
    assert_eq!((run.result.clone(), run.published.len(), run.metric("task_queue_dropped")), (Ok(()), 0, 1.0));
    settle(&mut host, DELIBERATED, deliberated("T", 1));
    settle(&mut host, ANSWERED, answer("T"));
    again["n"] = json!(2);
    for (subject, message) in [(CREATED, again), (ASSIGNED, assigned("T"))] {
        assert!(settle(&mut host, subject, message).published.is_empty());
    }
    let task = get(&mut host, "T");
    assert_eq!((task.status.as_str(), task.priority, task.attempt), ("COMPLETED", 5, 1));
}

#[test]
fn contract_6_queue_a_failed_task_is_enqueued_again_by_a_new_message_and_by_no_repeat() {
    let mut host = direct();
    let old = event(CREATED, {
        let mut old = created("T");
        old["n"] = json!("sent before it failed");
        old
    });
    let assignment = event(ASSIGNED, assigned("T"));
    let keyed =
        json!({"event_type": CREATED, "idempotency_key": "k", "producer": "x", "payload": created("T")});
    let again = event(CREATED, &keyed);
    settle(&mut host, CREATED, &keyed);
    settle(&mut host, AGENT_FAILED, failure("T"));
    assert_eq!(status(&mut host, "T"), "FAILED:out of memory");
    assert!(settle(&mut host, CREATED, keyed).published.is_empty(), "a repeat");
    assert!(take(&mut host, again).published.is_empty());
    assert!(take(&mut host, old).published.is_empty(), "an old one that comes late");
    assert!(take(&mut host, assignment).published.is_empty());
    assert_eq!(status(&mut host, "T"), "FAILED:out of memory");
    let mut anew = prior("T", 1);
    anew["description"] = json!("in small steps");
    let told = settle(&mut host, CREATED, anew);
    assert_eq!(told.on(DISPATCHED)[0]["attempt"], 2);
    assert_eq!(told.on(DISPATCHED)[0]["description"], "do T\n\nin small steps");
    assert!(
        settle(&mut host, AGENT_FAILED, failure("T")).published.is_empty(),
        "the first attempt's failure, again"
    );
    assert_eq!(get(&mut host, "T").priority, 1);
    let mut failure = failure("T");
    failure["n"] = json!(2);
    assert_eq!(settle(&mut host, AGENT_FAILED, failure).tasks(FAILED), ["T"]);
    // What a later message leaves out stays as it was.
    let mut third = created("T");
    third["n"] = json!(2);
    third.as_object_mut().unwrap().remove("title");
    assert_eq!(settle(&mut host, CREATED, third).on(DISPATCHED)[0]["description"], "do T\n\nin small steps");
    assert_eq!(get(&mut host, "T").priority, 1);
    let mut failure = self::failure("T");
    failure["n"] = json!(3);
    settle(&mut host, AGENT_FAILED, failure);
    let mut anew = assigned("T");
    anew["n"] = json!(3);
    assert_eq!(settle(&mut host, ASSIGNED, anew).on(DISPATCHED)[0]["attempt"], 4);
    assert_eq!(settle(&mut host, ANSWERED, answer("T")).tasks(COMPLETED), ["T"]);
}

#[test]
fn contract_6_queue_a_failed_task_is_enqueued_again_by_the_same_bare_message_if_it_is_sent_again() {
    let mut host = direct();
    let stored_before = event(CREATED, created("T"));
    settle(&mut host, CREATED, created("T"));
    settle(&mut host, AGENT_FAILED, failure("T"));
    assert!(take(&mut host, stored_before).published.is_empty(), "delivered again");
    assert_eq!(settle(&mut host, CREATED, created("T")).on(DISPATCHED)[0]["attempt"], 2);
    assert!(settle(&mut host, CREATED, created("T")).published.is_empty(), "it is in progress");
}

#[test]
fn a_task_that_is_asked_for_again_before_its_failure_is_heard_of_is_enqueued_again() {
    for (subject, again) in [(ASSIGNED, assigned("T")), (CREATED, prior("T", 1))] {
        let mut host = direct();
        settle(&mut host, CREATED, created("T"));
        settle(&mut host, CREATED, depending("behind", &["T"]));
        let mut early = assigned("T");
        early["n"] = json!("stored before the failure");
        settle(&mut host, ASSIGNED, early);
        let failure = event(AGENT_FAILED, failure("T"));
        assert!(settle(&mut host, subject, again).published.is_empty());
        let told = take(&mut host, failure);
        assert_eq!(told.subjects(), [FAILED, DISPATCHED], "{subject}");
        assert_eq!(told.on(DISPATCHED)[0]["attempt"], 2);
        let mut failure = self::failure("T");
        failure["n"] = json!(2);
        assert_eq!(settle(&mut host, AGENT_FAILED, failure).subjects(), [FAILED, BLOCKED], "once");
    }
    let mut host = direct();
    settle(&mut host, CREATED, created("T"));
    settle(&mut host, ASSIGNED, assigned("T"));
    assert_eq!(
        settle(&mut host, AGENT_FAILED, failure("T")).subjects(),
        [FAILED],
        "asked for before it failed"
    );
}

#[test]
fn priorities_and_dependencies_are_read_as_the_fleets_versions_write_them() {
    for (priority, expected) in [
        (json!("HIGH"), 2),
        (json!("critical"), 1),
        (json!("Normal"), 5),
        (json!("LOW"), 8),
        (json!("P0"), 1),
        (json!("P3"), 3),
        (json!("3"), 3),
        (json!(99), 10),
        (json!("soon"), 5),
        (json!(null), 5),
    ] {
        let mut message = created("T");
        message["priority"] = priority.clone();
        let mut host = direct();
        settle(&mut host, CREATED, message);
        assert_eq!(get(&mut host, "T").priority, expected, "{priority}");
    }
    let mut message = created("T");
    message["dependencies"] = json!(["D"]);
    let mut host = direct();
    settle(&mut host, CREATED, message);
    assert_eq!(list(&mut host, "")[0].waits_for, ["D"]);
}

#[test]
fn messages_that_name_no_task_or_another_than_their_key_are_dead_letters() {
    let mut host = direct();
    let two = json!({
        "event_type": CREATED, "producer": "x", "task_id": "T",
        "payload": {"task_id": "", "metadata": {"task_id": "T"}, "story_id": "S"},
    });
    for (subject, data) in [
        (CREATED, json!({"story_id": "S"})),
        (CREATED, json!({"task_id": "T"})),
        (CREATED, json!([1])),
        (CREATED, two),
        (ASSIGNED, json!({"role": "developer"})),
        (DELIBERATED, json!({"attempt": 1})),
        (GO, json!({"task_id": "T"})),
        (CHANGED, json!({"queue": "other", "task_id": "T"})),
    ] {
        let run = run(&mut host, subject, data);
        assert!(matches!(run.result, Err(Failure::Reject(_))), "{subject}");
        assert_eq!(run.metric("task_queue_dropped"), 1.0, "{subject}");
    }
    assert_eq!(host.cells().names(), Vec::<String>::new());
}

#[test]
fn in_an_existing_fleet_what_was_created_before_is_not_queued_and_counts_as_completed() {
    let mut host = direct().config("since", "2027-01-01T00:00:00Z");
    assert!(settle(&mut host, CREATED, created("old")).published.is_empty());
    assert!(run(&mut host, ASSIGNED, assigned("older")).acked_without_effect());
    let now = |subject: &str, data: Value| {
        let mut event = event(subject, data);
        event.timestamp = 1_800_000_000_000_000_000;
        event
    };
    assert_eq!(take(&mut host, now(CREATED, depending("T", &["old"]))).tasks(DISPATCHED), ["T"]);
    assert!(take(&mut host, now(ASSIGNED, assigned("old"))).published.is_empty());
    let mut host = direct().config("since", "soon");
    let run = run(&mut host, CREATED, created("T"));
    assert!(
        matches!(run.result, Err(Failure::Retry { reason, .. }) if reason.contains("2026-01-31T08:00:00Z"))
    );
}
