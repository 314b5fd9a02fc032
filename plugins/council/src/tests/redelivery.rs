//! What an event or a call did before comes out the same, and what is over is forgotten in time.

use cofferdam_sdk::{
    rpc::{Code, Status},
    testing::{Host, Run, call, event},
};
use fleet_proto::council::v1::{ScoreRequest, ScoreResponse};

use super::support::*;

fn told(run: &Run) -> Vec<(String, Vec<u8>)> {
    run.published.iter().map(|message| (message.id.clone(), message.data.clone())).collect()
}

#[test]
fn a_redelivered_event_tells_the_same_and_asks_nobody_anew() {
    let mut host = host();
    let event = event(READY, ready("T"));
    let first = host.clone().sharing(Default::default()).run(crate::handle, event.clone());
    let second = host.run(crate::handle, event);
    assert_eq!(steps(&first), [3, 3, 3]);
    assert_eq!(steps(&second), [0, 0, 0]);
    assert_eq!(told(&first), told(&second));
}

#[test]
fn a_call_that_is_repeated_under_its_key_answers_the_same_and_asks_nobody_anew() {
    let mut host = host();
    let request = call("fleet.orchestrator.v1.OrchestratorService/Deliberate", &request()).key("T");
    let first = host.clone().sharing(Default::default()).serve(crate::serve::serve, request.clone());
    let second = host.serve(crate::serve::serve, request);
    assert_eq!((steps(&first), steps(&second)), ([3, 3, 3], [0, 0, 0]));
    assert_eq!(first.answer, second.answer);
    assert_eq!(told(&first), told(&second));
}

#[test]
fn an_agent_that_fails_in_one_run_and_answers_in_the_next_takes_part_in_the_next() {
    let down = std::rc::Rc::new(std::cell::Cell::new(true));
    let was = down.clone();
    let mut host = host_with(move |step, agent, asked| match (step, agent) {
        (Step::Proposal, 2) if was.get() => Err("server_error"),
        _ => Ok(plain(step, agent, asked)),
    })
    .fails("scoring", SCORE, Code::Unavailable, "down");
    let event = event(READY, ready("T"));
    assert_eq!(steps(&host.run(crate::handle, event.clone())), [3, 2, 2]);
    down.set(false);
    let mut host = scored(host);
    let second = host.run(crate::handle, event);
    assert_eq!(steps(&second), [1, 2, 2], "agents 1 and 3 proposed before, and 3 reviewed 1");
    assert_eq!(second.on(COMPLETED)[0]["successful_responses"], 3);
}

fn scored(host: Host) -> Host {
    host.answers("scoring", SCORE, |request: ScoreRequest| {
        let judged = fleet_proto::council::v1::Judged { checks: None, score: 1.0 };
        Ok::<_, Status>(ScoreResponse { judged: vec![judged; request.proposals.len()] })
    })
}

#[test]
fn a_task_that_is_deliberated_again_has_the_later_record() {
    let mut host = host();
    let first = deliberated(&mut host, &request());
    let second = deliberated(&mut host, &request());
    let of = |metadata: &Option<fleet_proto::orchestrator::v1::OrchestratorMetadata>| {
        metadata.as_ref().unwrap().execution_id.clone()
    };
    assert_ne!(of(&first.metadata), of(&second.metadata));
    assert_eq!(of(&known(&mut host, "T").metadata), of(&second.metadata));
}

#[test]
fn contract_6_collector_a_deliberation_that_is_over_is_kept_for_an_hour() {
    let mut host = host();
    let served = deliberate(&mut host, &request());
    let over = event(ENDED, served.on(ENDED)[0].clone());
    let at = over.timestamp;
    let counted = host.run(crate::handle, over);
    assert_eq!(counted.timers[0].subject, FORGET);
    assert_eq!(counted.timers[0].at, at + 3_600 * 1_000_000_000, "from when it was over");
    let due = counted.timers[0].json();
    assert_eq!(run(&mut host, FORGET, due).result, Ok(()));
    is(&result_of(&mut host, "T"), Code::NotFound, "T");
}

#[test]
fn a_later_deliberation_outlives_the_hour_of_the_first() {
    let mut host = host();
    let first = deliberate(&mut host, &request());
    let due = run(&mut host, ENDED, first.on(ENDED)[0].clone()).timers[0].json();
    deliberated(&mut host, &request());
    assert!(run(&mut host, FORGET, due).acked_without_effect());
    assert_eq!(known(&mut host, "T").results.len(), 3);
}

#[test]
fn contract_2_1_dedupe_a_repeat_is_one_after_the_hour_too() {
    let mut host = host();
    let all = settle(&mut host, READY, ready("T"));
    let due = serde_json::json!({"task_id": "T", "execution_id": on(&all, COMPLETED)[0]["deliberation_id"]});
    run(&mut host, FORGET, due);
    is(&result_of(&mut host, "T"), Code::NotFound, "T");
    assert!(run(&mut host, READY, ready("T")).acked_without_effect());
}

#[test]
fn a_plan_is_forgotten_once_all_of_it_is_over() {
    let mut host = host();
    let opened = run(
        &mut host,
        APPROVED,
        serde_json::json!({"plan_id": "P", "story_id": "S", "roles": ["DEV", "QA"]}),
    );
    assert!(opened.result.is_err(), "Planning is not there");
    let mut host = host.attempt(3, true);
    let opened = run(
        &mut host,
        APPROVED,
        serde_json::json!({"plan_id": "P", "story_id": "S", "roles": ["DEV", "QA"]}),
    );
    let one = run(&mut host, REQUESTED, opened.on(REQUESTED)[0].clone());
    assert!(run(&mut host, ENDED, one.on(ENDED)[0].clone()).timers.is_empty());
    let other = run(&mut host, REQUESTED, opened.on(REQUESTED)[1].clone());
    let timers: Vec<_> =
        other.on(ENDED).into_iter().flat_map(|ended| run(&mut host, ENDED, ended).timers).collect();
    assert_eq!(timers.len(), 1);
    run(&mut host, FORGET, timers[0].json());
    is(&result_of(&mut host, "P"), Code::NotFound, "P");
    assert_eq!(host.cells().get("deliberation/P", "result"), None);
}
