//! Tasks and what they wait for.

use rusqlite::{OptionalExtension as _, Row, Transaction};

use super::{Error, new_id, now, plans};

/// A task to create.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewTask {
    pub(crate) plan_id: String,
    pub(crate) story_id: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) estimated_hours: i32,
    pub(crate) priority: i32,
    pub(crate) assigned_role: String,
}

/// A task as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) task_id: String,
    pub(crate) plan_id: String,
    pub(crate) story_id: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) estimated_hours: i32,
    pub(crate) priority: i32,
    pub(crate) assigned_role: String,
    pub(crate) created_at: String,
    pub(crate) announced: bool,
    pub(crate) depends_on: Vec<Dependency>,
}

#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) task_id: String,
    pub(crate) reason: String,
}

/// `from` waits for `to`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) reason: String,
}

/// Creates the tasks; their ids in the same order.
pub(crate) fn create(transaction: &Transaction<'_>, tasks: &[NewTask]) -> Result<Vec<String>, Error> {
    if tasks.is_empty() {
        return Err(Error::Invalid("no task to create; leave the call out".to_owned()));
    }
    tasks.iter().enumerate().map(|(index, task)| create_one(transaction, index, task)).collect()
}

fn create_one(transaction: &Transaction<'_>, index: usize, task: &NewTask) -> Result<String, Error> {
    let invalid = |what: &str| Error::Invalid(format!("command {index} ({:?}): {what}", task.title));
    let plan = plans::get(transaction, &task.plan_id)?;
    if !task.story_id.is_empty() && task.story_id != plan.story_id {
        return Err(invalid(&format!(
            "plan {:?} belongs to story {:?}, not to {:?}",
            plan.plan_id, plan.story_id, task.story_id
        )));
    }
    if task.title.trim().is_empty() {
        return Err(invalid("a task needs a title"));
    }
    if task.estimated_hours < 0 {
        return Err(invalid(&format!("{} hours can't be; 0 is for unknown", task.estimated_hours)));
    }
    if task.assigned_role.eq_ignore_ascii_case("SYSTEM") {
        return Err(invalid("SYSTEM works on no tasks; assign a role of the team"));
    }
    let task_id = new_id(transaction, "task")?;
    transaction.execute(
        "INSERT INTO tasks
             (task_id, plan_id, story_id, title, description, estimated_hours, priority, assigned_role, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        (
            &task_id,
            &plan.plan_id,
            &plan.story_id,
            &task.title,
            &task.description,
            task.estimated_hours,
            task.priority,
            &task.assigned_role,
            now(),
        ),
    )?;
    Ok(task_id)
}

/// Stores the edges; those that are there stay as they are.
pub(crate) fn depend(
    transaction: &Transaction<'_>,
    plan_id: &str,
    story_id: &str,
    edges: &[Edge],
) -> Result<(), Error> {
    let plan = plans::get(transaction, plan_id)?;
    if !story_id.is_empty() && story_id != plan.story_id {
        return Err(Error::Invalid(format!(
            "plan {plan_id:?} belongs to story {:?}, not to {story_id:?}",
            plan.story_id
        )));
    }
    for edge in edges {
        if edge.from == edge.to {
            return Err(Error::Invalid(format!("task {:?} can't wait for itself", edge.from)));
        }
        for task_id in [&edge.from, &edge.to] {
            // Tasks of an earlier plan of the story count: derivation reuses them instead of creating twins.
            let story: Option<String> = transaction
                .query_row("SELECT story_id FROM tasks WHERE task_id = ?1", [task_id], |row| row.get(0))
                .optional()?;
            match story {
                None => return Err(Error::Unknown { what: "task", id: task_id.clone() }),
                Some(story) if story != plan.story_id => {
                    return Err(Error::Invalid(format!(
                        "task {task_id:?} belongs to story {story:?}, not to {:?}",
                        plan.story_id
                    )));
                }
                Some(_) => {}
            }
        }
        transaction.execute(
            "INSERT INTO dependencies (from_task_id, to_task_id, reason, created_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
            (&edge.from, &edge.to, &edge.reason, now()),
        )?;
    }
    Ok(())
}

/// Whose tasks.
pub(crate) enum Of<'a> {
    Plan(&'a str),
    Story(&'a str),
}

/// In order of creation.
pub(crate) fn list(transaction: &Transaction<'_>, of: Of<'_>) -> Result<Vec<Task>, Error> {
    let (column, id) = match of {
        Of::Plan(id) => ("plan_id", id),
        Of::Story(id) => ("story_id", id),
    };
    let mut query =
        transaction.prepare(&format!("SELECT * FROM tasks WHERE {column} = ?1 ORDER BY number"))?;
    let mut tasks = query.query_map([id], read)?.collect::<Result<Vec<Task>, _>>()?;
    for task in &mut tasks {
        task.depends_on = depends_on(transaction, &task.task_id)?;
    }
    Ok(tasks)
}

/// The tasks of a plan that nobody has been told of; from now on they count as told.
pub(crate) fn announce(transaction: &Transaction<'_>, plan_id: &str) -> Result<Vec<Task>, Error> {
    let new = list(transaction, Of::Plan(plan_id))?.into_iter().filter(|task| !task.announced).collect();
    transaction.execute(
        "UPDATE tasks SET announced_at = ?2 WHERE plan_id = ?1 AND announced_at IS NULL",
        (plan_id, now()),
    )?;
    Ok(new)
}

fn depends_on(transaction: &Transaction<'_>, task_id: &str) -> Result<Vec<Dependency>, Error> {
    let mut query = transaction.prepare_cached(
        "SELECT to_task_id, reason FROM dependencies JOIN tasks ON task_id = to_task_id
         WHERE from_task_id = ?1 ORDER BY number",
    )?;
    let rows =
        query.query_map([task_id], |row| Ok(Dependency { task_id: row.get(0)?, reason: row.get(1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Task> {
    Ok(Task {
        task_id: row.get("task_id")?,
        plan_id: row.get("plan_id")?,
        story_id: row.get("story_id")?,
        title: row.get("title")?,
        description: row.get("description")?,
        estimated_hours: row.get("estimated_hours")?,
        priority: row.get("priority")?,
        assigned_role: row.get("assigned_role")?,
        created_at: row.get("created_at")?,
        announced: row.get::<_, Option<String>>("announced_at")?.is_some(),
        depends_on: Vec::new(),
    })
}
