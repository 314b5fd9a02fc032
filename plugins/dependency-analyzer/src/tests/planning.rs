//! A Planning for one test: what it has, what it answers, what it was asked.

use cofferdam_sdk::{
    rpc::Code,
    testing::{Host, Run},
};
use fleet_proto::task_derivation::v1::{
    CreateTasksRequest, CreateTasksResponse, GetPlanContextRequest, GetPlanContextResponse,
    ListStoryTasksRequest, ListStoryTasksResponse, PlanContext, SaveTaskDependenciesRequest,
    SaveTaskDependenciesResponse, TaskSummary,
};
use prost::Message;

const SERVICE: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService";

pub(super) fn method(name: &str) -> String {
    format!("{SERVICE}/{name}")
}

/// A host whose Planning knows these tasks (id, title) of every story, and gives ids `new-1`, `new-2`...
pub(super) fn host(existing: &'static [(&'static str, &'static str)]) -> Host {
    Host::from_manifest(include_str!("../../plugin.toml"))
        .answers("planning", &method("GetPlanContext"), |request: GetPlanContextRequest| {
            let context = PlanContext {
                plan_id: request.plan_id,
                story_id: "of-plan".into(),
                ..PlanContext::default()
            };
            Ok(GetPlanContextResponse { plan_context: Some(context) })
        })
        .answers("planning", &method("ListStoryTasks"), move |_: ListStoryTasksRequest| {
            let tasks = existing.iter().map(|(id, title)| TaskSummary {
                task_id: (*id).into(),
                title: (*title).into(),
                ..TaskSummary::default()
            });
            Ok(ListStoryTasksResponse { tasks: tasks.collect() })
        })
        .answers("planning", &method("CreateTasks"), |request: CreateTasksRequest| {
            let task_ids = (1..=request.commands.len()).map(|n| format!("new-{n}")).collect();
            Ok(CreateTasksResponse { task_ids })
        })
        .answers("planning", &method("SaveTaskDependencies"), |_: SaveTaskDependenciesRequest| {
            Ok(SaveTaskDependenciesResponse { success: true })
        })
}

pub(super) fn creates(host: Host, ids: &'static [&'static str]) -> Host {
    host.answers("planning", &method("CreateTasks"), |_: CreateTasksRequest| {
        Ok(CreateTasksResponse { task_ids: ids.iter().map(|id| (*id).to_owned()).collect() })
    })
}

pub(super) fn saves_nothing(host: Host) -> Host {
    host.answers("planning", &method("SaveTaskDependencies"), |_: SaveTaskDependenciesRequest| {
        Ok(SaveTaskDependenciesResponse { success: false })
    })
}

pub(super) fn fails(host: Host, name: &str, code: Code) -> Host {
    host.fails("planning", &method(name), code, "as scripted")
}

/// The names of the methods that were called, in order.
pub(super) fn called(run: &Run) -> Vec<&str> {
    run.calls.iter().filter_map(|call| call.method.rsplit('/').next()).collect()
}

/// The one request to a method.
pub(super) fn asked<T: Message + Default>(run: &Run, name: &str) -> T {
    let requests: Vec<_> = run.calls.iter().filter(|call| call.method == method(name)).collect();
    assert_eq!(requests.len(), 1, "{name} was called {} times", requests.len());
    T::decode(requests[0].request.as_slice()).unwrap()
}
