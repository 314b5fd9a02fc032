//! `fleet plan`: a person's hands on a running Planning, over gRPC.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use fleet_proto::standin::v1::{
    ApprovePlanRequest, GetPlanRequest, GetPlanResponse, ListPlansRequest, Task,
    planning_admin_service_client::PlanningAdminServiceClient,
};
use serde_json::{Value, json};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    cli::{PlanCommand, Planning},
    output, plan_file,
};

/// Longer than any call takes, short enough for a person to wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(command: PlanCommand) -> anyhow::Result<()> {
    match command {
        PlanCommand::Add { file, planning, json } => {
            let request = plan_file::read(&file)?;
            let added = connect(&planning).await?.add_plan(request).await.map_err(refused)?.into_inner();
            print(json, json!({"plan_id": added.plan_id, "story_id": added.story_id}), || {
                format!("plan {} of story {}", added.plan_id, added.story_id)
            })
        }
        PlanCommand::Approve { plan_id, planning, by, json } => {
            let request = ApprovePlanRequest { plan_id, approved_by: by };
            let approved =
                connect(&planning).await?.approve_plan(request).await.map_err(refused)?.into_inner();
            let document = json!({
                "plan_id": approved.plan_id,
                "story_id": approved.story_id,
                "story_state": approved.story_state,
                "approvals": approved.approvals,
            });
            print(json, document, || {
                format!(
                    "plan {} approved, story {} is {}",
                    approved.plan_id, approved.story_id, approved.story_state
                )
            })
        }
        PlanCommand::Show { plan_id, planning, json } => {
            let request = GetPlanRequest { plan_id };
            let plan = connect(&planning).await?.get_plan(request).await.map_err(refused)?.into_inner();
            print(json, plan_document(&plan), || plan_text(&plan))
        }
        PlanCommand::List { planning, json } => {
            let found = connect(&planning)
                .await?
                .list_plans(ListPlansRequest {})
                .await
                .map_err(refused)?
                .into_inner();
            let document = found.plans.iter().map(|plan| {
                json!({
                    "plan_id": plan.plan_id,
                    "story_id": plan.story_id,
                    "title": plan.title,
                    "story_state": plan.story_state,
                    "task_count": plan.task_count,
                })
            });
            print(json, document.collect(), || {
                let lines = found.plans.iter().map(|plan| {
                    format!(
                        "{}  {}  {} tasks  {}",
                        plan.plan_id, plan.story_state, plan.task_count, plan.title
                    )
                });
                lines.collect::<Vec<_>>().join("\n")
            })
        }
    }
}

async fn connect(planning: &Planning) -> anyhow::Result<PlanningAdminServiceClient<Channel>> {
    let address = &planning.address;
    let url = if address.contains("://") { address.clone() } else { format!("http://{address}") };
    let channel = Endpoint::from_shared(url)
        .with_context(|| format!("{address:?} is no address (--planning)"))?
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT)
        .connect()
        .await
        .with_context(|| {
            format!("can't reach Planning at {address}; start it with `fleet serve`, or name another with --planning")
        })?;
    Ok(PlanningAdminServiceClient::new(channel))
}

#[allow(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn refused(status: Status) -> anyhow::Error {
    anyhow!("Planning refused ({:?}): {}", status.code(), status.message())
}

fn print(as_json: bool, document: Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    if as_json {
        output::json(&document)?
    } else {
        output::line(&text())?
    }
    Ok(())
}

fn plan_document(plan: &GetPlanResponse) -> Value {
    json!({
        "plan_id": plan.plan_id,
        "story_id": plan.story_id,
        "title": plan.title,
        "story_state": plan.story_state,
        "approvals": plan.approvals,
        "tasks": plan.tasks.iter().map(task_document).collect::<Vec<_>>(),
    })
}

fn task_document(task: &Task) -> Value {
    json!({
        "id": task.task_id,
        "title": task.title,
        "description": task.description,
        "role": task.role,
        "priority": task.priority,
        "estimated_hours": task.estimated_hours,
        "depends_on": task.depends_on.iter().map(|dependency| &dependency.task_id).collect::<Vec<_>>(),
        "plan_id": task.plan_id,
    })
}

fn plan_text(plan: &GetPlanResponse) -> String {
    let mut lines = vec![
        format!("{}  {}", plan.plan_id, plan.title),
        format!(
            "story {} is {}, approved {} times, {} tasks",
            plan.story_id,
            plan.story_state,
            plan.approvals,
            plan.tasks.len()
        ),
    ];
    for task in &plan.tasks {
        lines.push(format!(
            "  {}  {}  ({}, priority {}, {} h)",
            task.task_id, task.title, task.role, task.priority, task.estimated_hours
        ));
        for dependency in &task.depends_on {
            let title = plan.tasks.iter().find(|other| other.task_id == dependency.task_id);
            let title = title.map_or("", |other| other.title.as_str());
            lines.push(format!("      after {} {title}: {}", dependency.task_id, dependency.reason));
        }
    }
    lines.join("\n")
}
