//! A derivation from its first trigger to its one end, whatever comes in between: time-outs, late, foreign and repeated answers,
//! too many requests; and with plan-reader in prompt-builder's place.

use std::{collections::BTreeSet, time::Duration};

use fleet_proto::standin::v1::AddPlanRequest;
use harness::{
    daemon::message,
    executor::{Executor, Reply},
    fleet::Fleet,
    metrics::counts,
    pipeline::{bundled, derivation, derivation_on, executed_at},
    planning::Planning,
    plugin::Plugin,
    setup::Setup,
    way_in::body,
    world::World,
};
use serde_json::{Value, json};

const APPROVED: &str = "planning.plan.approved";
const REQUESTED: &str = "task.derivation.requested";
const ANSWERED: &str = "agent.response.completed";
const COMPLETED: &str = "task.derivation.completed";
const FAILED: &str = "task.derivation.failed";
const TWO_TASKS: &str = "TITLE: One\nKEYWORDS: one\n\nTITLE: After one\n";

/// An executor that takes jobs and says nothing more.
async fn silent(world: &World) -> Executor {
    Executor::start(world, |_| Reply::Messages(Vec::new())).await
}

fn setup(world: &World, planning: &str, executor: &Executor, prompt_builder: Plugin) -> Setup {
    executed_at(derivation(world, planning, planning), &executor.address).plugin(prompt_builder)
}

fn impatient() -> Plugin {
    bundled("prompt-builder").set("timeout_seconds", 1)
}

fn answer(plan_id: &str, attempt: u32, text: &str) -> Value {
    json!({
        "task_id": format!("derive-{plan_id}"), "agent_id": "task-deriver", "proposal": { "content": text },
        "constraints": { "metadata": { "attempt": attempt.to_string(), "run": "1" } },
    })
}

async fn count(world: &World) -> (usize, usize) {
    (world.count(COMPLETED).await, world.count(FAILED).await)
}

#[tokio::test]
async fn contract_4_failure_an_attempt_without_an_answer_times_out_and_is_asked_again() {
    let world = World::start().await;
    let planning = Planning::start().await;
    let executor = Executor::start(&world, |request| {
        let attempt = request.constraints.clone().unwrap_or_default().metadata["attempt"].clone();
        if attempt == "1" { Reply::Messages(Vec::new()) } else { Reply::Text(TWO_TASKS.to_owned()) }
    })
    .await;
    let daemon = setup(&world, &planning.address, &executor, impatient()).start().await;
    world.publish(APPROVED, json!({ "plan_id": "p-1" })).await;
    world.wait_stored(COMPLETED, 1).await;
    world.quiet().await;
    let asked = executor.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].request.task_description.contains("did not come through"));
    let [timeout] = world.stored("cofferdam.derivation.timeout").await.try_into().expect("one");
    let told = timeout.payload();
    assert_eq!((&told["plan_id"], &told["derivation_id"]), (&json!("p-1"), &json!("derive-p-1")));
    assert_eq!((&told["story_id"], &told["attempt"]), (&json!("story-of-p-1"), &json!(1)));
    assert_eq!(count(&world).await, (1, 0));
    // The second attempt's time passes, too.
    world.wait_stored("cofferdam.derivation.timeout", 2).await;
    world.quiet().await;
    assert_eq!((executor.asked().len(), count(&world).await), (2, (1, 0)));
    assert_eq!(planning.titles(), ["One", "After one"]);
    let line = daemon.says("asking again").await;
    assert_eq!(line["level"], "WARN", "{line}");
}

#[tokio::test]
async fn contract_4_failure_after_the_last_time_out_a_person_has_to_look() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let executor = silent(&world).await;
    let prompt_builder = impatient().set("max_retries", 1);
    let daemon = executed_at(derivation(&world, &fleet.planning, &fleet.context), &executor.address)
        .plugin(prompt_builder)
        .start()
        .await;
    let before = daemon.scrape().await;
    let plan_id = fleet.plan("Cart").await;
    fleet.approve(&plan_id).await;
    let [failed] = world.wait_stored(FAILED, 1).await.try_into().expect("one");
    let payload = failed.payload();
    assert_eq!(payload["reason"], "timeout: no answer within 1 s (attempt 2 of 2)");
    assert_eq!(payload["requires_manual_review"], true);
    // Whatever comes now is late.
    world.publish(ANSWERED, answer(&plan_id, 2, TWO_TASKS)).await;
    world
        .publish("agent.response.failed", json!({ "task_id": format!("derive-{plan_id}"), "error": "x" }))
        .await;
    world.quiet().await;
    assert_eq!(count(&world).await, (0, 1));
    let plan = fleet.show(&plan_id).await;
    assert_eq!((plan.story_state.as_str(), plan.tasks.len()), ("READY_FOR_PLANNING", 0));
    let moved = daemon.events(&before, [("prompt-builder done -", 3), ("output-parser done -", 2)]).await;
    assert_eq!(moved.counts("task_derivation_failed", &["reason"]), counts([("timeout", 1)]));
    assert_eq!(moved.sum("task_derivation_requests_received", &[]), 1.0);
    let line = daemon.logged("the failure", |line| message(line) == "the derivation failed").await;
    assert_eq!(line["level"], "ERROR", "{line}");
    let text = line.to_string();
    assert!(text.contains(&plan_id) && text.contains(&plan.story_id) && text.contains("timeout: "), "{text}");
}

#[tokio::test]
async fn contract_4_persist_a_late_answer_is_as_good_as_any_and_only_one_counts() {
    let world = World::start().await;
    let planning = Planning::start().await;
    let executor = silent(&world).await;
    let _daemon = setup(&world, &planning.address, &executor, impatient()).start().await;
    world.publish(APPROVED, json!({ "plan_id": "p-1" })).await;
    executor.wait_asked(2).await;
    for (attempt, text) in [(1, "no idea"), (1, TWO_TASKS), (2, "TITLE: Too late"), (1, TWO_TASKS)] {
        world.publish(ANSWERED, answer("p-1", attempt, text)).await;
    }
    world.wait_stored(COMPLETED, 1).await;
    world.quiet().await;
    assert_eq!(
        (count(&world).await, planning.titles()),
        ((1, 0), vec!["One".to_owned(), "After one".to_owned()])
    );
}

#[tokio::test]
async fn contract_4_persist_answers_that_race_the_time_out_end_each_derivation_once() {
    let world = World::start().await;
    let planning = Planning::start().await;
    let executor = silent(&world).await;
    let prompt_builder = impatient().set("max_retries", 0);
    let _daemon = setup(&world, &planning.address, &executor, prompt_builder).start().await;
    let plans: Vec<String> = (0..12).map(|n| format!("p-{n}")).collect();
    for plan in &plans {
        world.publish(APPROVED, json!({ "plan_id": plan })).await;
    }
    executor.wait_asked(plans.len()).await;
    // A moment, not a condition: about when their time is over.
    tokio::time::sleep(Duration::from_millis(700)).await;
    for plan in &plans {
        world.publish(ANSWERED, answer(plan, 1, &format!("TITLE: Of {plan}"))).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    harness::wait::wait_for("an end of each", async || {
        let (completed, failed) = count(&world).await;
        (completed + failed >= plans.len()).then_some(())
    })
    .await;
    world.quiet().await;
    let mut ended = BTreeSet::new();
    for message in world.stored(COMPLETED).await.iter().chain(&world.stored(FAILED).await) {
        let payload = message.payload();
        assert!(ended.insert(payload["plan_id"].to_string()), "twice: {payload}");
    }
    assert_eq!(ended.len(), plans.len());
    let titles: BTreeSet<String> = planning.titles().into_iter().collect();
    assert_eq!(titles.len(), world.count(COMPLETED).await, "{titles:?}");
}

#[tokio::test]
async fn contract_4_failure_a_failed_agent_that_answers_after_all_leads_to_one_end() {
    let world = World::start().await;
    let planning = Planning::start().await;
    let executor = silent(&world).await;
    let _daemon = setup(&world, &planning.address, &executor, bundled("prompt-builder")).start().await;
    world.publish(APPROVED, json!({ "plan_id": "p-1" })).await;
    executor.wait_asked(1).await;
    let failure =
        json!({ "task_id": "derive-p-1", "error": "out of memory", "metadata": { "attempt": "1" } });
    world.publish("agent.response.failed", &failure).await;
    executor.wait_asked(2).await;
    world.publish("agent.response.failed", &failure).await;
    world.publish(ANSWERED, answer("p-1", 1, TWO_TASKS)).await;
    world.publish(ANSWERED, answer("p-1", 2, "TITLE: Three")).await;
    world.wait_stored(COMPLETED, 1).await;
    world.quiet().await;
    assert_eq!((count(&world).await, executor.asked().len()), ((1, 0), 2));
    assert_eq!(planning.titles(), ["One", "After one"]);
}

#[tokio::test]
async fn contract_9_triggers_of_both_kinds_in_any_order_open_one_derivation() {
    let world = World::start().await;
    let planning = Planning::start().await;
    let executor = silent(&world).await;
    let daemon = setup(&world, &planning.address, &executor, bundled("prompt-builder")).start().await;
    let before = daemon.scrape().await;
    for n in 0..3 {
        for (plan, first, second) in [("p-1", APPROVED, REQUESTED), ("p-2", REQUESTED, APPROVED)] {
            world.publish(first, json!({ "plan_id": plan, "n": n })).await;
            world.publish(second, json!({ "plan_id": plan, "n": n })).await;
        }
    }
    executor.wait_asked(2).await;
    world.quiet().await;
    let asked: BTreeSet<String> = executor.asked().into_iter().map(|asked| asked.request.task_id).collect();
    assert_eq!((executor.asked().len(), asked.len()), (2, 2));
    for plan in ["p-1", "p-2"] {
        world.publish(ANSWERED, answer(plan, 1, &format!("TITLE: Of {plan}"))).await;
    }
    world.wait_stored(COMPLETED, 2).await;
    world.quiet().await;
    assert_eq!((count(&world).await, executor.asked().len()), ((2, 0), 2));
    let moved = daemon.scrape().await.since(&before);
    assert_eq!(moved.sum("task_derivation_requests_received", &[]), 12.0);
    assert_eq!(moved.sum("task_derivation_succeeded", &[]), 2.0);
    assert_eq!(moved.sum("task_derivation_processing_time_ms_count", &[]), 2.0);
    assert_eq!(moved.sum("task_derivation_failed", &[]), 0.0);
}

#[tokio::test]
async fn contract_2_4_ours_foreign_answers_leave_no_trace() {
    let world = World::start().await;
    let planning = Planning::start().await;
    let executor = silent(&world).await;
    let daemon = setup(&world, &planning.address, &executor, bundled("prompt-builder")).start().await;
    let before = daemon.scrape().await;
    world.publish(APPROVED, json!({ "plan_id": "p-1" })).await;
    // Before its deliberation is known, another's would be tried again.
    world.wait_stored("cd.e.>", 1).await;
    let ours = json!({ "task_id": "derive-p-1", "proposal": { "content": TWO_TASKS } });
    for subject in ["agent.response.completed.task-extraction", "agent.response.completed.backlog-review.dev"]
    {
        world.publish(subject, &ours).await;
    }
    for foreign in [
        json!({ "task_id": "TASK-1", "plan_id": "p-1", "result": { "proposal": TWO_TASKS } }),
        json!({ "task_id": "ceremony-1:story-2:role-dev", "constraints": { "plan_id": "p-1" }, "proposal": TWO_TASKS }),
        json!({ "task_id": "TASK-1", "plan_id": "p-1", "deliberation_id": "elsewhere", "output": TWO_TASKS }),
    ] {
        world.publish(ANSWERED, &foreign).await;
        world.publish("agent.response.failed", &foreign).await;
    }
    world.quiet().await;
    daemon.events(&before, [("prompt-builder done -", 1), ("output-parser done -", 6)]).await;
    assert_eq!(world.count("cofferdam.derivation.>").await, 0);
    assert_eq!((count(&world).await, executor.asked().len()), ((0, 0), 1));
    world.publish(ANSWERED, ours).await;
    world.wait_stored(COMPLETED, 1).await;
}

#[tokio::test]
async fn contract_2_4_ours_an_answer_with_the_executors_own_ids_ends_the_derivation() {
    let world = World::start().await;
    let planning = Planning::start().await;
    let answer = json!({
        "task_id": "ray-task-7", "plan_id": "p-1", "deliberation_id": "deliberation-1", "proposal": { "content": TWO_TASKS },
    });
    // It may overtake the word that the job was taken, by more than three tries where the machine is slow.
    let executor =
        Executor::start(&world, move |_| Reply::Messages(vec![(ANSWERED.to_owned(), answer.clone())])).await;
    let setup = setup(&world, &planning.address, &executor, bundled("prompt-builder"));
    let patient = bundled("output-parser").every_subscription("max-attempts = 24");
    let _daemon = setup.plugin(patient).start().await;
    world.publish(APPROVED, json!({ "plan_id": "p-1" })).await;
    let [completed] = world.wait_stored(COMPLETED, 1).await.try_into().expect("one");
    assert_eq!(completed.payload()["derivation_request_id"], "deliberation-1");
    assert_eq!(planning.titles(), ["One", "After one"]);
}

#[tokio::test]
async fn a_time_out_outlives_the_daemon_on_the_embedded_bus() {
    // For the executor alone.
    let world = World::start().await;
    let planning = Planning::start().await;
    let executor = silent(&world).await;
    let setup = derivation_on(Setup::local(), &planning.address, &planning.address);
    let setup = executed_at(setup, &executor.address).plugin(impatient().set("max_retries", 2));
    let mut daemon = setup.start().await;
    daemon.publish(APPROVED, json!({ "plan_id": "p-1" })).await;
    for attempt in 1..=3 {
        executor.wait_asked(attempt).await;
        daemon.kill().await;
        daemon = setup.start().await;
    }
    let [failed] = daemon.wait_stored(FAILED, 1).await.try_into().expect("one");
    let reason = body(&failed)["reason"].to_string();
    assert!(reason.starts_with("\"timeout: ") && reason.contains("attempt 3 of 3"), "{reason}");
    let before = daemon.scrape().await;
    daemon.publish(ANSWERED, answer("p-1", 3, TWO_TASKS)).await;
    daemon.events(&before, [("output-parser done -", 1)]).await;
    assert_eq!(daemon.stored(COMPLETED).await.len() + planning.titles().len(), 0);
    daemon.stop().await;
}

#[tokio::test]
async fn contract_7_requests_over_the_limit_of_their_requester_wait_and_none_is_lost() {
    let world = World::start().await;
    let planning = Planning::start().await;
    let executor =
        Executor::start(&world, |request| Reply::Text(format!("TITLE: Of {}", request.task_id))).await;
    let limited = |seconds: i64| {
        let plugin = bundled("prompt-builder").set("rate_limit", 2).set("rate_window_seconds", seconds);
        setup(&world, &planning.address, &executor, plugin)
    };
    let mut daemon = limited(3_600).start().await;
    for (plan, by) in [("p-1", "ann"), ("p-2", "ann"), ("p-3", "ann"), ("p-4", "eve")] {
        world.publish(REQUESTED, json!({ "plan_id": plan, "requested_by": by })).await;
    }
    world.wait_stored(COMPLETED, 3).await;
    daemon.says("it waits").await;
    world.quiet().await;
    let done: BTreeSet<String> =
        world.stored(COMPLETED).await.iter().map(|m| m.payload()["plan_id"].to_string()).collect();
    assert!(done.contains("\"p-4\"") && done.len() == 3, "two of ann's: {done:?}");
    daemon.stop().await;

    let _daemon = limited(1).start().await;
    for n in 0..5 {
        world.publish(APPROVED, json!({ "plan_id": format!("q-{n}"), "approved_by": "joe" })).await;
    }
    world.wait_stored(COMPLETED, 8).await;
    world.quiet().await;
    assert_eq!(count(&world).await, (8, 0));
}

/// plan-reader in prompt-builder's place, and so without output-parser and executor.
fn reading(world: &World, fleet: &Fleet) -> Setup {
    ["plan-reader", "dependency-analyzer", "workflow-router"]
        .into_iter()
        .fold(world.setup().upstream("planning", &fleet.planning), |setup, name| setup.plugin(bundled(name)))
}

async fn structured(fleet: &Fleet, description: &str, notes: &str) -> String {
    let plan = AddPlanRequest {
        title: "Login".to_owned(),
        description: description.to_owned(),
        technical_notes: notes.to_owned(),
        ..Default::default()
    };
    fleet.plan_of(plan).await
}

#[tokio::test]
async fn contract_9_a_structured_plan_becomes_tasks_without_a_model() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let daemon = reading(&world, &fleet).start().await;
    let before = daemon.scrape().await;
    let markdown = "## DEV Tasks\n- [ ] TASK-001: Implement login endpoint\n  - Depends on: TASK-000\n  - Priority: HIGH\n\n\
        ## QA Tasks\n- [ ] TASK-002: Test login\n  - Depends on: TASK-001\n";
    let yaml = "tasks:\n  - id: TASK-002\n    role: QA\n    description: Test login\n    dependencies: [TASK-001]\n\
        \x20 - id: TASK-001\n    role: DEV\n    description: \"Implement login endpoint\"\n    priority: HIGH\n";
    let json = r#"{"tasks": [{"id": "TASK-001", "role": "DEV", "title": "Implement login endpoint", "priority": "HIGH"},
        {"id": "TASK-002", "role": "QA", "title": "Test login", "dependencies": ["TASK-001"]}]}"#;
    for (description, notes) in [(markdown, ""), ("Log in.", yaml), (json, "None.")] {
        let plan_id = structured(&fleet, description, notes).await;
        fleet.approve(&plan_id).await;
        let tasks = fleet.planned(&plan_id).await;
        let told: Vec<_> = tasks.iter().map(|t| (t.title.as_str(), t.role.as_str(), t.priority)).collect();
        assert_eq!(
            told,
            [("Implement login endpoint", "DEVELOPER", 2), ("Test login", "QA", 1)],
            "{description}"
        );
        let [needed] = tasks[1].depends_on.as_slice() else { panic!("{tasks:#?}") };
        assert_eq!(needed.task_id, tasks[0].task_id);
    }
    world.wait_stored("workflow.task.assigned", 6).await;
    world.quiet().await;
    assert_eq!(count(&world).await, (3, 0));
    let sources = world.stored("cofferdam.derivation.parsed").await;
    assert!(sources.iter().all(|message| message.payload()["source"] == "structured"));
    let moved = daemon.scrape().await.since(&before);
    assert_eq!(moved.sum("task_derivation_requests_received", &[]), 3.0);
    assert_eq!(moved.sum("task_derivation_succeeded", &[]), 3.0);
    assert_eq!(world.count("cofferdam.dead.>").await, 0);
}

#[tokio::test]
async fn contract_9_a_plan_that_lists_no_tasks_or_wrong_ones_fails_once() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let daemon = reading(&world, &fleet).start().await;
    let before = daemon.scrape().await;
    let circle = "- TASK-1: One\n  - Depends on: TASK-2\n- TASK-2: Two\n  - Depends on: TASK-1\n";
    let nine: String = (1..=9).map(|n| format!("- TASK-{n}: Step number {n}\n")).collect();
    let expected = [
        ("Log in, log out.", "no_tasks"),
        (circle, "circular_dependency"),
        (nine.as_str(), "too_many_tasks"),
    ];
    for (description, kind) in expected {
        let plan_id = structured(&fleet, description, "").await;
        fleet.approve(&plan_id).await;
        fleet.approve(&plan_id).await;
        let of = |m: &&harness::world::Message| m.payload()["plan_id"] == plan_id.as_str();
        harness::wait::wait_for("the failure", async || {
            world.stored(FAILED).await.iter().any(|m| of(&m)).then_some(())
        })
        .await;
        world.quiet().await;
        let failed = world.stored(FAILED).await;
        let reasons: Vec<String> =
            failed.iter().filter(of).map(|m| m.payload()["reason"].to_string()).collect();
        assert!(
            !reasons.is_empty() && reasons.iter().all(|r| r.starts_with(&format!("\"{kind}: "))),
            "{reasons:?}"
        );
        assert_eq!(fleet.show(&plan_id).await.tasks, []);
    }
    let moved = daemon.scrape().await.since(&before);
    let ends = moved.sum("task_derivation_failed", &[]);
    assert_eq!(world.count(FAILED).await as f64, ends);
    assert_eq!(world.count(COMPLETED).await + world.count("cofferdam.dead.>").await, 0);
}
