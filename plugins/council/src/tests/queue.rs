//! Tasks of the queue.

use cofferdam_sdk::{Failure, rpc::Code};
use fleet_proto::orchestrator::v1::{DeliberateRequest, DeliberationStatus};
use serde_json::json;

use super::support::*;

#[test]
fn contract_6_queue_a_task_that_is_next_is_orchestrated_and_answered_with_the_winner() {
    let mut host = host_proposing(&["a [0.9] no lint", "b [0.8]", "c [0.7]"]);
    let run = run(&mut host, READY, ready("T"));
    assert_eq!(run.subjects(), [COMPLETED, ENDED, DELIBERATED]);
    let told = &run.on(DELIBERATED)[0];
    assert_eq!((told["task_id"].as_str(), told["story_id"].as_str()), (Some("T"), Some("S")));
    assert_eq!(
        (told["agent_id"].as_str(), told["proposal"].as_str()),
        (Some("agent-dev-002"), Some("b [0.8]"))
    );
    assert_eq!((told["attempt"].as_u64(), told.get("error")), (Some(1), None));
    assert_eq!(run.on(COMPLETED)[0]["winner_id"], "agent-dev-002");
    assert_eq!(known(&mut host, "T").status(), DeliberationStatus::Completed);
}

#[test]
fn the_attempt_is_the_queues() {
    let mut host = host();
    let mut again = ready("T");
    again["attempt"] = json!(4);
    assert_eq!(run(&mut host, READY, again).on(DELIBERATED)[0]["attempt"], 4);
}

#[test]
fn contract_2_1_dedupe_a_task_that_is_ready_twice_is_asked_about_once() {
    let mut host = host();
    assert_eq!(run(&mut host, READY, ready("T")).on(DELIBERATED).len(), 1);
    let repeat = run(&mut host, READY, ready("T"));
    assert!(repeat.acked_without_effect() && repeat.inferences.is_empty());
    let mut next = ready("T");
    next["attempt"] = json!(2);
    assert_eq!(run(&mut host, READY, next).on(DELIBERATED).len(), 1);
}

#[test]
fn a_role_without_a_council_is_told() {
    let mut host = host();
    let mut event = ready("T");
    event["role"] = json!("po");
    let run = run(&mut host, READY, event);
    let told = &run.on(DELIBERATED)[0];
    assert_eq!(told["error_type"], "no_council");
    assert!(told["error"].as_str().unwrap().contains("\"PO\""));
    assert_eq!(run.on(COMPLETED)[0]["status"], "failed");
    assert_eq!(run.on(COMPLETED)[0]["decisions"], json!([]));
}

#[test]
fn a_council_that_can_not_be_is_the_operators_to_mend() {
    let mut host = host().config("agents", 40);
    let run = run(&mut host, READY, ready("T"));
    assert!(matches!(run.result, Err(Failure::Retry { reason, .. }) if reason.contains("40 agents")));
    is(
        &deliberate(&mut host, &request()),
        Code::FailedPrecondition,
        "council-dev as it is configured: 40 agents",
    );
    assert!(deliberate(&mut host, &DeliberateRequest { num_agents: 2, ..request() }).answer.is_ok());
}

#[test]
fn the_tasks_own_constraints_hold() {
    let mut host = host().config("rounds", 3);
    let mut event = ready("T");
    event["constraints"] =
        json!({"rubric": "Small.", "requirements": ["one"], "max_iterations": 1, "timeout_seconds": 40});
    let run = run(&mut host, READY, event);
    assert_eq!(steps(&run), [3, 3, 3]);
    let asked = &run.inferences[0];
    assert!(asked.prompt.contains("RUBRIC:\n- Small.\n") && asked.prompt.contains("- one\n"));
    assert_eq!(asked.timeout_seconds, 40);
}

#[test]
fn a_task_without_a_description_is_asked_about_by_its_name() {
    let mut host = host();
    let mut event = ready("T");
    event["description"] = json!("");
    let run = run(&mut host, READY, event);
    assert_eq!(block(&run.inferences[0].prompt, "task"), "Task T");
}

#[test]
fn a_message_without_its_ids_is_malformed() {
    let mut host = host();
    for data in [json!({"role": "DEV"}), json!({"task_id": "T"}), json!([])] {
        let run = run(&mut host, READY, &data);
        assert!(matches!(run.result, Err(Failure::Reject(_))), "{data}");
        assert_eq!(run.metric("council_dropped"), 1.0);
    }
}
