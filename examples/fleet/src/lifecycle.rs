//! What happens to a plan, each in one transaction with the events that tell of it: that it is there, its approval, and the end
//! of its derivation.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use crate::{
    events::{Event, Incoming, Style},
    store::{
        Error, new_id, outbox,
        plans::{self, NewPlan, Step},
        tasks::{self, Of, Task},
    },
};

const PRODUCER: &str = "planning-service";

/// What an event hangs on.
struct Cause<'a> {
    correlation_id: &'a str,
    causation_id: Option<&'a str>,
    by: &'a str,
}

/// How Planning goes about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) envelope: Style,
    /// Otherwise another service does, and is told of those that there are.
    pub(crate) moves_stories: bool,
}

/// How an approval went.
pub(crate) struct Approved {
    pub(crate) story_id: String,
    pub(crate) story_state: String,
    pub(crate) approvals: i32,
}

/// A plan comes in, and with it perhaps a story. Returns the ids of both.
pub(crate) fn add(
    transaction: &Transaction<'_>,
    manner: Manner,
    plan: NewPlan,
) -> Result<(String, String), Error> {
    let title = plan.title.clone();
    let is_known = !plan.story_id.is_empty() && plans::story(transaction, &plan.story_id).is_ok();
    let (plan_id, story_id) = plans::add(transaction, plan)?;
    if !manner.moves_stories && !is_known {
        let correlation_id = new_id(transaction, "story")?;
        let cause = Cause { correlation_id: &correlation_id, causation_id: None, by: PRODUCER };
        let created = json!({"story_id": story_id, "title": title, "created_by": cause.by});
        put(transaction, manner, &cause, "planning.story.created", &story_id, "created", created)?;
    }
    Ok((plan_id, story_id))
}

/// The product owner's yes: the story becomes ready for planning, and `planning.plan.approved` goes out. A plan may
/// be approved again; that is another event, and what it leads to is the readers' business.
pub(crate) fn approve(
    transaction: &Transaction<'_>,
    manner: Manner,
    plan_id: &str,
    by: &str,
) -> Result<Approved, Error> {
    let plan = plans::approve(transaction, plan_id)?;
    let correlation_id = new_id(transaction, "approval")?;
    let cause = Cause { correlation_id: &correlation_id, causation_id: None, by };
    walk(transaction, manner, &plan.story_id, "READY_FOR_PLANNING", &cause)?;
    put(
        transaction,
        manner,
        &cause,
        "planning.plan.approved",
        &plan.plan_id,
        &format!("approved:{}", plan.approvals),
        json!({"plan_id": plan.plan_id, "story_id": plan.story_id, "approved_by": by, "roles": plan.roles}),
    )?;
    let story_state = plans::story(transaction, &plan.story_id)?.state;
    Ok(Approved { story_id: plan.story_id, story_state, approvals: plan.approvals })
}

/// `task.derivation.completed` came in: `planning.task.created` for every task that has not been told of, then the
/// story is planned. Told again, it changes nothing. Returns how many tasks were announced.
pub(crate) fn derived(
    transaction: &Transaction<'_>,
    manner: Manner,
    plan_id: &str,
    event: &Incoming,
) -> Result<usize, Error> {
    let plan = plans::get(transaction, plan_id)?;
    let correlation_id = match &event.correlation_id {
        Some(correlation_id) => correlation_id.clone(),
        None => new_id(transaction, "derivation")?,
    };
    let cause = Cause {
        correlation_id: &correlation_id,
        causation_id: event.idempotency_key.as_deref(),
        by: "task-derivation",
    };
    let new = tasks::announce(transaction, plan_id)?;
    for task in &new {
        put(transaction, manner, &cause, "planning.task.created", &task.task_id, "created", created(task))?;
    }
    // A plan may have been approved past us, by an event that somebody else published: the story then walks from
    // wherever it was.
    walk(transaction, manner, &plan.story_id, "PLANNED", &cause)?;
    Ok(new.len())
}

fn created(task: &Task) -> Value {
    json!({
        "task_id": task.task_id,
        "story_id": task.story_id,
        "plan_id": task.plan_id,
        "title": task.title,
        "description": task.description,
        "type": if task.assigned_role.eq_ignore_ascii_case("QA") { "testing" } else { "development" },
        "assigned_to": task.assigned_role,
        "estimated_hours": task.estimated_hours,
        "priority": task.priority,
        "created_at": task.created_at,
        "depends_on": task.depends_on.iter().map(|dependency| &dependency.task_id).collect::<Vec<_>>(),
    })
}

/// Moves the story to a state further on, unless another service does: `planning.story.transitioned`, one per step, with both pairs
/// of keys that its readers look for.
fn walk(
    transaction: &Transaction<'_>,
    manner: Manner,
    story_id: &str,
    target: &str,
    cause: &Cause<'_>,
) -> Result<(), Error> {
    if !manner.moves_stories {
        return Ok(());
    }
    let steps: Vec<Step> = plans::advance(transaction, story_id, target)?;
    let tasks: Vec<String> =
        tasks::list(transaction, Of::Story(story_id))?.into_iter().map(|task| task.task_id).collect();
    for step in steps {
        let payload = json!({
            "story_id": story_id,
            "from_state": step.from,
            "to_state": step.to,
            "from_phase": plans::phase(step.from),
            "to_phase": plans::phase(step.to),
            "tasks": tasks,
            "transitioned_by": cause.by,
        });
        let operation = format!("transitioned:{}", step.number);
        put(transaction, manner, cause, "planning.story.transitioned", story_id, &operation, payload)?;
    }
    Ok(())
}

fn put(
    transaction: &Transaction<'_>,
    manner: Manner,
    cause: &Cause<'_>,
    event_type: &str,
    entity: &str,
    operation: &str,
    payload: Value,
) -> Result<(), Error> {
    let payload = match payload {
        Value::Object(payload) => payload,
        _ => Map::new(),
    };
    let event = Event {
        event_type,
        producer: PRODUCER,
        entity,
        operation,
        correlation_id: cause.correlation_id,
        causation_id: cause.causation_id,
        payload,
    };
    outbox::put(transaction, event_type, &manner.envelope.write(event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, outbox::Owed, tasks::NewTask};

    const MOVING: Manner = Manner { envelope: Style::Mirror, moves_stories: true };

    async fn store_with_plan() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let plan = NewPlan {
            plan_id: "p".to_owned(),
            story_id: "s".to_owned(),
            title: "T".to_owned(),
            roles: vec!["QA".to_owned()],
            ..Default::default()
        };
        store.change(|transaction| plans::add(transaction, plan)).await.unwrap();
        (folder, store)
    }

    async fn owed(store: &Store) -> Vec<(Owed, Value)> {
        let owed = store.read(|transaction| outbox::owed(transaction, 100)).await.unwrap();
        owed.into_iter().map(|owed| (owed.clone(), serde_json::from_str(&owed.data).unwrap())).collect()
    }

    fn completed() -> Incoming {
        Incoming::read(
            br#"{"event_type": "task.derivation.completed", "idempotency_key": "k", "correlation_id": "c",
                 "payload": {"plan_id": "p", "status": "success"}}"#,
        )
        .unwrap()
    }

    #[tokio::test]
    async fn an_approval_walks_the_story_and_tells_of_each_step_before_the_plan() {
        let (_folder, store) = store_with_plan().await;
        let approved = store.change(|transaction| approve(transaction, MOVING, "p", "ann")).await.unwrap();
        assert_eq!((approved.story_state.as_str(), approved.approvals), ("READY_FOR_PLANNING", 1));
        let owed = owed(&store).await;
        let told: Vec<(&str, &str)> = owed
            .iter()
            .map(|(owed, data)| (owed.subject.as_str(), data["to_state"].as_str().unwrap_or("")))
            .collect();
        assert_eq!(
            told,
            [
                ("planning.story.transitioned", "PO_REVIEW"),
                ("planning.story.transitioned", "READY_FOR_PLANNING"),
                ("planning.plan.approved", "")
            ]
        );
        assert_eq!(owed[1].1["from_phase"], "DRAFT");
        assert_eq!(owed[1].1["to_phase"], "DESIGN");
        let plan = &owed[2].1["payload"];
        assert_eq!(plan["approved_by"], "ann");
        assert_eq!(plan["roles"], json!(["QA"]));
    }

    #[tokio::test]
    async fn a_second_approval_is_another_event_and_moves_no_story() {
        let (_folder, store) = store_with_plan().await;
        for _ in 0..2 {
            store.change(|transaction| approve(transaction, MOVING, "p", "ann")).await.unwrap();
        }
        let owed = owed(&store).await;
        assert_eq!(owed.len(), 4);
        assert_ne!(owed[2].0.message_id, owed[3].0.message_id);
        assert_ne!(owed[2].1["idempotency_key"], owed[3].1["idempotency_key"]);
    }

    #[tokio::test]
    async fn a_completed_derivation_tells_of_each_task_once_and_plans_the_story() {
        let (_folder, store) = store_with_plan().await;
        store.change(|transaction| approve(transaction, MOVING, "p", "ann")).await.unwrap();
        let ids = store
            .change(|transaction| {
                let task = |title: &str| NewTask {
                    plan_id: "p".to_owned(),
                    title: title.to_owned(),
                    assigned_role: "QA".to_owned(),
                    ..Default::default()
                };
                let ids = tasks::create(transaction, &[task("A"), task("B")])?;
                let edge = tasks::Edge { from: ids[1].clone(), to: ids[0].clone(), reason: "r".to_owned() };
                tasks::depend(transaction, "p", "s", &[edge])?;
                Ok::<_, Error>(ids)
            })
            .await
            .unwrap();
        let before = owed(&store).await.len();
        for expected in [2, 0] {
            let told =
                store.change(|transaction| derived(transaction, MOVING, "p", &completed())).await.unwrap();
            assert_eq!(told, expected);
        }
        let owed = owed(&store).await;
        let events: Vec<&Value> = owed[before..].iter().map(|(_, data)| data).collect();
        assert_eq!(events.len(), 3, "two tasks, one step of the story");
        assert_eq!(events[0]["task_id"], json!(ids[0]));
        assert_eq!(events[1]["depends_on"], json!([ids[0]]));
        assert_eq!(events[1]["causation_id"], "k");
        assert_eq!(events[1]["correlation_id"], "c");
        assert_eq!(events[2]["to_state"], "PLANNED");
        assert_eq!(events[2]["tasks"], json!(ids));
    }

    #[tokio::test]
    async fn a_plan_approved_past_planning_is_planned_all_the_same() {
        let (_folder, store) = store_with_plan().await;
        store
            .change(|transaction| {
                derived(transaction, Manner { envelope: Style::Bare, ..MOVING }, "p", &completed())
            })
            .await
            .unwrap();
        let story = store.read(|transaction| plans::story(transaction, "s")).await.unwrap();
        assert_eq!(story.state, "PLANNED");
        assert_eq!(owed(&store).await.len(), 3, "each step is told");
    }

    #[tokio::test]
    async fn stories_that_are_left_to_another_service_are_told_of_once_and_not_moved() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let leaving = Manner { moves_stories: false, ..MOVING };
        for plan_id in ["p", "q"] {
            let plan = NewPlan {
                plan_id: plan_id.to_owned(),
                story_id: "s".to_owned(),
                title: "T".to_owned(),
                ..Default::default()
            };
            store.change(move |transaction| add(transaction, leaving, plan)).await.unwrap();
        }
        store.change(move |transaction| approve(transaction, leaving, "p", "ann")).await.unwrap();
        store.change(move |transaction| derived(transaction, leaving, "p", &completed())).await.unwrap();
        let owed = owed(&store).await;
        let subjects: Vec<&str> = owed.iter().map(|(owed, _)| owed.subject.as_str()).collect();
        assert_eq!(subjects, ["planning.story.created", "planning.plan.approved"]);
        let payload = &owed[0].1["payload"];
        assert_eq!((&payload["story_id"], &payload["title"]), (&json!("s"), &json!("T")));
        let story = store.read(|transaction| plans::story(transaction, "s")).await.unwrap();
        assert_eq!(story.state, "DRAFT");
    }
}
