//! The fleet's whole flow, from a plan that is approved to a story that is tested, on both buses: all plugins in one daemon, Planning and Context
//! in a process, agents and product owner in another.

use std::collections::BTreeSet;

use fleet_proto::{bus::v1::StoredMessage, standin::v1::AddPlanRequest};
use harness::{
    agents::Agents,
    daemon::Daemon,
    fleet::{Fleet, free_address},
    nats::Server,
    pipeline::bundled,
    plugin::Plugin,
    setup::Setup,
    wait::wait_for,
    way_in::{body, content},
    world::World,
};
use serde_json::{Value, json};

use crate::both::{Begin, on_both_buses};

on_both_buses! {
    contract_1_an_approved_plan_ends_as_a_story_in_testing_and_each_step_is_told,
    the_whole_flow_comes_to_the_same_end_whenever_the_daemon_is_killed,
}

/// What is told at several places of the way.
const PLACES: [&str; 4] = [
    "planning.plan.approved",
    "planning.task.created",
    "orchestration.task.dispatched",
    "workflow.task.completed",
];

const PLUGINS: [&str; 8] = [
    "prompt-builder",
    "output-parser",
    "dependency-analyzer",
    "workflow-router",
    "story-lifecycle",
    "council",
    "task-queue",
    "context-updater",
];

struct Company {
    setup: Setup,
    fleet: Fleet,
    /// For the agents.
    options: Vec<String>,
    _world: Option<World>,
}

impl Begin for Company {
    async fn on(setup: Setup, nats: Option<Server>) -> Company {
        let (admin, grpc) = (free_address(), free_address());
        let setup = setup.with("admin.listen", admin.as_str()).with("grpc.listen", vec![grpc.clone()]);
        let world = match nats {
            Some(nats) => Some(World::on(nats).await),
            None => None,
        };
        let (fleet, bus) = match &world {
            Some(world) => {
                let fleet = Fleet::start_with(world, &["--leave-stories"]).await;
                (fleet, ["--nats".to_owned(), world.nats.url()])
            }
            None => {
                let fleet = Fleet::start_on_with(&admin, &["--leave-stories"]).await;
                (fleet, ["--cofferdam".to_owned(), format!("http://{admin}")])
            }
        };
        let setup = setup
            .upstream("planning", &fleet.planning)
            .upstream("context", &fleet.context)
            .with("upstreams.context.once", vec!["fleet.context.v1.ContextService/UpdateContext"])
            .with("upstreams.scoring.address", "self")
            .with("executor.backend", "offline")
            .plugin(Plugin::bundled("council-scoring"));
        let setup = PLUGINS.into_iter().fold(setup, |setup, name| setup.plugin(bundled(name)));
        let options = bus.into_iter().chain(["--stories".to_owned(), grpc]).collect();
        Company { setup, fleet, options, _world: world }
    }
}

async fn contract_1_an_approved_plan_ends_as_a_story_in_testing_and_each_step_is_told(company: Company) {
    through(company, &[]).await;
}

async fn the_whole_flow_comes_to_the_same_end_whenever_the_daemon_is_killed(company: Company) {
    through(company, &PLACES).await;
}

/// The daemon is killed as soon as each of `places` is told of.
async fn through(company: Company, places: &[&str]) {
    let mut daemon = company.setup.start().await;
    let options: Vec<&str> = company.options.iter().map(String::as_str).collect();
    let _agents = Agents::start(&options).await;
    let plan = AddPlanRequest {
        story_id: "S".into(),
        title: "Checkout".into(),
        acceptance_criteria: ["A cart", "A payment for each cart", "A receipt"].map(str::to_owned).into(),
        roles: vec!["DEVELOPER".into(), "QA".into()],
        ..Default::default()
    };
    let plan_id = company.fleet.plan_of(plan).await;
    comes_to(&daemon, "READY_FOR_PLANNING").await;
    // (1) to (4): a model is asked for the tasks, and Planning has them.
    company.fleet.approve(&plan_id).await;
    for place in places {
        daemon.wait_stored(place, 1).await;
        daemon.kill().await;
        daemon = company.setup.start().await;
    }
    let derived = payload(&daemon.wait_stored("task.derivation.completed", 1).await[0]);
    assert_eq!((&derived["plan_id"], &derived["story_id"]), (&json!(plan_id), &json!("S")));
    let many = derived["task_count"].as_u64().expect("a count") as usize;
    assert!(many >= 3, "{derived}");
    let created: Vec<Value> =
        daemon.wait_stored("planning.task.created", many).await.iter().map(payload).collect();
    comes_to(&daemon, "PLANNED").await;
    // (5) to (8)
    comes_to(&daemon, "TESTING").await;
    let told =
        async |subject: &str| -> Vec<Value> { daemon.stored(subject).await.iter().map(payload).collect() };
    for task in &created {
        let id = &task["task_id"];
        let first = told("workflow.task.assigned").await.into_iter().find(|one| one["task_id"] == *id);
        let first = first.expect("an assignment");
        assert_eq!((&first["role"], &first["action"]), (&json!("developer"), &json!("IMPLEMENT_FEATURE")));
    }
    assert_eq!(told("workflow.task.completed").await.len(), many);
    assert!(told("workflow.task.completed").await.iter().all(|one| one["final_state"] == "done"));
    let rejected = told("workflow.state.changed").await;
    assert!(rejected.iter().any(|hop| hop["action"] == "reject_design"), "{rejected:?}");
    assert!(rejected.iter().any(|hop| hop["action"] == "reject_tests"), "{rejected:?}");
    assert_eq!(told("workflow.story.tasks_completed").await.len(), 1);
    each_went_after_what_it_depends_on(&daemon, &created).await;
    assert_eq!(told("orchestration.plan.approved").await.len(), 1);
    // Two roles of the plan, and each task; (9) Context hears of all of them.
    let deliberated = daemon.wait_stored("orchestration.deliberation.completed", 2 + many).await.len();
    assert_eq!(deliberated, 2 + many);
    let updated: Vec<Value> =
        daemon.wait_stored("context.updated", deliberated).await.iter().map(payload).collect();
    let changed: BTreeSet<String> = updated.iter().map(|one| one["changed"].to_string()).collect();
    assert_eq!((updated.len(), changed.len()), (deliberated, deliberated), "{updated:?}");
    assert!(updated.iter().all(|one| one["story_id"] == "S"), "{updated:?}");
    let dead = daemon.stored("cofferdam.dead.>").await;
    assert!(dead.is_empty(), "{}", body(&dead[0]));
}

/// In the order in which the orchestrator told of them.
async fn each_went_after_what_it_depends_on(daemon: &Daemon, created: &[Value]) {
    let told: Vec<(String, Value)> = daemon
        .stored("orchestration.task.>")
        .await
        .iter()
        .map(|message| (content(message).subject.clone(), payload(message)["task_id"].clone()))
        .collect();
    let at = |subject: &str, task: &Value| {
        let place = told.iter().position(|(of, id)| of == subject && id == task);
        place.unwrap_or_else(|| panic!("no {subject} of {task}: {told:?}"))
    };
    let mut waited = 0;
    for task in created {
        let went = at("orchestration.task.dispatched", &task["task_id"]);
        assert!(went < at("orchestration.task.completed", &task["task_id"]), "{told:?}");
        for needed in task["depends_on"].as_array().into_iter().flatten() {
            assert!(at("orchestration.task.completed", needed) < went, "{task}: {told:?}");
            waited += 1;
        }
    }
    assert_ne!(waited, 0, "no task depends on another: {created:?}");
}

async fn comes_to(daemon: &Daemon, state: &str) {
    wait_for(&format!("the story in {state}"), async || {
        let told = daemon.stored("planning.story.transitioned").await;
        told.iter().any(|step| payload(step)["to_state"] == state).then_some(())
    })
    .await;
}

/// Of ours, which is enveloped, or of the stand-ins, which need not be.
fn payload(message: &StoredMessage) -> Value {
    let all = body(message);
    if all["payload"].is_object() { all["payload"].clone() } else { all }
}
