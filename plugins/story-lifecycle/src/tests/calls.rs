//! `TransitionStory` and `GetStory`: sections 3 and 5.6 of the fleet's contract.

use cofferdam_sdk::{
    rpc::Code,
    testing::{call, event},
};
use fleet_proto::planning::v2::TransitionStoryRequest;
use serde_json::json;

use super::support::*;

#[test]
fn contract_5_6_transition_story_makes_every_legal_step_and_tells_it() {
    let machine = crate::machine::Machine::standard().unwrap();
    for from in STATES {
        for to in STATES.into_iter().filter(|to| machine.may_go(from, to)) {
            let mut host = host_at(from);
            let served = ask(&mut host, "S", to);
            assert_eq!(way(&served), format!("{from}>{to}"));
            let answer: fleet_proto::planning::v2::TransitionStoryResponse = served.read();
            assert!(answer.success, "{}", answer.message);
            assert_eq!(answer.story.unwrap(), shown(&mut host));
            assert_eq!(state(&host), to);
        }
    }
}

#[test]
fn contract_3_an_illegal_move_is_success_false_and_no_event() {
    let machine = crate::machine::Machine::standard().unwrap();
    for from in STATES {
        for to in STATES.into_iter().filter(|to| !machine.may_go(from, to)) {
            let mut host = host_at(from);
            let served = ask(&mut host, "S", to);
            assert!(served.acked_without_effect(), "{from} {to}");
            let answer: fleet_proto::planning::v2::TransitionStoryResponse = served.read();
            assert!(!answer.success);
            assert_eq!(answer.story.unwrap().state, from);
        }
    }
}

#[test]
fn contract_3_a_refusal_names_the_legal_states() {
    let told = go(&mut host_at("IN_PROGRESS"), "DONE").message;
    assert_eq!(
        told,
        "story \"S\" is in IN_PROGRESS, which does not go to DONE; legal are: CODE_REVIEW, CARRY_OVER, DRAFT"
    );
    let told = go(&mut host_at("PO_REVIEW"), "TESTING").message;
    assert!(told.ends_with("legal are: READY_FOR_PLANNING, DRAFT"), "{told}");
}

#[test]
fn contract_3_a_move_to_a_state_that_does_not_exist_is_illegal_too() {
    let served = ask(&mut host_at("DRAFT"), "S", "LIMBO");
    assert!(served.acked_without_effect());
    let answer: fleet_proto::planning::v2::TransitionStoryResponse = served.read();
    assert!(!answer.success);
    for part in ["\"LIMBO\"", "legal are: PO_REVIEW, DRAFT", "CARRY_OVER"] {
        assert!(answer.message.contains(part), "{}", answer.message);
    }
}

#[test]
fn contract_5_6_any_state_is_reset_to_draft() {
    for from in STATES {
        let mut host = host_at(from);
        assert!(go(&mut host, "draft").success, "{from}");
        assert_eq!(state(&host), "DRAFT");
    }
}

#[test]
fn contract_3_a_story_that_nobody_told_of_is_not_found() {
    assert_eq!(ask(&mut host(), "S", "PLANNED").status().code, Code::NotFound);
    let status = get(&mut host_at("DRAFT"), "T").status().clone();
    assert_eq!(status.code, Code::NotFound);
    assert!(status.message.contains("\"T\""), "{status}");
}

#[test]
fn contract_3_a_call_without_its_arguments_is_an_invalid_argument() {
    let mut host = host_at("DRAFT");
    assert_eq!(ask(&mut host, "", "PLANNED").status().code, Code::InvalidArgument);
    assert_eq!(ask(&mut host, "S", " ").status().code, Code::InvalidArgument);
    assert_eq!(get(&mut host, "").status().code, Code::InvalidArgument);
    let nobody = TransitionStoryRequest {
        story_id: "S".into(),
        target_state: "PO_REVIEW".into(),
        ..Default::default()
    };
    let call = call("fleet.planning.v2.PlanningService/TransitionStory", &nobody).key("S");
    let step = host.serve(crate::service::serve, call).on(TRANSITIONED).remove(0);
    assert_eq!(step["transitioned_by"], "unknown");
}

#[test]
fn contract_3_get_story_shows_what_is_known() {
    let mut host = host();
    run(
        &mut host,
        CREATED,
        json!({"story_id": "S", "epic_id": "E", "title": "Login", "brief": "By mail", "dor_score": 80,
               "created_by": "ann", "created_at": "2026-01-01T00:00:00+01:00Z"}),
    );
    assert!(go(&mut host, "PO_REVIEW").success);
    let read = get(&mut host, "S");
    assert!(read.acked_without_effect());
    let story = shown(&mut host);
    assert_eq!((story.story_id.as_str(), story.epic_id.as_str(), story.title.as_str()), ("S", "E", "Login"));
    assert_eq!((story.brief.as_str(), story.dor_score, story.created_by.as_str()), ("By mail", 80, "ann"));
    assert_eq!(
        (story.state.as_str(), story.created_at.as_str()),
        ("PO_REVIEW", "2025-12-31T23:00:00.000000Z")
    );
    assert!(story.updated_at > story.created_at);
}

#[test]
fn contract_2_1_a_call_is_the_cause_of_its_step() {
    let mut host = host_at("DRAFT");
    let request = TransitionStoryRequest {
        story_id: "S".into(),
        target_state: "PO_REVIEW".into(),
        ..Default::default()
    };
    let call = call("fleet.planning.v2.PlanningService/TransitionStory", &request)
        .key("S")
        .metadata("x-correlation-id", "c")
        .metadata("idempotency-key", "k");
    let step = host.serve(crate::service::serve, call).on(TRANSITIONED).remove(0);
    assert_eq!((&step["correlation_id"], &step["causation_id"]), (&json!("c"), &json!("k")));
}

#[test]
fn what_came_after_a_call_but_was_read_before_it_is_heeded_after_its_step() {
    let mut host = host_at("PLANNED");
    let mut begun = event(CHANGED, task_in("implementing"));
    begun.timestamp += 3_600 * 1_000_000_000;
    assert!(take(&mut host, begun).published.is_empty(), "it leads nowhere yet");
    let served = ask(&mut host, "S", "READY_FOR_EXECUTION");
    assert_eq!(way(&served), "PLANNED>READY_FOR_EXECUTION READY_FOR_EXECUTION>IN_PROGRESS");
    let answer: fleet_proto::planning::v2::TransitionStoryResponse = served.read();
    assert_eq!((answer.success, answer.story.unwrap().state.as_str()), (true, "IN_PROGRESS"));
    assert_eq!(state(&host), "IN_PROGRESS");
}

#[test]
fn what_came_before_a_call_is_not_heeded_after_its_step() {
    let mut host = host_at("PLANNED");
    let mut begun = event(CHANGED, task_in("implementing"));
    begun.timestamp -= 1_000_000_000;
    assert!(take(&mut host, begun).published.is_empty());
    assert_eq!(way(&ask(&mut host, "S", "READY_FOR_EXECUTION")), "PLANNED>READY_FOR_EXECUTION");
}
