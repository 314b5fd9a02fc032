//! Events through the handler: what reaches Planning, what is published, kept and ignored.

use cofferdam_sdk::{
    Failure,
    rpc::Code,
    testing::{Host, Run, event},
};
use fleet_proto::task_derivation::v1::{
    CreateTasksRequest, ListStoryTasksRequest, SaveTaskDependenciesRequest,
};
use serde_json::{Value, json};

use super::planning::{asked, called, creates, fails, host, saves_nothing};
use crate::handle;

const PARSED: &str = "cofferdam.derivation.parsed";
const REJECTED: &str = "cofferdam.derivation.rejected";
const COMPLETED: &str = "task.derivation.completed";
const CELL: &str = "derivation/p";

fn with_record(mut host: Host, status: &str) -> Host {
    let record = json!({
        "schema": 1, "plan_id": "p", "story_id": "s", "roles": ["QA"], "status": status, "run": 1, "attempt": 1,
        "attempts": [{"attempt": 1, "job_id": "j", "deliberation_id": "d"}], "cause": {"correlation_id": "corr"},
        "opened_at": "2026-01-01T00:00:00Z"
    });
    host.set_value(CELL, "record", &record);
    host
}

fn parsed() -> Value {
    json!({
        "plan_id": "p", "story_id": "s", "derivation_id": "derive-p", "attempt": 1, "source": "llm", "roles": ["QA"],
        "tasks": [
            {"ref": "T1", "title": "Use it", "description": "d1", "role": "DEVELOPER", "estimated_hours": 4, "priority": 2,
             "keywords": [], "depends_on": ["T2"]},
            {"ref": "T2", "title": "Make it", "description": "d2", "role": "", "estimated_hours": 0, "priority": 1,
             "keywords": [], "depends_on": []},
            {"ref": "T3", "title": "Tell of it", "depends_on": ["Use it", "T2"]}
        ]
    })
}

fn run(host: &mut Host, data: Value) -> Run {
    host.run(handle, event(PARSED, data))
}

fn edges(run: &Run) -> Vec<(String, String)> {
    let saved: SaveTaskDependenciesRequest = asked(run, "SaveTaskDependencies");
    assert_eq!((saved.plan_id.as_str(), saved.story_id.as_str()), ("p", "s"));
    assert!(saved.edges.iter().all(|edge| edge.reason == "declared"));
    saved.edges.into_iter().map(|edge| (edge.from_task_id, edge.to_task_id)).collect()
}

fn pairs(edges: &[(&str, &str)]) -> Vec<(String, String)> {
    edges.iter().map(|(from, to)| ((*from).into(), (*to).into())).collect()
}

fn record(host: &Host) -> Value {
    host.value(CELL, "record").unwrap()
}

#[test]
fn contract_4_persist_tasks_are_stored_in_order_and_the_derivation_ends() {
    let mut host = with_record(host(&[]), "open");
    let run = run(&mut host, parsed());
    assert_eq!(run.result, Ok(()));
    assert_eq!(called(&run), ["ListStoryTasks", "CreateTasks", "SaveTaskDependencies"]);
    assert_eq!(asked::<ListStoryTasksRequest>(&run, "ListStoryTasks").story_id, "s");
    let created: CreateTasksRequest = asked(&run, "CreateTasks");
    let titles: Vec<&str> = created.commands.iter().map(|task| task.title.as_str()).collect();
    assert_eq!(titles, ["Make it", "Use it", "Tell of it"]);
    let second = &created.commands[1];
    assert_eq!((second.plan_id.as_str(), second.story_id.as_str()), ("p", "s"));
    assert_eq!((second.description.as_str(), second.estimated_hours, second.priority), ("d1", 4, 2));
    let roles: Vec<&str> = created.commands.iter().map(|task| task.assigned_role.as_str()).collect();
    assert_eq!(roles, ["QA", "DEVELOPER", "QA"]);
    assert_eq!(edges(&run), pairs(&[("new-2", "new-1"), ("new-3", "new-2"), ("new-3", "new-1")]));

    assert_eq!(run.subjects(), [COMPLETED]);
    let completed = &run.on(COMPLETED)[0];
    assert_eq!(completed["correlation_id"], "corr");
    for body in [completed, &completed["payload"]] {
        assert_eq!((&body["plan_id"], &body["story_id"]), (&json!("p"), &json!("s")));
        assert_eq!((&body["task_count"], &body["status"]), (&json!(3), &json!("success")));
        assert_eq!(body["derivation_request_id"], "d");
        assert!(body["occurred_at"].as_str().unwrap().ends_with('Z'));
    }
    let record = record(&host);
    assert_eq!((&record["status"], &record["outcome"]["task_count"]), (&json!("completed"), &json!(3)));
    assert_eq!(run.metric("task_derivation_succeeded"), 1.0);
    assert!(run.metric("task_derivation_processing_time_ms") >= 1000.0);
}

#[test]
fn contract_4_persist_an_ended_derivation_takes_no_more_tasks() {
    for status in ["completed", "failed"] {
        let run = run(&mut with_record(host(&[]), status), parsed());
        assert!(run.acked_without_effect() && run.calls.is_empty(), "{status}");
    }
    let mut host = with_record(host(&[]), "open");
    assert_eq!(run(&mut host, parsed()).subjects(), [COMPLETED]);
    let mut again = parsed();
    again["attempt"] = json!(2);
    assert!(run(&mut host, again).acked_without_effect());
}

#[test]
fn contract_4_persist_titles_that_the_story_has_are_not_created_again() {
    let mut host =
        with_record(host(&[("old-1", "MAKE  it."), ("old-2", "make it"), ("old-3", "other")]), "open");
    let run = run(&mut host, parsed());
    let created: CreateTasksRequest = asked(&run, "CreateTasks");
    assert_eq!(created.commands.len(), 2);
    assert_eq!(edges(&run), pairs(&[("new-1", "old-1"), ("new-2", "new-1"), ("new-2", "old-1")]));
    assert_eq!(run.on(COMPLETED)[0]["task_count"], 3);
}

#[test]
fn contract_4_persist_create_is_never_called_with_nothing_nor_save_without_edges() {
    let all = &[("a", "Use it"), ("b", "Make it"), ("c", "Tell of it")];
    let first = run(&mut with_record(host(all), "open"), parsed());
    assert_eq!(called(&first), ["ListStoryTasks", "SaveTaskDependencies"]);
    assert_eq!(first.on(COMPLETED)[0]["task_count"], 3);
    let lone = json!({"plan_id": "p", "tasks": [{"title": "A"}]});
    let second = run(&mut with_record(host(&[]), "open"), lone);
    assert_eq!(called(&second), ["ListStoryTasks", "CreateTasks"]);
    assert_eq!(second.on(COMPLETED)[0]["task_count"], 1);
}

#[test]
fn contract_9_parsed_messages_of_third_parties_are_taken() {
    for data in [
        json!({"plan_id": "p", "tasks": [{"title": "A"}, {"title": "B", "depends_on": ["a"]}]}),
        json!({"event_type": "x", "producer": "other", "payload": {"plan_id": "p", "roles": "dev",
            "tasks": [{"ref": 1, "title": "A", "estimated_hours": "8", "keywords": "x"}, {"title": "B", "depends_on": "1"}, {"no": "title"}]}}),
    ] {
        let mut host = host(&[]);
        let run = run(&mut host, data.clone());
        assert_eq!(
            called(&run),
            ["GetPlanContext", "ListStoryTasks", "CreateTasks", "SaveTaskDependencies"],
            "{data}"
        );
        let completed = &run.on(COMPLETED)[0];
        assert_eq!((&completed["story_id"], &completed["task_count"]), (&json!("of-plan"), &json!(2)));
        assert_eq!(completed["derivation_request_id"], "derive-p");
        assert_eq!(asked::<CreateTasksRequest>(&run, "CreateTasks").commands[0].assigned_role, "DEVELOPER");
        let record = record(&host);
        assert_eq!((&record["status"], &record["story_id"]), (&json!("completed"), &json!("of-plan")));
    }
}

#[test]
fn contract_9_rejected_what_can_t_be_stored_before_planning_is_asked() {
    let tasks =
        |tasks: Value| json!({"plan_id": "p", "attempt": 2, "deliberation_id": "mine", "tasks": tasks});
    let nine: Vec<Value> = (0..9).map(|n| json!({"title": format!("task no {n}")})).collect();
    for (data, kind) in [
        (
            tasks(
                json!([{"ref": "1", "title": "A", "depends_on": ["2"]}, {"ref": "2", "title": "B", "depends_on": ["1"]}]),
            ),
            "circular_dependency",
        ),
        (tasks(json!(nine)), "too_many_tasks"),
        (tasks(json!([])), "no_tasks"),
        (json!({"plan_id": "p", "attempt": 2, "deliberation_id": "mine"}), "no_tasks"),
    ] {
        let mut host = with_record(host(&[]), "open");
        let first = run(&mut host, data.clone());
        assert_eq!(first.subjects(), [REJECTED], "{kind}");
        assert!(first.calls.is_empty());
        let rejected = &first.on(REJECTED)[0];
        assert_eq!((&rejected["kind"], &rejected["attempt"]), (&json!(kind), &json!(2)));
        assert_eq!((&rejected["deliberation_id"], &rejected["story_id"]), (&json!("mine"), &json!("s")));
        assert_eq!(record(&host)["status"], "open");
        assert!(run(&mut host, data).acked_without_effect(), "{kind}");
    }
}

#[test]
fn contract_2_1_consuming_passing_trouble_is_tried_again_and_told_in_the_end() {
    for name in ["ListStoryTasks", "CreateTasks", "SaveTaskDependencies"] {
        let down = || with_record(fails(host(&[]), name, Code::Unavailable), "open");
        let early = run(&mut down(), parsed());
        assert!(
            matches!(&early.result, Err(Failure::Retry { reason, .. }) if reason.contains(name)),
            "{early:?}"
        );
        let mut host = down().attempt(3, true);
        let last = run(&mut host, parsed());
        assert_eq!(last.subjects(), [REJECTED], "{name}");
        let rejected = &last.on(REJECTED)[0];
        assert_eq!(rejected["kind"], "planning_error");
        assert!(rejected["detail"].as_str().unwrap().contains(name));
        assert_eq!(last.metric("task_derivation_succeeded"), 0.0);
        assert_eq!(record(&host)["status"], "open");
    }
}

#[test]
fn lasting_trouble_is_told_at_once() {
    for code in [Code::InvalidArgument, Code::PermissionDenied, Code::Unimplemented] {
        let run = run(&mut with_record(fails(host(&[]), "ListStoryTasks", code), "open"), parsed());
        assert_eq!(run.on(REJECTED)[0]["kind"], "planning_error", "{code}");
    }
    let no_plan = json!({"plan_id": "p", "tasks": [{"title": "A"}]});
    let run = run(&mut fails(host(&[]), "GetPlanContext", Code::NotFound), no_plan);
    assert_eq!(run.on(REJECTED)[0]["kind"], "planning_error");
}

#[test]
fn a_story_that_is_not_found_has_no_tasks_yet() {
    let run = run(&mut with_record(fails(host(&[]), "ListStoryTasks", Code::NotFound), "open"), parsed());
    assert_eq!(called(&run), ["ListStoryTasks", "CreateTasks", "SaveTaskDependencies"]);
    assert_eq!(run.on(COMPLETED)[0]["task_count"], 3);
}

#[test]
fn contract_3_create_tasks_answers_that_can_t_be_right_are_errors() {
    let wrong: [&'static [&'static str]; 4] = [&[], &["a", "b"], &["a", "b", "c", "d"], &["a", "b", "a"]];
    for ids in wrong {
        let open = || with_record(creates(host(&[]), ids), "open");
        let early = run(&mut open(), parsed());
        assert!(matches!(early.result, Err(Failure::Retry { .. })), "{ids:?}");
        assert_eq!(called(&early), ["ListStoryTasks", "CreateTasks"], "{ids:?}");
        let last = run(&mut open().attempt(3, true), parsed());
        assert_eq!(last.on(REJECTED)[0]["kind"], "planning_error", "{ids:?}");
    }
    let last = run(&mut with_record(saves_nothing(host(&[])), "open").attempt(3, true), parsed());
    assert_eq!(last.on(REJECTED)[0]["kind"], "planning_error");
}

#[test]
fn contract_4_persist_a_retry_after_the_tasks_were_created_creates_none_twice() {
    let created = &[("a", "Make it"), ("b", "Use it"), ("c", "Tell of it")];
    let run = run(&mut with_record(host(created), "open").attempt(2, false), parsed());
    assert_eq!(called(&run), ["ListStoryTasks", "SaveTaskDependencies"]);
    assert_eq!(edges(&run), pairs(&[("b", "a"), ("c", "b"), ("c", "a")]));
}

#[test]
fn a_message_without_a_plan_is_rejected() {
    for data in ["", "[]", "{\"plan_id\"", "{\"story_id\": \"s\", \"tasks\": []}", "{\"plan_id\": \" \"}"] {
        let run = host(&[]).run(handle, event(PARSED, data));
        assert!(matches!(run.result, Err(Failure::Reject(_))), "{data}: {:?}", run.result);
    }
}

#[test]
fn contract_9_rejected_has_every_key_of_its_subject() {
    let run = run(&mut with_record(host(&[]), "open"), json!({"plan_id": "p", "attempt": 1, "tasks": []}));
    let rejected = &run.on(REJECTED)[0]["payload"];
    for (key, value) in [
        ("plan_id", json!("p")),
        ("story_id", json!("s")),
        ("derivation_id", json!("derive-p")),
        ("attempt", json!(1)),
        ("kind", json!("no_tasks")),
    ] {
        assert_eq!(rejected[key], value, "{key} of {rejected}");
    }
    assert!(!rejected["detail"].as_str().unwrap().is_empty(), "{rejected}");
    assert!(rejected["timestamp"].as_str().unwrap().ends_with('Z'), "{rejected}");
}

#[test]
fn contract_4_persist_the_count_is_of_tasks_after_repeats_are_dropped() {
    let data =
        json!({"plan_id": "p", "tasks": [{"title": "Make it"}, {"title": "MAKE  it."}, {"title": "Use it"}]});
    let run = run(&mut with_record(host(&[("old", "use it")]), "open"), data);
    assert_eq!(asked::<CreateTasksRequest>(&run, "CreateTasks").commands.len(), 1);
    assert_eq!(run.on(COMPLETED)[0]["task_count"], 2, "new or not");
}

#[test]
fn contract_9_tasks_that_nobody_asked_for_make_a_record_of_what_they_say() {
    let mut host = host(&[]);
    let run =
        run(&mut host, json!({"plan_id": "p", "story_id": "s", "roles": ["QA"], "attempt": 2, "tasks": []}));
    let rejected = &run.on(REJECTED)[0];
    assert_eq!((&rejected["attempt"], &rejected["run"]), (&json!(2), &json!(1)));
    let record = record(&host);
    assert_eq!(
        (&record["story_id"], &record["roles"], &record["attempt"]),
        (&json!("s"), &json!(["QA"]), &json!(2))
    );
}
