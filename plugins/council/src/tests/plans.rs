//! Approved plans: one deliberation for each role, and a word when all are through.

use cofferdam_sdk::{
    Failure,
    rpc::{Code, Status},
    testing::{Host, event},
};
use fleet_proto::{
    orchestrator::v1::DeliberationStatus,
    task_derivation::v1::{GetPlanContextRequest, GetPlanContextResponse, PlanContext},
};
use serde_json::{Value, json};

use super::support::*;

const CONTEXT: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService/GetPlanContext";

fn plan(roles: Value) -> Value {
    json!({"plan_id": "P", "story_id": "S", "approved_by": "ann", "roles": roles, "correlation_id": "C"})
}

fn planning(host: Host) -> Host {
    host.answers("planning", CONTEXT, |request: GetPlanContextRequest| {
        Ok::<_, Status>(GetPlanContextResponse {
            plan_context: Some(PlanContext {
                plan_id: request.plan_id,
                story_id: "S-of-Planning".into(),
                title: "Login".into(),
                description: "By mail.".into(),
                acceptance_criteria: vec!["It is safe.".into()],
                ..PlanContext::default()
            }),
        })
    })
}

#[test]
fn contract_6_plan_approved_each_role_is_deliberated_once_and_then_the_plan_is_through() {
    let mut host = planning(host());
    let all = settle(&mut host, APPROVED, plan(json!(["developer", "QA", "dev"])));
    let told = on(&all, COMPLETED);
    assert_eq!(told.iter().map(|told| told["role"].as_str().unwrap()).collect::<Vec<_>>(), ["DEV", "QA"]);
    assert!(told.iter().all(|told| told["task_id"] == "P" && told["story_id"] == "S"));
    assert_eq!(told[1]["decisions"][0]["id"], "DEC-P-QA");
    let through = on(&all, THROUGH);
    assert_eq!(through.len(), 1);
    assert_eq!((through[0]["plan_id"].as_str(), through[0]["task_id"].as_str()), (Some("P"), Some("P")));
    assert_eq!(
        (&through[0]["roles"], &through[0]["approved_by"]),
        (&json!(["developer", "QA", "dev"]), &json!("ann"))
    );
    assert_eq!(through[0]["correlation_id"], "C");
    assert_eq!(all.last().map(|message| message.subject.as_str()), Some(ENDED));
}

#[test]
fn contract_6_plan_approved_a_role_without_a_council_fails_alone() {
    let mut host = planning(host());
    let all = settle(&mut host, APPROVED, plan(json!(["PO", "DEV"])));
    let told = on(&all, COMPLETED);
    assert_eq!((told[0]["status"].as_str(), told[1]["status"].as_str()), (Some("failed"), Some("completed")));
    assert_eq!(on(&all, THROUGH).len(), 1);
    let known = known(&mut host, "P");
    assert_eq!((known.status(), known.winner_id.as_str()), (DeliberationStatus::Completed, "agent-dev-001"));
    assert!(known.error_message.starts_with("PO: no council"));
}

#[test]
fn a_plan_of_roles_that_all_fail_is_through_as_well() {
    let mut host = planning(host());
    let all = settle(&mut host, APPROVED, plan(json!("PO, nobody")));
    assert_eq!((on(&all, COMPLETED).len(), on(&all, THROUGH).len()), (2, 1));
    assert_eq!(known(&mut host, "P").status(), DeliberationStatus::Failed);
}

#[test]
fn contract_6_plan_approved_without_roles_it_is_through_at_once() {
    for (roles, config) in [(json!([]), true), (json!(null), true), (json!(["DEV"]), false)] {
        let mut host = host().config("deliberate_plans", config);
        let run = run(&mut host, APPROVED, plan(roles));
        assert_eq!(run.subjects(), [THROUGH]);
        assert!(run.calls.is_empty());
    }
}

#[test]
fn how_far_a_plan_is_can_be_asked() {
    let mut host = planning(host());
    let opened = run(&mut host, APPROVED, plan(json!(["DEV", "QA"])));
    assert_eq!(known(&mut host, "P").status(), DeliberationStatus::Pending);
    run(&mut host, REQUESTED, opened.on(REQUESTED)[0].clone());
    let half = known(&mut host, "P");
    assert_eq!((half.status(), half.results.len()), (DeliberationStatus::InProgress, 3));
    run(&mut host, REQUESTED, opened.on(REQUESTED)[1].clone());
    let whole = known(&mut host, "P");
    assert_eq!((whole.status(), whole.results.len()), (DeliberationStatus::Completed, 6));
}

#[test]
fn the_roles_of_a_plan_come_in_any_order_and_count_once() {
    let mut host = planning(host());
    let opened = run(&mut host, APPROVED, plan(json!(["DEV", "QA"])));
    let asked = opened.on(REQUESTED);
    assert!(run(&mut host, REQUESTED, asked[1].clone()).on(THROUGH).is_empty());
    let repeat = run(&mut host, REQUESTED, asked[1].clone());
    assert!(repeat.acked_without_effect() && repeat.inferences.is_empty());
    assert_eq!(run(&mut host, REQUESTED, asked[0].clone()).on(THROUGH).len(), 1);
    assert!(run(&mut host, REQUESTED, asked[0].clone()).acked_without_effect());
}

#[test]
fn contract_2_1_dedupe_an_approval_that_comes_twice_asks_once() {
    let mut host = planning(host());
    settle(&mut host, APPROVED, plan(json!(["DEV"])));
    assert!(run(&mut host, APPROVED, plan(json!(["DEV"]))).acked_without_effect());
    let another = settle(&mut host, APPROVED, plan(json!(["DEV", "QA"])));
    assert_eq!(on(&another, THROUGH).len(), 1, "it is another approval");
}

#[test]
fn two_approvals_of_a_plan_under_way_end_each_for_itself() {
    let mut host = planning(host());
    let one = run(&mut host, APPROVED, plan(json!(["DEV"])));
    let other = run(&mut host, APPROVED, plan(json!(["QA"])));
    assert_eq!(
        run(&mut host, REQUESTED, other.on(REQUESTED)[0].clone()).on(THROUGH)[0]["roles"],
        json!(["QA"])
    );
    assert_eq!(
        run(&mut host, REQUESTED, one.on(REQUESTED)[0].clone()).on(THROUGH)[0]["roles"],
        json!(["DEV"])
    );
}

#[test]
fn councils_are_told_what_planning_knows_of_the_plan() {
    let mut host = planning(host());
    let mut approved = plan(json!(["DEV"]));
    approved["story_id"] = json!(null);
    let opened = run(&mut host, APPROVED, approved);
    let asked = run(&mut host, REQUESTED, opened.on(REQUESTED)[0].clone());
    let task = block(&asked.inferences[0].prompt, "task");
    for words in ["the plan P", "Title: Login", "Description: By mail.", "- It is safe."] {
        assert!(task.contains(words), "{task}");
    }
    assert_eq!(asked.on(THROUGH)[0]["story_id"], "S-of-Planning");
    assert!(asked.calls.iter().all(|call| call.upstream == "scoring"), "it was asked once, before");
}

#[test]
fn a_planning_that_is_down_is_asked_again_and_then_done_without() {
    let mut host = host().fails("planning", CONTEXT, Code::Unavailable, "down");
    let first = run(&mut host, APPROVED, plan(json!(["DEV"])));
    assert!(matches!(first.result, Err(Failure::Retry { .. })));
    let mut host = host.attempt(3, true);
    let last = run(&mut host, APPROVED, plan(json!(["DEV"])));
    assert_eq!(last.on(REQUESTED)[0]["description"], "Propose how the plan P is carried out.\n");
}

#[test]
fn a_planning_that_knows_no_such_plan_is_done_without_at_once() {
    let mut host = host().fails("planning", CONTEXT, Code::NotFound, "no");
    assert_eq!(run(&mut host, APPROVED, plan(json!(["DEV"]))).on(REQUESTED).len(), 1);
}

#[test]
fn a_plan_of_many_roles_has_a_bound() {
    let mut host = planning(host());
    let roles: Vec<String> = (0..500).map(|n| format!("role {n}")).collect();
    assert_eq!(run(&mut host, APPROVED, plan(json!(roles))).on(REQUESTED).len(), 32);
}

#[test]
fn the_record_of_a_plan_fits_its_cell_whatever_its_councils_say() {
    let roles = json!(["A", "B", "C", "D"]);
    let mut host = planning(host_with(|_, agent, _| Ok(format!("{agent}{}", "\"".repeat(30_000)))))
        .config("councils", roles.clone())
        .config("agents", 16)
        .config("rounds", 0);
    settle(&mut host, APPROVED, plan(roles));
    let bytes = host.cells().get("deliberation/P", "result").unwrap().len();
    assert!(bytes <= 230 << 10, "{bytes}");
}

#[test]
fn a_redelivered_role_asks_the_same_again() {
    let mut host = planning(host()).fails("scoring", SCORE, Code::Unavailable, "down");
    let opened = run(&mut host, APPROVED, plan(json!(["DEV"])));
    let asked = event(REQUESTED, opened.on(REQUESTED)[0].clone());
    assert_eq!(steps(&host.run(crate::handle, asked.clone())), [3, 3, 3]);
    assert_eq!(steps(&host.run(crate::handle, asked)), [0, 0, 0]);
}
