//! The agents on the admin port of a daemon: who does what when, whatever comes first, and whoever goes and comes back.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use clap::Parser as _;
use fleet_proto::planning::v2::{
    GetStoryRequest, Story, TransitionStoryRequest, TransitionStoryResponse,
    planning_service_server::{PlanningService, PlanningServiceServer},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, async_trait, service::Routes};

use super::fake::{self, until};
use crate::{
    agents::Agents,
    cli::{self, Cli, Command},
    grpc::Bound,
};

const ASSIGNED: &str = "workflow.task.assigned";
const DISPATCHED: &str = "orchestration.task.dispatched";
const DONE: &str = "agent.work.completed";
const MOVED: &str = "planning.story.transitioned";

/// Agents that think for no time, a bus, and somebody who keeps stories.
struct World {
    bus: fake::Bus,
    stories: Stories,
    flags: Vec<String>,
    living: Option<JoinHandle<anyhow::Result<()>>>,
    /// How much was assigned and dispatched: no two messages are the same.
    told: u32,
    _running: fake::Running,
    _folder: tempfile::TempDir,
    _shutdown: DropGuard,
}

impl World {
    async fn new(flags: &[&str]) -> World {
        let bus = fake::Bus::new();
        let running = bus.serve(None).await;
        let (stories, shutdown) = (Stories::default(), CancellationToken::new());
        let address = stories.serve(&shutdown).await;
        let folder = tempfile::tempdir().unwrap();
        let mut all = vec!["--cofferdam".to_owned(), running.address.to_string(), "--stories".to_owned()];
        all.extend([address.to_string(), "--think".to_owned(), "0s".to_owned(), "--data".to_owned()]);
        all.push(folder.path().to_str().unwrap().to_owned());
        all.extend(flags.iter().copied().map(str::to_owned));
        let mut world = World {
            bus,
            stories,
            flags: all,
            living: None,
            told: 0,
            _running: running,
            _folder: folder,
            _shutdown: shutdown.drop_guard(),
        };
        world.up().await;
        world
    }

    async fn up(&mut self) {
        let flags = ["fleet", "agents"].into_iter().chain(self.flags.iter().map(String::as_str));
        let Command::Agents(args) = Cli::parse_from(flags).command else { panic!("not agents") };
        let agents = begin(&args).await;
        self.living = Some(tokio::spawn(async move { agents.live(CancellationToken::new()).await }));
    }

    /// Wherever they are.
    async fn kill(&mut self) {
        let living = self.living.take().unwrap();
        living.abort();
        assert!(living.await.unwrap_err().is_cancelled());
    }

    fn assign(&mut self, task: &str, label: &str) {
        self.told += 1;
        let told = json!({"task_id": task, "story_id": "S", "required_action": label, "n": self.told});
        self.bus.put(ASSIGNED, Vec::new(), &told.to_string());
    }

    fn dispatch(&mut self, task: &str) {
        self.told += 1;
        let told = json!({"task_id": task, "story_id": "S", "plan_id": "P", "agent_id": "agent-dev-007", "role": "DEV",
            "n": self.told});
        self.bus.put(DISPATCHED, Vec::new(), &told.to_string());
    }

    fn move_story(&self, to: &str) {
        let told = json!({"story_id": "S", "to_state": to});
        self.bus.put(MOVED, Vec::new(), &told.to_string());
    }

    /// What was done so far: `task action`.
    fn acts(&self) -> Vec<String> {
        let text = |act: &Value, name: &str| act[name].as_str().unwrap().to_owned();
        let acts = self.bus.bodies(DONE);
        acts.iter().map(|act| format!("{} {}", text(act, "task_id"), text(act, "action"))).collect()
    }

    /// Waits until exactly this was done.
    async fn does(&self, expected: &[&str]) {
        until(&format!("{expected:?}"), async || self.acts().len() >= expected.len()).await;
        assert_eq!(self.acts(), expected);
    }

    fn answers(&self, subject: &str) -> usize {
        self.bus.bodies(subject).len()
    }
}

/// Those that were killed may not have left the folder yet.
async fn begin(args: &cli::Agents) -> Agents {
    let mut agents = None;
    until("the folder", async || {
        agents = Agents::new(args).await.ok();
        agents.is_some()
    })
    .await;
    agents.unwrap()
}

/// Keeps stories; every step is as legal as another.
#[derive(Clone, Default)]
struct Stories(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    states: BTreeMap<String, String>,
    /// Those with an answer, by their keys: `from -> to`.
    steps: BTreeMap<String, String>,
    /// Answers still to be lost, of calls that were done.
    lose: u32,
    /// Steps still to be refused.
    refuse: u32,
}

impl Stories {
    async fn serve(&self, shutdown: &CancellationToken) -> SocketAddr {
        let bound = Bound::new("127.0.0.1:0", "--stories").await.unwrap();
        let address = bound.address();
        let routes = Routes::new(PlanningServiceServer::new(self.clone()));
        tokio::spawn(bound.serve(routes, shutdown.clone()));
        address
    }

    fn open(&self, story: &str, state: &str) {
        self.0.lock().unwrap().states.insert(story.to_owned(), state.to_owned());
    }

    fn state(&self, story: &str) -> Option<String> {
        self.0.lock().unwrap().states.get(story).cloned()
    }

    async fn is_in(&self, story: &str, state: &str) {
        until(state, async || self.state(story).as_deref() == Some(state)).await;
    }

    fn steps(&self) -> usize {
        self.0.lock().unwrap().steps.len()
    }
}

#[async_trait]
impl PlanningService for Stories {
    async fn transition_story(
        &self,
        request: Request<TransitionStoryRequest>,
    ) -> Result<Response<TransitionStoryResponse>, Status> {
        let key = request.metadata().get("idempotency-key").unwrap().to_str().unwrap().to_owned();
        let request = request.into_inner();
        let mut kept = self.0.lock().unwrap();
        let mut success = true;
        if kept.refuse > 0 {
            kept.refuse -= 1;
            kept.steps.insert(key, "refused".to_owned());
            success = false;
        } else if let Some(step) = kept.steps.get(&key) {
            success = step != "refused";
        } else {
            let from = kept.states.insert(request.story_id, request.target_state.clone()).unwrap();
            kept.steps.insert(key, format!("{from} -> {}", request.target_state));
        }
        if kept.lose > 0 {
            kept.lose -= 1;
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(Response::new(TransitionStoryResponse { story: None, success, message: String::new() }))
    }

    async fn get_story(&self, request: Request<GetStoryRequest>) -> Result<Response<Story>, Status> {
        let story_id = request.into_inner().story_id;
        let state = self.state(&story_id).ok_or_else(|| Status::not_found("no such story"))?;
        Ok(Response::new(Story { story_id, state, ..Story::default() }))
    }
}

#[tokio::test]
async fn a_developer_begins_once_a_task_is_assigned_and_dispatched_in_either_order() {
    let mut world = World::new(&["--retries", "0"]).await;
    world.assign("A", "IMPLEMENT_FEATURE");
    world.dispatch("B");
    world.dispatch("A");
    world.does(&["A commit_code"]).await;
    world.assign("B", "IMPLEMENT_FEATURE");
    world.does(&["A commit_code", "B commit_code"]).await;
    let act = &world.bus.bodies(DONE)[0];
    assert_eq!((&act["actor_role"], &act["agent_id"]), (&json!("developer"), &json!("agent-dev-007")));
    assert_eq!(act["artifacts"]["commit_sha"].as_str().unwrap().len(), 40);
    let answer = &world.bus.bodies("agent.response.completed")[0];
    for (path, value) in [
        ("/task_id", json!("A")),
        ("/agent_id", json!("agent-dev-007")),
        ("/num_agents", json!(1)),
        ("/constraints/plan_id", json!("P")),
        ("/constraints/metadata/story_id", json!("S")),
    ] {
        assert_eq!(answer["payload"].pointer(path), Some(&value), "{path}");
    }
}

#[tokio::test]
async fn a_task_that_is_started_over_is_built_without_another_dispatch_and_answered_once() {
    let mut world = World::new(&[]).await;
    world.assign("A", "IMPLEMENT_FEATURE");
    world.dispatch("A");
    world.does(&["A retry"]).await;
    assert_eq!(world.bus.bodies(DONE)[0]["actor_role"], "system");
    assert_eq!(world.answers("agent.response.completed"), 0);
    world.assign("A", "IMPLEMENT_FEATURE");
    world.does(&["A retry", "A commit_code"]).await;
    // By hand, when it is built already.
    world.assign("A", "IMPLEMENT_FEATURE");
    world.does(&["A retry", "A commit_code", "A commit_code"]).await;
    assert_eq!(world.answers("agent.response.completed"), 1);
    let acts = world.bus.bodies(DONE);
    assert_ne!(acts[1]["idempotency_key"], acts[2]["idempotency_key"]);
    assert_ne!(acts[1]["artifacts"], acts[2]["artifacts"]);
}

#[tokio::test]
async fn a_task_that_an_agent_gave_up_is_built_once_it_is_dispatched_and_assigned_again() {
    let mut world = World::new(&["--fail", "1", "--retries", "0"]).await;
    world.assign("A", "IMPLEMENT_FEATURE");
    world.dispatch("A");
    until("the failure", async || world.answers("agent.response.failed") == 1).await;
    world.assign("A", "IMPLEMENT_FEATURE");
    world.assign("B", "REVIEW_DESIGN");
    world.does(&["B reject_design"]).await;
    world.dispatch("A");
    world.does(&["B reject_design", "A commit_code"]).await;
    assert_eq!(world.answers("agent.response.completed"), 1);
    assert_eq!(world.answers("agent.response.failed"), 1);
}

#[tokio::test]
async fn each_finds_fault_with_another_task_and_only_at_the_first_look() {
    let mut world = World::new(&[]).await;
    let mut expected = Vec::new();
    for (label, acts) in [
        ("IMPLEMENT_FEATURE", ["A retry", "B commit_code", "C commit_code"]),
        ("REVIEW_DESIGN", ["A approve_design", "B reject_design", "C approve_design"]),
        ("RUN_TESTS", ["A approve_tests", "B approve_tests", "C reject_tests"]),
        ("RUN_TESTS", ["A approve_tests", "B approve_tests", "C approve_tests"]),
        ("REVIEW_DESIGN", ["A approve_design", "B approve_design", "C approve_design"]),
    ] {
        for (task, act) in ["A", "B", "C"].into_iter().zip(acts) {
            if label == "IMPLEMENT_FEATURE" {
                world.dispatch(task);
            }
            world.assign(task, label);
            expected.push(act);
            world.does(&expected).await;
        }
    }
    let rejected: Vec<Value> =
        world.bus.bodies(DONE).into_iter().filter(|act| act["action"] == "reject_tests").collect();
    assert!(rejected[0]["feedback"].as_str().unwrap().len() >= 10);
}

#[tokio::test]
async fn where_there_is_one_task_everybody_finds_fault_with_it() {
    let mut world = World::new(&[]).await;
    world.dispatch("A");
    let mut expected = Vec::new();
    for (label, act) in [
        ("IMPLEMENT_FEATURE", "A retry"),
        ("IMPLEMENT_FEATURE", "A commit_code"),
        ("REVIEW_DESIGN", "A reject_design"),
        ("REVISE_CODE", "A commit_code"),
        ("REVIEW_DESIGN", "A approve_design"),
        ("RUN_TESTS", "A reject_tests"),
        ("REVISE_CODE", "A commit_code"),
        ("RUN_TESTS", "A approve_tests"),
    ] {
        world.assign("A", label);
        expected.push(act);
        world.does(&expected).await;
    }
}

#[tokio::test]
async fn they_find_as_many_faults_as_they_are_told_to() {
    let mut world = World::new(&["--architect-rejects", "2", "--qa-rejects", "0"]).await;
    for task in ["A", "B", "C"] {
        world.assign(task, "REVIEW_DESIGN");
    }
    world.does(&["A reject_design", "B reject_design", "C approve_design"]).await;
    world.assign("C", "RUN_TESTS");
    world.does(&["A reject_design", "B reject_design", "C approve_design", "C approve_tests"]).await;
}

#[tokio::test]
async fn the_product_owner_approves_no_task_before_the_sprint() {
    let mut world = World::new(&["--architect-rejects", "0"]).await;
    world.stories.open("S", "READY_FOR_EXECUTION");
    world.assign("A", "APPROVE_STORY");
    world.move_story("PLANNED");
    world.assign("B", "REVIEW_DESIGN");
    world.does(&["B approve_design"]).await;
    world.move_story("READY_FOR_EXECUTION");
    world.does(&["B approve_design", "A approve_story"]).await;
}

#[tokio::test]
async fn an_event_that_comes_again_and_one_that_makes_no_sense_have_no_effect() {
    let mut world = World::new(&["--architect-rejects", "0"]).await;
    let told = json!({"task_id": "A", "story_id": "S", "required_action": "REVIEW_DESIGN"}).to_string();
    for data in [told.as_str(), &told, "no JSON", "{}", r#"{"task_id": "A", "action": "SLEEP"}"#] {
        world.bus.put(ASSIGNED, Vec::new(), data);
    }
    world.assign("B", "REVIEW_DESIGN");
    world.does(&["A approve_design", "B approve_design"]).await;
}

#[tokio::test]
async fn the_product_owner_moves_a_story_into_planning_and_into_the_sprint_and_each_step_once() {
    let mut world = World::new(&[]).await;
    world.bus.put("planning.story.created", Vec::new(), &json!({"story_id": "S"}).to_string());
    world.stories.0.lock().unwrap().lose = 1;
    // Whoever keeps stories hears of it later.
    world.stories.open("S", "DRAFT");
    world.stories.is_in("S", "READY_FOR_PLANNING").await;
    world.kill().await;
    world.stories.0.lock().unwrap().refuse = 1;
    world.stories.open("S", "PLANNED");
    world.move_story("PLANNED");
    world.up().await;
    world.stories.is_in("S", "READY_FOR_EXECUTION").await;
    // The third was refused at first, so another call made it.
    assert_eq!(world.stories.steps(), 4);
    world.kill().await;
    world.stories.open("S", "TESTING");
    world.up().await;
    world.assign("A", "REVIEW_DESIGN");
    world.does(&["A reject_design"]).await;
    assert_eq!(world.stories.state("S").as_deref(), Some("TESTING"));
}

/// What the workflow asks for after each act.
fn next(action: &str) -> Option<&'static str> {
    match action {
        "retry" => Some("IMPLEMENT_FEATURE"),
        "commit_code" => Some("REVIEW_DESIGN"),
        "approve_design" => Some("RUN_TESTS"),
        "approve_tests" => Some("APPROVE_STORY"),
        "approve_story" => None,
        _ => Some("REVISE_CODE"),
    }
}

#[tokio::test]
async fn killed_at_any_time_they_lose_and_repeat_nothing() {
    const TASKS: [&str; 3] = ["A", "B", "C"];
    // Twelve acts straight on, one for starting over, two for a design, three for tests.
    const ACTS: usize = 18;
    let mut world = World::new(&[]).await;
    for task in TASKS {
        world.assign(task, "IMPLEMENT_FEATURE");
        world.dispatch(task);
    }
    world.move_story("READY_FOR_EXECUTION");
    let mut handled = 0;
    while handled < ACTS {
        world.kill().await;
        // Also an answer that is lost: nobody knows whether it was stored.
        world.bus.lose(1);
        world.up().await;
        until("another act", async || world.acts().len() > handled).await;
        for act in world.acts().split_off(handled) {
            handled += 1;
            let (task, action) = act.split_once(' ').unwrap();
            if let Some(label) = next(action) {
                world.assign(task, label);
            }
        }
    }
    let acts = world.acts();
    let count = |action: &str| acts.iter().filter(|act| act.ends_with(action)).count();
    assert_eq!(
        ["approve_story", "reject_design", "reject_tests", "retry"].map(count),
        [3, 1, 1, 1],
        "{acts:?}"
    );
    // Whatever was not settled is told once more.
    world.kill().await;
    world.up().await;
    world.assign("D", "REVIEW_DESIGN");
    until("the last act", async || world.acts().len() > ACTS).await;
    assert_eq!(world.acts().len(), ACTS + 1);
    assert_eq!(world.answers("agent.response.completed"), 3);
}
