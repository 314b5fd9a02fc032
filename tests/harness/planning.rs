//! Planning in the test's own process, for what the stand-in does not do: it keeps every call, can hold calls back until
//! the test lets them go, and can lose the answer of one that it has done.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use fleet_proto::task_derivation::v1::{
    CreateTasksRequest, CreateTasksResponse, GetPlanContextRequest, GetPlanContextResponse,
    ListStoryTasksRequest, ListStoryTasksResponse, PlanContext, SaveTaskDependenciesRequest,
    SaveTaskDependenciesResponse, TaskSummary,
    task_derivation_planning_service_server::{
        TaskDerivationPlanningService, TaskDerivationPlanningServiceServer,
    },
};
use tokio::{sync::watch, task::JoinHandle};
use tonic::{Request, Response, Status, async_trait, metadata::MetadataMap};

use crate::{serve::serve, wait::wait_for};

/// As grants name it, with its method: `<upstream>/<SERVICE>/<method>`.
pub const SERVICE: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService";

/// A call that arrived.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: &'static str,
    pub metadata: MetadataMap,
}

/// Ends on drop.
pub struct Planning {
    pub address: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    calls: Mutex<Vec<Call>>,
    tasks: Mutex<Vec<TaskSummary>>,
    edges: Mutex<Vec<(String, String)>>,
    /// How many answers of each method are still to be lost.
    lose: Mutex<BTreeMap<&'static str, u32>>,
    open: watch::Sender<bool>,
    delay: Duration,
}

impl Planning {
    /// Answers at once.
    pub async fn start() -> Planning {
        Planning::with(true, Duration::ZERO).await
    }

    /// Answers nothing until it is released.
    pub async fn held() -> Planning {
        Planning::with(false, Duration::ZERO).await
    }

    /// Answers each call after so long.
    pub async fn slow(delay: Duration) -> Planning {
        Planning::with(true, delay).await
    }

    async fn with(open: bool, delay: Duration) -> Planning {
        let shared = Arc::new(Shared {
            calls: Mutex::default(),
            tasks: Mutex::default(),
            edges: Mutex::default(),
            lose: Mutex::default(),
            open: watch::channel(open).0,
            delay,
        });
        let (address, server) =
            serve(TaskDerivationPlanningServiceServer::new(Service(shared.clone()))).await;
        Planning { address, shared, server }
    }

    pub fn release(&self) {
        self.shared.open.send_replace(true);
    }

    /// The next calls of this method do their work and answer UNAVAILABLE.
    pub fn lose(&self, method: &'static str, times: u32) {
        self.shared.lose.lock().expect("no poison").insert(method, times);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().expect("no poison").clone()
    }

    pub async fn wait_calls(&self, count: usize) -> Vec<Call> {
        wait_for(&format!("{count} calls to Planning"), async || {
            Some(self.calls()).filter(|calls| calls.len() >= count)
        })
        .await
    }

    /// Titles of the tasks that were created, in order.
    pub fn titles(&self) -> Vec<String> {
        self.shared.tasks.lock().expect("no poison").iter().map(|task| task.title.clone()).collect()
    }

    /// From the dependent to what it needs, by title.
    pub fn edges(&self) -> Vec<(String, String)> {
        let tasks = self.shared.tasks.lock().expect("no poison");
        let title = |id: &String| {
            let task = tasks.iter().find(|task| task.task_id == *id);
            task.unwrap_or_else(|| panic!("no task has the id {id:?}")).title.clone()
        };
        self.shared
            .edges
            .lock()
            .expect("no poison")
            .iter()
            .map(|(from, to)| (title(from), title(to)))
            .collect()
    }
}

impl Drop for Planning {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service(Arc<Shared>);

impl Service {
    async fn arrived<T>(&self, method: &'static str, request: Request<T>) -> T {
        let call = Call { method, metadata: request.metadata().clone() };
        self.0.calls.lock().expect("no poison").push(call);
        tokio::time::sleep(self.0.delay).await;
        // The sender lives as long as we do.
        drop(self.0.open.subscribe().wait_for(|open| *open).await);
        request.into_inner()
    }

    fn answer<T>(&self, method: &'static str, answer: T) -> Result<Response<T>, Status> {
        match self.0.lose.lock().expect("no poison").get_mut(method) {
            Some(left @ 1..) => {
                *left -= 1;
                Err(Status::unavailable("the answer was lost"))
            }
            _ => Ok(Response::new(answer)),
        }
    }
}

#[async_trait]
impl TaskDerivationPlanningService for Service {
    async fn get_plan_context(
        &self,
        request: Request<GetPlanContextRequest>,
    ) -> Result<Response<GetPlanContextResponse>, Status> {
        let plan_id = self.arrived("GetPlanContext", request).await.plan_id;
        let plan = PlanContext {
            story_id: format!("story-of-{plan_id}"),
            title: format!("A plan {plan_id}"),
            plan_id,
            description: "Something is to be built.".to_owned(),
            acceptance_criteria: vec!["It works".to_owned()],
            technical_notes: String::new(),
            roles: vec!["DEVELOPER".to_owned()],
        };
        self.answer("GetPlanContext", GetPlanContextResponse { plan_context: Some(plan) })
    }

    async fn create_tasks(
        &self,
        request: Request<CreateTasksRequest>,
    ) -> Result<Response<CreateTasksResponse>, Status> {
        let commands = self.arrived("CreateTasks", request).await.commands;
        let mut task_ids = Vec::new();
        {
            let mut tasks = self.0.tasks.lock().expect("no poison");
            for command in commands {
                let task_id = format!("task-{}", tasks.len() + 1);
                task_ids.push(task_id.clone());
                tasks.push(TaskSummary {
                    task_id,
                    title: command.title,
                    priority: command.priority,
                    assigned_role: command.assigned_role,
                });
            }
        }
        self.answer("CreateTasks", CreateTasksResponse { task_ids })
    }

    async fn list_story_tasks(
        &self,
        request: Request<ListStoryTasksRequest>,
    ) -> Result<Response<ListStoryTasksResponse>, Status> {
        self.arrived("ListStoryTasks", request).await;
        let tasks = self.0.tasks.lock().expect("no poison").clone();
        self.answer("ListStoryTasks", ListStoryTasksResponse { tasks })
    }

    async fn save_task_dependencies(
        &self,
        request: Request<SaveTaskDependenciesRequest>,
    ) -> Result<Response<SaveTaskDependenciesResponse>, Status> {
        let edges = self.arrived("SaveTaskDependencies", request).await.edges;
        let edges = edges.into_iter().map(|edge| (edge.from_task_id, edge.to_task_id));
        self.0.edges.lock().expect("no poison").extend(edges);
        self.answer("SaveTaskDependencies", SaveTaskDependenciesResponse { success: true })
    }
}
