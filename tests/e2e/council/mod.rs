//! Councils as their callers and the fleet's events have them: a daemon with the plugins council and council-scoring on both buses, and
//! an endpoint that says what its task tells it to.

mod calls;
mod checks;
mod collector;
mod kills;
mod plans;
mod stage;

use fleet_proto::{
    admin::v1::{JobFilter, ListJobsRequest, jobs_client::JobsClient},
    bus::v1::StoredMessage,
    orchestrator::v1::{
        CouncilInfo, CreateCouncilRequest, CreateCouncilResponse, DeleteCouncilRequest, DeliberateRequest,
        DeliberateResponse, DeliberationResult, DeliberationStatus, GetDeliberationResultRequest,
        GetDeliberationResultResponse, ListCouncilsRequest, OrchestrateRequest, OrchestrateResponse,
        orchestrator_service_client::OrchestratorServiceClient,
    },
};
use futures_util::TryStreamExt;
use harness::{
    daemon::Daemon,
    endpoint::Endpoint,
    nats::Server,
    pipeline::bundled,
    planning::Planning,
    plugin::Plugin,
    process::{output, program},
    setup::Setup,
    wait::wait_for,
    way_in::body,
};
use serde_json::{Value, json};
use tokio::process::Command;
use tonic::{Code, Request, Status, transport::Channel};

use crate::both::Begin;

const COMPLETED: &str = "orchestration.deliberation.completed";
/// What a sound proposal says.
const ONE: &str = "Store the order under its number in one transaction, and mail the receipt after it.";
const TWO: &str =
    "Keep an outbox beside the orders, so that a receipt is mailed once and no order is stored twice.";
const THREE: &str =
    "Let the database refuse a second order of the same number, and mail what it has accepted.";

/// A setup with councils, which does not run yet.
struct Hall {
    setup: Setup,
    endpoint: Endpoint,
    nats: Option<Server>,
    _planning: Planning,
}

impl Begin for Hall {
    async fn on(setup: Setup, nats: Option<Server>) -> Hall {
        let (endpoint, planning) = (Endpoint::start().await, Planning::start().await);
        let setup = setup
            .upstream("planning", &planning.address)
            .with("grpc.listen", vec!["127.0.0.1:0"])
            .with("upstreams.scoring.address", "self")
            .with("executor.backend", "queue")
            .with("executor.model", "m")
            .with("executor.attempts", 1)
            .with("executor.endpoints.one.url", endpoint.url())
            .plugin(bundled("council"))
            .plugin(Plugin::bundled("council-scoring"));
        Hall { setup, endpoint, nats, _planning: planning }
    }
}

/// What runs: with NATS jobs are worked by a process of their own.
struct Running {
    daemon: Daemon,
    worker: Option<Daemon>,
    client: Client,
}

impl Hall {
    async fn open(&self) -> Running {
        let worker = match self.nats {
            Some(_) => Some(self.setup.start_worker().await),
            None => None,
        };
        self.open_with(worker).await
    }

    /// Kills the daemon and starts another; whoever works jobs elsewhere goes on.
    async fn again(&self, mut running: Running) -> Running {
        running.daemon.kill().await;
        let Running { worker, .. } = running;
        self.open_with(worker).await
    }

    async fn open_with(&self, worker: Option<Daemon>) -> Running {
        let daemon = self.setup.start().await;
        let client = Client::of(&daemon);
        Running { daemon, worker, client }
    }

    /// With a plugin in place of the one of its name.
    fn with(mut self, plugin: Plugin) -> Hall {
        self.setup = self.setup.plugin(plugin);
        self
    }

    /// Waits until so many answers are on record.
    async fn recorded(&self, running: &Running, count: usize) {
        let endpoint =
            Channel::from_shared(format!("http://{}", running.daemon.admin())).expect("an address");
        let mut jobs = JobsClient::new(endpoint.connect_lazy());
        wait_for(&format!("{count} answers on record"), async || {
            let filter = JobFilter { state: "done".into(), ..Default::default() };
            let request = ListJobsRequest { filter: Some(filter), newest: 1000 };
            let listed = jobs.list(request).await.expect("a list").into_inner();
            let listed: Vec<_> = listed.try_collect().await.expect("a list");
            // The last item says whether there are more.
            (listed.len() > count).then_some(())
        })
        .await;
    }

    async fn asked(&self) -> u64 {
        self.endpoint.seen().await.requests
    }
}

impl Running {
    /// What is told of a task's deliberations, once there is so much.
    async fn told(&self, task_id: &str, count: usize) -> Vec<Value> {
        let of = |value: &Value| value["task_id"] == task_id;
        wait_for(&format!("{count} ends of {task_id}"), async || {
            let told: Vec<Value> =
                self.daemon.stored(COMPLETED).await.iter().map(payload).filter(of).collect();
            (told.len() >= count).then_some(told)
        })
        .await
    }

    async fn told_once(&self, task_id: &str) -> Value {
        let mut told = self.told(task_id, 1).await;
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0)
    }

    async fn no_dead_letters(&self) {
        let dead = self.daemon.stored("cofferdam.dead.>").await;
        assert!(dead.is_empty(), "{}", body(&dead[0]));
    }
}

fn payload(message: &StoredMessage) -> Value {
    body(message)["payload"].clone()
}

/// The gateway's.
#[derive(Clone)]
struct Client(OrchestratorServiceClient<Channel>);

impl Client {
    fn of(daemon: &Daemon) -> Client {
        let endpoint = Channel::from_shared(format!("http://{}", daemon.grpc())).expect("an address");
        Client(OrchestratorServiceClient::new(endpoint.connect_lazy()))
    }

    async fn deliberate(&self, asked: DeliberateRequest) -> Result<DeliberateResponse, Status> {
        Ok(self.0.clone().deliberate(asked).await?.into_inner())
    }

    /// So that it may be asked again.
    async fn deliberate_with(
        &self,
        key: &str,
        asked: DeliberateRequest,
    ) -> Result<DeliberateResponse, Status> {
        let mut request = Request::new(asked);
        request.metadata_mut().insert("idempotency-key", key.parse().expect("a key"));
        Ok(self.0.clone().deliberate(request).await?.into_inner())
    }

    async fn orchestrate(&self, asked: OrchestrateRequest) -> Result<OrchestrateResponse, Status> {
        Ok(self.0.clone().orchestrate(asked).await?.into_inner())
    }

    async fn result(&self, task_id: &str) -> Result<GetDeliberationResultResponse, Status> {
        let request = GetDeliberationResultRequest { task_id: task_id.into() };
        Ok(self.0.clone().get_deliberation_result(request).await?.into_inner())
    }

    /// What is kept of a deliberation.
    async fn kept(&self, task_id: &str) -> GetDeliberationResultResponse {
        self.result(task_id).await.unwrap_or_else(|e| panic!("{task_id}: {e}"))
    }

    async fn keeps_nothing_of(&self, task_id: &str) {
        assert_eq!(self.result(task_id).await.expect_err("nothing").code(), Code::NotFound, "{task_id}");
    }

    async fn create(&self, asked: CreateCouncilRequest) -> Result<CreateCouncilResponse, Status> {
        Ok(self.0.clone().create_council(asked).await?.into_inner())
    }

    async fn delete(&self, role: &str) -> Result<(), Status> {
        self.0.clone().delete_council(DeleteCouncilRequest { role: role.into() }).await.map(drop)
    }

    async fn councils(&self, role_filter: &str) -> Vec<CouncilInfo> {
        let request = ListCouncilsRequest { role_filter: role_filter.into(), include_agents: true };
        self.0.clone().list_councils(request).await.expect("councils").into_inner().councils
    }
}

/// A task whose agents propose these, each its own.
fn task(proposals: &[&str]) -> String {
    format!("Each order is stored once, and its receipt is mailed.\n!proposals {}", json!(proposals))
}

/// To a council of the developers.
fn deliberation(task_id: &str, proposals: &[&str]) -> DeliberateRequest {
    DeliberateRequest {
        task_id: task_id.into(),
        task_description: task(proposals),
        role: "DEV".into(),
        ..Default::default()
    }
}

fn orchestration(task_id: &str, proposals: &[&str]) -> OrchestrateRequest {
    OrchestrateRequest {
        task_id: task_id.into(),
        task_description: task(proposals),
        role: "DEV".into(),
        story_id: "S".into(),
        ..Default::default()
    }
}

fn content(result: &DeliberationResult) -> &str {
    &result.proposal.as_ref().expect("a proposal").content
}

fn author(result: &DeliberationResult) -> &str {
    &result.proposal.as_ref().expect("a proposal").author_id
}

fn contents(results: &[DeliberationResult]) -> Vec<&str> {
    results.iter().map(content).collect()
}

/// Waits until a task's deliberation is over in this way.
async fn ends(client: &Client, task_id: &str, status: DeliberationStatus) -> GetDeliberationResultResponse {
    wait_for(&format!("{task_id} to be {status:?}"), async || {
        client.result(task_id).await.ok().filter(|result| result.status() == status)
    })
    .await
}

/// As `docs/council.md` has it, to be copied.
#[tokio::test]
async fn the_configuration_of_the_chapter_is_fine() {
    let chapter = include_str!("../../../docs/council.md");
    let (_, rest) = chapter.split_once("## Switching it on\n\n```toml\n").expect("a configuration");
    let (config, _) = rest.split_once("\n```\n").expect("its end");
    let folder = tempfile::TempDir::new().expect("a directory");
    std::fs::write(folder.path().join("cofferdam.toml"), config).expect("a file");
    let mut command = Command::new(program("cofferdam"));
    command.arg("check").current_dir(folder.path());
    let told = output("cofferdam check", command).await;
    assert!(told.status.success(), "{told:?}");
}
