//! Tasks on their way through the workflow, on both buses, whoever is killed meanwhile.

use std::collections::BTreeMap;

use fleet_proto::bus::v1::StoredMessage;
use harness::{daemon::Daemon, nats::Server, pipeline::bundled, setup::Setup, way_in::body};
use serde_json::{Value, json};

use crate::both::{Begin, on_both_buses};

on_both_buses! {
    a_story_with_rejections_a_cancelled_task_and_a_retried_one_is_completed_over_ten_kills,
}

/// A setup with the router alone.
struct Router {
    setup: Setup,
    _nats: Option<Server>,
}

impl Begin for Router {
    async fn on(setup: Setup, nats: Option<Server>) -> Router {
        let router = bundled("workflow-router").every_subscription("ack-wait = \"1s\"\nmax-attempts = 20");
        // Nobody is asked for a story's tasks here.
        let setup = setup.upstream("planning", "127.0.0.1:1").plugin(router);
        Router { setup, _nats: nats }
    }
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

async fn a_story_with_rejections_a_cancelled_task_and_a_retried_one_is_completed_over_ten_kills(
    router: Router,
) {
    let mut daemon = router.setup.start().await;
    let tasks: Vec<&str> = WAYS.iter().map(|(task, _)| *task).collect();
    let ready =
        json!({"story_id": "S", "from_state": "PLANNED", "to_state": "READY_FOR_EXECUTION", "tasks": tasks});
    daemon.publish("planning.story.transitioned", ready).await;
    let mut done = 0;
    // Turn about, so that several are under way at each kill.
    for round in 0..9 {
        for (task, way) in WAYS {
            let Some((action, role)) = way.get(round) else { continue };
            daemon.publish("agent.work.completed", work(task, action, role, round)).await;
            done += 1;
            if done % 2 == 0 && done <= 20 {
                daemon.kill().await;
                daemon = router.setup.start().await;
            }
        }
    }
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
    // Whatever was not settled comes once more.
    daemon.stop().await;
    let daemon = router.setup.start().await;
    daemon.publish("planning.task.created", json!({"task_id": "last", "story_id": "other"})).await;
    daemon.wait_stored("cofferdam.workflow.opened", tasks.len() + 1).await;
    each_chain_is_whole(&daemon).await;
    for (subject, count) in
        [("workflow.task.completed", 4), ("workflow.story.tasks_completed", 1), ("cofferdam.dead.>", 0)]
    {
        assert_eq!(daemon.stored(subject).await.len(), count, "{subject}");
    }
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
