//! Planning as the derivation plugins see it.

use std::time::{Duration, Instant};

use fleet_proto::task_derivation::v1::{
    CreateTasksRequest, DependencyEdge, GetPlanContextRequest, ListStoryTasksRequest,
    SaveTaskDependenciesRequest,
};
use tonic::Code;

use super::{Fleet, command, keyed};

fn plan(plan_id: &str) -> GetPlanContextRequest {
    GetPlanContextRequest { plan_id: plan_id.to_owned() }
}

fn story() -> ListStoryTasksRequest {
    ListStoryTasksRequest { story_id: "s".to_owned() }
}

fn create(titles: &[&str]) -> CreateTasksRequest {
    CreateTasksRequest { commands: titles.iter().map(|title| command(title)).collect() }
}

fn edges(pairs: &[(&str, &str)]) -> SaveTaskDependenciesRequest {
    let edge = |(from, to): &(&str, &str)| DependencyEdge {
        from_task_id: (*from).to_owned(),
        to_task_id: (*to).to_owned(),
        reason: "builds on it".to_owned(),
    };
    SaveTaskDependenciesRequest {
        plan_id: "p".to_owned(),
        story_id: "s".to_owned(),
        edges: pairs.iter().map(edge).collect(),
    }
}

#[tokio::test]
async fn a_plan_comes_back_as_it_was_added() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    let context =
        fleet.planning.get_plan_context(plan("p")).await.unwrap().into_inner().plan_context.unwrap();
    assert_eq!(context.story_id, "s");
    assert_eq!(context.title, "Checkout");
    assert_eq!(context.acceptance_criteria, ["a cart", "an order"]);
    assert_eq!(context.technical_notes, "PostgreSQL");
    assert_eq!(context.roles, ["DEVELOPER", "QA"]);
}

#[tokio::test]
async fn an_unknown_plan_is_not_found_and_an_empty_id_invalid() {
    let mut fleet = Fleet::start(&[]).await;
    let status = fleet.planning.get_plan_context(plan("nope")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "plan \"nope\" does not exist"));
    assert_eq!(fleet.planning.get_plan_context(plan("")).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn ids_come_back_in_the_order_of_the_commands() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    let ids = fleet.planning.create_tasks(create(&["C", "A", "B"])).await.unwrap().into_inner().task_ids;
    let tasks = fleet.planning.list_story_tasks(story()).await.unwrap().into_inner().tasks;
    let found: Vec<(&str, &str)> =
        tasks.iter().map(|task| (task.task_id.as_str(), task.title.as_str())).collect();
    assert_eq!(found, [(ids[0].as_str(), "C"), (ids[1].as_str(), "A"), (ids[2].as_str(), "B")]);
    assert_eq!((tasks[0].priority, tasks[0].assigned_role.as_str()), (2, "DEVELOPER"));
}

#[tokio::test]
async fn one_bad_command_creates_none() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    let mut nowhere = command("X");
    nowhere.plan_id = "nope".to_owned();
    let mut elsewhere = command("X");
    elsewhere.story_id = "another".to_owned();
    let mut negative = command("X");
    negative.estimated_hours = -1;
    let mut system = command("X");
    system.assigned_role = "system".to_owned();
    for (bad, code) in [
        (command(""), Code::InvalidArgument),
        (command("  "), Code::InvalidArgument),
        (nowhere, Code::NotFound),
        (elsewhere, Code::InvalidArgument),
        (negative, Code::InvalidArgument),
        (system, Code::InvalidArgument),
    ] {
        let request = CreateTasksRequest { commands: vec![command("Good"), bad.clone()] };
        let status = fleet.planning.create_tasks(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{bad:?}: {}", status.message());
    }
    let status = fleet.planning.create_tasks(create(&[])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(fleet.planning.list_story_tasks(story()).await.unwrap().into_inner().tasks.is_empty());
}

#[tokio::test]
async fn the_same_key_and_request_get_the_stored_answer() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    let first = fleet.planning.create_tasks(keyed("k", create(&["A"]))).await.unwrap().into_inner();
    let again = fleet.planning.create_tasks(keyed("k", create(&["A"]))).await.unwrap().into_inner();
    assert_eq!(first, again);
    let status = fleet.planning.create_tasks(keyed("k", create(&["B"]))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    fleet.planning.create_tasks(create(&["A"])).await.unwrap();
    let tasks = fleet.planning.list_story_tasks(story()).await.unwrap().into_inner().tasks;
    assert_eq!(tasks.len(), 2, "without a key each call counts");
}

#[tokio::test]
async fn a_refused_call_leaves_its_key_unused() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    fleet.planning.create_tasks(keyed("k", create(&[""]))).await.unwrap_err();
    fleet.planning.create_tasks(keyed("k", create(&["A"]))).await.unwrap();
}

#[tokio::test]
async fn edges_are_stored_once_and_only_between_tasks_that_exist() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    let ids = fleet.planning.create_tasks(create(&["A", "B"])).await.unwrap().into_inner().task_ids;
    let (a, b) = (ids[0].as_str(), ids[1].as_str());
    for _ in 0..2 {
        let saved = fleet.planning.save_task_dependencies(edges(&[(b, a)])).await.unwrap().into_inner();
        assert!(saved.success);
    }
    for (bad, code) in [
        (edges(&[(a, b), (a, a)]), Code::InvalidArgument),
        (edges(&[(a, b), (a, "nope")]), Code::NotFound),
        (SaveTaskDependenciesRequest { plan_id: "nope".to_owned(), ..edges(&[(a, b)]) }, Code::NotFound),
        (
            SaveTaskDependenciesRequest { story_id: "nope".to_owned(), ..edges(&[(a, b)]) },
            Code::InvalidArgument,
        ),
    ] {
        let status = fleet.planning.save_task_dependencies(bad).await.unwrap_err();
        assert_eq!(status.code(), code, "{}", status.message());
    }
    let request = fleet_proto::standin::v1::GetPlanRequest { plan_id: "p".to_owned() };
    let tasks = fleet.admin.get_plan(request).await.unwrap().into_inner().tasks;
    assert!(tasks[0].depends_on.is_empty(), "nothing of the refused calls was stored");
    assert_eq!(tasks[1].depends_on.len(), 1);
    assert_eq!(
        (tasks[1].depends_on[0].task_id.as_str(), tasks[1].depends_on[0].reason.as_str()),
        (a, "builds on it")
    );
}

#[tokio::test]
async fn the_first_calls_fail_undone_on_demand() {
    let mut fleet = Fleet::start(&["--planning-fail", "2"]).await.with_plan().await;
    for expected in [Err(Code::Unavailable), Err(Code::Unavailable), Ok(())] {
        let outcome = fleet.planning.create_tasks(create(&["A"])).await;
        assert_eq!(outcome.map(drop).map_err(|status| status.code()), expected);
    }
    assert_eq!(fleet.planning.list_story_tasks(story()).await.unwrap().into_inner().tasks.len(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_found_again_by_its_key() {
    let mut fleet = Fleet::start(&["--planning-lose", "1"]).await.with_plan().await;
    let lost = fleet.planning.create_tasks(keyed("k", create(&["A"]))).await.unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable);
    fleet.planning.create_tasks(keyed("k", create(&["A"]))).await.unwrap();
    assert_eq!(fleet.planning.list_story_tasks(story()).await.unwrap().into_inner().tasks.len(), 1);
}

#[tokio::test]
async fn calls_wait_on_demand() {
    let mut fleet = Fleet::start(&["--planning-delay", "200ms"]).await.with_plan().await;
    let start = Instant::now();
    fleet.planning.get_plan_context(plan("p")).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
}
