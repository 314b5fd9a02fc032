//! `GetPendingTasks`: what waits for a role, from the boards; what it answers with is looked up at the tasks themselves, for a
//! board is a moment behind.

use std::cmp::Reverse;

use cofferdam_sdk::{fleet::Artifacts, service::Status};
use fleet_proto::workflow::v1::{GetPendingTasksRequest, PendingTask, PendingTasksResponse, WorkToValidate};

use crate::{
    board::{Board, Row},
    machine::Machine,
    settings,
    task::Task,
};

/// Where the request says nothing.
const LIMIT: usize = 10;
/// An answer holds no more, whatever the request says.
const MOST: usize = 1_000;
/// One call reaches 64 cells: the boards, and so many tasks.
const LOOKED_AT: usize = 40;

pub(super) fn list(request: &GetPendingTasksRequest) -> Result<PendingTasksResponse, Status> {
    let machine = settings::machine()?;
    let role = super::role(&machine, &request.role)?;
    let limit = match number("limit", request.limit)? {
        0 => LIMIT,
        limit => limit.min(MOST),
    };
    let offset = number("offset", request.offset)?;
    let boards = Board::all()?;
    let mut waiting: Vec<(&String, &Row)> = boards
        .iter()
        .flat_map(|board| &board.rows)
        .filter(|(_, row)| !row.claimed && machine.in_charge(&row.state) == Some(role))
        .collect();
    waiting.sort_by_key(|(task_id, row)| (row.since, Reverse(sooner(row.priority)), *task_id));
    let (mut tasks, mut gone) = (Vec::new(), 0);
    for (at, (task_id, row)) in waiting.iter().skip(offset).enumerate() {
        if tasks.len() == limit {
            break;
        }
        if at >= LOOKED_AT {
            tasks.push(of_row(&machine, task_id, row));
            continue;
        }
        let task = Task::named(task_id)?;
        match task.filter(|task| task.claimed_by.is_none() && machine.in_charge(&task.state) == Some(role)) {
            Some(task) => tasks.push(of_task(&machine, task)),
            None => gone += 1,
        }
    }
    let total_count = i32::try_from(waiting.len() - gone).unwrap_or(i32::MAX);
    Ok(PendingTasksResponse { tasks, total_count })
}

fn number(field: &str, value: i32) -> Result<usize, Status> {
    usize::try_from(value)
        .map_err(|_| Status::invalid_argument(format!("{field} is {value}; it must be 0 or more")))
}

/// Priorities count from 1, the highest; here a higher one is sooner, and 0 is not known.
fn sooner(priority: Option<i64>) -> i32 {
    priority.map_or(0, |priority| 11 - i32::try_from(priority.clamp(1, 10)).unwrap_or(10))
}

fn of_task(machine: &Machine, task: Task) -> PendingTask {
    PendingTask {
        required_action: required(machine, &task.state),
        waiting_since: task.since().unix_seconds(),
        priority: sooner(task.priority),
        work: task.work.map(to_validate),
        task_id: task.task_id,
        story_id: task.story_id,
        current_state: task.state,
    }
}

fn of_row(machine: &Machine, task_id: &str, row: &Row) -> PendingTask {
    let work = |sha: &String| WorkToValidate { commit_sha: sha.clone(), ..WorkToValidate::default() };
    PendingTask {
        task_id: task_id.into(),
        story_id: row.story_id.clone(),
        current_state: row.state.clone(),
        required_action: required(machine, &row.state),
        work: row.commit_sha.as_ref().map(work),
        waiting_since: row.since,
        priority: sooner(row.priority),
    }
}

fn required(machine: &Machine, state: &str) -> String {
    machine.duty(state).map(|duty| duty.action.clone()).unwrap_or_default()
}

fn to_validate(work: Artifacts) -> WorkToValidate {
    WorkToValidate {
        commit_sha: work.commit_sha.unwrap_or_default(),
        files_changed: work.files_changed,
        implementation_summary: work.implementation_summary.unwrap_or_default(),
        context_preview: work.context_preview.unwrap_or_default(),
        metadata: work.metadata.into_iter().collect(),
    }
}
