//! Councils, time-outs, and answers.

use cofferdam_sdk::{
    log::Level,
    testing::{Host, event},
};
use serde_json::{Value, json};

use super::support::*;

fn timed_out(host: &mut Host, timer: &Value) -> Told {
    settle(host, OVERDUE, timer)
}

#[test]
fn contract_6_queue_a_task_in_progress_for_300_seconds_returns_and_goes_again_behind_its_equals() {
    let mut host = one_by_one();
    let timer = settle(&mut host, CREATED, created("A")).timer(OVERDUE).clone();
    let dispatched = stored(&host, "A")["last_dispatch"].clone();
    assert_eq!(timer.at / 1_000_000_000 - seconds(&dispatched), 300);
    settle(&mut host, CREATED, created("B"));
    let run = run(&mut host, OVERDUE, timer.json());
    assert_eq!((run.metric("task_queue_returned"), run.logged(Level::Warn).len()), (1.0, 1));
    assert_eq!(follow(&mut host, run).tasks(DISPATCHED), ["B"]);
    assert_eq!((status(&mut host, "A").as_str(), get(&mut host, "A").agent_id.as_str()), ("QUEUED", ""));
    let told = settle(&mut host, ANSWERED, answer("B"));
    assert_eq!((told.tasks(DISPATCHED), &told.on(DISPATCHED)[0]["attempt"]), (vec!["A".into()], &json!(2)));
    assert!(timed_out(&mut host, &timer.json()).published.is_empty(), "the first attempt's timer, late");
    assert_eq!(status(&mut host, "A"), "IN_PROGRESS");
}

fn seconds(time: &Value) -> u64 {
    u64::try_from(cofferdam_sdk::fleet::Timestamp::read(time).unwrap().unix_seconds()).unwrap()
}

#[test]
fn the_time_is_what_the_operator_says() {
    let mut host = one_by_one().config("in_progress_timeout_seconds", 7);
    let timer = settle(&mut host, CREATED, created("A")).timer(OVERDUE).clone();
    assert_eq!(timer.at / 1_000_000_000 - seconds(&stored(&host, "A")["last_dispatch"]), 7);
}

#[test]
fn a_council_and_an_agent_have_their_time_each() {
    let mut host = host();
    let councils = settle(&mut host, CREATED, created("A")).timer(OVERDUE).clone();
    let told = settle(&mut host, DELIBERATED, deliberated("A", 1));
    assert_eq!(told.cancelled, [councils.id.as_str()]);
    let agents = told.timer(OVERDUE).clone();
    assert!(agents.at > councils.at);
    assert!(timed_out(&mut host, &councils.json()).published.is_empty(), "it fired before it was taken back");
    assert_eq!(settle(&mut host, ANSWERED, answer("A")).cancelled, [agents.id.as_str()]);
    assert!(timed_out(&mut host, &agents.json()).published.is_empty());
    assert_eq!(status(&mut host, "A"), "COMPLETED");
}

#[test]
fn a_council_that_says_nothing_is_asked_again() {
    let mut host = host();
    let timer = settle(&mut host, CREATED, created("A")).timer(OVERDUE).clone();
    let told = timed_out(&mut host, &timer.json());
    assert_eq!((told.subjects(), &told.on(READY)[0]["attempt"]), (vec![READY], &json!(2)));
    // What it proposed for the first attempt is as good; its error is no word on the second.
    let mut error = deliberated("A", 1);
    error["error"] = json!("out of breath");
    assert!(settle(&mut host, DELIBERATED, error).published.is_empty());
    let told = settle(&mut host, DELIBERATED, deliberated("A", 1));
    assert_eq!((told.tasks(DISPATCHED), &told.on(DISPATCHED)[0]["attempt"]), (vec!["A".into()], &json!(2)));
    assert!(settle(&mut host, DELIBERATED, deliberated("A", 2)).published.is_empty(), "it is dispatched");
}

#[test]
fn a_proposal_is_taken_once_and_by_no_task_that_did_not_ask() {
    let mut host = host();
    assert!(run(&mut host, DELIBERATED, deliberated("A", 1)).acked_without_effect());
    settle(&mut host, CREATED, created("B"));
    settle(&mut host, CREATED, created("A"));
    assert!(settle(&mut host, DELIBERATED, deliberated("A", 1)).published.is_empty(), "A waits");
    assert!(settle(&mut host, DELIBERATED, deliberated("B", 2)).published.is_empty(), "a later attempt's");
    assert_eq!(settle(&mut host, DELIBERATED, deliberated("B", 1)).tasks(DISPATCHED), ["B"]);
    assert!(settle(&mut host, DELIBERATED, deliberated("B", 1)).published.is_empty());
}

#[test]
fn contract_6_queue_a_council_that_fails_fails_the_task_and_the_next_goes() {
    let mut host = host();
    settle(&mut host, CREATED, created("A"));
    settle(&mut host, CREATED, created("B"));
    let mut error = deliberated("A", 1);
    (error["error"], error["error_type"]) = (json!("no council for DEV"), json!("not_found"));
    error["agent_id"] = json!("");
    let told = settle(&mut host, DELIBERATED, error);
    assert_eq!((told.subjects(), told.tasks(READY)), (vec![FAILED, READY], vec!["B".into()]));
    let failed = &told.on(FAILED)[0];
    assert_eq!(
        (&failed["error"], &failed["error_type"]),
        (&json!("no council for DEV"), &json!("not_found"))
    );
    assert_eq!(status(&mut host, "A"), "FAILED:no council for DEV");
    let mut nothing = deliberated("B", 1);
    nothing["agent_id"] = json!(" ");
    assert_eq!(settle(&mut host, DELIBERATED, nothing).on(FAILED)[0]["error_type"], "no_winner");
}

#[test]
fn contract_6_queue_an_answer_completes_the_task_and_tells_what_the_agent_said_of_it() {
    let mut host = direct();
    settle(&mut host, CREATED, created("A"));
    let mut message = answer("A");
    message["output"] = json!({"duration_ms": 40, "checks_passed": false});
    let told = settle(&mut host, ANSWERED, message);
    assert_eq!(told.subjects(), [COMPLETED]);
    let completed = &told.on(COMPLETED)[0];
    for (key, value) in [
        ("task_id", json!("A")),
        ("story_id", json!("S")),
        ("agent_id", json!("dev-7")),
        ("role", json!("DEV")),
        ("duration_ms", json!(40)),
        ("checks_passed", json!(false)),
    ] {
        assert_eq!(completed[key], value, "{key}");
    }
    let task = get(&mut host, "A");
    assert_eq!((task.status.as_str(), task.agent_id.as_str()), ("COMPLETED", "dev-7"));
}

#[test]
fn contract_2_4_orchestrator_without_a_word_on_them_duration_is_0_and_checks_passed() {
    let mut host = direct();
    settle(&mut host, CREATED, created("A"));
    let told = settle(&mut host, ANSWERED, json!({"metadata": {"task_id": "A"}, "proposal": "x"}));
    let completed = &told.on(COMPLETED)[0];
    assert_eq!((&completed["duration_ms"], &completed["checks_passed"]), (&json!(0), &json!(true)));
    assert_eq!((&completed["agent_id"], &completed["role"]), (&json!("agent-dev-001"), &json!("DEV")));
}

#[test]
fn an_answer_counts_once_and_after_an_end_nothing_does() {
    let mut host = direct();
    settle(&mut host, CREATED, created("A"));
    settle(&mut host, ANSWERED, answer("A"));
    assert!(settle(&mut host, ANSWERED, answer("A")).published.is_empty());
    let mut other = answer("A");
    other["agent_id"] = json!("dev-8");
    assert!(settle(&mut host, ANSWERED, other).published.is_empty());
    assert!(settle(&mut host, AGENT_FAILED, failure("A")).published.is_empty());
    assert_eq!(status(&mut host, "A"), "COMPLETED");
    settle(&mut host, CREATED, created("B"));
    settle(&mut host, AGENT_FAILED, failure("B"));
    assert!(settle(&mut host, ANSWERED, answer("B")).published.is_empty(), "it was told to have failed");
    assert_eq!(status(&mut host, "B"), "FAILED:out of memory");
}

#[test]
fn an_answer_that_nobody_asked_for_is_none() {
    let mut host = host();
    for message in [
        answer("T"),
        answer("derive-P"),
        json!({"plan_id": "P"}),
        json!({"task_id": "ceremony-1:story-2:role-3"}),
    ] {
        assert!(run(&mut host, ANSWERED, message).acked_without_effect());
    }
    settle(&mut host, CREATED, created("A"));
    settle(&mut host, CREATED, created("B"));
    // B waits for its turn, and of A a council is asked.
    for task in ["A", "B"] {
        let run = run(&mut host, ANSWERED, answer(task));
        assert_eq!((run.published.len(), run.metric("task_queue_dropped")), (0, 1.0));
        assert!(settle(&mut host, AGENT_FAILED, failure(task)).published.is_empty());
    }
    let early = {
        let mut early = answer("A");
        early["n"] = json!("early");
        event(ANSWERED, early)
    };
    for _ in 0..6 {
        event(ANSWERED, "{}");
    }
    settle(&mut host, DELIBERATED, deliberated("A", 1));
    assert!(take(&mut host, early).published.is_empty(), "sent before it was dispatched");
    let mut asked = answer("A");
    asked["n"] = json!(2);
    assert_eq!(settle(&mut host, ANSWERED, asked).tasks(COMPLETED), ["A"]);
}

#[test]
fn one_that_is_a_derivations_by_another_place_is_not_the_tasks() {
    let mut host = direct();
    settle(&mut host, CREATED, created("A"));
    let mut derived = answer("A");
    derived["metadata"] = json!({"task_id": "derive-P"});
    assert!(run(&mut host, ANSWERED, derived).acked_without_effect());
}

#[test]
fn a_late_answer_completes_a_task_that_waits_again_and_a_late_failure_leaves_it_waiting() {
    let mut host = one_by_one();
    let timer = settle(&mut host, CREATED, created("A")).timer(OVERDUE).json();
    settle(&mut host, CREATED, created("B"));
    timed_out(&mut host, &timer);
    assert!(settle(&mut host, AGENT_FAILED, failure("A")).published.is_empty());
    assert_eq!(status(&mut host, "A"), "QUEUED");
    let told = settle(&mut host, ANSWERED, answer("A"));
    assert_eq!((told.subjects(), listed(&mut host)), (vec![COMPLETED], vec!["B".to_owned()]));
    assert!(settle(&mut host, ANSWERED, answer("B")).tasks(DISPATCHED).is_empty());
}

#[test]
fn a_failure_of_an_attempt_that_was_given_up_is_none_of_the_next() {
    let mut host = direct();
    let timer = settle(&mut host, CREATED, created("A")).timer(OVERDUE).json();
    timed_out(&mut host, &timer);
    assert_eq!(get(&mut host, "A").attempt, 2);
    let mut first = failure("A");
    first["attempt"] = json!(1);
    assert!(settle(&mut host, AGENT_FAILED, first).published.is_empty());
    let mut second = failure("A");
    second["attempt"] = json!(2);
    assert_eq!(settle(&mut host, AGENT_FAILED, second).tasks(FAILED), ["A"]);
}

#[test]
fn a_turn_that_comes_after_a_late_answer_is_over() {
    let mut host = direct();
    let timer = settle(&mut host, CREATED, created("A")).timer(OVERDUE).json();
    let returned = run(&mut host, OVERDUE, timer);
    let go = run(&mut host, CHANGED, returned.on(CHANGED)[0].clone());
    let answered = run(&mut host, ANSWERED, answer("A"));
    assert_eq!(answered.on(COMPLETED).len(), 1);
    assert!(run(&mut host, GO, go.on(GO)[0].clone()).acked_without_effect());
    follow(&mut host, answered);
    assert_eq!(listed(&mut host), Vec::<String>::new());
}

/// Of several agents.
fn several(task: &str, agent: &str) -> Value {
    let mut answer = answer(task);
    (answer["agent_id"], answer["constraints"]) = (json!(agent), json!({"metadata": {"num_agents": 3}}));
    answer.as_object_mut().unwrap().remove("num_agents");
    answer
}

#[test]
fn contract_6_queue_of_several_answers_the_first_completes_the_task_and_one_failure_is_not_its_end() {
    let mut host = host();
    settle(&mut host, CREATED, created("A"));
    settle(&mut host, DELIBERATED, deliberated("A", 1));
    assert!(settle(&mut host, AGENT_FAILED, several("A", "one")).published.is_empty());
    let told = settle(&mut host, ANSWERED, several("A", "two"));
    assert_eq!((told.subjects(), &told.on(COMPLETED)[0]["agent_id"]), (vec![COMPLETED], &json!("two")));
    assert!(settle(&mut host, ANSWERED, several("A", "three")).published.is_empty());
}

#[test]
fn a_task_has_failed_when_all_have_that_were_asked_each_counted_once_and_by_attempt() {
    let mut host = direct();
    let timer = settle(&mut host, CREATED, created("A")).timer(OVERDUE).json();
    let mut number = 0;
    let mut fails = |host: &mut Host, agent: &str| {
        let mut failure = several("A", agent);
        number += 1;
        (failure["error"], failure["n"]) = (json!("no tools"), json!(number));
        settle(host, AGENT_FAILED, failure)
    };
    assert!(fails(&mut host, "one").published.is_empty());
    assert!(fails(&mut host, "two").published.is_empty());
    timed_out(&mut host, &timer);
    for agent in ["one", "two", "two"] {
        assert!(fails(&mut host, agent).published.is_empty());
    }
    assert_eq!(status(&mut host, "A"), "IN_PROGRESS");
    assert_eq!(fails(&mut host, "three").on(FAILED)[0]["error"], "no tools");
}

#[test]
fn who_sets_the_queue_up_without_a_council_is_told_so_once() {
    let mut host = host();
    let mut told = settle(&mut host, CREATED, created("A"));
    let mut blocked = Vec::new();
    for _ in 0..3 {
        told = timed_out(&mut host, &told.timer(OVERDUE).json());
        blocked.push(told.on(BLOCKED));
    }
    assert_eq!((blocked[0].len(), blocked[1].len(), blocked[2].len()), (0, 1, 0));
    let error = blocked[1][0]["error"].as_str().unwrap();
    assert!(
        error.contains("no council seems to run") && error.contains("requires_pre_deliberation"),
        "{error}"
    );
    assert_eq!(blocked[1][0]["behind"], json!([]));
    // One that answers, however late, is there.
    settle(&mut host, DELIBERATED, deliberated("A", 1));
    assert_eq!(stored(&host, "A")["unheard"], 0);
}
