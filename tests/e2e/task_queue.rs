//! Tasks in their queue, on both buses, whoever is killed meanwhile: what goes, when, and how often.

use std::collections::{BTreeMap, BTreeSet};

use fleet_proto::{
    bus::v1::StoredMessage,
    queue::v1::{
        GetTaskRequest, ListTasksRequest, QueuedTask, task_queue_service_client::TaskQueueServiceClient,
    },
};
use harness::{
    daemon::Daemon, nats::Server, pipeline::bundled, plugin::Plugin, setup::Setup, wait::wait_for,
    way_in::body,
};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::both::{Begin, on_both_buses};

on_both_buses! {
    contract_6_queue_tasks_of_two_stories_go_by_priority_and_dependency_each_once_over_kills,
    contract_6_queue_a_council_proposes_and_a_failure_blocks_until_the_task_is_asked_for_again_over_kills,
    contract_6_queue_a_task_that_is_in_progress_for_too_long_goes_again_though_the_daemon_was_killed,
}

const CREATED: &str = "planning.task.created";
const ANSWERED: &str = "agent.response.completed";
const DISPATCHED: &str = "orchestration.task.dispatched";
const COMPLETED: &str = "orchestration.task.completed";
const BLOCKED: &str = "cofferdam.queue.blocked";

/// A setup with the queue alone: the test is Planning, council and agents.
struct Queue {
    setup: Setup,
    _nats: Option<Server>,
}

impl Begin for Queue {
    async fn on(setup: Setup, nats: Option<Server>) -> Queue {
        Queue { setup: setup.with("grpc.listen", vec!["127.0.0.1:0"]), _nats: nats }
    }
}

/// Kills cost attempts.
fn queue() -> Plugin {
    bundled("task-queue").every_subscription("ack-wait = \"1s\"\nmax-attempts = 20")
}

/// Task, story, Planning's priority, dependencies. In the order in which Planning tells of them: some wait for what is not there yet.
const TASKS: [(&str, &str, i64, &[&str]); 8] = [
    ("release", "S", 1, &["docs", "tests"]),
    ("docs", "S", 9, &["api"]),
    ("tests", "S", 5, &["api", "rig"]),
    ("api", "S", 5, &["schema"]),
    ("schema", "S", 5, &[]),
    ("rig", "T", 2, &[]),
    ("paint", "T", 10, &[]),
    ("polish", "T", 10, &["paint"]),
];

async fn contract_6_queue_tasks_of_two_stories_go_by_priority_and_dependency_each_once_over_kills(
    queue: Queue,
) {
    let setup =
        queue.setup.plugin(self::queue().set("requires_pre_deliberation", false).set("max_in_progress", 2));
    let mut daemon = setup.start().await;
    for (number, (task, story, priority, on)) in TASKS.iter().enumerate() {
        let created = json!({
            "task_id": task, "story_id": story, "plan_id": "P", "title": task, "assigned_to": "DEVELOPER",
            "priority": priority, "depends_on": on,
        });
        daemon.publish(CREATED, created).await;
        if number % 3 == 2 {
            daemon.kill().await;
            daemon = setup.start().await;
        }
    }
    let mut answered: BTreeSet<String> = BTreeSet::new();
    while answered.len() < TASKS.len() {
        let next = wait_for("a task to go", async || {
            let dispatched = daemon.stored(DISPATCHED).await;
            dispatched.iter().map(task_of).find(|task| !answered.contains(task))
        })
        .await;
        if answered.is_empty() {
            all_are_told_of(&daemon).await;
        }
        daemon.publish(ANSWERED, answer(&next)).await;
        answered.insert(next);
        if answered.len().is_multiple_of(2) {
            daemon.kill().await;
            daemon = setup.start().await;
        }
    }
    daemon.wait_stored(COMPLETED, TASKS.len()).await;
    wait_for("an empty queue", async || list(&daemon).await.is_empty().then_some(())).await;
    // Whatever was not settled comes once more.
    daemon.stop().await;
    let daemon = setup.start().await;
    daemon.publish(CREATED, json!({"task_id": "last", "story_id": "other"})).await;
    daemon.wait_stored(DISPATCHED, TASKS.len() + 1).await;
    each_went_in_its_turn(&daemon).await;
    assert_eq!(daemon.stored(COMPLETED).await.len(), TASKS.len());
    assert_eq!(daemon.stored("cofferdam.dead.>").await.len(), 0);
}

/// Two are in progress, and what waits waits in its order.
async fn all_are_told_of(daemon: &Daemon) {
    let tasks = wait_for("all tasks to be listed", async || {
        Some(list(daemon).await).filter(|tasks| tasks.len() == TASKS.len())
    })
    .await;
    let going: BTreeSet<&str> =
        tasks.iter().filter(|task| task.status == "IN_PROGRESS").map(|task| task.task_id.as_str()).collect();
    assert_eq!(going.len(), 2, "{tasks:?}");
    let waiting: Vec<&str> =
        tasks.iter().filter(|task| task.status == "QUEUED").map(|task| task.task_id.as_str()).collect();
    let by_priority = ["release", "rig", "tests", "api", "schema", "docs", "paint", "polish"];
    assert_eq!(waiting, by_priority.into_iter().filter(|task| !going.contains(task)).collect::<Vec<_>>());
}

/// By what is stored, in its order: never more than two at a time, none before its dependencies, each once.
async fn each_went_in_its_turn(daemon: &Daemon) {
    let (mut going, mut over) = (BTreeSet::new(), BTreeSet::new());
    let on: BTreeMap<&str, &[&str]> = TASKS.iter().map(|(task, _, _, on)| (*task, *on)).collect();
    for message in daemon.stored("orchestration.task.>").await {
        let task = task_of(&message);
        if subject(&message) == COMPLETED {
            assert!(going.remove(&task) && over.insert(task));
            continue;
        }
        assert_eq!(payload(&message)["attempt"], 1);
        for other in on.get(task.as_str()).copied().unwrap_or_default() {
            assert!(over.contains(*other), "{task} went before {other}");
        }
        assert!(!over.contains(&task) && going.insert(task), "{message:?}");
        assert!(going.len() <= 2, "{going:?}");
    }
    assert_eq!((going.len(), over.len()), (1, TASKS.len()));
}

async fn contract_6_queue_a_council_proposes_and_a_failure_blocks_until_the_task_is_asked_for_again_over_kills(
    queue: Queue,
) {
    let setup = queue.setup.plugin(self::queue());
    let mut daemon = setup.start().await;
    let created =
        |task: &str, on: &[&str]| json!({"task_id": task, "story_id": "S", "title": task, "depends_on": on});
    daemon.publish(CREATED, created("behind", &["first"])).await;
    daemon.publish(CREATED, created("first", &[])).await;
    let ready = daemon.wait_stored("cofferdam.queue.ready", 1).await;
    assert_eq!((task_of(&ready[0]).as_str(), &payload(&ready[0])["attempt"]), ("first", &json!(1)));
    daemon.kill().await;
    daemon = setup.start().await;
    let proposes = |task: &str, attempt: u32| json!({"task_id": task, "story_id": "S", "attempt": attempt, "agent_id": "agent-dev-003", "proposal": "thus"});
    daemon.publish("cofferdam.queue.deliberated", proposes("first", 1)).await;
    let dispatched = daemon.wait_stored(DISPATCHED, 1).await;
    let told = payload(&dispatched[0]);
    assert_eq!((&told["agent_id"], &told["proposal"]), (&json!("agent-dev-003"), &json!("thus")));
    let failure =
        json!({"task_id": "first", "agent_id": "agent-dev-003", "error": "no tools", "error_type": "ENV"});
    daemon.publish("agent.response.failed", failure).await;
    daemon.kill().await;
    daemon = setup.start().await;
    let blocked = daemon.wait_stored(BLOCKED, 1).await;
    assert_eq!(
        (task_of(&blocked[0]).as_str(), &payload(&blocked[0])["behind"]),
        ("behind", &json!(["first"]))
    );
    let failed = daemon.wait_stored("orchestration.task.failed", 1).await;
    assert_eq!(
        (&payload(&failed[0])["error"], &payload(&failed[0])["error_type"]),
        (&json!("no tools"), &json!("ENV"))
    );
    assert_eq!(status(&daemon, "first").await, "FAILED:no tools");
    assert_eq!(status(&daemon, "behind").await, "QUEUED");
    assert_eq!(list(&daemon).await[0].blocked_by, ["first"]);
    // Both ask for it, and it is queued again once.
    daemon.publish(CREATED, created("first", &[])).await;
    let assigned = json!({
        "task_id": "first", "story_id": "S", "role": "developer", "required_action": "IMPLEMENT_FEATURE",
        "action_required": "commit_code",
    });
    daemon.publish("workflow.task.assigned", assigned).await;
    daemon.kill().await;
    daemon = setup.start().await;
    let ready = daemon.wait_stored("cofferdam.queue.ready", 2).await;
    assert_eq!((task_of(&ready[1]).as_str(), &payload(&ready[1])["attempt"]), ("first", &json!(2)));
    daemon.publish("cofferdam.queue.deliberated", proposes("first", 2)).await;
    daemon.wait_stored(DISPATCHED, 2).await;
    daemon.publish(ANSWERED, answer("first")).await;
    let ready = daemon.wait_stored("cofferdam.queue.ready", 3).await;
    assert_eq!(task_of(&ready[2]), "behind");
    assert_eq!(status(&daemon, "first").await, "COMPLETED");
    assert_eq!(status(&daemon, "behind").await, "IN_PROGRESS");
    assert_eq!(status(&daemon, "nobody's").await, "UNKNOWN");
    for (subject, count) in [
        (BLOCKED, 1),
        (DISPATCHED, 2),
        (COMPLETED, 1),
        ("orchestration.task.failed", 1),
        ("cofferdam.dead.>", 0),
    ] {
        assert_eq!(daemon.stored(subject).await.len(), count, "{subject}");
    }
    let depth = async |status: &str| daemon.scrape().await.sum("queue_depth", &[("status", status)]);
    wait_for("the depth of the queue", async || {
        ((depth("QUEUED").await, depth("IN_PROGRESS").await) == (0.0, 1.0)).then_some(())
    })
    .await;
}

async fn contract_6_queue_a_task_that_is_in_progress_for_too_long_goes_again_though_the_daemon_was_killed(
    queue: Queue,
) {
    let plugin = self::queue().set("requires_pre_deliberation", false).set("in_progress_timeout_seconds", 3);
    let setup = queue.setup.plugin(plugin);
    let mut daemon = setup.start().await;
    let created = |task: &str| json!({"task_id": task, "story_id": "S", "title": task});
    daemon.publish(CREATED, created("forgotten")).await;
    // While nothing waits, whoever is heard of first goes.
    daemon.wait_stored(DISPATCHED, 1).await;
    daemon.publish(CREATED, created("next")).await;
    daemon.kill().await;
    daemon = setup.start().await;
    // Behind its equal, which nobody answers for either.
    let dispatched = daemon.wait_stored(DISPATCHED, 3).await;
    let went: Vec<(String, Value)> = dispatched[..3]
        .iter()
        .map(|message| (task_of(message), payload(message)["attempt"].clone()))
        .collect();
    let expected = [("forgotten", 1), ("next", 1), ("forgotten", 2)];
    assert_eq!(went, expected.map(|(task, attempt)| (task.to_owned(), json!(attempt))));
    for task in ["forgotten", "next"] {
        daemon.publish(ANSWERED, answer(task)).await;
    }
    daemon.wait_stored(COMPLETED, 2).await;
    for task in ["forgotten", "next"] {
        assert_eq!(status(&daemon, task).await, "COMPLETED");
    }
    wait_for("an empty queue", async || list(&daemon).await.is_empty().then_some(())).await;
    assert_eq!(daemon.stored(COMPLETED).await.len(), 2);
    assert_eq!(daemon.stored("cofferdam.dead.>").await.len(), 0);
}

fn answer(task: &str) -> Value {
    json!({"task_id": task, "agent_id": "agent-dev-001", "role": "DEV", "status": "completed", "duration_ms": 5})
}

async fn calls(daemon: &Daemon) -> TaskQueueServiceClient<Channel> {
    let address = format!("http://{}", daemon.grpc());
    TaskQueueServiceClient::connect(address).await.expect("the daemon's gRPC port")
}

async fn list(daemon: &Daemon) -> Vec<QueuedTask> {
    let request = ListTasksRequest::default();
    calls(daemon).await.list_tasks(request).await.expect("the queue").into_inner().tasks
}

async fn status(daemon: &Daemon, task: &str) -> String {
    let request = GetTaskRequest { task_id: task.into() };
    calls(daemon).await.get_task(request).await.expect("the task").into_inner().status
}

fn payload(message: &StoredMessage) -> Value {
    body(message)["payload"].clone()
}

fn task_of(message: &StoredMessage) -> String {
    payload(message)["task_id"].as_str().expect("a task").to_owned()
}

fn subject(message: &StoredMessage) -> &str {
    &harness::way_in::content(message).subject
}
