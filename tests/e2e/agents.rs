//! The fleet's agents and its product owner, on both buses, whoever is killed meanwhile: a story goes all its way, and nobody but them
//! does anything for it.

use std::collections::BTreeMap;

use fleet_proto::task_derivation::v1::{
    CreateTasksRequest, TaskCreationCommand,
    task_derivation_planning_service_client::TaskDerivationPlanningServiceClient,
};
use harness::{
    agents::Agents, daemon::Daemon, fleet::free_address, nats::Server, pipeline::bundled, planning::Planning,
    setup::Setup, wait::wait_for, way_in::body, world::World,
};
use serde_json::{Value, json};

use crate::both::{Begin, on_both_buses};

on_both_buses! {
    agents_bring_a_story_to_testing_over_rejections_a_retry_and_kills,
}

const WORK: &str = "agent.work.completed";
const MOVED: &str = "planning.story.transitioned";
/// Four acts for each of three tasks, one for starting one over, two more for a design that is sent back, three for tests.
const ACTS: usize = 18;

/// A setup with the two plugins that keep tasks and stories, at addresses that stay.
struct Sprint {
    setup: Setup,
    planning: Planning,
    /// For the agents.
    options: Vec<String>,
    _nats: Option<Server>,
}

impl Begin for Sprint {
    async fn on(setup: Setup, nats: Option<Server>) -> Sprint {
        let planning = Planning::start().await;
        let (admin, stories) = (free_address(), free_address());
        // Kills cost attempts.
        let patient = |name: &str| bundled(name).every_subscription("ack-wait = \"1s\"\nmax-attempts = 20");
        let setup = setup
            .with("admin.listen", admin.as_str())
            .with("grpc.listen", vec![stories.clone()])
            .upstream("planning", &planning.address)
            .plugin(patient("workflow-router"))
            .plugin(patient("story-lifecycle"));
        let bus = match &nats {
            Some(nats) => ["--nats".to_owned(), nats.url()],
            None => ["--cofferdam".to_owned(), format!("http://{admin}")],
        };
        let options = bus.into_iter().chain(["--stories".to_owned(), stories]).collect();
        Sprint { setup, planning, options, _nats: nats }
    }
}

impl Sprint {
    /// Planning has three tasks then; gives their ids.
    async fn plan(&self) -> Vec<String> {
        let command = |n| TaskCreationCommand { title: format!("Task {n}"), ..Default::default() };
        let request = CreateTasksRequest { commands: (0..3).map(command).collect() };
        let address = format!("http://{}", self.planning.address);
        let mut client = TaskDerivationPlanningServiceClient::connect(address).await.expect("Planning");
        client.create_tasks(request).await.expect("tasks").into_inner().task_ids
    }
}

async fn agents_bring_a_story_to_testing_over_rejections_a_retry_and_kills(sprint: Sprint) {
    let options: Vec<&str> = sprint.options.iter().map(String::as_str).collect();
    // Agents may come first where the bus is somebody else's.
    let mut agents = Agents::start(&options).await;
    let mut daemon = sprint.setup.start().await;
    daemon.publish("planning.story.created", json!({"story_id": "S", "title": "Checkout"})).await;
    is_told(&daemon, "READY_FOR_PLANNING").await;
    let tasks = sprint.plan().await;
    dispatch(&daemon, &tasks[0], "S").await;
    for task in &tasks {
        create(&daemon, task, "S").await;
    }
    let derived = json!({"plan_id": "P", "story_id": "S", "task_count": tasks.len(), "status": "success"});
    daemon.publish("task.derivation.completed", derived).await;
    for task in &tasks[1..] {
        dispatch(&daemon, task, "S").await;
    }
    for (kill, acts) in [1, 3, 5, 7, 9, 11, 13, 15].into_iter().enumerate() {
        daemon.wait_stored(WORK, acts).await;
        if kill % 2 == 0 {
            agents.kill().await;
            agents.up().await;
        } else {
            daemon.kill().await;
            daemon = sprint.setup.start().await;
        }
    }
    is_told(&daemon, "TESTING").await;
    // Whatever was not settled comes once more.
    agents.stop().await;
    daemon.stop().await;
    let daemon = sprint.setup.start().await;
    agents.up().await;
    create(&daemon, "last", "T").await;
    dispatch(&daemon, "last", "T").await;
    wait_for("the last commit", async || acts(&daemon, |act| act["task_id"] == "last").await.pop()).await;

    let ended: Vec<Value> = payloads(&daemon, "workflow.task.completed").await;
    assert_eq!(ended.len(), tasks.len());
    assert!(ended.iter().all(|end| end["final_state"] == "done"), "{ended:?}");
    assert_eq!(acts(&daemon, |act| act["story_id"] == "S").await.len(), ACTS);
    let hops = whole_chains(&daemon).await;
    let of = |action: &str| -> Vec<&Value> {
        hops.iter().filter(|hop| hop["action"] == action && hop["story_id"] == "S").collect()
    };
    for (action, count) in [
        ("reject_design", 1),
        ("reject_tests", 1),
        ("retry", 1),
        ("assign_to_developer", 4),
        ("commit_code", 5),
        ("approve_story", 3),
    ] {
        assert_eq!(of(action).len(), count, "{action}: {hops:?}");
    }
    let faults = ["reject_design", "reject_tests", "retry"].map(|action| &of(action)[0]["task_id"]);
    assert!(faults[0] != faults[1] && faults[1] != faults[2] && faults[0] != faults[2], "{faults:?}");
    let way: Vec<Value> =
        payloads(&daemon, MOVED).await.into_iter().map(|step| step["to_state"].clone()).collect();
    let expected = [
        "PO_REVIEW",
        "READY_FOR_PLANNING",
        "PLANNED",
        "READY_FOR_EXECUTION",
        "IN_PROGRESS",
        "CODE_REVIEW",
        "TESTING",
    ];
    assert_eq!(way, expected);
    for (subject, count) in [
        ("agent.response.completed", tasks.len() + 1),
        ("agent.response.failed", 0),
        ("workflow.story.tasks_completed", 1),
        ("cofferdam.dead.>", 0),
    ] {
        assert_eq!(daemon.stored(subject).await.len(), count, "{subject}");
    }
}

#[tokio::test]
async fn agents_hear_on_after_their_nats_server_was_killed() {
    let mut world = World::start().await;
    let url = world.nats.url();
    // Nobody keeps stories here, and nobody is asked to.
    let _agents = Agents::start(&["--nats", &url, "--stories", "127.0.0.1:1"]).await;
    let assigned = |task: &str| json!({"task_id": task, "story_id": "S", "required_action": "REVIEW_DESIGN"});
    for (before, task) in ["A", "B", "C"].into_iter().enumerate() {
        world.publish("workflow.task.assigned", assigned(task)).await;
        let told = world.wait_stored(WORK, before + 1).await;
        assert_eq!(told.len(), before + 1);
        assert_eq!(told[before].payload()["task_id"], task);
        world.nats.kill().await;
        world.nats.up().await;
    }
}

async fn create(daemon: &Daemon, task: &str, story: &str) {
    let created = json!({"task_id": task, "story_id": story, "plan_id": "P", "title": task});
    daemon.publish("planning.task.created", created).await;
}

async fn dispatch(daemon: &Daemon, task: &str, story: &str) {
    let dispatched = json!({"task_id": task, "story_id": story, "agent_id": "agent-dev-001", "role": "DEV"});
    daemon.publish("orchestration.task.dispatched", dispatched).await;
}

/// Waits until the story is told to have come there.
async fn is_told(daemon: &Daemon, state: &str) {
    wait_for(&format!("the story in {state}"), async || {
        payloads(daemon, MOVED).await.into_iter().find(|step| step["to_state"] == state)
    })
    .await;
}

async fn acts(daemon: &Daemon, of: impl Fn(&Value) -> bool) -> Vec<Value> {
    payloads(daemon, WORK).await.into_iter().filter(of).collect()
}

/// All hops of tasks: each begins where the one before it ended.
async fn whole_chains(daemon: &Daemon) -> Vec<Value> {
    let hops = payloads(daemon, "workflow.state.changed").await;
    let mut at: BTreeMap<String, Value> = BTreeMap::new();
    for hop in &hops {
        let before = at.insert(hop["task_id"].to_string(), hop["to_state"].clone());
        assert_eq!(before.unwrap_or_else(|| "todo".into()), hop["from_state"], "{hop}");
    }
    hops
}

async fn payloads(daemon: &Daemon, subject: &str) -> Vec<Value> {
    daemon.stored(subject).await.iter().map(|message| body(message)["payload"].clone()).collect()
}
