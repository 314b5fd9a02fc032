//! What plan-reader does with each of its events, as somebody outside would see it.

use cofferdam_sdk::{
    Event, Failure,
    log::Level,
    publish::EmitError,
    rpc::{Code, Status},
    testing::{Host, Run, event},
};
use fleet_proto::task_derivation::v1::{GetPlanContextRequest, GetPlanContextResponse, PlanContext};
use serde_json::{Value, json};

use crate::handle;

const APPROVED: &str = "planning.plan.approved";
const REQUESTED: &str = "task.derivation.requested";
const PARSED: &str = "cofferdam.derivation.parsed";
const REJECTED: &str = "cofferdam.derivation.rejected";
const TIMEOUT: &str = "cofferdam.derivation.timeout";
const FAILED: &str = "task.derivation.failed";
const GET_PLAN: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService/GetPlanContext";
const SECOND: u64 = 1_000_000_000;

/// The three notations, saying the same.
const MARKDOWN: &str = "## DEV Tasks\n- [ ] TASK-001: Implement login endpoint\n  - Depends on: TASK-000\n  - Priority: HIGH\n\n## QA Tasks\n- [ ] TASK-002: Test login\n  - Depends on: TASK-001\n";
const YAML: &str = "tasks:\n  - id: TASK-001\n    story_id: elsewhere\n    role: DEV\n    description: \"Implement login endpoint\"\n    dependencies: [TASK-000]\n    priority: HIGH\n    constraints: {}\n  - id: TASK-002\n    role: QA\n    description: Test login\n    dependencies: [TASK-001]\n";
const JSON: &str = r#"{"tasks": [
    {"id": "TASK-001", "role": "DEV", "description": "Implement login endpoint", "dependencies": ["TASK-000"], "priority": "HIGH"},
    {"id": "TASK-002", "role": "QA", "title": "Test login", "dependencies": ["TASK-001"]}]}"#;

fn plan(description: &str, notes: &str) -> PlanContext {
    PlanContext {
        plan_id: "p".into(),
        story_id: "s".into(),
        title: "Login".into(),
        description: description.into(),
        acceptance_criteria: vec!["- [ ] TASK-009: not read".into()],
        technical_notes: notes.into(),
        roles: vec!["architect".into()],
    }
}

fn host_with(plan: PlanContext) -> Host {
    Host::from_manifest(include_str!("../../plugin.toml")).answers(
        "planning",
        GET_PLAN,
        move |request: GetPlanContextRequest| {
            if request.plan_id == plan.plan_id {
                Ok(GetPlanContextResponse { plan_context: Some(plan.clone()) })
            } else {
                Err(Status::new(Code::NotFound, "no such plan"))
            }
        },
    )
}

fn host(description: &str, notes: &str) -> Host {
    host_with(plan(description, notes))
}

fn run(host: &mut Host, event: Event) -> Run {
    host.run(handle, event)
}

fn approve(host: &mut Host) -> Run {
    run(host, event(APPROVED, json!({"plan_id": "p", "correlation_id": "c"})))
}

fn record(host: &Host) -> Value {
    host.value("derivation/p", "record").unwrap_or(Value::Null)
}

/// The one failure that a run has told.
#[track_caller]
fn failure(run: &Run, kind: &str) -> String {
    assert_eq!((run.result.clone(), run.subjects()), (Ok(()), vec![FAILED]));
    assert_eq!(run.metrics.last().unwrap().labels, [("reason".to_owned(), kind.to_owned())]);
    let message = run.published[0].json();
    assert_eq!((&message["requires_manual_review"], &message["status"]), (&json!(true), &json!("failed")));
    let reason = message["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with(&format!("{kind}: ")), "{reason}");
    reason
}

#[test]
fn contract_9_a_structured_plan_becomes_parsed_without_a_model() {
    for text in [MARKDOWN, YAML, JSON] {
        for (description, notes) in [(text, ""), ("Log in, log out.", text)] {
            let mut host = host(description, notes);
            let run = approve(&mut host);
            assert_eq!((run.result.clone(), run.subjects()), (Ok(()), vec![PARSED]), "{text}");
            assert!(run.jobs.is_empty());
            let message = &run.on(PARSED)[0];
            assert_eq!(
                (&message["producer"], &message["correlation_id"]),
                (&json!("plan-reader"), &json!("c"))
            );
            for body in [message, &message["payload"]] {
                assert_eq!((&body["plan_id"], &body["story_id"]), (&json!("p"), &json!("s")));
                assert_eq!((&body["derivation_id"], &body["attempt"]), (&json!("derive-p"), &json!(1)));
                assert_eq!((&body["source"], &body["below_min"]), (&json!("structured"), &json!(false)));
                assert_eq!((&body["roles"], &body["deliberation_id"]), (&json!(["ARCHITECT"]), &Value::Null));
                let [first, second] = body["tasks"].as_array().unwrap().as_slice() else {
                    panic!("{body:#}")
                };
                assert_eq!(
                    (&first["ref"], &first["title"]),
                    (&json!("TASK-001"), &json!("Implement login endpoint"))
                );
                assert_eq!((&first["role"], &first["priority"]), (&json!("DEVELOPER"), &json!(2)));
                assert_eq!(first["depends_on"], json!(["TASK-000"]));
                assert_eq!((&second["title"], &second["role"]), (&json!("Test login"), &json!("QA")));
                assert_eq!(second["depends_on"], json!(["TASK-001"]));
            }
            let record = record(&host);
            assert_eq!((&record["status"], &record["attempt"]), (&json!("open"), &json!(1)));
            assert_eq!(run.metric("task_derivation_requests_received"), 1.0);
        }
    }
}

#[test]
fn tasks_of_description_and_notes_add_up_and_repeats_drop() {
    let mut host = host(
        MARKDOWN,
        "tasks:\n  - {id: TASK-003, title: test LOGIN.}\n  - {id: TASK-004, title: Ship it}\n",
    );
    let parsed = approve(&mut host).on(PARSED)[0].clone();
    let titles: Vec<_> =
        parsed["tasks"].as_array().unwrap().iter().map(|task| task["title"].clone()).collect();
    assert_eq!(titles, ["Implement login endpoint", "Test login", "Ship it"]);
    assert_eq!(parsed["dropped"][0]["title"], "test LOGIN.");
}

#[test]
fn contract_9_one_derivation_is_open_whichever_trigger_comes() {
    for (first, second) in [(APPROVED, REQUESTED), (REQUESTED, APPROVED)] {
        let mut host = host(MARKDOWN, "");
        assert_eq!(run(&mut host, event(first, json!({"plan_id": "p"}))).subjects(), [PARSED]);
        let again = run(&mut host, event(second, json!({"plan_id": "p"})));
        assert!(again.published.is_empty() && again.calls.is_empty());
        assert_eq!(again.metric("task_derivation_requests_received"), 1.0);
    }
}

#[test]
fn contract_9_a_plan_without_tasks_fails_at_once() {
    let reason = failure(&approve(&mut host("Log in, log out.", "- one\n- two")), "no_tasks");
    assert!(reason.contains("technical notes"), "{reason}");
    let reason = failure(&approve(&mut host("", "Why:\n\ntasks:\n - id: a\n  b: c\n")), "no_tasks");
    assert!(reason.contains("technical notes") && reason.contains("line 5"), "{reason}");
    failure(&approve(&mut host("[{\"title\": \"A\"}, {\"ti", "")), "truncated_json");
    let nine: String = (1..=9).map(|n| format!("- TASK-{n}: Step number {n}\n")).collect();
    failure(&approve(&mut host(&nine, "")), "too_many_tasks");
    assert_eq!(approve(&mut host(&nine, "").config("max_tasks", 9)).subjects(), [PARSED]);
}

#[test]
fn contract_9_what_planning_does_not_have_fails_as_ever() {
    let unknown = run(&mut host(MARKDOWN, ""), event(REQUESTED, json!({"plan_id": "q", "story_id": "s"})));
    failure(&unknown, "plan_not_found");
    failure(
        &approve(&mut host_with(PlanContext { story_id: String::new(), ..plan(MARKDOWN, "") })),
        "invalid_plan",
    );
    let mut down = host(MARKDOWN, "").fails("planning", GET_PLAN, Code::Unavailable, "down");
    assert!(matches!(approve(&mut down).result, Err(Failure::Retry { .. })));
    failure(&approve(&mut down.attempt(3, true)), "planning_unavailable");
    let mut large = host(MARKDOWN, "").refuses_publish(PARSED, EmitError::TooLarge("2 MiB".into()));
    failure(&approve(&mut large), "invalid_plan");
}

#[test]
fn contract_9_a_rejected_plan_fails_for_nothing_would_change_if_it_were_read_again() {
    let mut host = host(MARKDOWN, "");
    let first = approve(&mut host);
    let told = json!({"plan_id": "p", "attempt": 1, "kind": "circular_dependency", "detail": "A -> B -> A"});
    let end = run(&mut host, event(REJECTED, told.clone()));
    assert_eq!(failure(&end, "circular_dependency"), "circular_dependency: A -> B -> A");
    assert_eq!(end.cancelled, [first.timers[0].id.as_str()]);
    assert_eq!(record(&host)["status"], "failed");
    assert!(run(&mut host, event(REJECTED, told)).acked_without_effect());
    let again = run(&mut host, event(APPROVED, json!({"plan_id": "p", "n": 2})));
    assert_eq!((again.subjects(), again.on(PARSED)[0]["run"].clone()), (vec![PARSED], json!(2)));
    let late = json!({"plan_id": "p", "attempt": 1, "kind": "no_tasks", "run": 1});
    assert!(run(&mut host, event(REJECTED, late)).acked_without_effect(), "of the first derivation");
}

#[test]
fn contract_9_tasks_that_nobody_stores_time_out() {
    let mut host = host(MARKDOWN, "");
    let parsed = approve(&mut host);
    let [timer] = parsed.timers.as_slice() else { panic!("{parsed:?}") };
    let fired = Event { timestamp: timer.at, ..event(TIMEOUT, timer.json()) };
    let mut stored = record(&host);
    failure(&run(&mut host, fired.clone()), "timeout");
    stored["status"] = json!("completed");
    host.set_value("derivation/p", "record", &stored);
    assert!(run(&mut host, fired).acked_without_effect());
}

#[test]
fn a_derivation_that_another_strategy_left_open_is_ended() {
    let mut host = host(MARKDOWN, "");
    let left = json!({"schema": 1, "plan_id": "p", "story_id": "s", "roles": ["QA"], "status": "open", "run": 4, "attempt": 2,
        "attempts": [{"attempt": 2, "job_id": "j", "submitted_at": "2025-01-01T00:00:00Z"}]});
    host.set_value("derivation/p", "record", &left);
    let trigger = approve(&mut host);
    let [timer] = trigger.timers.as_slice() else { panic!("{trigger:?}") };
    let fired = Event { timestamp: timer.at + SECOND, ..event(TIMEOUT, timer.json()) };
    failure(&run(&mut host, fired), "timeout");
}

#[test]
fn a_derivation_that_still_waits_for_its_turn_is_begun() {
    let mut host = host(MARKDOWN, "");
    let left =
        json!({"schema": 1, "plan_id": "p", "status": "open", "run": 4, "attempt": 0, "roles": ["dev"]});
    host.set_value("derivation/p", "record", &left);
    let parsed = approve(&mut host).on(PARSED)[0].clone();
    assert_eq!(
        (&parsed["run"], &parsed["story_id"], &parsed["roles"]),
        (&json!(4), &json!("s"), &json!(["DEVELOPER"]))
    );
}

#[test]
fn warnings_are_logged_and_kept() {
    let mut host = host("- TASK-1: One\n  - Role: wizard\n", "").config("min_tasks", 2);
    let run = approve(&mut host);
    assert_eq!(run.on(PARSED)[0]["below_min"], true);
    assert_eq!(run.logged(Level::Warn).len(), 2);
    assert_eq!(record(&host)["warnings"].as_array().unwrap().len(), 2);
}

#[test]
fn a_message_without_identity_is_rejected() {
    for (subject, message) in
        [(APPROVED, "{"), (REQUESTED, "{\"plan_id\": \" \"}"), (REJECTED, "{}"), (TIMEOUT, "[]")]
    {
        let run = run(&mut host(MARKDOWN, ""), event(subject, message));
        assert!(matches!(run.result, Err(Failure::Reject(_))), "{subject} {message}: {:?}", run.result);
    }
}
