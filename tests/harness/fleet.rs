//! The fleet's stand-ins as processes of their own: Planning and Context, and a Ray Executor. Driven by the admin calls
//! that people use, too.

use std::{
    net::TcpListener,
    ops::Range,
    path::Path,
    sync::atomic::{AtomicU16, Ordering},
};

use fleet_proto::standin::v1::{
    AddPlanRequest, ApprovePlanRequest, GetPlanRequest, GetPlanResponse, Task,
    planning_admin_service_client::PlanningAdminServiceClient,
};
use tempfile::TempDir;
use tokio::process::Command;
use tonic::transport::Channel;

use crate::{
    process::{Log, Process, program},
    wait::wait_for,
    world::World,
};

/// Ports for services that come back where they were: from below those that the system gives to outgoing connections,
/// and apart from those of nats-servers.
const PORTS: Range<u16> = 10_000..12_000;

/// Planning and Context; gone on drop.
pub struct Fleet {
    process: Process,
    pub planning: String,
    pub context: String,
    admin: PlanningAdminServiceClient<Channel>,
    data: TempDir,
    /// Of `fleet serve`, but for the addresses and the data.
    options: Vec<String>,
}

impl Fleet {
    pub async fn start(world: &World) -> Fleet {
        Fleet::start_with(world, &[]).await
    }

    /// With more options of `fleet serve`.
    pub async fn start_with(world: &World, options: &[&str]) -> Fleet {
        let url = world.nats.url();
        let options = [&["--nats", &url], options].concat().into_iter().map(str::to_owned).collect();
        Fleet::begin(["127.0.0.1:0", "127.0.0.1:0"].map(str::to_owned), options).await
    }

    /// On the bus of the daemon with this admin port, which may come later. It can be killed and come back.
    pub async fn start_on(admin: &str) -> Fleet {
        Fleet::start_on_with(admin, &[]).await
    }

    /// The same, with more options of `fleet serve`.
    pub async fn start_on_with(admin: &str, options: &[&str]) -> Fleet {
        let url = format!("http://{admin}");
        let options = [&["--cofferdam", &url], options].concat().into_iter().map(str::to_owned).collect();
        Fleet::begin([free_address(), free_address()], options).await
    }

    async fn begin(addresses: [String; 2], options: Vec<String>) -> Fleet {
        let data = TempDir::new().expect("a temporary directory");
        let (process, planning, context) = serve(&addresses, data.path(), &options).await;
        let admin = connect(&planning).await;
        Fleet { process, planning, context, admin, data, options }
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Starts it again, where it was and with what it had stored.
    pub async fn up(&mut self) {
        let addresses = [self.planning.clone(), self.context.clone()];
        (self.process, ..) = serve(&addresses, self.data.path(), &self.options).await;
        self.admin = connect(&self.planning).await;
    }

    pub fn log(&self) -> Log {
        self.process.log()
    }

    /// Waits for a line of the log that has this in it.
    pub async fn says(&self, text: &str) -> String {
        self.process.logged(&format!("{text:?}"), |line| line.contains(text)).await
    }

    /// Stores a plan that has three criteria and two roles; gives its id.
    pub async fn plan(&self, title: &str) -> String {
        self.plan_of(AddPlanRequest {
            title: title.to_owned(),
            description: "Customers can fill a cart but have no way to buy it.".to_owned(),
            acceptance_criteria: vec![
                "The cart keeps its items for a day".to_owned(),
                "Payment is taken once per cart".to_owned(),
                "A receipt is mailed".to_owned(),
            ],
            technical_notes: "Card numbers never reach our servers.".to_owned(),
            roles: vec!["DEVELOPER".to_owned(), "QA".to_owned()],
            ..Default::default()
        })
        .await
    }

    pub async fn plan_of(&self, plan: AddPlanRequest) -> String {
        self.admin.clone().add_plan(plan).await.expect("a plan that is stored").into_inner().plan_id
    }

    pub async fn approve(&self, plan_id: &str) {
        let request = ApprovePlanRequest { plan_id: plan_id.to_owned(), approved_by: "ann".to_owned() };
        self.admin.clone().approve_plan(request).await.expect("an approval");
    }

    pub async fn show(&self, plan_id: &str) -> GetPlanResponse {
        let request = GetPlanRequest { plan_id: plan_id.to_owned() };
        self.admin.clone().get_plan(request).await.expect("a plan").into_inner()
    }

    /// Waits until Planning has the plan's tasks and has told of each; gives them.
    pub async fn planned(&self, plan_id: &str) -> Vec<Task> {
        wait_for(&format!("the tasks of {plan_id}"), async || {
            let plan = self.show(plan_id).await;
            let all = !plan.tasks.is_empty() && plan.tasks.iter().all(|task| task.announced);
            (all && plan.story_state == "PLANNED").then_some(plan.tasks)
        })
        .await
    }
}

/// A running `fleet serve`, and where its Planning and its Context are.
async fn serve(addresses: &[String; 2], data: &Path, options: &[String]) -> (Process, String, String) {
    let mut command = Command::new(program("fleet"));
    command.args(["serve", "--planning", &addresses[0], "--context", &addresses[1], "--data"]);
    command.arg(data).args(options);
    let mut process = Process::start("fleet serve", command);
    let Some(ready) = process.ready().await else { panic!("fleet serve ended: {}", process.log().text()) };
    let address = |name: &str| ready[name].as_str().expect("an address").to_owned();
    let (planning, context) = (address("planning"), address("context"));
    (process, planning, context)
}

async fn connect(planning: &str) -> PlanningAdminServiceClient<Channel> {
    PlanningAdminServiceClient::connect(format!("http://{planning}")).await.expect("Planning")
}

/// An address that nobody has, and that no outgoing connection takes meanwhile.
pub fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run side by side begin at different places.
    let begin = (std::process::id().wrapping_mul(2_654_435_761) >> 16) as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + begin.wrapping_add(step) % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}

/// `fleet ray`; gone on drop.
pub struct Ray {
    _process: Process,
    pub address: String,
}

impl Ray {
    pub async fn start_with(world: &World, options: &[&str]) -> Ray {
        let mut command = Command::new(program("fleet"));
        command.args(["ray", "--listen", "127.0.0.1:0", "--nats"]).arg(world.nats.url()).args(options);
        let mut process = Process::start("fleet ray", command);
        let Some(ready) = process.ready().await else { panic!("fleet ray ended: {}", process.log().text()) };
        let address = ready["ray"].as_str().expect("an address").to_owned();
        Ray { _process: process, address }
    }
}
