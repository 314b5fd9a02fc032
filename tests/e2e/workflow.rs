//! Tasks on their way through the workflow, by events and by calls, on both buses, whoever is killed meanwhile.

use std::collections::BTreeMap;

use fleet_proto::{
    bus::v1::StoredMessage,
    workflow::v1::{
        ClaimTaskRequest, GetPendingTasksRequest, GetStatsRequest, PendingTask, RequestValidationRequest,
        RequestValidationResponse, StatsResponse, WorkResult,
        workflow_orchestration_service_client::WorkflowOrchestrationServiceClient,
    },
};
use harness::{
    daemon::Daemon, nats::Server, pipeline::bundled, plugin::Plugin, setup::Setup, wait::wait_for,
    way_in::body,
};
use serde_json::{Value, json};
use tonic::{Code, Request, Status, transport::Channel};

use crate::both::{Begin, on_both_buses};

on_both_buses! {
    contract_5_a_story_with_rejections_a_cancelled_and_a_retried_task_ends_in_testing_over_ten_kills,
    contract_3_agents_that_only_call_bring_a_story_to_its_end_over_kills,
    contract_5_2_a_task_that_waits_for_long_is_told_of_and_one_that_moves_on_is_not,
}

const TRANSITIONED: &str = "planning.story.transitioned";
const ROLES: [&str; 4] = ["developer", "architect", "qa", "po"];

/// A setup with the router alone.
struct Router {
    setup: Setup,
    _nats: Option<Server>,
}

impl Begin for Router {
    async fn on(setup: Setup, nats: Option<Server>) -> Router {
        // Nobody is asked for a story's tasks here.
        let setup = setup.upstream("planning", "127.0.0.1:1").with("grpc.listen", vec!["127.0.0.1:0"]);
        Router { setup: setup.plugin(router()), _nats: nats }
    }
}

fn router() -> Plugin {
    patient("workflow-router")
}

/// Kills cost attempts.
fn patient(name: &str) -> Plugin {
    bundled(name).every_subscription("ack-wait = \"1s\"\nmax-attempts = 20")
}

/// Who does what to a task until it ends, in order.
const WAYS: [(&str, &[(&str, &str)]); 4] = [
    (
        "rejected-twice",
        &[
            ("COMMIT_CODE", "developer"),
            ("REJECT_DESIGN", "architect"),
            ("COMMIT_CODE", "developer"),
            ("APPROVE_DESIGN", "architect"),
            ("REJECT_TESTS", "qa"),
            ("COMMIT_CODE", "developer"),
            ("APPROVE_DESIGN", "architect"),
            ("APPROVE_TESTS", "qa"),
            ("APPROVE_STORY", "po"),
        ],
    ),
    ("cancelled", &[("COMMIT_CODE", "developer"), ("CANCEL", "po")]),
    (
        "retried",
        &[
            ("COMMIT_CODE", "developer"),
            ("RETRY", "system"),
            ("COMMIT_CODE", "developer"),
            ("CLAIM_REVIEW", "architect"),
            ("APPROVE_DESIGN", "architect"),
            ("APPROVE_TESTS", "qa"),
            ("APPROVE_STORY", "po"),
        ],
    ),
    (
        "straight",
        &[
            ("COMMIT_CODE", "developer"),
            ("APPROVE_DESIGN", "architect"),
            ("APPROVE_TESTS", "qa"),
            ("APPROVE_STORY", "po"),
        ],
    ),
];

async fn contract_5_a_story_with_rejections_a_cancelled_and_a_retried_task_ends_in_testing_over_ten_kills(
    router: Router,
) {
    let setup = router.setup.plugin(patient("story-lifecycle"));
    let mut daemon = setup.start().await;
    let tasks: Vec<&str> = WAYS.iter().map(|(task, _)| *task).collect();
    let ready =
        json!({"story_id": "S", "from_state": "PLANNED", "to_state": "READY_FOR_EXECUTION", "tasks": tasks});
    daemon.publish(TRANSITIONED, ready).await;
    let (mut published, mut kills) = (0, 0);
    // Turn about, so that several are under way at each kill. What is early would be overtaken, so each waits for its turn.
    for round in 0..9 {
        let acts = WAYS.iter().filter_map(|(task, way)| Some((*task, way, way.get(round)?)));
        for (task, _, (action, role)) in acts.clone() {
            is_assigned(&daemon, task).await;
            daemon.publish("agent.work.completed", work(task, action, role, round)).await;
            published += 1;
            if published % 2 == 0 && kills < 10 {
                kills += 1;
                daemon.kill().await;
                daemon = setup.start().await;
            }
        }
        for (task, way, (action, _)) in acts {
            let times = way[..=round].iter().filter(|(earlier, _)| earlier == action).count();
            wait_for(&format!("{action} on {task}"), async || {
                (hops(&daemon, task, action).await == times).then_some(())
            })
            .await;
        }
    }
    assert_eq!(kills, 10);
    let completed = daemon.wait_stored("workflow.task.completed", tasks.len()).await;
    let ended = |task: &str| {
        let of = completed.iter().map(payload).find(|completed| completed["task_id"] == task);
        of.expect("its end")["final_state"].as_str().expect("a name").to_owned()
    };
    assert_eq!(
        tasks.iter().map(|task| ended(task)).collect::<Vec<_>>(),
        ["done", "cancelled", "done", "done"]
    );
    let story = daemon.wait_stored("workflow.story.tasks_completed", 1).await;
    assert_eq!(
        (&payload(&story[0])["task_count"], &payload(&story[0])["cancelled_count"]),
        (&json!(4), &json!(1))
    );
    // The one that is ours, and three that follow from it.
    let steps = daemon.wait_stored(TRANSITIONED, 4).await;
    let states: Vec<Value> = steps.iter().map(|step| body(step)["to_state"].clone()).collect();
    assert_eq!(states, ["READY_FOR_EXECUTION", "IN_PROGRESS", "CODE_REVIEW", "TESTING"]);
    // Whatever was not settled comes once more.
    daemon.stop().await;
    let daemon = setup.start().await;
    daemon.publish("planning.task.created", json!({"task_id": "last", "story_id": "other"})).await;
    daemon.wait_stored("cofferdam.workflow.opened", tasks.len() + 1).await;
    each_chain_is_whole(&daemon).await;
    for (subject, count) in [
        ("workflow.task.completed", 4),
        ("workflow.story.tasks_completed", 1),
        (TRANSITIONED, 4),
        ("cofferdam.dead.>", 0),
    ] {
        assert_eq!(daemon.stored(subject).await.len(), count, "{subject}");
    }
    let agents = Agents::of(&daemon).await;
    let counted = |stats: &StatsResponse| stats.tasks_completed == 4 && stats.total_tasks == 5;
    let stats = agents.stats("", counted).await;
    let ends = |state: &str| stats.tasks_by_state.get(state).copied();
    assert_eq!((ends("done"), ends("cancelled"), stats.total_rejections), (Some(3), Some(1), 2));
    let of_story = agents.stats("S", |stats| stats.tasks_completed == 4).await;
    assert_eq!((of_story.total_tasks, of_story.total_rejections), (4, 2));
}

/// Before that nobody acts on a task.
async fn is_assigned(daemon: &Daemon, task: &str) {
    wait_for(&format!("{task} assigned"), async || {
        (hops(daemon, task, "ASSIGN_TO_DEVELOPER").await > 0).then_some(())
    })
    .await;
}

/// How often a task went on by an action.
async fn hops(daemon: &Daemon, task: &str, action: &str) -> usize {
    let told = daemon.stored("workflow.state.changed").await;
    let is = |hop: &Value| {
        hop["task_id"] == task && hop["action"].as_str().is_some_and(|of| of.eq_ignore_ascii_case(action))
    };
    told.iter().map(payload).filter(is).count()
}

/// Agents of all roles, who ask what waits for them.
struct Agents(WorkflowOrchestrationServiceClient<Channel>);

impl Agents {
    async fn of(daemon: &Daemon) -> Agents {
        let address = format!("http://{}", daemon.grpc());
        Agents(WorkflowOrchestrationServiceClient::connect(address).await.expect("the daemon's gRPC port"))
    }

    async fn pending(&self, role: &str) -> Vec<PendingTask> {
        let request = GetPendingTasksRequest { role: role.into(), limit: 100, offset: 0 };
        let answer = self.0.clone().get_pending_tasks(request).await.expect("what is pending").into_inner();
        assert_eq!(answer.total_count as usize, answer.tasks.len());
        answer.tasks
    }

    async fn claim(&self, task: &str, agent: &str, role: &str) -> bool {
        let request = ClaimTaskRequest { task_id: task.into(), agent_id: agent.into(), role: role.into() };
        self.0.clone().claim_task(request).await.expect("an answer").into_inner().claimed
    }

    async fn does(
        &self,
        task: &str,
        role: &str,
        action: &str,
        key: &str,
    ) -> Result<RequestValidationResponse, Status> {
        let result = WorkResult {
            artifacts: [("commit_sha".to_owned(), key.to_owned())].into(),
            feedback: "the tests of the second part are missing".into(),
            ..WorkResult::default()
        };
        let mut request = Request::new(RequestValidationRequest {
            task_id: task.into(),
            role: role.into(),
            action: action.into(),
            result: Some(result),
            agent_id: format!("{role}-1"),
        });
        request.metadata_mut().insert("idempotency-key", key.parse().expect("a key"));
        self.0.clone().request_validation(request).await.map(tonic::Response::into_inner)
    }

    /// Once the boards have heard.
    async fn stats(&self, story: &str, as_expected: impl Fn(&StatsResponse) -> bool) -> StatsResponse {
        wait_for("the figures", async || {
            let request = GetStatsRequest { story_id: story.into(), role: String::new() };
            let stats = self.0.clone().get_stats(request).await.expect("figures").into_inner();
            as_expected(&stats).then_some(stats)
        })
        .await
    }
}

/// Nobody publishes what was done: each looks for what waits, takes it, and does it, under a key for the case that the answer is lost.
async fn contract_3_agents_that_only_call_bring_a_story_to_its_end_over_kills(router: Router) {
    const TASKS: [&str; 3] = ["A", "B", "C"];
    let mut daemon = router.setup.start().await;
    let derived = json!({"plan_id": "P", "story_id": "S", "task_count": TASKS.len(), "status": "success"});
    daemon.publish("task.derivation.completed", derived).await;
    for task in TASKS {
        daemon.publish("planning.task.created", json!({"task_id": task, "story_id": "S"})).await;
    }
    let mut agents = Agents::of(&daemon).await;
    let (mut actions, mut rejected) = (0, false);
    while daemon.stored("workflow.task.completed").await.len() < TASKS.len() {
        for role in ROLES {
            for task in agents.pending(role).await {
                let id = task.task_id.as_str();
                // The boards may not have heard of the last claim yet, but no other agent gets the task.
                assert!(agents.claim(id, &format!("{role}-1"), role).await, "{id} by {role}");
                assert!(agents.claim(id, &format!("{role}-1"), role).await, "{id} by {role}, again");
                assert!(!agents.claim(id, &format!("{role}-2"), role).await, "{id} by another {role}");
                let action = match task.required_action.as_str() {
                    "approve_design" if !rejected => "reject_design",
                    "revise_code" => "commit_code",
                    required => required,
                };
                rejected |= action == "reject_design";
                actions += 1;
                let key = format!("{id}-{actions}");
                let answer = if actions % 3 == 0 {
                    // Who knows whether it was done? The same key tells.
                    let (lost, ()) = tokio::join!(agents.does(id, role, action, &key), daemon.kill());
                    daemon = router.setup.start().await;
                    agents = Agents::of(&daemon).await;
                    let answer = agents.does(id, role, action, &key).await;
                    if let (Ok(lost), Ok(answer)) = (&lost, &answer) {
                        assert_eq!(lost, answer);
                    }
                    answer
                } else {
                    agents.does(id, role, action, &key).await
                };
                let answer = answer.expect("an answer");
                assert_eq!(answer.status, "accepted", "{action} on {id}: {}", answer.message);
            }
        }
    }
    daemon.wait_stored("workflow.story.tasks_completed", 1).await;
    each_chain_is_whole(&daemon).await;
    for (subject, count) in
        [("workflow.task.completed", 3), ("workflow.story.tasks_completed", 1), ("cofferdam.dead.>", 0)]
    {
        assert_eq!(daemon.stored(subject).await.len(), count, "{subject}");
    }
    for story in ["", "S"] {
        let stats = agents.stats(story, |stats| stats.tasks_completed == 3).await;
        assert_eq!((stats.total_tasks, stats.total_rejections), (3, 1));
    }
    for role in ROLES {
        assert!(agents.pending(role).await.is_empty(), "{role}");
    }
    let unknown = agents.does("nobody's", "developer", "commit_code", "last").await;
    assert_eq!(unknown.expect_err("no such task").code(), Code::NotFound);
}

async fn contract_5_2_a_task_that_waits_for_long_is_told_of_and_one_that_moves_on_is_not(router: Router) {
    let table = include_str!("../../plugins/workflow-router/src/machine/standard.json")
        .replace("\"alert_after_seconds\": 3600", "\"alert_after_seconds\": 4");
    let setup = router.setup.plugin(self::router().set("machine", table));
    let mut daemon = setup.start().await;
    for task in ["moves", "waits"] {
        daemon.publish("planning.task.created", json!({"task_id": task, "story_id": "S"})).await;
        daemon.publish("agent.work.completed", work(task, "COMMIT_CODE", "developer", 0)).await;
        if task == "moves" {
            daemon.publish("agent.work.completed", work(task, "CLAIM_REVIEW", "architect", 1)).await;
            daemon.wait_stored("workflow.state.changed", 4).await;
        }
    }
    daemon.wait_stored("workflow.validation.required", 2).await;
    daemon.kill().await;
    let daemon = setup.start().await;
    let waiting = daemon.wait_stored("cofferdam.workflow.waiting", 1).await;
    let told = payload(&waiting[0]);
    for (key, value) in [
        ("task_id", json!("waits")),
        ("story_id", json!("S")),
        ("state", json!("pending_arch_review")),
        ("role_in_charge", json!("architect")),
        ("waiting_seconds", json!(4)),
    ] {
        assert_eq!(told[key], value, "{key}");
    }
    // The other one's would have come before.
    daemon.publish("agent.work.completed", work("waits", "APPROVE_DESIGN", "architect", 2)).await;
    daemon.wait_stored("workflow.validation.required", 3).await;
    assert_eq!(daemon.stored("cofferdam.workflow.waiting").await.len(), 1);
}

fn work(task: &str, action: &str, role: &str, round: usize) -> Value {
    json!({
        "task_id": task, "story_id": "S", "action": action, "actor_role": role, "agent_id": format!("{role}-1"),
        "feedback": "the tests of the second part are missing", "artifacts": {"commit_sha": format!("{task}-{round}")},
    })
}

/// Each hop of a task begins where the one before it ended, and none is told twice.
async fn each_chain_is_whole(daemon: &Daemon) {
    let mut at: BTreeMap<String, String> = BTreeMap::new();
    let mut keys = Vec::new();
    for message in daemon.stored("workflow.state.changed").await {
        let hop = payload(&message);
        let text = |field: &str| hop[field].as_str().expect(field).to_owned();
        let before = at.insert(text("task_id"), text("to_state"));
        assert_eq!(before.unwrap_or_else(|| "todo".into()), text("from_state"), "{hop}");
        keys.push(body(&message)["idempotency_key"].to_string());
    }
    let told = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), told);
}

fn payload(message: &StoredMessage) -> Value {
    body(message)["payload"].clone()
}
