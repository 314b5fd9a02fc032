//! The services as their callers see them: a real server on a free port, a real client. What needs NATS is tested
//! from outside, with the binary.

mod admin;
mod agents;
mod bus;
mod context;
mod fake;
mod planning;
mod ray;

use std::time::Duration;

use clap::Parser as _;
use fleet_proto::{
    context::v1::context_service_client::ContextServiceClient,
    standin::v1::{AddPlanRequest, planning_admin_service_client::PlanningAdminServiceClient},
    task_derivation::v1::{
        TaskCreationCommand, task_derivation_planning_service_client::TaskDerivationPlanningServiceClient,
    },
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request,
    service::Routes,
    transport::{Channel, Endpoint},
};

use crate::{
    cli::{Cli, Command},
    context::Texts,
    grpc::Bound,
    serve,
    store::Store,
};

/// Planning and Context on free ports, without the ways to the bus. Stops when it is dropped.
struct Fleet {
    planning: TaskDerivationPlanningServiceClient<Channel>,
    admin: PlanningAdminServiceClient<Channel>,
    context: ContextServiceClient<Channel>,
    store: Store,
    _shutdown: DropGuard,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn start(flags: &[&str]) -> Fleet {
        let cli = Cli::parse_from(["fleet", "serve"].iter().chain(flags));
        let Command::Serve(args) = cli.command else { panic!("not serve") };
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let shutdown = CancellationToken::new();
        let texts = Texts::read(&args.context_files).unwrap();
        let planning = serve(serve::planning_routes(&store, &args).await.unwrap(), &shutdown).await;
        let context = serve::context_routes(&store, texts, &args).await.unwrap();
        let context = serve(context, &shutdown).await;
        Fleet {
            planning: TaskDerivationPlanningServiceClient::new(planning.clone()),
            admin: PlanningAdminServiceClient::new(planning),
            context: ContextServiceClient::new(context),
            store,
            _shutdown: shutdown.drop_guard(),
            _folder: folder,
        }
    }

    /// Adds the plan `p` of the story `s`.
    async fn with_plan(mut self) -> Fleet {
        let request = AddPlanRequest {
            plan_id: "p".to_owned(),
            story_id: "s".to_owned(),
            title: "Checkout".to_owned(),
            description: "From cart to order".to_owned(),
            acceptance_criteria: vec!["a cart".to_owned(), "an order".to_owned()],
            technical_notes: "PostgreSQL".to_owned(),
            roles: vec!["DEVELOPER".to_owned(), "QA".to_owned()],
        };
        self.admin.add_plan(request).await.unwrap();
        self
    }
}

/// Serves on a free port; a channel to it.
async fn serve(routes: Routes, shutdown: &CancellationToken) -> Channel {
    let bound = Bound::new("127.0.0.1:0", "--planning").await.unwrap();
    let address = bound.address();
    tokio::spawn(bound.serve(routes, shutdown.clone()));
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .timeout(Duration::from_secs(20))
        .connect()
        .await
        .unwrap()
}

fn command(title: &str) -> TaskCreationCommand {
    TaskCreationCommand {
        plan_id: "p".to_owned(),
        story_id: "s".to_owned(),
        title: title.to_owned(),
        description: format!("{title}, in full"),
        estimated_hours: 8,
        priority: 2,
        assigned_role: "DEVELOPER".to_owned(),
    }
}

/// A request with an idempotency key.
fn keyed<T>(key: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("cofferdam-idempotency-key", key.parse().unwrap());
    request
}
