//! What councils decide, and what people say to it, on its way to Context and back to the fleet, on both buses: once and in order,
//! whoever is away or killed meanwhile.

use std::{collections::BTreeSet, time::Duration};

use fleet_proto::{
    bus::v1::StoredMessage,
    context::v1::{
        GetContextRequest, UpdateContextRequest, UpdateContextResponse,
        context_service_client::ContextServiceClient,
    },
    standin::v1::AddPlanRequest,
};
use harness::{
    daemon::Daemon,
    dice::Dice,
    fleet::{Fleet, free_address},
    nats::Server,
    pipeline::bundled,
    planning::Planning,
    setup::Setup,
    way_in::body,
};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::both::{Begin, on_both_buses};

on_both_buses! {
    contract_1_what_was_decided_and_said_to_it_reaches_context_and_the_fleet_is_told_once,
    contract_2_3_what_the_python_orchestrator_sends_is_understood,
    contract_2_1_a_context_that_is_away_is_waited_for_and_nothing_is_lost_or_overtaken,
    a_daemon_that_is_killed_between_context_and_its_commit_tells_both_once,
    a_host_that_asks_before_it_repeats_a_call_tells_both_once,
    an_answer_of_context_that_is_lost_is_asked_for_again,
    each_decision_is_told_once_and_in_order_whoever_is_killed_again_and_again,
    a_context_that_takes_no_updates_leaves_a_dead_letter_that_says_so,
}

const DECIDED: &str = "orchestration.deliberation.completed";
const APPROVED: &str = "planning.decision.approved";
const REJECTED: &str = "planning.decision.rejected";
const UPDATED: &str = "context.updated";
const SERVICE: &str = "fleet.context.v1.ContextService";

/// A setup without Context as yet, and where its admin port is to be.
struct Ground {
    setup: Setup,
    admin: String,
    _nats: Option<Server>,
}

impl Begin for Ground {
    async fn on(setup: Setup, nats: Option<Server>) -> Ground {
        let admin = free_address();
        // Tests don't wait for five seconds, nor for a host that is dead for longer than they have to.
        let plugin =
            bundled("context-updater").every_subscription("backoff-max = \"400ms\"\nack-wait = \"2s\"");
        let setup = setup.with("admin.listen", admin.as_str()).plugin(plugin);
        Ground { setup, admin, _nats: nats }
    }
}

/// The real fleet, which knows the stories, and the daemon that is to reach it.
struct Stage {
    fleet: Fleet,
    setup: Setup,
    _nats: Option<Server>,
}

impl Ground {
    async fn with_fleet(self, options: &[&str]) -> Stage {
        let fleet = Fleet::start_on_with(&self.admin, options).await;
        for story in ["S", "T"] {
            let plan = AddPlanRequest {
                story_id: story.into(),
                title: format!("The story {story}"),
                ..Default::default()
            };
            fleet.plan_of(plan).await;
        }
        let setup = reaching(self.setup, &fleet.context);
        Stage { fleet, setup, _nats: self._nats }
    }
}

fn reaching(setup: Setup, context: &str) -> Setup {
    let once = vec![format!("{SERVICE}/UpdateContext")];
    setup.upstream("context", context).with("upstreams.context.once", once)
}

impl Stage {
    async fn client(&self) -> ContextServiceClient<Channel> {
        ContextServiceClient::connect(format!("http://{}", self.fleet.context)).await.expect("Context")
    }

    /// The lines about decisions that an agent is told.
    async fn decisions(&self, story_id: &str) -> Vec<String> {
        let request =
            GetContextRequest { story_id: story_id.into(), role: "DEV".into(), ..Default::default() };
        let told = self.client().await.get_context(request).await.expect("a context").into_inner().context;
        let (_, decisions) = told.split_once("Decisions:\n").unwrap_or_default();
        decisions.lines().map(str::to_owned).collect()
    }

    /// Where a story's context is. An update without changes changes nothing.
    async fn snapshot(&self, story_id: &str) -> Value {
        let request = UpdateContextRequest { story_id: story_id.into(), ..Default::default() };
        let answer = self.client().await.update_context(request).await.expect("an answer").into_inner();
        let UpdateContextResponse { version, hash, .. } = answer;
        json!({"version": version, "hash": hash})
    }

    /// How often Context took an update of so many changes.
    fn taken(&self, changes: usize) -> usize {
        let words = format!("changes={changes}");
        let log = self.fleet.log().lines();
        log.iter().filter(|line| line.contains("context updated") && line.contains(&words)).count()
    }

    /// Stops the daemon and starts it again, so that whatever was not settled comes once more; sends something on each way after it;
    /// and looks that the fleet was told so often before that, and of nothing else.
    async fn in_the_end(&self, mut daemon: Daemon, told: usize) {
        daemon.stop().await;
        let mut daemon = self.setup.start().await;
        for story in ["S", "T"] {
            // In its turn after all that is left of the story on the same way.
            let said = |id: &str| json!({"story_id": story, "decision_id": id, "reason": "The last."});
            daemon.publish(DECIDED, decided(story, "last", "The last.")).await;
            daemon.publish(APPROVED, said("LAST-1")).await;
            daemon.publish(REJECTED, said("LAST-2")).await;
        }
        let all = updates(&daemon.wait_stored(UPDATED, told + 6).await);
        let versions: BTreeSet<String> =
            all.iter().map(|told| format!("{} {}", told["story_id"], told["snapshot"]["version"])).collect();
        assert_eq!((all.len(), versions.len()), (told + 6, told + 6), "{all:#?}");
        assert_eq!(daemon.stored("cofferdam.dead.>").await.len(), 0);
        daemon.stop().await;
    }
}

/// What the fleet was told: each with a key of its own, and in each story in the order of its versions.
fn updates(told: &[StoredMessage]) -> Vec<Value> {
    let keys: BTreeSet<String> = told.iter().map(|told| body(told)["idempotency_key"].to_string()).collect();
    assert_eq!(keys.len(), told.len());
    let payloads: Vec<Value> = told.iter().map(|told| body(told)["payload"].clone()).collect();
    for story in ["S", "T"] {
        let of_story = payloads.iter().filter(|told| told["story_id"] == story);
        let versions: Vec<u64> =
            of_story.map(|told| told["snapshot"]["version"].as_u64().expect("a number")).collect();
        assert!(versions.is_sorted(), "{story}: {versions:?}");
    }
    payloads
}

/// A deliberation over the task `task` that decided `DEC-<task>`, as the council tells it.
fn decided(story_id: &str, task: &str, rationale: &str) -> Value {
    json!({
        "event_type": DECIDED, "idempotency_key": format!("{task} {rationale}"), "correlation_id": "c", "producer": "council",
        "timestamp": "2026-01-01T00:00:00Z",
        "payload": {
            "story_id": story_id, "task_id": task, "deliberation_id": format!("dlb-{task}"), "status": "completed",
            "role": "DEV", "winner_id": "agent-dev-002", "results": [], "total_agents": 3,
            "decisions": [{"id": format!("DEC-{task}"), "type": "TECHNICAL", "rationale": rationale, "affected_subtask": task}],
        },
    })
}

async fn contract_1_what_was_decided_and_said_to_it_reaches_context_and_the_fleet_is_told_once(
    ground: Ground,
) {
    let stage = ground.with_fleet(&[]).await;
    let daemon = stage.setup.start().await;
    let before = daemon.scrape().await;
    for _ in 0..2 {
        daemon.publish(DECIDED, decided("S", "one", "One table.")).await;
        daemon.publish(DECIDED, decided("S", "two", "A cache.")).await;
    }
    // Nothing was decided: nobody is told.
    daemon.publish(DECIDED, json!({"story_id": "S", "task_id": "three", "status": "timeout"})).await;
    daemon.events(&before, [("context-updater done -", 5)]).await;
    let told = daemon.stored(UPDATED).await;
    assert_eq!((told.len(), stage.taken(1)), (2, 2));
    assert_eq!(
        (&body(&told[0])["correlation_id"], &body(&told[0])["producer"]),
        (&json!("c"), &json!("context-updater"))
    );
    let [one, two] = updates(&told).try_into().expect("two");
    assert_eq!((&one["task_id"], &one["changed"]), (&json!("one"), &json!(["DEC-one"])));
    assert_eq!((&two["snapshot"], &two["snapshot"]["version"]), (&stage.snapshot("S").await, &json!(2)));

    let approved =
        json!({"story_id": "S", "decision_id": "DEC-one", "approved_by": "ann", "comment": "Go ahead."});
    let rejected = json!({"story_id": "S", "decision_id": "DEC-two", "rejected_by": "ann", "reason": "It goes stale.",
        "timestamp": "2026-01-01T00:00:09+00:00Z"});
    for _ in 0..2 {
        daemon.publish(APPROVED, &approved).await;
        daemon.publish(REJECTED, &rejected).await;
    }
    daemon.events(&before, [("context-updater done -", 9)]).await;
    assert_eq!(
        stage.decisions("S").await,
        [
            "- DEC-one (TECHNICAL, approved by ann: Go ahead.): One table.",
            "- DEC-two (TECHNICAL, rejected by ann: It goes stale.): A cache.",
        ]
    );
    let moved = daemon.scrape().await.since(&before);
    assert_eq!(moved.sum("context_updates", &[]), 4.0);
    assert_eq!(moved.sum("context_dropped", &[("reason", "duplicate")]), 4.0);
    assert_eq!(updates(&daemon.stored(UPDATED).await)[2..].len(), 2);
    stage.in_the_end(daemon, 4).await;
}

async fn contract_2_3_what_the_python_orchestrator_sends_is_understood(ground: Ground) {
    let stage = ground.with_fleet(&[]).await;
    let daemon = stage.setup.start().await;
    let bare = json!({
        "story_id": "S", "task_id": "TASK-001", "timestamp": 1_762_425_000.123_456,
        "decisions": [{"id": "DEC-1", "type": "TECHNICAL", "rationale": "Use a queue."}, {"rationale": "Test it."}],
    });
    daemon.publish(DECIDED, &bare).await;
    daemon.publish(DECIDED, &bare).await;
    let told = updates(&daemon.wait_stored(UPDATED, 1).await);
    assert_eq!(told[0]["changed"], json!(["DEC-1", "DEC-TASK-001-1"]));
    assert_eq!(told[0]["snapshot"], stage.snapshot("S").await);
    assert_eq!(
        stage.decisions("S").await,
        ["- DEC-1 (TECHNICAL, proposed): Use a queue.", "- DEC-TASK-001-1 (TECHNICAL, proposed): Test it."]
    );
    stage.in_the_end(daemon, 1).await;
    assert_eq!(stage.taken(2), 1);
}

async fn contract_2_1_a_context_that_is_away_is_waited_for_and_nothing_is_lost_or_overtaken(ground: Ground) {
    let mut stage = ground.with_fleet(&[]).await;
    let mut daemon = stage.setup.start().await;
    daemon.publish(DECIDED, decided("S", "one", "One table.")).await;
    daemon.wait_stored(UPDATED, 1).await;
    stage.fleet.kill().await;
    let before = daemon.scrape().await;
    for (story, task, rationale) in [
        ("S", "one", "Two tables."),
        ("T", "three", "A queue."),
        ("S", "two", "A cache."),
        ("S", "one", "No table."),
    ] {
        daemon.publish(DECIDED, decided(story, task, rationale)).await;
    }
    // One of each story is tried; the others wait for it.
    let retried = |moved: &harness::metrics::Scrape| {
        moved.sum("cofferdam_events_total", &[("outcome", "retry")]) >= 4.0
    };
    daemon.moved("attempts that failed", &before, retried).await;
    assert_eq!(daemon.stored(UPDATED).await.len(), 1);
    // Who waits may die, too.
    daemon.kill().await;
    daemon = stage.setup.start().await;
    daemon.says("will be tried again").await;
    stage.fleet.up().await;
    let told = updates(&daemon.wait_stored(UPDATED, 5).await);
    let of = |story: &str| -> Vec<&Value> {
        let of_story = told.iter().filter(|told| told["story_id"] == story);
        of_story.map(|told| &told["changed"][0]).collect()
    };
    assert_eq!(of("S"), [&json!("DEC-one"), &json!("DEC-one"), &json!("DEC-two"), &json!("DEC-one")]);
    assert_eq!(of("T"), [&json!("DEC-three")]);
    assert_eq!(
        stage.decisions("S").await,
        ["- DEC-one (TECHNICAL, proposed): No table.", "- DEC-two (TECHNICAL, proposed): A cache."]
    );
    stage.in_the_end(daemon, 5).await;
}

async fn a_daemon_that_is_killed_between_context_and_its_commit_tells_both_once(ground: Ground) {
    killed_in_between(ground, "repeat").await;
}

async fn a_host_that_asks_before_it_repeats_a_call_tells_both_once(ground: Ground) {
    killed_in_between(ground, "ask").await;
}

/// Context has done it, and its answer is on its way.
async fn killed_in_between(ground: Ground, unknown_outcome: &str) {
    let mut stage = ground.with_fleet(&["--context-lag", "2s"]).await;
    stage.setup.set("upstreams.context.unknown-outcome", unknown_outcome);
    let mut daemon = stage.setup.start().await;
    daemon.publish(DECIDED, decided("S", "one", "One table.")).await;
    stage.fleet.says("context updated").await;
    daemon.kill().await;
    daemon = stage.setup.start().await;
    assert_eq!(daemon.stored(UPDATED).await.len(), 0, "it died before it could tell");
    let told = updates(&daemon.wait_stored(UPDATED, 1).await);
    assert_eq!(told[0]["snapshot"]["version"], 1);
    stage.fleet.says("a repeated call gets its first answer").await;
    assert_eq!(stage.taken(1), 1, "under the same key");
    stage.in_the_end(daemon, 1).await;
}

async fn an_answer_of_context_that_is_lost_is_asked_for_again(ground: Ground) {
    let mut stage = ground.with_fleet(&["--context-lose", "2"]).await;
    // The host does not repeat it by itself, so the event is tried again; and finds a call that nobody waits for any more.
    stage.setup.set("upstreams.context.retries", 0);
    stage.setup.set("upstreams.context.timeout", "1s");
    let daemon = stage.setup.start().await;
    daemon.publish(DECIDED, decided("S", "one", "One table.")).await;
    daemon.publish(DECIDED, decided("S", "two", "A cache.")).await;
    let told = updates(&daemon.wait_stored(UPDATED, 2).await);
    let versions: Vec<&Value> = told.iter().map(|told| &told["snapshot"]["version"]).collect();
    assert_eq!((versions, stage.taken(1)), (vec![&json!(1), &json!(2)], 2));
    stage.fleet.says("a repeated call gets its first answer").await;
    stage.in_the_end(daemon, 2).await;
}

async fn each_decision_is_told_once_and_in_order_whoever_is_killed_again_and_again(ground: Ground) {
    let mut dice = Dice::new();
    let mut stage = ground.with_fleet(&["--context-lag", "50ms"]).await;
    let mut daemon = stage.setup.start().await;
    for round in 0..8 {
        for story in ["S", "T", "S"] {
            daemon.publish(DECIDED, decided(story, &format!("{round}"), "One table.")).await;
        }
        let second = decided("S", &format!("{round}"), "Two tables.");
        daemon.publish(DECIDED, second).await;
        // So that what follows hits work in progress at any place.
        tokio::time::sleep(Duration::from_millis(dice.below(250))).await;
        if round % 2 == 0 {
            daemon.kill().await;
            daemon = stage.setup.start().await;
        } else {
            stage.fleet.kill().await;
            stage.fleet.up().await;
        }
    }
    let told = updates(&daemon.wait_stored(UPDATED, 24).await);
    for (story, each) in [("S", 2), ("T", 1)] {
        let of_story = told.iter().filter(|told| told["story_id"] == story);
        let tasks: Vec<&str> = of_story.map(|told| told["task_id"].as_str().expect("a task")).collect();
        let expected: Vec<String> =
            (0..8).flat_map(|round| std::iter::repeat_n(round.to_string(), each)).collect();
        assert_eq!(tasks, expected);
    }
    let decisions = stage.decisions("S").await;
    assert!(
        decisions.len() == 8 && decisions.iter().all(|line| line.ends_with("Two tables.")),
        "{decisions:?}"
    );
    stage.in_the_end(daemon, 24).await;
}

async fn a_context_that_takes_no_updates_leaves_a_dead_letter_that_says_so(ground: Ground) {
    // It serves, but not this.
    let other = Planning::start().await;
    let daemon = reaching(ground.setup, &other.address).start().await;
    daemon.publish(DECIDED, decided("S", "one", "One table.")).await;
    let dead: Vec<String> = daemon
        .wait_stored("cofferdam.dead.context-updater", 1)
        .await
        .iter()
        .map(|letter| body(letter)["reason"].to_string())
        .collect();
    assert!(
        dead.iter().any(|reason| reason.contains("takes no updates") && reason.contains(SERVICE)),
        "{dead:?}"
    );
    assert_eq!(daemon.stored(UPDATED).await.len(), 0);
}
