//! The admin service, and what it leaves in the file.

use fleet_proto::standin::v1::{AddPlanRequest, ApprovePlanRequest, GetPlanRequest, ListPlansRequest};
use tonic::Code;

use super::Fleet;

#[tokio::test]
async fn ids_are_chosen_where_none_are_given() {
    let mut fleet = Fleet::start(&[]).await;
    let request = AddPlanRequest { title: "T".to_owned(), ..Default::default() };
    let first = fleet.admin.add_plan(request.clone()).await.unwrap().into_inner();
    let second = fleet.admin.add_plan(request).await.unwrap().into_inner();
    assert!(first.plan_id.starts_with("plan-") && first.story_id.starts_with("story-"), "{first:?}");
    assert_ne!(first.plan_id, second.plan_id);
    assert_ne!(first.story_id, second.story_id);
    let plans = fleet.admin.list_plans(ListPlansRequest {}).await.unwrap().into_inner().plans;
    assert_eq!(plans.len(), 2);
    assert_eq!((plans[0].plan_id.as_str(), plans[0].story_state.as_str()), (first.plan_id.as_str(), "DRAFT"));
}

#[tokio::test]
async fn a_plan_needs_a_title_and_an_id_of_its_own() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    let untitled = fleet.admin.add_plan(AddPlanRequest::default()).await.unwrap_err();
    assert_eq!(untitled.code(), Code::InvalidArgument);
    let request = AddPlanRequest { plan_id: "p".to_owned(), title: "T".to_owned(), ..Default::default() };
    let twin = fleet.admin.add_plan(request).await.unwrap_err();
    assert_eq!(twin.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn approvals_are_counted_and_seen() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    for approvals in 1..=2 {
        let request = ApprovePlanRequest { plan_id: "p".to_owned(), approved_by: String::new() };
        let approved = fleet.admin.approve_plan(request).await.unwrap().into_inner();
        assert_eq!((approved.approvals, approved.story_state.as_str()), (approvals, "READY_FOR_PLANNING"));
    }
    let plan = fleet.admin.get_plan(GetPlanRequest { plan_id: "p".to_owned() }).await.unwrap().into_inner();
    assert_eq!((plan.approvals, plan.story_state.as_str()), (2, "READY_FOR_PLANNING"));
}

#[tokio::test]
async fn an_unknown_plan_is_not_found() {
    let mut fleet = Fleet::start(&[]).await;
    let request = ApprovePlanRequest { plan_id: "nope".to_owned(), approved_by: String::new() };
    assert_eq!(fleet.admin.approve_plan(request).await.unwrap_err().code(), Code::NotFound);
    let request = GetPlanRequest { plan_id: "nope".to_owned() };
    assert_eq!(fleet.admin.get_plan(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_file_stays_readable_while_the_fleet_runs() {
    let fleet = Fleet::start(&[]).await.with_plan().await;
    let reader = rusqlite::Connection::open(fleet.store.path()).unwrap();
    let title: String =
        reader.query_row("SELECT title FROM plans WHERE plan_id = 'p'", [], |row| row.get(0)).unwrap();
    assert_eq!(title, "Checkout");
}

#[tokio::test]
async fn injected_faults_leave_the_admin_calls_alone() {
    let mut fleet = Fleet::start(&["--planning-fail", "1"]).await.with_plan().await;
    fleet.admin.get_plan(GetPlanRequest { plan_id: "p".to_owned() }).await.unwrap();
}
