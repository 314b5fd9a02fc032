//! Events through the handler, with the plugin's own manifest: what is published, kept and ignored.

use cofferdam_sdk::{
    Failure,
    executor::{JobStatus, Phase},
    publish::EmitError,
    testing::{Host, Run, event},
};
use serde_json::{Value, json};

use crate::handle;

const COMPLETED: &str = "agent.response.completed";
const FAILED: &str = "agent.response.failed";
const PARSED: &str = "cofferdam.derivation.parsed";
const REJECTED: &str = "cofferdam.derivation.rejected";
const ANSWER: &str = "TITLE: A\nTITLE: B\nTITLE: C";

fn record() -> Value {
    json!({
        "schema": 1, "plan_id": "p", "story_id": "s", "roles": ["QA"], "status": "open", "run": 2, "attempt": 1,
        "attempts": [{"attempt": 1, "job_id": "j"}], "cause": {"correlation_id": "corr"}
    })
}

fn host_with(record: &Value) -> Host {
    let mut host = Host::from_manifest(include_str!("../../plugin.toml"));
    host.set_value("derivation/p", "record", record);
    host
}

fn host() -> Host {
    host_with(&record())
}

fn answer() -> Value {
    json!({"task_id": "derive-p", "proposal": {"content": ANSWER}})
}

fn run(host: &mut Host, subject: &str, data: Value) -> Run {
    host.run(handle, event(subject, data))
}

#[test]
fn contract_9_an_answer_becomes_parsed() {
    let run = run(&mut host(), COMPLETED, answer());
    assert_eq!(run.result, Ok(()));
    assert_eq!(run.subjects(), [PARSED]);
    let message = &run.on(PARSED)[0];
    assert_eq!(message["event_type"], PARSED);
    assert_eq!(message["correlation_id"], "corr");
    assert_eq!(message["producer"], "output-parser");
    for body in [message, &message["payload"]] {
        assert_eq!(body["plan_id"], "p");
        assert_eq!(body["story_id"], "s");
        assert_eq!(body["derivation_id"], "derive-p");
        assert_eq!(body["attempt"], 1);
        assert_eq!(body["source"], "llm");
        assert_eq!(body["roles"], json!(["QA"]));
        assert_eq!(body["below_min"], false);
        assert_eq!(
            body["tasks"][0],
            json!({"ref": "A", "title": "A", "description": "A", "role": "QA", "estimated_hours": 0, "priority": 1, "keywords": [], "depends_on": []})
        );
    }
}

#[test]
fn contract_2_4_ours_every_shape_of_response() {
    for data in [
        json!({"plan_id": "p", "story_id": "s2", "role": "developer", "result": {"proposal": ANSWER}}),
        json!({"task_id": "derive-p", "agent_id": "a", "output": {"content": ANSWER}, "checks_passed": true}),
        json!({"task_id": "x", "constraints": {"plan_id": "p"}, "deliberation_id": "d", "proposal": ANSWER}),
        json!({"metadata": {"task_id": "derive-p"}, "proposal": ANSWER}),
        json!({"event_type": "x", "producer": "y", "payload": {"task_id": "derive-p", "output": ANSWER}}),
        // Beside its envelope, where only the key is looked for: the record knows the plan.
        json!({"event_type": "x", "producer": "y", "plan_id": "p", "payload": {"deliberation_id": "d", "output": ANSWER}}),
    ] {
        let mut record = record();
        record["attempts"][0]["deliberation_id"] = json!("d");
        let run = run(&mut host_with(&record), COMPLETED, data.clone());
        assert_eq!(run.subjects(), [PARSED], "{data}");
        let parsed = &run.on(PARSED)[0];
        assert_eq!(parsed["plan_id"], "p", "{data}");
        assert_eq!(parsed["deliberation_id"], "d", "{data}");
    }
}

#[test]
fn contract_2_4_story_id_is_the_answers_else_the_records() {
    let story = |data: Value| run(&mut host(), COMPLETED, data).on(PARSED)[0]["story_id"].clone();
    let mut told = answer();
    told["constraints"] = json!({"story_id": "told"});
    assert_eq!((story(told), story(answer())), (json!("told"), json!("s")));
}

#[test]
fn contract_2_4_only_the_exact_subjects_are_read() {
    let manifest = include_str!("../../plugin.toml");
    let subjects: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("subject = ")).collect();
    assert_eq!(subjects, ["\"agent.response.completed\"", "\"agent.response.failed\""]);
}

#[test]
fn contract_2_4_ours_answers_to_others_leave_no_trace() {
    for data in [
        json!({"task_id": "TASK-001", "proposal": ANSWER}),
        json!({"task_id": "TASK-001", "plan_id": "p", "result": {"proposal": ANSWER}}),
        json!({"task_id": "ceremony-1:story-s:role-dev", "constraints": {"plan_id": "p"}, "proposal": ANSWER}),
        json!({"plan_id": "p", "proposal": ANSWER}),
        json!({"deliberation_id": "d", "proposal": ANSWER}),
        json!({"task_id": "T", "plan_id": "p", "deliberation_id": "foreign", "proposal": ANSWER}),
    ] {
        for subject in [COMPLETED, FAILED] {
            let mut host = host().job_status("j", status(Phase::Running, Some("delib-j")));
            let run = run(&mut host, subject, data.clone());
            assert!(run.acked_without_effect(), "{subject} {data}: {run:?}");
            assert!(run.logs.is_empty(), "{subject} {data}: {run:?}");
        }
    }
}

fn status(phase: Phase, execution_id: Option<&str>) -> JobStatus {
    JobStatus { phase, execution_id: execution_id.map(str::to_owned), error: None }
}

/// An answer of an executor that has ids of its own for everything but the plan.
fn with_own_ids(deliberation_id: &str) -> [Value; 2] {
    let answer = json!({"plan_id": "p", "deliberation_id": deliberation_id, "proposal": {"content": ANSWER}});
    let mut with_task = answer.clone();
    with_task["task_id"] = json!("ray-task-7");
    [answer, with_task]
}

#[test]
fn contract_2_4_ours_by_a_deliberation_that_only_the_executor_knows() {
    let mut two = record();
    two["attempt"] = json!(2);
    two["attempts"] = json!([{"attempt": 1, "job_id": "j"}, {"attempt": 2, "job_id": "k"}]);
    for (record, id, attempt) in [(record(), "delib-j", 1), (two.clone(), "delib-k", 2), (two, "delib-j", 1)]
    {
        for data in with_own_ids(id) {
            let mut host = host_with(&record)
                .job_status("j", status(Phase::Running, Some("delib-j")))
                .job_status("k", status(Phase::Running, Some("delib-k")));
            let parsed = run(&mut host, COMPLETED, data.clone());
            assert_eq!(parsed.subjects(), [PARSED], "{data}");
            let message = &parsed.on(PARSED)[0];
            assert_eq!((&message["attempt"], &message["deliberation_id"]), (&json!(attempt), &json!(id)));
            let kept: Value = host.value("derivation/p", "record").unwrap();
            assert_eq!(kept["attempts"][attempt - 1]["deliberation_id"], id, "{kept}");
            assert!(run(&mut host, COMPLETED, data).acked_without_effect(), "a repeat");
        }
    }
    let [_, mut failed] = with_own_ids("delib-j");
    failed["error"] = json!("out of memory");
    let mut host = host().job_status("j", status(Phase::Running, Some("delib-j")));
    assert_eq!(run(&mut host, FAILED, failed).subjects(), [REJECTED]);
}

#[test]
fn contract_2_4_ours_an_answer_that_overtakes_the_executors_acceptance_waits_for_it() {
    let [data, _] = with_own_ids("delib-j");
    for phase in [Phase::Queued, Phase::Unknown] {
        let mut host = host().job_status("j", status(phase, None));
        let early = run(&mut host, COMPLETED, data.clone());
        assert!(matches!(early.result, Err(Failure::Retry { .. })), "{early:?}");
        let last = run(&mut host.clone().attempt(3, true), COMPLETED, data.clone());
        assert!(last.acked_without_effect() && last.logs.is_empty(), "{last:?}");
        let mut accepted = host.job_status("j", status(Phase::Running, Some("delib-j"))).attempt(2, false);
        assert_eq!(run(&mut accepted, COMPLETED, data.clone()).subjects(), [PARSED]);
    }
}

#[test]
fn contract_2_4_ours_a_deliberation_that_the_executor_does_not_know_is_anothers() {
    let refused = status(Phase::Failed, None);
    let mut ended = record();
    ended["status"] = json!("completed");
    let mut told = record();
    told["attempts"][0]["deliberation_id"] = json!("delib-told");
    let mut without_job = record();
    without_job["attempts"][0]["job_id"] = json!("");
    for (record, known) in [
        (record(), status(Phase::Running, Some("delib-j"))),
        (record(), refused),
        (ended, status(Phase::Queued, None)),
        (told, status(Phase::Queued, None)),
        (without_job, status(Phase::Queued, None)),
    ] {
        for data in with_own_ids("delib-foreign") {
            let run = run(&mut host_with(&record).job_status("j", known.clone()), COMPLETED, data);
            assert!(run.acked_without_effect() && run.logs.is_empty(), "{record} {known:?}: {run:?}");
        }
    }
}

#[test]
fn contract_9_a_text_without_tasks_becomes_rejected() {
    for (text, kind) in [
        ("", "no_tasks"),
        ("Sorry.", "no_tasks"),
        ("[{\"title\": \"A\"", "truncated_json"),
        (
            "TITLE: 1\nTITLE: 2\nTITLE: 3\nTITLE: 4\nTITLE: 5\nTITLE: 6\nTITLE: 7\nTITLE: 8\nTITLE: 9",
            "too_many_tasks",
        ),
    ] {
        let run = run(&mut host(), COMPLETED, json!({"task_id": "derive-p", "proposal": text}));
        assert_eq!(run.subjects(), [REJECTED], "{text}");
        let rejected = &run.on(REJECTED)[0];
        assert_eq!((&rejected["kind"], &rejected["attempt"]), (&json!(kind), &json!(1)), "{text}");
        assert!(!rejected["detail"].as_str().unwrap().is_empty());
    }
}

#[test]
fn contract_9_a_failed_agent_becomes_rejected() {
    let data = json!({
        "task_id": "derive-p", "error": "out of memory", "error_type": "RuntimeError",
        "constraints": {"metadata": {"attempt": "2", "run": "2"}}
    });
    let mut record = record();
    record["attempt"] = json!(3);
    let run = run(&mut host_with(&record), FAILED, data);
    let rejected = &run.on(REJECTED)[0];
    assert_eq!(rejected["kind"], "agent_failed");
    assert_eq!(rejected["detail"], "RuntimeError: out of memory");
    assert_eq!(rejected["attempt"], 2);
}

#[test]
fn contract_2_1_dedupe_the_same_answer_twice_counts_once() {
    let mut host = host();
    assert_eq!(run(&mut host, COMPLETED, answer()).subjects(), [PARSED]);
    assert!(run(&mut host, COMPLETED, answer()).acked_without_effect());
    let mut other = answer();
    other["timestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(run(&mut host, COMPLETED, other).subjects(), [PARSED]);
}

#[test]
fn contract_4_persist_an_answer_that_no_derivation_waits_for_has_no_effect() {
    let mut completed = record();
    completed["status"] = json!("completed");
    let mut failed = record();
    failed["status"] = json!("failed");
    for record in [completed, failed] {
        assert!(run(&mut host_with(&record), COMPLETED, answer()).acked_without_effect());
    }
    let mut unrequested =
        Host::from_manifest(include_str!("../../plugin.toml")).config("accept_unrequested", false);
    assert!(run(&mut unrequested, COMPLETED, answer()).acked_without_effect());
    let mut old = record();
    old["opened_at"] = json!("2026-02-01T00:00:00Z");
    assert!(run(&mut host_with(&old), COMPLETED, answer()).acked_without_effect(), "opened since");
    let mut earlier = answer();
    earlier["constraints"] = json!({"metadata": {"run": "1", "attempt": "1"}});
    assert!(run(&mut host(), COMPLETED, earlier).acked_without_effect());
}

#[test]
fn unrequested_answers_are_read_unless_the_operator_says_otherwise() {
    let mut host = Host::from_manifest(include_str!("../../plugin.toml"));
    let data = json!({"plan_id": "p", "story_id": "s", "result": {"proposal": ANSWER}});
    let first = run(&mut host, COMPLETED, data.clone());
    assert_eq!(first.subjects(), [PARSED]);
    assert_eq!(first.on(PARSED)[0]["tasks"][0]["role"], "DEVELOPER");
    assert!(run(&mut host, COMPLETED, data).acked_without_effect());
    let record: Value = host.value("derivation/p", "record").unwrap();
    assert_eq!((&record["status"], &record["story_id"]), (&json!("open"), &json!("s")));
    assert_eq!(record["attempt"], 1);
}

#[test]
fn an_unrequested_answer_opens_the_record_with_its_own_attempt() {
    let mut host = Host::from_manifest(include_str!("../../plugin.toml"));
    let data = json!({"task_id": "derive-p", "metadata": {"attempt": "3"}, "proposal": "Sorry."});
    assert_eq!(run(&mut host, COMPLETED, data).on(REJECTED)[0]["attempt"], 3);
    let record: Value = host.value("derivation/p", "record").unwrap();
    assert_eq!((&record["attempt"], &record["roles"]), (&json!(3), &json!(["DEVELOPER"])));
}

#[test]
fn an_answer_ends_the_time_of_its_attempt() {
    let answered = |host: &Host| {
        let record: Value = host.value("derivation/p", "record").unwrap();
        record["attempts"][0]["answered_at"].is_string()
    };
    for (subject, data) in [
        (COMPLETED, answer()),
        (COMPLETED, json!({"task_id": "derive-p", "proposal": "Sorry."})),
        (COMPLETED, json!({"task_id": "derive-p", "proposal": ANSWER, "metadata": {"attempt": "7"}})),
        (FAILED, json!({"task_id": "derive-p", "error": "oom"})),
    ] {
        let mut host = host();
        assert_eq!(run(&mut host, subject, data.clone()).result, Ok(()));
        assert!(answered(&host), "{data}");
    }
    let mut host = host();
    run(&mut host, COMPLETED, json!({"task_id": "TASK-7", "plan_id": "p", "proposal": ANSWER}));
    assert!(!answered(&host), "foreign");
}

#[test]
fn workers_that_always_say_the_same_answer_every_attempt() {
    let mut host = host();
    let mut say = |data: &Value| run(&mut host, COMPLETED, data.clone());
    let bare =
        json!({"plan_id": "p", "story_id": "s", "role": "developer", "result": {"proposal": "Sorry."}});
    let timed = json!({"task_id": "derive-p", "proposal": "Sorry.", "timestamp": "2026-01-01T00:00:00Z"});
    let named = json!({"task_id": "derive-p", "proposal": "Sorry.", "metadata": {"attempt": "1"}});
    for data in [&bare, &timed, &named] {
        assert_eq!(say(data).subjects(), [REJECTED], "{data}");
        assert!(say(data).acked_without_effect(), "{data}");
    }
    let mut record: Value = host.value("derivation/p", "record").unwrap();
    record["attempt"] = json!(2);
    let submitted = event("x", "{}").timestamp as f64 / 1e9;
    let second = json!({"attempt": 2, "job_id": "j2", "submitted_at": submitted});
    record["attempts"].as_array_mut().unwrap().push(second);
    host.set_value("derivation/p", "record", &record);
    let mut say = |data: &Value| run(&mut host, COMPLETED, data.clone());
    assert_eq!(say(&bare).on(REJECTED)[0]["attempt"], 2);
    assert!(say(&bare).acked_without_effect());
    assert!(say(&timed).acked_without_effect() && say(&named).acked_without_effect());
}

#[test]
fn an_answer_belongs_to_the_attempt_of_its_deliberation_or_job() {
    let mut record = record();
    record["attempt"] = json!(3);
    record["attempts"] = json!([
        {"attempt": 1, "job_id": "j1", "deliberation_id": "d1"},
        {"attempt": 2, "job_id": "j2"},
        {"attempt": 3, "job_id": "j3"},
    ]);
    for (id, attempt) in [("d1", 1), ("j1", 1), ("j2", 2), ("other", 3)] {
        let data = json!({"task_id": "derive-p", "deliberation_id": id, "proposal": "Sorry."});
        let run = run(&mut host_with(&record), COMPLETED, data);
        assert_eq!(run.on(REJECTED)[0]["attempt"], attempt, "{id}");
    }
}

#[test]
fn contract_2_1_consuming_a_message_that_says_nothing_of_whom_it_is_about_is_rejected() {
    for data in ["", "[]", "{\"task_id\": ", "{\"agent_id\": \"a\"}", "{\"task_id\": \"derive-\"}"] {
        for subject in [COMPLETED, FAILED] {
            let run = host().run(handle, event(subject, data));
            assert!(matches!(run.result, Err(Failure::Reject(_))), "{subject} {data}: {:?}", run.result);
        }
    }
}

#[test]
fn limits_come_from_the_configuration() {
    let mut host = host().config("max_tasks", 2);
    assert_eq!(run(&mut host, COMPLETED, answer()).on(REJECTED)[0]["detail"], "3 tasks, max_tasks is 2");
    let mut host = self::host().config("min_tasks", 4).config("max_hours", 6);
    let data = json!({"task_id": "derive-p", "proposal": "TITLE: A\nHOURS: 20"});
    let run = run(&mut host, COMPLETED, data);
    let parsed = &run.on(PARSED)[0];
    assert_eq!((&parsed["below_min"], &parsed["tasks"][0]["estimated_hours"]), (&json!(true), &json!(6)));
    let record: Value = host.value("derivation/p", "record").unwrap();
    assert_eq!(record["warnings"], json!(["1 tasks, fewer than min_tasks (4)"]));
}

#[test]
fn tasks_too_long_to_pass_on_are_rejected_rather_than_lost() {
    let mut host = host().refuses_publish(PARSED, EmitError::TooLarge("2 MiB of 1 MiB".into()));
    let run = run(&mut host, COMPLETED, answer());
    assert_eq!(run.subjects(), [REJECTED]);
    assert_eq!(run.on(REJECTED)[0]["kind"], "agent_failed");
}

#[test]
fn contract_9_what_is_published_has_every_key_of_its_subject() {
    let keys = |message: &Value| -> Vec<String> {
        message["payload"].as_object().unwrap().keys().cloned().collect()
    };
    let common = ["plan_id", "story_id", "derivation_id", "attempt", "timestamp", "deliberation_id"];
    let text = "TITLE: A\nTITLE: a.\nTITLE: B\nROLE: wizard";
    for (text, subject, further) in [
        (text, PARSED, &["source", "roles", "tasks", "dropped", "warnings", "below_min"][..]),
        ("Sorry.", REJECTED, &["kind", "detail"]),
    ] {
        let mut record = record();
        record["attempts"][0]["deliberation_id"] = json!("d");
        let run = run(&mut host_with(&record), COMPLETED, json!({"task_id": "derive-p", "proposal": text}));
        let message = &run.on(subject)[0];
        for key in common.iter().chain(further) {
            assert!(keys(message).iter().any(|known| known == key), "{subject} has no {key}: {message}");
        }
        assert!(message["timestamp"].as_str().unwrap().ends_with('Z'), "{message}");
        if subject == PARSED {
            assert_eq!(message["dropped"], json!([{"title": "a.", "why": "repeats the title of A"}]));
            assert_eq!(
                (message["warnings"].as_array().unwrap().len(), &message["below_min"]),
                (2, &json!(true))
            );
        }
    }
}
