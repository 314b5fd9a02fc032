//! The collector in the in-memory host, with a scoring stage that goes by the texts.

use cofferdam_sdk::{
    Event, Failure,
    log::Level,
    rpc::{Code, Status},
    testing::{Host, Run, call, event},
};
use fleet_proto::{
    council::v1::{Judged, ScoreRequest, ScoreResponse},
    orchestrator::v1::{
        CheckSuite, DeliberationStatus, GetDeliberationResultRequest, GetDeliberationResultResponse,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

const COMPLETED: &str = "agent.response.completed";
const FAILED: &str = "agent.response.failed";
const TOLD: &str = "orchestration.deliberation.completed";
const SCORE: &str = "cofferdam.council.v1.ScoringService/Score";

/// The score of a text is the number that it ends with, over ten.
fn host() -> Host {
    Host::from_manifest(include_str!("../../plugin.toml")).answers(
        "scoring",
        SCORE,
        |request: ScoreRequest| {
            let judged = request.proposals.iter().map(|proposal| {
                let number = proposal.content.rsplit(' ').next().and_then(|word| word.parse::<f64>().ok());
                Judged { checks: Some(CheckSuite::default()), score: number.unwrap_or_default() / 10.0 }
            });
            Ok::<_, Status>(ScoreResponse { judged: judged.collect() })
        },
    )
}

/// A host whose scoring stage is away.
fn host_alone() -> Host {
    Host::from_manifest(include_str!("../../plugin.toml")).fails("scoring", SCORE, Code::Unavailable, "away")
}

fn answer(agent: &str, text: &str, of: u32) -> Event {
    event(
        COMPLETED,
        json!({"task_id": "T", "agent_id": agent, "role": "developer", "status": "completed", "num_agents": of,
            "proposal": {"content": text}, "constraints": {"story_id": "S", "rubric": "be short"}, "duration_ms": 40}),
    )
}

fn failure(agent: &str, of: u32) -> Event {
    event(
        FAILED,
        json!({"task_id": "T", "agent_id": agent, "error": "oom", "error_type": "Memory", "num_agents": of}),
    )
}

#[track_caller]
fn run(host: &mut Host, event: Event) -> Run {
    let run = host.run(crate::handle, event);
    assert_eq!(run.result, Ok(()));
    run
}

fn told(run: &Run) -> Value {
    let mut told = run.on(TOLD);
    assert_eq!(told.len(), 1, "{told:?}");
    told.remove(0)["payload"].take()
}

fn known(host: &mut Host) -> GetDeliberationResultResponse {
    let request = GetDeliberationResultRequest { task_id: "T".into() };
    let method = "fleet.orchestrator.v1.OrchestratorService/GetDeliberationResult";
    host.serve(crate::serve::serve, call(method, &request).key("T")).read()
}

fn dropped(run: &Run, reason: &str) {
    let metric = run.metrics.iter().find(|metric| metric.name == "council_dropped").expect("it is counted");
    assert_eq!(metric.labels, [("reason".to_owned(), reason.to_owned())]);
    assert!(run.published.is_empty() && !run.wrote);
}

/// The timer that a run set, as it fires so many seconds after its time.
fn fired(run: &Run, late: u64) -> Event {
    let timer = run.timers.iter().find(|timer| timer.subject == super::OVERDUE).expect("a timer was set");
    let mut event = event(super::OVERDUE, String::from_utf8_lossy(&timer.data));
    event.timestamp = timer.at + late * 1_000_000_000;
    event
}

#[test]
fn contract_6_collector_waits_until_all_have_answered_then_scores_ranks_and_tells() {
    let mut host = host();
    let first = run(&mut host, answer("a", "plan 3", 3));
    assert!(first.published.is_empty());
    assert_eq!(known(&mut host).status(), DeliberationStatus::InProgress);
    run(&mut host, answer("b", "plan 9", 3));
    let last = run(&mut host, answer("c", "plan 5", 3));
    let told = told(&last);
    assert_eq!(
        (&told["status"], &told["winner_id"], &told["result"]),
        (&json!("completed"), &json!("b"), &json!("plan 9"))
    );
    assert_eq!(
        (&told["story_id"], &told["role"], &told["task_id"]),
        (&json!("S"), &json!("DEV"), &json!("T"))
    );
    assert_eq!((&told["total_agents"], &told["successful_responses"]), (&json!(3), &json!(3)));
    assert_eq!(
        (&told["decisions"][0]["id"], &told["decisions"][0]["type"]),
        (&json!("DEC-T"), &json!("TECHNICAL"))
    );
    let ranks: Vec<(&Value, &Value)> = told["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| (&result["agent_id"], &result["rank"]))
        .collect();
    assert_eq!(ranks, [(&json!("b"), &json!(1)), (&json!("c"), &json!(2)), (&json!("a"), &json!(3))]);
    let known = known(&mut host);
    assert_eq!(
        (known.status(), known.winner_id.as_str(), known.results.len()),
        (DeliberationStatus::Completed, "b", 3)
    );
    assert_eq!(last.cancelled, [first.timers[0].id.clone()]);
}

#[test]
fn contract_6_collector_without_a_number_one_answer_is_enough() {
    let run = run(
        &mut host(),
        event(COMPLETED, json!({"task_id": "T", "agent_id": "a", "output": {"content": "x 1"}})),
    );
    assert_eq!(told(&run)["result"], "x 1");
    assert!(run.timers.is_empty());
}

#[test]
fn contract_6_collector_the_number_may_be_in_the_metadata_and_the_greatest_holds() {
    let mut host = host();
    let data = json!({"task_id": "T", "agent_id": "a", "proposal": "x 1",
        "constraints": {"metadata": {"num_agents": "2"}}});
    assert!(run(&mut host, event(COMPLETED, data)).on(TOLD).is_empty());
    assert!(run(&mut host, answer("b", "x 2", 3)).on(TOLD).is_empty());
    assert_eq!(told(&run(&mut host, answer("c", "x 3", 1)))["total_agents"], 3);
}

#[test]
fn contract_6_collector_an_agent_counts_once() {
    let mut host = host();
    run(&mut host, answer("a", "x 1", 2));
    dropped(&run(&mut host, answer("a", "better 9", 2)), "duplicate");
    dropped(&run(&mut host, failure("a", 2)), "duplicate");
    let told = told(&run(&mut host, answer("b", "x 2", 2)));
    assert_eq!((&told["winner_id"], &told["results"][1]["proposal"]), (&json!("b"), &json!("x 1")));
}

#[test]
fn contract_6_collector_all_failed_is_failed() {
    let mut host = host();
    run(&mut host, failure("a", 2));
    let run = run(&mut host, failure("b", 2));
    let told = told(&run);
    assert_eq!(
        (&told["status"], &told["decisions"], &told["winner_id"]),
        (&json!("failed"), &json!([]), &json!(""))
    );
    assert_eq!(told["failed_agents"][0], json!({"agent_id": "a", "error": "oom", "error_type": "Memory"}));
    assert!(told["error"].as_str().unwrap().contains("all 2 agents failed"), "{told}");
    let known = known(&mut host);
    assert_eq!(known.status(), DeliberationStatus::Failed);
    assert!(run.calls.is_empty(), "there was nothing to score");
}

#[test]
fn contract_6_collector_one_of_two_failed_is_completed() {
    let mut host = host();
    run(&mut host, failure("a", 2));
    let told = told(&run(&mut host, answer("b", "x 1", 2)));
    assert_eq!(
        (&told["status"], &told["failed_responses"], &told["winner_id"]),
        (&json!("completed"), &json!(1), &json!("b"))
    );
}

#[test]
fn contract_6_collector_after_300_seconds_it_is_a_time_out_with_what_there_is() {
    let mut host = host();
    let sent = answer("a", "x 1", 3);
    let at = sent.timestamp;
    let first = run(&mut host, sent);
    assert_eq!(first.timers[0].at, at + 300_000_000_000);
    assert!(run(&mut host, failure("b", 3)).timers.is_empty(), "one timer for all");
    let overdue = run(&mut host, fired(&first, 1));
    let told = told(&overdue);
    let (status, winner, decisions) = (&told["status"], &told["winner_id"], &told["decisions"]);
    assert_eq!((status, winner), (&json!("timeout"), &json!("a")), "the best of what there is");
    assert_eq!(decisions, &json!([]), "nothing is decided");
    assert_eq!(told["results"][0]["proposal"], "x 1");
    assert!(
        told["error"].as_str().unwrap().starts_with("1 of 3 agents answered in time, 1 failed"),
        "{told}"
    );
    assert_eq!(known(&mut host).status(), DeliberationStatus::Timeout);
    dropped(&run(&mut host, answer("c", "x 9", 3)), "late");
    assert!(run(&mut host, fired(&first, 2)).acked_without_effect());
}

#[test]
fn a_timer_that_nobody_waited_for_is_put_off_once() {
    let mut host = host();
    let first = run(&mut host, answer("a", "x 1", 2));
    let woken = run(&mut host, fired(&first, 600));
    assert!(woken.published.is_empty());
    let again = run(&mut host, fired(&woken, 600));
    assert_eq!(told(&again)["status"], "timeout");
}

#[test]
fn what_waited_with_a_timer_that_nobody_waited_for_is_not_late() {
    let mut host = host();
    let first = run(&mut host, answer("a", "x 1", 2));
    let woken = run(&mut host, fired(&first, 600));
    let last = run(&mut host, answer("b", "x 2", 2));
    assert_eq!(told(&last)["status"], "completed");
    assert_eq!(last.cancelled, [woken.timers[0].id.clone()]);
}

#[test]
fn contract_6_collector_late_ones_are_ignored_and_it_is_kept_3600_seconds() {
    let mut host = host();
    let done = run(&mut host, answer("a", "x 1", 1));
    dropped(&run(&mut host, answer("b", "x 9", 1)), "late");
    let ended = done.published.iter().find(|message| message.subject == "cofferdam.council.ended").unwrap();
    let ended = event(&ended.subject, String::from_utf8_lossy(&ended.data));
    let at = ended.timestamp;
    let forget = run(&mut host, ended).timers.remove(0);
    assert_eq!((forget.subject.as_str(), forget.at), ("cofferdam.council.forget", at + 3_600_000_000_000));
    run(&mut host, event("cofferdam.council.forget", String::from_utf8_lossy(&forget.data)));
    assert_eq!(host.cells().get("deliberation/T", "result"), None);
    assert_eq!(host.cells().get("deliberation/T", "collected"), None);
    assert_eq!(told(&run(&mut host, answer("b", "x 9", 1)))["winner_id"], "b", "it begins anew");
}

#[test]
fn what_an_agent_answers_after_its_council_is_its_work_and_no_proposal() {
    let mut host = host();
    let ready = json!({"task_id": "T", "story_id": "S", "role": "wizard", "description": "d", "attempt": 1});
    run(&mut host, event("cofferdam.queue.ready", ready));
    let before = known(&mut host);
    let run = run(&mut host, answer("agent-dev-001", "done 9", 1));
    assert!(run.acked_without_effect() && run.metrics.is_empty());
    assert_eq!(known(&mut host), before);
}

/// A council is asked about the task, in vain.
fn council(attempt: u32) -> Event {
    event(
        "cofferdam.queue.ready",
        json!({"task_id": "T", "story_id": "S", "role": "wizard", "description": "d", "attempt": attempt}),
    )
}

#[test]
fn what_several_agents_answer_after_their_council_is_compared_whenever_it_was_asked() {
    let mut host = host();
    run(&mut host, council(1));
    assert!(run(&mut host, answer("a", "done 3", 2)).on(TOLD).is_empty());
    let first = told(&run(&mut host, answer("b", "done 9", 2)));
    assert_eq!((&first["winner_id"], &first["decisions"][0]["id"]), (&json!("b"), &json!("DEC-T")));
    dropped(&run(&mut host, answer("c", "done 9", 2)), "late");
    // The queue has the task done again.
    run(&mut host, council(2));
    run(&mut host, answer("a", "done 8", 2));
    assert_eq!(told(&run(&mut host, answer("b", "done 1", 2)))["winner_id"], "a");
}

#[test]
fn a_council_that_is_asked_meanwhile_leaves_the_collection_alone() {
    let mut host = host();
    let first = run(&mut host, answer("a", "x 1", 3));
    run(&mut host, council(1));
    assert_eq!(known(&mut host).status(), DeliberationStatus::Failed);
    run(&mut host, answer("b", "x 2", 3));
    let by_timer = told(&run(&mut host, fired(&first, 0)));
    assert_eq!((&by_timer["status"], &by_timer["successful_responses"]), (&json!("timeout"), &json!(2)));
}

#[test]
fn a_council_that_is_forgotten_takes_no_collection_along() {
    let mut host = host();
    let over = run(&mut host, council(1));
    let execution = &told(&over)["deliberation_id"];
    run(&mut host, answer("a", "x 1", 2));
    run(&mut host, event("cofferdam.council.forget", json!({"task_id": "T", "execution_id": execution})));
    assert_eq!(told(&run(&mut host, answer("b", "x 2", 2)))["winner_id"], "b");
}

#[test]
fn what_one_agent_answers_takes_no_decisions_place() {
    let mut host = host();
    let over = run(&mut host, council(1));
    let execution = &told(&over)["deliberation_id"];
    run(&mut host, event("cofferdam.council.forget", json!({"task_id": "T", "execution_id": execution})));
    let told = told(&run(&mut host, answer("agent-dev-001", "done 9", 1)));
    assert_eq!(told["decisions"][0]["id"], "DEC-T-ANSWER");
}

#[test]
fn contract_2_4_orchestrator_derivations_are_not_collected() {
    for data in [
        json!({"task_id": "derive-p", "agent_id": "task-deriver", "proposal": "TITLE: A"}),
        json!({"task_id": "T", "metadata": {"task_id": "derive-p"}, "agent_id": "a", "proposal": "TITLE: A"}),
        json!({"plan_id": "p", "story_id": "S", "result": {"proposal": "TITLE: A"}}),
    ] {
        assert!(run(&mut host(), event(COMPLETED, data)).acked_without_effect());
    }
}

#[test]
fn contract_2_4_orchestrator_the_story_may_sit_in_the_task_id() {
    let data =
        json!({"task_id": "ceremony-c1:story-s-7:role-QA", "agent_id": "a", "role": "QA", "proposal": "x 1"});
    let told = told(&run(&mut host(), event(COMPLETED, data)));
    assert_eq!((&told["story_id"], &told["role"]), (&json!("s-7"), &json!("QA")));
}

#[test]
fn contract_2_4_orchestrator_a_message_without_its_ids_has_no_effect() {
    let nameless = json!({"task_id": "T", "proposal": "x 1"});
    let run = run(&mut host(), event(COMPLETED, nameless));
    dropped(&run, "no_agent");
    assert_eq!(run.logged(Level::Warn).len(), 1);
    let run = host().run(crate::handle, event(FAILED, json!({"agent_id": "a", "error": "oom"})));
    assert!(matches!(run.result, Err(Failure::Reject(_))), "{:?}", run.result);
}

#[test]
fn results_by_their_own_subject_are_the_same_answers() {
    let mut host = host();
    run(&mut host, answer("a", "x 1", 3));
    let mut data = json!({"task_id": "T", "agent_id": "a", "result": {"proposal": "x 1"}, "num_agents": 3});
    dropped(&run(&mut host, event("agent.results.T", &data)), "duplicate");
    data["agent_id"] = json!("b");
    run(&mut host, event("agent.results.T", &data));
    let failed =
        json!({"task_id": "T", "agent_id": "c", "status": "failed", "error": "oom", "num_agents": 3});
    let told = told(&run(&mut host, event("agent.results.T", failed)));
    assert_eq!((&told["status"], &told["failed_responses"]), (&json!("completed"), &json!(1)));
}

#[test]
fn answers_are_not_lost_while_the_scoring_stage_is_away() {
    let mut away = host_alone();
    let early = away.run(crate::handle, answer("a", "x 1", 1));
    assert!(matches!(early.result, Err(Failure::Retry { .. })), "{:?}", early.result);
    let mut away = away.attempt(3, true);
    let kept = run(&mut away, answer("a", "x 1", 1));
    assert_eq!(known(&mut away).status(), DeliberationStatus::InProgress);
    let mut back = host().sharing(away.cells());
    assert_eq!(told(&run(&mut back, fired(&kept, 0)))["status"], "completed");
    assert!(run(&mut back, fired(&kept, 0)).acked_without_effect());
}

#[test]
fn what_is_never_scored_is_told_as_failed_with_all_answers() {
    let mut host = host_alone().attempt(3, true);
    let kept = run(&mut host, answer("a", "x 1", 1));
    let run = run(&mut host, fired(&kept, 0));
    let told = told(&run);
    assert_eq!((&told["status"], &told["results"][0]["proposal"]), (&json!("failed"), &json!("x 1")));
    assert!(told["error"].as_str().unwrap().contains("not scored"), "{told}");
}

#[test]
fn answers_of_megabytes_and_armies_of_agents_stay_within_bounds() {
    let mut host = host();
    let huge = "\u{1}\"\n".repeat(30_000);
    for agent in 0..64 {
        let run = run(&mut host, answer(&format!("agent-{agent}"), &huge, 4_000_000));
        if agent == 63 {
            assert_eq!(told(&run)["total_agents"], 64);
        }
    }
    let size = |key: &str| host.cells().get("deliberation/T", key).map_or(0, |bytes| bytes.len());
    assert!(size("result") + size("collected") < 480 << 10, "{} {}", size("result"), size("collected"));
    dropped(&run(&mut host, answer("one more", "x", 4_000_000)), "late");
    dropped(&run(&mut self::host(), answer(&"x".repeat(300), "x", 1)), "no_agent");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Answers, failures and repeats of four agents in any order, and the timer anywhere among them: told once, and by those that
    /// were there first.
    #[test]
    fn in_any_order_it_is_told_once(steps in prop::collection::vec((0..4_usize, 0..10_u8, any::<bool>(), any::<bool>()), 1..14), late in 0..20_usize) {
        let mut host = host();
        let mut counted: Vec<(String, u8, bool)> = Vec::new();
        let (mut ends, mut timer) = (Vec::new(), None);
        for (at, (agent, score, fails, by_results)) in steps.into_iter().enumerate() {
            if at == late && let Some(timer) = timer.take() {
                ends.extend(run(&mut host, timer).on(TOLD));
            }
            let open = ends.is_empty();
            let name = format!("agent-{agent}");
            let message = match (fails, by_results) {
                (true, _) => failure(&name, 4),
                (false, false) => answer(&name, &format!("x {score}"), 4),
                (false, true) => event("agent.results.T", json!({"task_id": "T", "agent_id": name, "proposal": format!("x {score}"), "num_agents": 4})),
            };
            let done = run(&mut host, message);
            if !done.timers.is_empty() {
                timer = Some(fired(&done, 0));
            }
            if open && !counted.iter().any(|(known, ..)| *known == name) {
                counted.push((name, score, fails));
            }
            ends.extend(done.on(TOLD));
        }
        if let Some(timer) = timer {
            ends.extend(run(&mut host, timer).on(TOLD));
        }
        prop_assert_eq!(ends.len(), 1);
        let told = &ends[0]["payload"];
        let answers = || counted.iter().filter(|(_, _, fails)| !fails);
        let best = answers().map(|(_, score, _)| *score).max();
        // The first of the best.
        let winner = answers().find(|(_, score, _)| Some(*score) == best).map_or("", |(name, ..)| name);
        let status = match (counted.len(), best) {
            (4, Some(_)) => "completed",
            (4, None) => "failed",
            _ => "timeout",
        };
        prop_assert_eq!((&told["status"], &told["winner_id"]), (&json!(status), &json!(winner)));
        prop_assert_eq!(&told["successful_responses"], &json!(answers().count()));
    }
}
