//! Stories on their way, by events and by calls, on both buses and whoever is killed meanwhile.

use std::collections::BTreeSet;

use fleet_proto::{
    bus::v1::StoredMessage,
    planning::v2::{
        GetStoryRequest, Story, TransitionStoryRequest, TransitionStoryResponse,
        planning_service_client::PlanningServiceClient,
    },
    standin::v1::AddPlanRequest,
    task_derivation::v1::{
        CreateTasksRequest, TaskCreationCommand,
        task_derivation_planning_service_client::TaskDerivationPlanningServiceClient,
    },
};
use harness::{
    daemon::Daemon,
    fleet::{Fleet, free_address},
    nats::Server,
    pipeline::{bundled, local_pipeline},
    planning::Planning,
    setup::Setup,
    wait::wait_for,
    way_in::body,
};
use serde_json::{Value, json};
use tonic::{Code, Request, Status, transport::Channel};

use crate::both::{Begin, on_both_buses};

on_both_buses! {
    contract_5_6_a_story_goes_all_the_way_by_events_and_by_calls_over_kills,
    contract_5_6_a_call_with_the_same_key_makes_one_step_and_an_illegal_one_none,
    contract_5_6_what_another_service_says_of_a_story_is_so,
}

const TRANSITIONED: &str = "planning.story.transitioned";

/// A setup with story-lifecycle alone, and the Planning that it asks for tasks.
struct Stories {
    setup: Setup,
    planning: Planning,
    _nats: Option<Server>,
}

impl Begin for Stories {
    async fn on(setup: Setup, nats: Option<Server>) -> Stories {
        let planning = Planning::start().await;
        let setup = with_stories(setup.upstream("planning", &planning.address));
        Stories { setup, planning, _nats: nats }
    }
}

impl Stories {
    /// Planning has so many tasks then; gives their ids.
    async fn plan(&self, tasks: u32) -> Vec<String> {
        let command = |n| TaskCreationCommand { title: format!("Task {n}"), ..Default::default() };
        let request = CreateTasksRequest { commands: (0..tasks).map(command).collect() };
        let address = format!("http://{}", self.planning.address);
        let mut client = TaskDerivationPlanningServiceClient::connect(address).await.expect("Planning");
        client.create_tasks(request).await.expect("tasks").into_inner().task_ids
    }
}

fn with_stories(setup: Setup) -> Setup {
    setup.with("grpc.listen", vec!["127.0.0.1:0".to_owned()]).plugin(bundled("story-lifecycle"))
}

/// A client of whatever daemon is there.
struct Client(PlanningServiceClient<Channel>);

impl Client {
    async fn of(daemon: &Daemon) -> Client {
        let address = format!("http://{}", daemon.grpc());
        Client(PlanningServiceClient::connect(address).await.expect("the daemon's gRPC port"))
    }

    async fn get(&self) -> Result<Story, Status> {
        let request = GetStoryRequest { story_id: "S".into() };
        self.0.clone().get_story(request).await.map(tonic::Response::into_inner)
    }

    async fn go(&self, target: &str) -> TransitionStoryResponse {
        self.send("S", target, None).await.unwrap_or_else(|e| panic!("{target}: {e}"))
    }

    async fn send(
        &self,
        story_id: &str,
        target: &str,
        key: Option<&str>,
    ) -> Result<TransitionStoryResponse, Status> {
        let mut request = Request::new(TransitionStoryRequest {
            story_id: story_id.into(),
            target_state: target.into(),
            transitioned_by: "ann".into(),
        });
        if let Some(key) = key {
            request.metadata_mut().insert("idempotency-key", key.parse().expect("a key"));
        }
        self.0.clone().transition_story(request).await.map(tonic::Response::into_inner)
    }

    /// Waits until the story is there.
    async fn is_in(&self, state: &str) {
        wait_for(&format!("the story in {state}"), async || {
            self.get().await.ok().filter(|story| story.state == state)
        })
        .await;
    }
}

fn payload(message: &StoredMessage) -> Value {
    body(message)["payload"].clone()
}

/// The steps that were told, each from where the one before it led, and none twice: `A B C`.
async fn way(daemon: &Daemon) -> String {
    let told = daemon.stored(TRANSITIONED).await;
    let keys: BTreeSet<String> = told.iter().map(|step| body(step)["idempotency_key"].to_string()).collect();
    assert_eq!(keys.len(), told.len());
    let mut way: Vec<String> = Vec::new();
    for step in told.iter().map(payload) {
        let state = |key: &str| step[key].as_str().expect(key).to_owned();
        match way.last() {
            Some(last) => assert_eq!(*last, state("from_state"), "{step}"),
            None => way.push(state("from_state")),
        }
        way.push(state("to_state"));
    }
    way.join(" ")
}

async fn contract_5_6_a_story_goes_all_the_way_by_events_and_by_calls_over_kills(stories: Stories) {
    let mut daemon = stories.setup.start().await;
    let mut client = Client::of(&daemon).await;
    assert_eq!(client.get().await.expect_err("no story yet").code(), Code::NotFound);
    daemon
        .publish("planning.story.created", json!({"story_id": "S", "title": "Login", "created_by": "ann"}))
        .await;
    client.is_in("DRAFT").await;
    for target in ["PO_REVIEW", "READY_FOR_PLANNING"] {
        let answer = client.go(target).await;
        assert!(answer.success, "{}", answer.message);
        assert_eq!(answer.story.expect("the story").state, target);
    }
    daemon.kill().await;
    daemon = stories.setup.start().await;
    client = Client::of(&daemon).await;
    let story = client.get().await.expect("the story");
    assert_eq!((story.state.as_str(), story.title.as_str()), ("READY_FOR_PLANNING", "Login"));

    let tasks = stories.plan(2).await;
    let derived = json!({"plan_id": "P", "story_id": "S", "task_count": 2, "status": "success"});
    daemon.publish("task.derivation.completed", derived).await;
    client.is_in("PLANNED").await;
    assert!(client.go("READY_FOR_EXECUTION").await.success);
    let task = |to: &str| json!({"task_id": "A", "story_id": "S", "from_state": "todo", "to_state": to});
    daemon.publish("workflow.state.changed", task("implementing")).await;
    client.is_in("IN_PROGRESS").await;
    daemon
        .publish("workflow.story.tasks_completed", json!({"story_id": "S", "all_tasks_status": "done"}))
        .await;
    daemon.kill().await;
    daemon = stories.setup.start().await;
    client = Client::of(&daemon).await;
    client.is_in("TESTING").await;
    for target in ["READY_TO_REVIEW", "ACCEPTED", "DONE", "ARCHIVED"] {
        assert!(client.go(target).await.success, "{target}");
    }
    // Whatever was not settled comes once more.
    daemon.stop().await;
    let daemon = stories.setup.start().await;
    assert_eq!(
        way(&daemon).await,
        "DRAFT PO_REVIEW READY_FOR_PLANNING PLANNED READY_FOR_EXECUTION IN_PROGRESS CODE_REVIEW TESTING \
         READY_TO_REVIEW ACCEPTED DONE ARCHIVED"
    );
    let ready = payload(&daemon.stored(TRANSITIONED).await[3]);
    assert_eq!(
        (&ready["tasks"], &ready["from_phase"], &ready["to_phase"], &ready["transitioned_by"]),
        (&json!(tasks), &json!("DESIGN"), &json!("BUILD"), &json!("ann"))
    );
    assert_eq!(daemon.stored("cofferdam.dead.>").await.len(), 0);
}

async fn contract_5_6_a_call_with_the_same_key_makes_one_step_and_an_illegal_one_none(stories: Stories) {
    let mut daemon = stories.setup.start().await;
    let mut client = Client::of(&daemon).await;
    daemon.publish("planning.story.created", json!({"story_id": "S"})).await;
    client.is_in("DRAFT").await;
    for _ in 0..2 {
        let answer = client.send("S", "PO_REVIEW", Some("once")).await.expect("an answer");
        assert!(answer.success, "{}", answer.message);
    }
    // Also by another host, after the one that did it has died.
    daemon.kill().await;
    daemon = stories.setup.start().await;
    client = Client::of(&daemon).await;
    assert!(client.send("S", "PO_REVIEW", Some("once")).await.expect("an answer").success);
    for (target, legal) in [("TESTING", "READY_FOR_PLANNING, DRAFT"), ("LIMBO", "READY_FOR_PLANNING, DRAFT")]
    {
        let refused = client.go(target).await;
        assert!(!refused.success && refused.message.contains(legal), "{}", refused.message);
    }
    assert_eq!(client.send("T", "PO_REVIEW", None).await.expect_err("no story").code(), Code::NotFound);
    assert_eq!(client.send("", "PO_REVIEW", None).await.expect_err("no id").code(), Code::InvalidArgument);
    // A reset.
    assert!(client.go("DRAFT").await.success);
    assert_eq!(way(&daemon).await, "DRAFT PO_REVIEW DRAFT");
}

async fn contract_5_6_what_another_service_says_of_a_story_is_so(stories: Stories) {
    let daemon = stories.setup.start().await;
    let client = Client::of(&daemon).await;
    let told =
        json!({"story_id": "S", "from_phase": "PLANNED", "to_phase": "READY_FOR_EXECUTION", "tasks": ["A"]});
    daemon.publish(TRANSITIONED, told).await;
    client.is_in("READY_FOR_EXECUTION").await;
    let through = json!({"story_id": "S", "all_tasks_status": "done", "task_count": 1});
    daemon.publish("workflow.story.tasks_completed", through).await;
    client.is_in("TESTING").await;
    // Its own three steps come back and move nothing: what comes after them finds the story where it was.
    let before = daemon.stored(TRANSITIONED).await.len();
    assert_eq!(before, 4);
    assert!(client.go("READY_TO_REVIEW").await.success);
    let back = json!({"story_id": "S", "from_state": "READY_TO_REVIEW", "to_state": "IN_PROGRESS", "transitioned_by": "planning"});
    daemon.publish(TRANSITIONED, back).await;
    client.is_in("IN_PROGRESS").await;
    assert_eq!(daemon.stored(TRANSITIONED).await.len(), before + 2);
}

/// What an agent of each role does to a task that goes straight through.
const WORK: [(&str, &str); 4] = [
    ("COMMIT_CODE", "developer"),
    ("APPROVE_DESIGN", "architect"),
    ("APPROVE_TESTS", "qa"),
    ("APPROVE_STORY", "po"),
];

#[tokio::test]
async fn contract_5_6_a_plan_takes_its_story_to_testing_with_all_plugins() {
    let admin = free_address();
    let fleet = Fleet::start_on_with(&admin, &["--leave-stories"]).await;
    let setup = with_stories(local_pipeline(&admin, &fleet));
    let daemon = setup.start().await;
    let client = Client::of(&daemon).await;
    let plan = AddPlanRequest {
        story_id: "S".into(),
        title: "Checkout".into(),
        acceptance_criteria: ["A cart", "A payment", "A receipt"].map(str::to_owned).into(),
        roles: vec!["DEVELOPER".into()],
        ..Default::default()
    };
    let plan_id = fleet.plan_of(plan).await;
    client.is_in("DRAFT").await;
    for target in ["PO_REVIEW", "READY_FOR_PLANNING"] {
        assert!(client.go(target).await.success, "{target}");
    }
    fleet.approve(&plan_id).await;
    client.is_in("PLANNED").await;
    let tasks = wait_for("the plan's tasks", async || {
        let tasks = fleet.show(&plan_id).await.tasks;
        (!tasks.is_empty() && tasks.iter().all(|task| task.announced)).then_some(tasks)
    })
    .await;
    daemon.wait_stored("workflow.task.assigned", tasks.len()).await;
    assert!(client.go("READY_FOR_EXECUTION").await.success);
    for (round, (action, role)) in WORK.into_iter().enumerate() {
        for task in &tasks {
            let work = json!({"task_id": task.task_id, "story_id": "S", "action": action, "actor_role": role,
                "artifacts": {"commit_sha": "abc"}, "agent_id": role});
            daemon.publish("agent.work.completed", work).await;
        }
        // Each approval assigns the next; the last one ends the task.
        let (subject, so_far) = if round < 3 {
            ("workflow.validation.required", round + 1)
        } else {
            ("workflow.task.completed", 1)
        };
        daemon.wait_stored(subject, so_far * tasks.len()).await;
    }
    client.is_in("TESTING").await;
    assert_eq!(
        way(&daemon).await,
        "DRAFT PO_REVIEW READY_FOR_PLANNING PLANNED READY_FOR_EXECUTION IN_PROGRESS CODE_REVIEW TESTING"
    );
    let ready = payload(&daemon.stored(TRANSITIONED).await[3]);
    let ids: Vec<&str> = tasks.iter().map(|task| task.task_id.as_str()).collect();
    assert_eq!(ready["tasks"], json!(ids));
    assert_eq!(daemon.stored("cofferdam.dead.>").await.len(), 0);
}
