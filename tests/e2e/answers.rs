//! What models answer, in every odd shape of the contract, and the tasks (or the error) that must come of it: through the
//! whole chain, from the executor's answer to Planning's tables.

use std::collections::BTreeMap;

use fleet_proto::standin::v1::AddPlanRequest;
use harness::{
    executor::{Executor, Reply},
    fleet::Fleet,
    pipeline::{bundled, derivation, executed_at},
    world::World,
};
use serde_json::json;

/// A task as Planning must have it: title, role, hours, priority, titles of what it needs.
type Task = (&'static str, &'static str, i32, i32, &'static [&'static str]);

enum Outcome {
    Tasks(&'static [Task]),
    /// The derivation fails for this reason, after it was asked again.
    Fails(&'static str),
}

use Outcome::{Fails, Tasks};

struct Answer {
    name: &'static str,
    text: String,
    outcome: Outcome,
}

fn answer(name: &'static str, text: impl Into<String>, outcome: Outcome) -> Answer {
    Answer { name, text: text.into(), outcome }
}

const TWO_BLOCKS: &str = "TASK_ID: TASK-001\nTITLE: Add login\nDESCRIPTION: first line\n  second line\nROLE: dev\n\
    ESTIMATED_HOURS: 2-4 h\nPRIORITY: HIGH\nKEYWORDS: login, auth\n\nTASK_ID: TASK-002\nTITLE: Test login\nROLE: tester\n\
    ESTIMATED_HOURS: 1 day\nPRIORITY: P0\n";
/// The second needs the first by its keyword `login`.
const TWO_TASKS: Outcome =
    Tasks(&[("Add login", "DEVELOPER", 4, 2, &[]), ("Test login", "QA", 8, 1, &["Add login"])]);

fn answers() -> Vec<Answer> {
    let fenced = "Sure, here you are:\n```json\n[{\"title\": \"Add login\", \"role\": \"DEV\", \"estimated_hours\": 4,\n\
        \"Priority\": \"HIGH\", \"keywords\": [\"login\"]}, {\"TITLE\": \"Test login\", \"role\": \"QA\", \"hours\": \"8h\",\n\
        \"priority\": 0.0},]\n```\nGood luck!";
    let nine: String = (1..=9).map(|n| format!("TASK_ID: TASK-{n:03}\nTITLE: Step number {n}\n\n")).collect();
    let cycle = "TASK_ID: TASK-001\nTITLE: A one\nDEPENDS_ON: TASK-002\n---\nTASK_ID: TASK-002\nTITLE: B two\n\
        DEPENDS_ON: TASK-001\n";
    vec![
        answer("blocks-by-blank-lines", TWO_BLOCKS, TWO_TASKS),
        answer("blocks-by-rules", TWO_BLOCKS.replace("\n\n", "\n---\n"), TWO_TASKS),
        answer("windows-lines", format!("\u{feff}{}", TWO_BLOCKS.replace('\n', "\r\n")), TWO_TASKS),
        answer(
            "thinking",
            format!("<think>TITLE: not this one\nTASK_ID: TASK-009</think>\n{TWO_BLOCKS}"),
            TWO_TASKS,
        ),
        answer("a-lone-end-of-thinking", format!("TITLE: not this\n</think>\n{TWO_BLOCKS}"), TWO_TASKS),
        answer("a-lone-beginning", format!("{TWO_BLOCKS}\n<thinking>TITLE: nor this"), TWO_TASKS),
        answer("fenced-json-with-trailing-commas", fenced, TWO_TASKS),
        answer("a-json-string", serde_json::to_string(TWO_BLOCKS).expect("JSON"), TWO_TASKS),
        answer(
            "decorated-fields",
            "1. **TITLE:** Add login\n- **ROLE:** DEVELOPER\n- **HOURS:** 4.0\n- **PRIORITY:** 2\n- **TAGS:** login\n\n\
             2. **TITLE:** Test login\n- **ASSIGNEE:** qa\n- **ESTIMATE:** 1 day\n- **PRIORITY:** CRITICAL\n",
            TWO_TASKS,
        ),
        answer(
            "declared-dependencies",
            "TITLE: Third\nDEPENDS_ON: First., second\n\nTITLE: First\nDEPENDS_ON: none\n\nTITLE: Second\n\
             DEPENDS_ON: first, nobody\n",
            Tasks(&[
                ("First", "DEVELOPER", 0, 1, &[]),
                ("Second", "DEVELOPER", 0, 1, &["First"]),
                ("Third", "DEVELOPER", 0, 1, &["First", "Second"]),
            ]),
        ),
        answer(
            "a-title-told-twice",
            "TITLE: Add login\nHOURS: 100\n\nTITLE: add  LOGIN.\nROLE: QA\n",
            Tasks(&[("Add login", "DEVELOPER", 40, 1, &[])]),
        ),
        answer(
            "a-rule-within-a-line",
            "TITLE: Cart --- checkout\nDESCRIPTION: a --- b\n",
            Tasks(&[("Cart --- checkout", "DEVELOPER", 0, 1, &[])]),
        ),
        answer("prose", "I would begin with the login and then test it.", Fails("no_tasks")),
        answer("nothing-but-thinking", "<think>TITLE: x</think>", Fails("no_tasks")),
        answer("cut-json", "[{\"title\": \"Add login\"}, {\"title\": \"Te", Fails("truncated_json")),
        answer("too-many", nine, Fails("too_many_tasks")),
        answer("a-circle", cycle, Fails("circular_dependency")),
    ]
}

#[tokio::test]
async fn every_shape_of_answer_becomes_the_tasks_of_the_contract() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let texts: BTreeMap<_, _> =
        answers().into_iter().map(|a| (format!("derive-{}", a.name), a.text)).collect();
    let executor = Executor::start(&world, move |request| Reply::Text(texts[&request.task_id].clone())).await;
    let setup = derivation(&world, &fleet.planning, &fleet.context);
    let setup = executed_at(setup, &executor.address).plugin(bundled("prompt-builder").set("max_retries", 1));
    let _daemon = setup.start().await;
    for answer in answers() {
        let plan =
            AddPlanRequest { plan_id: answer.name.into(), title: answer.name.into(), ..Default::default() };
        let plan_id = fleet.plan_of(plan).await;
        fleet.approve(&plan_id).await;
    }

    let all = answers();
    let fails = all.iter().filter(|a| matches!(a.outcome, Fails(_))).count();
    let failed = world.wait_stored("task.derivation.failed", fails).await;
    let completed = world.wait_stored("task.derivation.completed", all.len() - fails).await;
    for answer in all {
        let of = |m: &&harness::world::Message| m.payload()["plan_id"] == answer.name;
        match answer.outcome {
            Tasks(expected) => {
                assert_eq!(completed.iter().filter(of).count(), 1, "{}", answer.name);
                assert_eq!(tasks(&fleet, answer.name).await, owned(expected), "{}", answer.name);
            }
            Fails(kind) => {
                let [event] = failed.iter().filter(of).collect::<Vec<_>>().try_into().expect("one event");
                let payload = event.payload();
                let reason = payload["reason"].as_str().expect("a reason");
                assert!(reason.starts_with(&format!("{kind}: ")), "{}: {reason}", answer.name);
                assert!(reason.contains("attempt 2 of 2"), "{}: {reason}", answer.name);
                assert_eq!(payload["requires_manual_review"], json!(true));
                assert_eq!(fleet.show(answer.name).await.tasks, [], "{}", answer.name);
            }
        }
    }
    assert_eq!(world.count("cofferdam.dead.>").await, 0);
}

type Owned = (String, String, i32, i32, Vec<String>);

fn owned(tasks: &[Task]) -> Vec<Owned> {
    let own =
        |t: &Task| (t.0.to_owned(), t.1.to_owned(), t.2, t.3, t.4.iter().map(|s| (*s).to_owned()).collect());
    tasks.iter().map(own).collect()
}

/// In the order in which they were created.
async fn tasks(fleet: &Fleet, plan_id: &str) -> Vec<Owned> {
    let tasks = fleet.show(plan_id).await.tasks;
    let title = |id: &str| {
        let found = tasks.iter().find(|task| task.task_id == id);
        found.unwrap_or_else(|| panic!("no task has the id {id}")).title.clone()
    };
    let own = |task: &fleet_proto::standin::v1::Task| {
        let mut needs: Vec<_> = task.depends_on.iter().map(|d| title(&d.task_id)).collect();
        needs.sort();
        (task.title.clone(), task.role.clone(), task.estimated_hours, task.priority, needs)
    };
    tasks.iter().map(own).collect()
}

#[tokio::test]
async fn a_rejected_answer_is_asked_for_again_with_what_was_wrong() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let executor = Executor::start(&world, |request| {
        let attempt = request.constraints.as_ref().and_then(|c| c.metadata.get("attempt").cloned());
        match attempt.as_deref() {
            Some("1") => Reply::Text("no idea".to_owned()),
            _ => Reply::Text(TWO_BLOCKS.to_owned()),
        }
    })
    .await;
    let setup = derivation(&world, &fleet.planning, &fleet.context);
    let _daemon = executed_at(setup, &executor.address).start().await;
    let plan_id = fleet.plan("Login").await;
    fleet.approve(&plan_id).await;
    world.wait_stored("task.derivation.completed", 1).await;
    world.quiet().await;

    let asked = executor.asked();
    let [first, second] = asked.as_slice() else { panic!("asked {} times", asked.len()) };
    assert!(second.request.task_description.starts_with(&first.request.task_description));
    assert!(second.request.task_description.contains("rejected"), "{}", second.request.task_description);
    assert_eq!(world.count("cofferdam.derivation.rejected").await, 1);
    assert_eq!(world.count("task.derivation.failed").await, 0);
    assert_eq!(fleet.show(&plan_id).await.tasks.len(), 2);
}

#[tokio::test]
async fn late_foreign_and_repeated_answers_have_no_effect() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let executor = Executor::start(&world, |request| {
        let plan_id = request.constraints.clone().unwrap_or_default().plan_id;
        let body = |task_id: &str, text: &str| {
            json!({ "task_id": task_id, "agent_id": "a", "proposal": text, "constraints": { "plan_id": plan_id } })
        };
        let subject = "agent.response.completed".to_owned();
        Reply::Messages(vec![
            // Work on a task of the story, not a derivation.
            (subject.clone(), json!({ "task_id": "TASK-7", "proposal": { "content": "TITLE: Foreign" } })),
            (subject.clone(), body(&request.task_id, TWO_BLOCKS)),
            (subject.clone(), body(&request.task_id, TWO_BLOCKS)),
            (subject, body(&request.task_id, "TITLE: Too late")),
        ])
    })
    .await;
    let setup = derivation(&world, &fleet.planning, &fleet.context);
    let _daemon = executed_at(setup, &executor.address).start().await;
    let plan_id = fleet.plan("Login").await;
    fleet.approve(&plan_id).await;
    world.wait_stored("task.derivation.completed", 1).await;
    world.quiet().await;
    let titles: Vec<_> = fleet.show(&plan_id).await.tasks.into_iter().map(|task| task.title).collect();
    assert_eq!(titles, ["Add login", "Test login"]);
    assert_eq!(world.count("task.derivation.completed").await, 1);
    assert_eq!(world.count("task.derivation.failed").await, 0);
    assert_eq!(world.count("cofferdam.dead.>").await, 0);
}
