//! Context as the prompt builder sees it.

use fleet_proto::{context::v1::GetContextRequest, task_derivation::v1::CreateTasksRequest};
use tonic::Code;

use super::{Fleet, command};

fn ask(role: &str) -> GetContextRequest {
    GetContextRequest {
        story_id: "s".to_owned(),
        role: role.to_owned(),
        phase: "PLAN".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn each_role_is_told_of_the_story_and_of_what_matters_to_it() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    let request = CreateTasksRequest { commands: vec![command("Store the cart")] };
    fleet.planning.create_tasks(request).await.unwrap();
    let developer = fleet.context.get_context(ask("dev")).await.unwrap().into_inner();
    let qa = fleet.context.get_context(ask("QA")).await.unwrap().into_inner();
    for context in [&developer, &qa] {
        assert!(context.context.contains("Checkout"), "{}", context.context);
        assert!(context.context.contains("Store the cart"), "{}", context.context);
        assert!(context.token_count > 0);
        assert_eq!(context.scopes, ["story", "plan", "tasks"]);
    }
    assert!(developer.context.contains("DEVELOPER"));
    assert_ne!(developer.context, qa.context);
    assert_ne!(developer.version, qa.version);
}

#[tokio::test]
async fn a_budget_is_kept() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    let request = GetContextRequest { token_budget: 5, ..ask("QA") };
    let context = fleet.context.get_context(request).await.unwrap().into_inner();
    assert_eq!((context.token_count, context.context.len()), (5, 20));
}

#[tokio::test]
async fn a_file_speaks_for_one_role_or_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let (all, qa) = (folder.path().join("all.txt"), folder.path().join("qa.txt"));
    std::fs::write(&all, "for everybody").unwrap();
    std::fs::write(&qa, "for testers").unwrap();
    let of_qa = format!("tester={}", qa.display());
    let flags = ["--context-file", all.to_str().unwrap(), "--context-file", &of_qa];
    let mut fleet = Fleet::start(&flags).await.with_plan().await;
    for (role, text) in [("QA", "for testers"), ("DEV", "for everybody")] {
        assert_eq!(fleet.context.get_context(ask(role)).await.unwrap().into_inner().context, text);
    }
}

#[tokio::test]
async fn an_unknown_story_is_not_found() {
    let mut fleet = Fleet::start(&[]).await;
    assert_eq!(fleet.context.get_context(ask("QA")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn it_is_down_on_demand() {
    let mut fleet = Fleet::start(&["--context-down"]).await.with_plan().await;
    assert_eq!(fleet.context.get_context(ask("QA")).await.unwrap_err().code(), Code::Unavailable);
}
