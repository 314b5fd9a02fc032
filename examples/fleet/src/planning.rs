//! Planning's gRPC service for task derivation, on the store.

use fleet_proto::task_derivation::v1::{
    CreateTasksRequest, CreateTasksResponse, GetPlanContextRequest, GetPlanContextResponse,
    ListStoryTasksRequest, ListStoryTasksResponse, PlanContext, SaveTaskDependenciesRequest,
    SaveTaskDependenciesResponse, TaskSummary,
    task_derivation_planning_service_server::TaskDerivationPlanningService,
};
use tonic::{Request, Response, Status, async_trait};

use crate::{
    faults::Faults,
    once::once,
    store::{
        Store, plans,
        tasks::{self, Edge, NewTask, Of},
    },
};

pub(crate) struct Planning {
    pub(crate) store: Store,
    pub(crate) faults: Faults,
}

#[async_trait]
impl TaskDerivationPlanningService for Planning {
    async fn get_plan_context(
        &self,
        request: Request<GetPlanContextRequest>,
    ) -> Result<Response<GetPlanContextResponse>, Status> {
        self.faults.before("GetPlanContext").await?;
        let plan_id = request.into_inner().plan_id;
        if plan_id.is_empty() {
            return Err(Status::invalid_argument("plan_id is empty; name the plan"));
        }
        let plan = self.store.read(move |transaction| plans::get(transaction, &plan_id)).await?;
        self.faults.after("GetPlanContext")?;
        let plan_context = PlanContext {
            plan_id: plan.plan_id,
            story_id: plan.story_id,
            title: plan.title,
            description: plan.description,
            acceptance_criteria: plan.acceptance_criteria,
            technical_notes: plan.technical_notes,
            roles: plan.roles,
        };
        Ok(Response::new(GetPlanContextResponse { plan_context: Some(plan_context) }))
    }

    async fn create_tasks(
        &self,
        request: Request<CreateTasksRequest>,
    ) -> Result<Response<CreateTasksResponse>, Status> {
        self.faults.before("CreateTasks").await?;
        let answer = once(&self.store, "CreateTasks", request, |transaction, request| {
            let new: Vec<NewTask> = request
                .commands
                .into_iter()
                .map(|command| NewTask {
                    plan_id: command.plan_id,
                    story_id: command.story_id,
                    title: command.title,
                    description: command.description,
                    estimated_hours: command.estimated_hours,
                    priority: command.priority,
                    assigned_role: command.assigned_role,
                })
                .collect();
            let task_ids = tasks::create(transaction, &new)?;
            tracing::info!(
                tasks = task_ids.len(),
                plan_id = new.first().map(|task| &*task.plan_id),
                "tasks created"
            );
            Ok(CreateTasksResponse { task_ids })
        })
        .await?;
        self.faults.after("CreateTasks")?;
        Ok(answer)
    }

    async fn list_story_tasks(
        &self,
        request: Request<ListStoryTasksRequest>,
    ) -> Result<Response<ListStoryTasksResponse>, Status> {
        self.faults.before("ListStoryTasks").await?;
        let story_id = request.into_inner().story_id;
        if story_id.is_empty() {
            return Err(Status::invalid_argument("story_id is empty; name the story"));
        }
        let found: Vec<tasks::Task> =
            self.store.read(move |transaction| tasks::list(transaction, Of::Story(&story_id))).await?;
        self.faults.after("ListStoryTasks")?;
        let tasks = found
            .into_iter()
            .map(|task| TaskSummary {
                task_id: task.task_id,
                title: task.title,
                priority: task.priority,
                assigned_role: task.assigned_role,
            })
            .collect();
        Ok(Response::new(ListStoryTasksResponse { tasks }))
    }

    async fn save_task_dependencies(
        &self,
        request: Request<SaveTaskDependenciesRequest>,
    ) -> Result<Response<SaveTaskDependenciesResponse>, Status> {
        self.faults.before("SaveTaskDependencies").await?;
        let answer = once(&self.store, "SaveTaskDependencies", request, |transaction, request| {
            let edges: Vec<Edge> = request
                .edges
                .into_iter()
                .map(|edge| Edge { from: edge.from_task_id, to: edge.to_task_id, reason: edge.reason })
                .collect();
            tasks::depend(transaction, &request.plan_id, &request.story_id, &edges)?;
            tracing::info!(edges = edges.len(), plan_id = request.plan_id, "dependencies saved");
            Ok(SaveTaskDependenciesResponse { success: true })
        })
        .await?;
        self.faults.after("SaveTaskDependencies")?;
        Ok(answer)
    }
}
