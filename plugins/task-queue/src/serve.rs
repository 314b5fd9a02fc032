//! `cofferdam.queue.v1.TaskQueueService`: how tasks stand. It only reads.

use cofferdam_sdk::service::{self, Call, Status};
use fleet_proto::queue::v1::{
    GetTaskRequest, GetTaskResponse, ListTasksRequest, ListTasksResponse, QueuedTask,
};

use crate::{
    queue::{Behind, Queue, Row},
    task::{self, Task},
};

const UNKNOWN: &str = "UNKNOWN";

/// One call of any of the methods that the manifest lists.
pub(crate) fn serve(call: Call) -> Result<Vec<u8>, Status> {
    match call.name() {
        "GetTask" => service::answer(&get(call.read()?)?),
        "ListTasks" => service::answer(&list(&call.read()?)?),
        _ => Err(Status::unimplemented(&call)),
    }
}

fn get(request: GetTaskRequest) -> Result<GetTaskResponse, Status> {
    if request.task_id.trim().is_empty() {
        return Err(Status::invalid_argument("task_id is empty; name one"));
    }
    let Some(task) = Task::load()? else {
        let status = UNKNOWN.into();
        return Ok(GetTaskResponse { task_id: request.task_id, status, ..GetTaskResponse::default() });
    };
    Ok(GetTaskResponse {
        status: task.status.to_string(),
        priority: 11 - i32::from(task.score),
        attempt: i32::try_from(task.attempt).unwrap_or(i32::MAX),
        agent_id: task.agent_id.unwrap_or_default(),
        updated_at: task.updated_at.unix_seconds(),
        task_id: task.task_id,
        story_id: task.story_id,
        role: task.role,
        dependencies: task.depends_on,
    })
}

fn list(request: &ListTasksRequest) -> Result<ListTasksResponse, Status> {
    let queue = Queue::read()?;
    let behind = Behind::of(&queue);
    let story = request.story_id.trim();
    let asked = |row: &Row| story.is_empty() || row.story_id == story;
    let in_order = queue.in_order().into_iter().filter(|(_, row)| asked(row));
    let tasks = in_order.map(|(id, row)| QueuedTask {
        task_id: id.clone(),
        story_id: row.story_id.clone(),
        status: if row.going { task::Status::InProgress } else { task::Status::Queued }.to_string(),
        score: i32::from(row.score),
        waits_for: row.waits_for.clone(),
        blocked_by: behind.blocking(row),
        queued_at: row.place.time().unix_seconds(),
    });
    Ok(ListTasksResponse { tasks: tasks.collect() })
}
