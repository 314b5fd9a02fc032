//! The fleet's stand-ins as processes of their own: Planning and Context, and a Ray Executor. Driven by the admin calls
//! that people use, too.

use fleet_proto::standin::v1::{
    AddPlanRequest, ApprovePlanRequest, GetPlanRequest, GetPlanResponse, Task,
    planning_admin_service_client::PlanningAdminServiceClient,
};
use tempfile::TempDir;
use tokio::process::Command;
use tonic::transport::Channel;

use crate::{
    process::{Process, program},
    wait::wait_for,
    world::World,
};

/// Planning and Context; gone on drop.
pub struct Fleet {
    _process: Process,
    pub planning: String,
    pub context: String,
    admin: PlanningAdminServiceClient<Channel>,
    _data: TempDir,
}

impl Fleet {
    pub async fn start(world: &World) -> Fleet {
        Fleet::start_with(world, &[]).await
    }

    /// With more options of `fleet serve`.
    pub async fn start_with(world: &World, options: &[&str]) -> Fleet {
        let data = TempDir::new().expect("a temporary directory");
        let mut command = Command::new(program("fleet"));
        command.args(["serve", "--planning", "127.0.0.1:0", "--context", "127.0.0.1:0", "--nats"]);
        command.arg(world.nats.url()).arg("--data").arg(data.path()).args(options);
        let mut process = Process::start("fleet serve", command);
        let Some(ready) = process.ready().await else {
            panic!("fleet serve ended: {}", process.log().text())
        };
        let address = |name: &str| ready[name].as_str().expect("an address").to_owned();
        let (planning, context) = (address("planning"), address("context"));
        let admin =
            PlanningAdminServiceClient::connect(format!("http://{planning}")).await.expect("Planning");
        Fleet { _process: process, planning, context, admin, _data: data }
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
