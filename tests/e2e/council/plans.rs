//! What events ask of councils: plans, tasks of the queue, and phases of stories.

use fleet_proto::orchestrator::v1::DeliberationStatus;
use harness::{pipeline::bundled, way_in::content};
use serde_json::{Value, json};

use super::{Hall, ONE, THREE, TWO, payload, task};
use crate::both::on_both_buses;

on_both_buses! {
    contract_6_an_approved_plan_is_deliberated_once_for_each_role_and_one_without_council_fails_alone,
    contract_6_a_plan_without_roles_is_told_of_at_once,
    contract_6_a_task_of_the_queue_is_orchestrated_for_it,
    contract_1_tasks_go_through_queue_and_council_to_their_agents_one_after_the_other,
    contract_2_3_a_story_that_changes_its_phase_is_told_of,
}

async fn contract_6_an_approved_plan_is_deliberated_once_for_each_role_and_one_without_council_fails_alone(
    hall: Hall,
) {
    let running = hall.open().await;
    let plan = json!({"plan_id": "P", "story_id": "S", "approved_by": "ann", "roles": ["DEV", "PLUMBER", "qa"],
        "timestamp": "2026-01-02T03:04:05Z"});
    for _ in 0..2 {
        running.daemon.publish("planning.plan.approved", &plan).await;
    }
    let approved = payload(&running.daemon.wait_stored("orchestration.plan.approved", 1).await[0]);
    for (key, value) in [
        ("plan_id", json!("P")),
        ("task_id", json!("P")),
        ("story_id", json!("S")),
        ("approved_by", json!("ann")),
    ] {
        assert_eq!(approved[key], value, "{key}: {approved}");
    }
    let told = running.told("P", 3).await;
    let mut roles: Vec<(&str, &str)> = told
        .iter()
        .map(|one| (one["role"].as_str().expect("a role"), one["status"].as_str().expect("one")))
        .collect();
    roles.sort_unstable();
    assert_eq!(roles, [("DEV", "completed"), ("PLUMBER", "failed"), ("QA", "completed")]);
    assert!(told.iter().all(|one| one["story_id"] == "S"), "{told:?}");
    // A plan that is approved again with another key is another; this was the same.
    let after = json!({"plan_id": "Q", "story_id": "S", "roles": ["DEV"]});
    running.daemon.publish("planning.plan.approved", after).await;
    running.told("Q", 1).await;
    running.daemon.wait_stored("orchestration.plan.approved", 2).await;
    assert_eq!(hall.asked().await, 3 * 9);
    assert_eq!(running.told("P", 3).await.len(), 3);
    running.no_dead_letters().await;
}

async fn contract_6_a_plan_without_roles_is_told_of_at_once(hall: Hall) {
    let running = hall.open().await;
    running.daemon.publish("planning.plan.approved", json!({"plan_id": "P", "story_id": "S"})).await;
    let approved = payload(&running.daemon.wait_stored("orchestration.plan.approved", 1).await[0]);
    assert_eq!((&approved["plan_id"], &approved["story_id"]), (&json!("P"), &json!("S")));
    assert_eq!(hall.asked().await, 0);
}

async fn contract_6_a_task_of_the_queue_is_orchestrated_for_it(hall: Hall) {
    let running = hall.open().await;
    let ready = |task_id: &str, role: &str, proposals: &[&str]| {
        json!({"task_id": task_id, "story_id": "S", "plan_id": "P", "role": role, "description": task(proposals),
            "constraints": {}, "attempt": 2})
    };
    let broken = "Store the order, as here:\n\n```\nwhich is not closed";
    running.daemon.publish("cofferdam.queue.ready", ready("t", "DEV", &[broken, TWO, broken])).await;
    running.daemon.publish("cofferdam.queue.ready", ready("u", "PLUMBER", &[ONE])).await;
    running.daemon.publish("cofferdam.queue.ready", ready("v", "DEV", &["!500"])).await;
    let answers = running.daemon.wait_stored("cofferdam.queue.deliberated", 3).await;
    let of = |task_id: &str| -> Value {
        answers.iter().map(payload).find(|one| one["task_id"] == task_id).expect("an answer")
    };
    let won = of("t");
    assert_eq!((&won["proposal"], &won["attempt"], &won["story_id"]), (&json!(TWO), &json!(2), &json!("S")));
    assert!(won["agent_id"].as_str().is_some_and(|agent| agent.starts_with("agent-dev-")), "{won}");
    assert_eq!(won["agent_id"], running.told_once("t").await["winner_id"]);
    for (task_id, why) in [("u", "PLUMBER"), ("v", "server_error")] {
        let lost = of(task_id);
        assert_eq!((&lost["agent_id"], &lost["attempt"]), (&json!(""), &json!(2)));
        assert!(lost["error"].as_str().is_some_and(|error| error.contains(why)), "{lost}");
    }
    assert_eq!(running.client.kept("v").await.status(), DeliberationStatus::Failed);
    running.no_dead_letters().await;
}

async fn contract_2_3_a_story_that_changes_its_phase_is_told_of(hall: Hall) {
    let running = hall.open().await;
    let step = |from: &str, to: &str, phases: Option<(&str, &str)>| {
        let mut step = json!({"story_id": "S", "from_state": from, "to_state": to});
        if let Some((from, to)) = phases {
            step["from_phase"] = from.into();
            step["to_phase"] = to.into();
        }
        step
    };
    for told in [
        step("DRAFT", "PO_REVIEW", Some(("DRAFT", "DRAFT"))),
        step("PO_REVIEW", "READY_FOR_PLANNING", Some(("DRAFT", "DESIGN"))),
        step("TESTING", "READY_TO_REVIEW", Some(("TEST", "DOCS"))),
    ] {
        running.daemon.publish("planning.story.transitioned", told).await;
    }
    let changed = running.daemon.wait_stored("orchestration.phase.changed", 2).await;
    let phases: Vec<Value> = changed
        .iter()
        .map(payload)
        .map(|one| json!([one["story_id"], one["from_phase"], one["to_phase"]]))
        .collect();
    assert_eq!(phases, [json!(["S", "DRAFT", "DESIGN"]), json!(["S", "TEST", "DOCS"])]);
}

async fn contract_1_tasks_go_through_queue_and_council_to_their_agents_one_after_the_other(hall: Hall) {
    let hall = hall.with(bundled("task-queue"));
    let running = hall.open().await;
    let created = |task_id: &str, on: &[&str]| {
        json!({"task_id": task_id, "story_id": "S", "plan_id": "P", "title": "Orders", "description": task(&[ONE, TWO, THREE]),
            "assigned_to": "DEVELOPER", "priority": 1, "depends_on": on})
    };
    let mut plain = created("after", &["first"]);
    plain["requires_pre_deliberation"] = false.into();
    running.daemon.publish("planning.task.created", plain).await;
    running.daemon.publish("planning.task.created", created("first", &[])).await;
    let told = payload(&running.daemon.wait_stored("orchestration.task.dispatched", 1).await[0]);
    for (key, value) in [
        ("task_id", "first"),
        ("story_id", "S"),
        ("agent_id", "agent-dev-001"),
        ("role", "DEV"),
        ("proposal", ONE),
    ] {
        assert_eq!(told[key], value, "{key}: {told}");
    }
    assert_eq!(running.told_once("first").await["winner_id"], told["agent_id"]);
    assert_eq!(hall.asked().await, 9);

    let answer = json!({"task_id": "first", "story_id": "S", "agent_id": "agent-dev-001", "num_agents": 1,
        "output": {"content": "It is done.", "checks_passed": true, "duration_ms": 40}});
    running.daemon.publish("agent.response.completed", answer).await;
    let completed = payload(&running.daemon.wait_stored("orchestration.task.completed", 1).await[0]);
    assert_eq!((&completed["task_id"], &completed["checks_passed"]), (&json!("first"), &json!(true)));
    // It waited for the first, and no council is asked.
    let next = payload(&running.daemon.wait_stored("orchestration.task.dispatched", 2).await[1]);
    assert_eq!((&next["task_id"], &next["agent_id"]), (&json!("after"), &json!("agent-dev-001")));
    let failure =
        json!({"task_id": "after", "agent_id": "agent-dev-001", "error": "no tools", "error_type": "ENV"});
    running.daemon.publish("agent.response.failed", failure).await;
    let failed = payload(&running.daemon.wait_stored("orchestration.task.failed", 1).await[0]);
    assert_eq!((&failed["task_id"], &failed["error"]), (&json!("after"), &json!("no tools")));
    assert_eq!(hall.asked().await, 9);
    // What the agent said of its work is no second deliberation.
    running.told_once("first").await;
    for message in running.daemon.stored("orchestration.>").await {
        let told = payload(&message);
        for key in ["task_id", "story_id", "timestamp"] {
            assert!(told[key].is_string(), "{key} of {}: {told}", content(&message).subject);
        }
    }
    running.no_dead_letters().await;
}
