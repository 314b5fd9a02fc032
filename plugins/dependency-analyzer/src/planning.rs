//! Planning, as this plugin calls it: what it has of a story, new tasks, dependencies. Which of its errors pass.

use std::collections::{HashMap, HashSet};

use cofferdam_sdk::rpc::{self, Code, Status};
use fleet_proto::task_derivation::v1::{
    CreateTasksRequest, CreateTasksResponse, DependencyEdge, GetPlanContextRequest, GetPlanContextResponse,
    ListStoryTasksRequest, ListStoryTasksResponse, SaveTaskDependenciesRequest, SaveTaskDependenciesResponse,
    TaskCreationCommand,
};
use fleet_tasks::titles;
use prost::Message;

use crate::analysis::Analysis;

const UPSTREAM: &str = "planning";
const SERVICE: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService";

/// Planning did not do what was asked of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) detail: String,
    /// A later run may fare better: it finds what this one left, and goes on from there.
    pub(crate) passing: bool,
}

impl Trouble {
    fn answer(detail: String) -> Self {
        Self { detail, passing: true }
    }
}

fn call<Req: Message, Resp: Message + Default>(method: &str, request: &Req) -> Result<Resp, Trouble> {
    ask(method, request).map_err(|status| failed(method, &status))
}

fn ask<Req: Message, Resp: Message + Default>(method: &str, request: &Req) -> Result<Resp, Status> {
    rpc::unary(UPSTREAM, &format!("{SERVICE}/{method}"), request)
}

fn failed(method: &str, status: &Status) -> Trouble {
    Trouble { passing: status.is_transient(), detail: format!("{method}: {status}") }
}

/// The story that a plan belongs to.
pub(crate) fn story_of(plan_id: &str) -> Result<String, Trouble> {
    let answer: GetPlanContextResponse =
        call("GetPlanContext", &GetPlanContextRequest { plan_id: plan_id.to_owned() })?;
    let story_id = answer.plan_context.unwrap_or_default().story_id;
    if story_id.is_empty() {
        let detail = format!("GetPlanContext names no story for plan {plan_id:?}");
        return Err(Trouble { detail, passing: false });
    }
    Ok(story_id)
}

/// Stores the tasks that the story does not have yet, then all dependencies. Returns how many tasks are new.
pub(crate) fn store(plan_id: &str, story_id: &str, analysis: &Analysis) -> Result<usize, Trouble> {
    let existing = existing(story_id)?;
    let new: Vec<_> = analysis.tasks.iter().filter(|task| !existing.contains_key(&task.key)).collect();
    let mut ids = existing;
    if !new.is_empty() {
        let commands = new.iter().map(|task| TaskCreationCommand {
            plan_id: plan_id.to_owned(),
            story_id: story_id.to_owned(),
            title: task.title.clone(),
            description: task.description.clone(),
            estimated_hours: task.estimated_hours,
            priority: task.priority,
            assigned_role: task.role.clone(),
        });
        let created = create(commands.collect())?;
        ids.extend(new.iter().map(|task| task.key.clone()).zip(created));
    }
    let id = |place: usize| ids.get(&analysis.tasks[place].key).cloned().unwrap_or_default();
    let edges: Vec<DependencyEdge> = analysis
        .edges
        .iter()
        .map(|edge| DependencyEdge {
            from_task_id: id(edge.dependent),
            to_task_id: id(edge.prerequisite),
            reason: edge.reason.clone(),
        })
        .collect();
    if !edges.is_empty() {
        connect(plan_id, story_id, edges)?;
    }
    Ok(new.len())
}

/// The ids of the story's tasks by title; of several with one title the first. A story that Planning does not find
/// has no tasks yet.
fn existing(story_id: &str) -> Result<HashMap<String, String>, Trouble> {
    let request = ListStoryTasksRequest { story_id: story_id.to_owned() };
    let answer: ListStoryTasksResponse = match ask("ListStoryTasks", &request) {
        Err(status) if status.code == Code::NotFound && !status.local => return Ok(HashMap::new()),
        answer => answer.map_err(|status| failed("ListStoryTasks", &status))?,
    };
    let mut ids = HashMap::new();
    for task in answer.tasks.into_iter().filter(|task| !task.task_id.is_empty()) {
        ids.entry(titles::key(&task.title)).or_insert(task.task_id);
    }
    Ok(ids)
}

fn create(commands: Vec<TaskCreationCommand>) -> Result<Vec<String>, Trouble> {
    let asked = commands.len();
    let answer: CreateTasksResponse = call("CreateTasks", &CreateTasksRequest { commands })?;
    let ids = answer.task_ids;
    if ids.len() != asked {
        return Err(Trouble::answer(format!("CreateTasks answered {} ids for {asked} tasks", ids.len())));
    }
    let distinct: HashSet<&str> = ids.iter().map(String::as_str).filter(|id| !id.is_empty()).collect();
    if distinct.len() != asked {
        return Err(Trouble::answer(format!("CreateTasks answered empty or repeated ids: {ids:?}")));
    }
    Ok(ids)
}

fn connect(plan_id: &str, story_id: &str, edges: Vec<DependencyEdge>) -> Result<(), Trouble> {
    let request =
        SaveTaskDependenciesRequest { plan_id: plan_id.to_owned(), story_id: story_id.to_owned(), edges };
    let answer: SaveTaskDependenciesResponse = call("SaveTaskDependencies", &request)?;
    if !answer.success {
        return Err(Trouble::answer("SaveTaskDependencies answered success = false".into()));
    }
    Ok(())
}
