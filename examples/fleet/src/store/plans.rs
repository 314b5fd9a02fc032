//! Stories and their plans: adding, approving, reading, and the part of the story machine that derivation touches.

use rusqlite::{OptionalExtension as _, Row, Transaction};

use super::{Error, new_id, now};

/// A plan as it comes in. Empty ids are chosen here.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewPlan {
    pub(crate) plan_id: String,
    pub(crate) story_id: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) acceptance_criteria: Vec<String>,
    pub(crate) technical_notes: String,
    pub(crate) roles: Vec<String>,
}

/// A plan as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) plan_id: String,
    pub(crate) story_id: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) acceptance_criteria: Vec<String>,
    pub(crate) technical_notes: String,
    pub(crate) roles: Vec<String>,
    pub(crate) approvals: i32,
}

#[derive(Debug, Clone)]
pub(crate) struct Summary {
    pub(crate) plan_id: String,
    pub(crate) story_id: String,
    pub(crate) title: String,
    pub(crate) story_state: String,
    pub(crate) task_count: i32,
}

#[derive(Debug, Clone)]
pub(crate) struct Story {
    pub(crate) title: String,
    pub(crate) state: String,
}

/// One step of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    /// How many steps the story has made, this one included.
    pub(crate) number: i64,
}

/// The road of a story up to its planned tasks. What lies beyond is not the stand-in's to move.
const ROAD: [&str; 4] = ["DRAFT", "PO_REVIEW", "READY_FOR_PLANNING", "PLANNED"];

/// The agile phase of a state on the road, for the readers that want phases.
pub(crate) fn phase(state: &str) -> &'static str {
    match state {
        "DRAFT" | "PO_REVIEW" => "DRAFT",
        _ => "DESIGN",
    }
}

/// Stores a plan and, if it is new, its story. Returns the ids of both.
pub(crate) fn add(transaction: &Transaction<'_>, mut plan: NewPlan) -> Result<(String, String), Error> {
    if plan.title.trim().is_empty() {
        return Err(Error::Invalid("the plan has no title; give it one".to_owned()));
    }
    if plan.plan_id.is_empty() {
        plan.plan_id = new_id(transaction, "plan")?;
    } else if find(transaction, &plan.plan_id)?.is_some() {
        return Err(Error::Exists { what: "plan", id: plan.plan_id });
    }
    if plan.story_id.is_empty() {
        plan.story_id = new_id(transaction, "story")?;
    }
    transaction.execute(
        "INSERT INTO stories (story_id, title, state, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)
         ON CONFLICT (story_id) DO NOTHING",
        (&plan.story_id, &plan.title, ROAD[0], now()),
    )?;
    transaction.execute(
        "INSERT INTO plans (plan_id, story_id, title, description, acceptance_criteria, technical_notes, roles, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        (
            &plan.plan_id,
            &plan.story_id,
            &plan.title,
            &plan.description,
            serde_json::Value::from(plan.acceptance_criteria).to_string(),
            &plan.technical_notes,
            serde_json::Value::from(plan.roles).to_string(),
            now(),
        ),
    )?;
    Ok((plan.plan_id, plan.story_id))
}

/// Counts one more approval; returns the plan as it is then.
pub(crate) fn approve(transaction: &Transaction<'_>, plan_id: &str) -> Result<Plan, Error> {
    transaction.execute("UPDATE plans SET approvals = approvals + 1 WHERE plan_id = ?1", [plan_id])?;
    get(transaction, plan_id)
}

pub(crate) fn get(transaction: &Transaction<'_>, plan_id: &str) -> Result<Plan, Error> {
    find(transaction, plan_id)?.ok_or_else(|| Error::Unknown { what: "plan", id: plan_id.to_owned() })
}

pub(crate) fn find(transaction: &Transaction<'_>, plan_id: &str) -> Result<Option<Plan>, Error> {
    Ok(transaction.query_row("SELECT * FROM plans WHERE plan_id = ?1", [plan_id], read).optional()?)
}

/// The story's plan that was approved last, else the newest.
pub(crate) fn of_story(transaction: &Transaction<'_>, story_id: &str) -> Result<Option<Plan>, Error> {
    let query = "SELECT * FROM plans WHERE story_id = ?1 ORDER BY approvals > 0 DESC, rowid DESC LIMIT 1";
    Ok(transaction.query_row(query, [story_id], read).optional()?)
}

pub(crate) fn list(transaction: &Transaction<'_>) -> Result<Vec<Summary>, Error> {
    let mut query = transaction.prepare(
        "SELECT plan_id, story_id, plans.title, stories.state,
                (SELECT count(*) FROM tasks WHERE tasks.plan_id = plans.plan_id)
         FROM plans JOIN stories USING (story_id) ORDER BY plans.rowid",
    )?;
    let rows = query.query_map([], |row| {
        Ok(Summary {
            plan_id: row.get(0)?,
            story_id: row.get(1)?,
            title: row.get(2)?,
            story_state: row.get(3)?,
            task_count: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn story(transaction: &Transaction<'_>, story_id: &str) -> Result<Story, Error> {
    transaction
        .query_row("SELECT title, state FROM stories WHERE story_id = ?1", [story_id], |row| {
            Ok(Story { title: row.get(0)?, state: row.get(1)? })
        })
        .optional()?
        .ok_or_else(|| Error::Unknown { what: "story", id: story_id.to_owned() })
}

/// Walks the story along the road to `target`, step by step as the story machine has it. A story that is there
/// already, or past it, stays where it is.
pub(crate) fn advance(
    transaction: &Transaction<'_>,
    story_id: &str,
    target: &str,
) -> Result<Vec<Step>, Error> {
    let state = story(transaction, story_id)?.state;
    let place = |wanted: &str| ROAD.iter().position(|state| *state == wanted);
    let (Some(from), Some(to)) = (place(&state), place(target)) else { return Ok(Vec::new()) };
    let mut steps = Vec::new();
    for pair in ROAD.get(from..=to).unwrap_or_default().windows(2) {
        let &[from, to] = pair else { continue };
        let number = transaction.query_row(
            "UPDATE stories SET state = ?2, transitions = transitions + 1, updated_at = ?3 WHERE story_id = ?1
             RETURNING transitions",
            (story_id, to, now()),
            |row| row.get(0),
        )?;
        steps.push(Step { from, to, number });
    }
    Ok(steps)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Plan> {
    Ok(Plan {
        plan_id: row.get("plan_id")?,
        story_id: row.get("story_id")?,
        title: row.get("title")?,
        description: row.get("description")?,
        acceptance_criteria: strings(row, "acceptance_criteria")?,
        technical_notes: row.get("technical_notes")?,
        roles: strings(row, "roles")?,
        approvals: row.get("approvals")?,
    })
}

fn strings(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<String>> {
    let json: String = row.get(column)?;
    serde_json::from_str(&json).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}
