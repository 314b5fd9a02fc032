//! The admin service of the Planning stand-in: plans go in, get approved and are looked at.

use fleet_proto::standin::v1::{
    AddPlanRequest, AddPlanResponse, ApprovePlanRequest, ApprovePlanResponse, Dependency, GetPlanRequest,
    GetPlanResponse, ListPlansRequest, ListPlansResponse, PlanSummary, Task,
    planning_admin_service_server::PlanningAdminService,
};
use tonic::{Request, Response, Status, async_trait};

use crate::{
    lifecycle::{self, Manner},
    once::once,
    store::{
        Error, Store,
        plans::{self, NewPlan},
        tasks::{self, Of},
    },
};

/// Who approved, if the caller does not say.
const PRODUCT_OWNER: &str = "product-owner";

pub(crate) struct Admin {
    pub(crate) store: Store,
    pub(crate) manner: Manner,
}

#[async_trait]
impl PlanningAdminService for Admin {
    async fn add_plan(&self, request: Request<AddPlanRequest>) -> Result<Response<AddPlanResponse>, Status> {
        let manner = self.manner;
        once(&self.store, "AddPlan", request, move |transaction, request| {
            let plan = NewPlan {
                plan_id: request.plan_id,
                story_id: request.story_id,
                title: request.title,
                description: request.description,
                acceptance_criteria: request.acceptance_criteria,
                technical_notes: request.technical_notes,
                roles: request.roles,
            };
            let (plan_id, story_id) = lifecycle::add(transaction, manner, plan)?;
            tracing::info!(plan_id, story_id, "plan added");
            Ok(AddPlanResponse { plan_id, story_id })
        })
        .await
    }

    async fn approve_plan(
        &self,
        request: Request<ApprovePlanRequest>,
    ) -> Result<Response<ApprovePlanResponse>, Status> {
        let manner = self.manner;
        once(&self.store, "ApprovePlan", request, move |transaction, request| {
            let by = if request.approved_by.is_empty() { PRODUCT_OWNER } else { &request.approved_by };
            let approved = lifecycle::approve(transaction, manner, &request.plan_id, by)?;
            tracing::info!(plan_id = request.plan_id, by, approvals = approved.approvals, "plan approved");
            Ok(ApprovePlanResponse {
                plan_id: request.plan_id,
                story_id: approved.story_id,
                story_state: approved.story_state,
                approvals: approved.approvals,
            })
        })
        .await
    }

    async fn get_plan(&self, request: Request<GetPlanRequest>) -> Result<Response<GetPlanResponse>, Status> {
        let plan_id = request.into_inner().plan_id;
        let (plan, story, found) = self
            .store
            .read(move |transaction| {
                let plan = plans::get(transaction, &plan_id)?;
                let story = plans::story(transaction, &plan.story_id)?;
                let tasks = tasks::list(transaction, Of::Plan(&plan_id))?;
                Ok::<_, Error>((plan, story, tasks))
            })
            .await?;
        Ok(Response::new(GetPlanResponse {
            plan_id: plan.plan_id,
            story_id: plan.story_id,
            title: plan.title,
            description: plan.description,
            acceptance_criteria: plan.acceptance_criteria,
            technical_notes: plan.technical_notes,
            roles: plan.roles,
            story_state: story.state,
            approvals: plan.approvals,
            tasks: found.into_iter().map(task).collect(),
        }))
    }

    async fn list_plans(&self, _: Request<ListPlansRequest>) -> Result<Response<ListPlansResponse>, Status> {
        let found = self.store.read(plans::list).await?;
        let plans = found
            .into_iter()
            .map(|plan| PlanSummary {
                plan_id: plan.plan_id,
                story_id: plan.story_id,
                title: plan.title,
                story_state: plan.story_state,
                task_count: plan.task_count,
            })
            .collect();
        Ok(Response::new(ListPlansResponse { plans }))
    }
}

fn task(task: tasks::Task) -> Task {
    Task {
        task_id: task.task_id,
        plan_id: task.plan_id,
        story_id: task.story_id,
        title: task.title,
        description: task.description,
        role: task.assigned_role,
        priority: task.priority,
        estimated_hours: task.estimated_hours,
        depends_on: task
            .depends_on
            .into_iter()
            .map(|dependency| Dependency { task_id: dependency.task_id, reason: dependency.reason })
            .collect(),
        created_at: task.created_at,
        announced: task.announced,
    }
}
