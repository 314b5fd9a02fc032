//! The methods of `WorkflowOrchestrationService` that are about one task: section 3 of the fleet's contract.

use cofferdam_sdk::{
    rpc::Code,
    testing::{Host, Served, call},
};
use fleet_proto::workflow::v1::{
    ClaimTaskResponse, RequestValidationResponse, WorkResult, WorkflowStateResponse,
};
use serde_json::json;

use super::support::*;

fn answered(served: &Served) -> RequestValidationResponse {
    served.read()
}

/// T, having come so far on its way.
fn after(actions: usize) -> Host {
    let mut host = opened();
    for (action, role) in &STRAIGHT[..actions] {
        does(&mut host, action, role);
    }
    host
}

#[test]
fn contract_3_a_task_tells_where_it_stands_and_how_it_came_there() {
    let mut host = after(1);
    does(&mut host, "reject_design", "architect");
    does(&mut host, "retry", "system");
    does(&mut host, "commit_code", "developer");
    does(&mut host, "reject_design", "architect");
    let state: WorkflowStateResponse = get_state(&mut host, "T").read();
    assert_eq!((state.task_id.as_str(), state.current_state.as_str()), ("T", "arch_rejected"));
    assert_eq!((state.role_in_charge.as_str(), state.required_action.as_str()), ("developer", "revise_code"));
    assert_eq!((state.feedback.as_str(), state.retry_count), (WHY, 1));
    let first = &state.history[0];
    assert_eq!(
        (
            first.from_state.as_str(),
            first.to_state.as_str(),
            first.action.as_str(),
            first.actor_role.as_str()
        ),
        ("todo", "implementing", "assign_to_developer", "system")
    );
    let last = state.history.last().unwrap();
    assert_eq!((last.to_state.as_str(), last.feedback.as_str()), ("arch_rejected", WHY));
    assert_eq!(state.history.len(), history(&host).len());
    for time in state.history.iter().map(|hop| hop.timestamp).chain([state.updated_at]) {
        assert!((1_767_225_600..1_767_300_000).contains(&time), "unix seconds: {time}");
    }
    let mut over = after(4);
    let state: WorkflowStateResponse = get_state(&mut over, "T").read();
    assert_eq!((state.current_state.as_str(), state.role_in_charge.as_str()), ("done", ""));
    assert_eq!((state.required_action.as_str(), state.feedback.as_str()), ("", ""));
}

#[test]
fn contract_3_an_unknown_task_is_not_found_and_one_without_a_name_is_invalid() {
    let mut host = opened();
    for served in [
        get_state(&mut host, "none"),
        validate(&mut host, "none", "developer", "commit_code"),
        validate(&mut host, "none", "wizard", "dance"),
        try_claim(&mut host, "none", "a-1", "developer"),
    ] {
        assert_eq!(served.status().code, Code::NotFound);
    }
    for served in [
        get_state(&mut host, ""),
        validate(&mut host, "", "developer", "commit_code"),
        try_claim(&mut host, "", "a-1", "developer"),
        try_claim(&mut host, "T", " ", "developer"),
    ] {
        assert_eq!(served.status().code, Code::InvalidArgument);
    }
}

#[test]
fn contract_3_an_unknown_role_is_invalid() {
    let mut host = opened();
    for role in ["wizard", "", "devops"] {
        for served in [
            validate(&mut host, "T", role, "commit_code"),
            try_claim(&mut host, "T", "a-1", role),
            try_pending(&mut host, role, 0, 0),
        ] {
            assert_eq!(served.status().code, Code::InvalidArgument, "{role}");
            let told = &served.status().message;
            assert!(told.ends_with("it has system, developer, architect, qa, po"), "{told}");
        }
    }
}

#[test]
fn contract_3_a_method_that_is_none_is_unimplemented() {
    let request = call("fleet.workflow.v1.WorkflowOrchestrationService/Dance", &String::new());
    assert_eq!(crate::serve(request.call).unwrap_err().code, Code::Unimplemented);
}

#[test]
fn contract_3_a_validation_does_and_tells_what_the_message_would() {
    let mut by_call = opened();
    let mut by_event = opened();
    for (action, role) in STRAIGHT {
        let served = validate(&mut by_call, "T", role, action);
        let run = does(&mut by_event, action, role);
        assert_eq!(served.subjects(), run.subjects(), "{action}");
        for subject in [CHANGED, ASSIGNED, VALIDATION, COMPLETED] {
            let told = |messages: Vec<serde_json::Value>| -> Vec<serde_json::Value> {
                let bare = |message: serde_json::Value| {
                    let mut payload = message["payload"].clone();
                    payload["timestamp"] = json!(null);
                    payload
                };
                messages.into_iter().map(bare).collect()
            };
            assert_eq!(told(served.on(subject)), told(run.on(subject)), "{action}");
        }
        let answer = answered(&served);
        assert_eq!(answer.status, "accepted", "{action}");
        assert_eq!(answer.current_state, state(&by_event, "T").as_str().unwrap());
        assert_eq!(answer.workflow_completed, action == "approve_story");
        follow(&mut by_call, served.published.clone());
    }
}

#[test]
fn contract_3_an_answer_says_who_is_next_and_with_what() {
    let mut host = opened();
    let result = WorkResult {
        success: true,
        artifacts: [("commit_sha".to_owned(), "abc".to_owned())].into(),
        ..WorkResult::default()
    };
    let answer = answered(&validate_with(&mut host, "T", "DEV", "Request-Review", result));
    assert_eq!((answer.status.as_str(), answer.current_state.as_str()), ("accepted", "pending_arch_review"));
    assert_eq!((answer.next_role.as_str(), answer.next_action.as_str()), ("architect", "approve_design"));
}

#[test]
fn contract_5_4_a_validation_is_answered_by_the_table_of_outcomes() {
    let with = |key: &str, text: &str| WorkResult {
        artifacts: [(key.to_owned(), text.to_owned())].into(),
        feedback: "too short".into(),
        ..WorkResult::default()
    };
    let none = WorkResult::default;
    for (role, action, result, status) in [
        ("developer", "approve_design", none(), "rbac_violation"),
        ("architect", "commit_code", none(), "rbac_violation"),
        ("architect", "reject_design", with("commit_sha", "abc"), "rejected"),
        ("developer", "commit_code", with("branch", "main"), "rejected"),
        ("developer", "commit_code", with("commit_sha", " "), "rejected"),
        ("architect", "approve_design", none(), "invalid_action"),
        ("developer", "dance", none(), "invalid_action"),
        ("developer", "", none(), "invalid_action"),
    ] {
        let mut host = opened();
        let served = validate_with(&mut host, "T", role, action, result);
        let answer = answered(&served);
        assert_eq!(answer.status, status, "{action} by {role}");
        assert!(!answer.message.is_empty());
        assert_eq!(
            (answer.current_state.as_str(), answer.next_role.as_str(), answer.next_action.as_str()),
            ("implementing", "developer", "commit_code")
        );
        assert!(!answer.workflow_completed);
        assert!(served.published.is_empty() && !served.wrote, "{action} by {role} has effects");
    }
    let mut over = after(4);
    let answer = answered(&validate(&mut over, "T", "developer", "commit_code"));
    assert_eq!((answer.status.as_str(), answer.workflow_completed), ("rejected", true));
    let mut strict = opened().config("strict_guards", true);
    let answer = answered(&validate_with(&mut strict, "T", "dev", "commit_code", none()));
    assert_eq!(answer.status, "rejected");
}

#[test]
fn contract_5_4_a_message_that_is_older_than_a_validation_is_stale() {
    let mut host = opened();
    validate(&mut host, "T", "developer", "commit_code");
    let mut message = act("approve_design", "architect");
    message["timestamp"] = json!("2025-12-31T23:00:00Z");
    let run = run(&mut host, WORK, message);
    assert!(dropped(&run));
    assert_eq!(state(&host, "T"), "pending_arch_review");
}

#[test]
fn a_message_that_is_older_than_a_claim_is_stale() {
    let mut host = opened();
    run(&mut host, WORK, act("commit_code", "developer"));
    assert!(claim(&mut host, "T", "a-1", "architect").claimed);
    let mut message = act("approve_design", "architect");
    message["timestamp"] = json!("2025-12-31T23:00:00Z");
    assert!(dropped(&run(&mut host, WORK, message)));
    assert_eq!(state(&host, "T"), "arch_reviewing");
}

#[test]
fn a_role_with_nothing_to_do_is_told_so_rather_than_who_has_the_task() {
    let mut host = opened();
    assert!(claim(&mut host, "T", "a-1", "developer").claimed);
    let answer = claim(&mut host, "T", "a-2", "qa");
    assert_eq!(answer.message, "qa has nothing to do in state \"implementing\"");
}

#[test]
fn a_call_is_correlated_as_its_client_says() {
    let mut host = opened();
    let request = fleet_proto::workflow::v1::RequestValidationRequest {
        task_id: "T".into(),
        role: "developer".into(),
        action: "commit_code".into(),
        ..Default::default()
    };
    let request = call("fleet.workflow.v1.WorkflowOrchestrationService/RequestValidation", &request);
    let served = host.serve(crate::serve, request.key("T").metadata("X-Correlation-Id", "c"));
    assert!(served.published.len() > 4);
    assert!(served.published.iter().all(|message| message.json()["correlation_id"] == "c"));
}

fn taken(answer: &ClaimTaskResponse) -> (bool, &str, bool) {
    (answer.claimed, &answer.current_state, answer.claimed_at > 1_767_225_600)
}

#[test]
fn contract_3_each_role_claims_by_its_own_move() {
    for (actions, role, to, by) in [
        (0, "developer", "implementing", None),
        (1, "architect", "arch_reviewing", Some("claim_review")),
        (2, "qa", "qa_testing", Some("claim_testing")),
        (3, "po", "pending_po_approval", None),
    ] {
        let mut host = after(actions);
        let served = try_claim(&mut host, "T", "a-1", role);
        assert_eq!(hops(&served), by.map(str::to_owned).into_iter().collect::<Vec<_>>(), "{role}");
        assert_eq!(taken(&served.read()), (true, to, true), "{role}");
        assert_eq!(stored(&host, "T")["claimed_by"], "a-1");
    }
    let mut waiting = host();
    run(&mut waiting, OPEN, json!({"task_id": "T", "story_id": "S", "assign": false}));
    let served = try_claim(&mut waiting, "T", "a-1", "dev");
    assert_eq!(
        (hops(&served), taken(&served.read())),
        (vec!["claim_task".to_owned()], (true, "implementing", true))
    );
}

#[test]
fn contract_3_a_task_is_held_by_one_agent() {
    for (actions, role) in [(0, "developer"), (1, "architect"), (2, "qa"), (3, "po")] {
        let mut host = after(actions);
        let first = claim(&mut host, "T", "a-1", role);
        let again = try_claim(&mut host, "T", "a-1", role);
        assert!(again.published.is_empty() && !again.wrote, "{role}: nothing is new");
        let again: ClaimTaskResponse = again.read();
        assert_eq!((again.claimed, again.claimed_at), (true, first.claimed_at), "{role}");
        let other = try_claim(&mut host, "T", "a-2", role);
        assert!(other.published.is_empty() && !other.wrote, "{role}");
        let other: ClaimTaskResponse = other.read();
        assert_eq!((other.claimed, other.claimed_at), (false, 0), "{role}");
        assert!(other.message.contains("a-1"), "{}", other.message);
    }
}

#[test]
fn contract_3_nobody_claims_what_is_not_theirs_or_over() {
    for (actions, role) in [
        (0, "architect"),
        (1, "developer"),
        (1, "qa"),
        (2, "architect"),
        (3, "qa"),
        (4, "po"),
        (4, "developer"),
        (1, "system"),
    ] {
        let mut host = after(actions);
        let served = try_claim(&mut host, "T", "a-1", role);
        assert!(served.published.is_empty() && !served.wrote, "{role} after {actions}");
        let answer: ClaimTaskResponse = served.read();
        assert!(!answer.claimed && !answer.message.is_empty(), "{role} after {actions}");
    }
}

#[test]
fn contract_3_rework_is_claimed_by_revising_it() {
    let mut host = after(1);
    does(&mut host, "reject_design", "architect");
    let served = try_claim(&mut host, "T", "a-1", "developer");
    assert_eq!(
        (hops(&served), taken(&served.read())),
        (vec!["revise_code".to_owned()], (true, "implementing", true))
    );
}

#[test]
fn contract_3_a_claim_ends_when_the_task_goes_on() {
    let mut host = opened();
    claim(&mut host, "T", "a-1", "developer");
    does(&mut host, "commit_code", "developer");
    assert_eq!(stored(&host, "T")["claimed_by"], json!(null));
    assert!(claim(&mut host, "T", "a-2", "architect").claimed);
    does(&mut host, "approve_design", "architect");
    assert!(claim(&mut host, "T", "a-3", "qa").claimed);
}

/// An agent that claims by a message without saying who it is leaves the task to whoever does.
#[test]
fn contract_3_a_review_that_nobody_holds_is_recorded_for_who_asks() {
    let mut host = after(1);
    let mut message = act("claim_review", "architect");
    message.as_object_mut().unwrap().remove("agent_id");
    does_as(&mut host, message);
    assert_eq!(pending(&mut host, "architect").total_count, 1);
    let answer = claim(&mut host, "T", "a-1", "architect");
    assert_eq!(taken(&answer), (true, "arch_reviewing", true));
    assert_eq!(pending(&mut host, "architect").total_count, 0);
}

#[test]
fn a_claim_by_a_validation_is_its_agents_if_it_names_one() {
    for (agent, holder) in [("a-1", json!("a-1")), (" ", json!(null))] {
        let mut host = after(1);
        let request = fleet_proto::workflow::v1::RequestValidationRequest {
            task_id: "T".into(),
            role: "architect".into(),
            action: "claim_review".into(),
            agent_id: agent.into(),
            ..Default::default()
        };
        assert_eq!(answered(&serve(&mut host, "RequestValidation", &request, "T")).status, "accepted");
        assert_eq!(stored(&host, "T")["claimed_by"], holder, "{agent:?}");
    }
}

#[test]
fn what_an_agent_reasons_stands_for_a_summary() {
    for (summary, reasoning, kept) in [
        (None, "because", json!("because")),
        (Some("what"), "because", json!("what")),
        (None, " ", json!(null)),
    ] {
        let mut host = opened();
        let mut artifacts = vec![("commit_sha".to_owned(), "abc".to_owned())];
        artifacts.extend(summary.map(|text: &str| ("implementation_summary".to_owned(), text.to_owned())));
        let result = WorkResult {
            artifacts: artifacts.into_iter().collect(),
            reasoning: reasoning.into(),
            ..WorkResult::default()
        };
        validate_with(&mut host, "T", "developer", "commit_code", result);
        assert_eq!(stored(&host, "T")["work"]["implementation_summary"], kept);
    }
}
