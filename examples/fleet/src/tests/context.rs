//! Context as the prompt builder sees it, and whoever tells it what was decided.

use fleet_proto::{
    context::v1::{ContextChange, GetContextRequest, UpdateContextRequest, UpdateContextResponse},
    task_derivation::v1::CreateTasksRequest,
};
use serde_json::{Value, json};
use tonic::Code;

use super::{Fleet, command, keyed};

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
    let update = fleet.context.update_context(created("D", json!({})));
    assert_eq!(update.await.unwrap_err().code(), Code::Unavailable);
}

fn change(operation: &str, id: &str, fields: Value) -> ContextChange {
    ContextChange {
        operation: operation.to_owned(),
        entity_type: "DECISION".to_owned(),
        entity_id: id.to_owned(),
        payload: fields.to_string(),
        reason: "the tests'".to_owned(),
    }
}

/// At second `at` of some minute.
fn update(at: u32, changes: Vec<ContextChange>) -> UpdateContextRequest {
    UpdateContextRequest {
        story_id: "s".to_owned(),
        task_id: "t".to_owned(),
        role: "DEV".to_owned(),
        changes,
        timestamp: format!("2026-01-01T00:00:{at:02}.000000Z"),
    }
}

fn created(id: &str, fields: Value) -> UpdateContextRequest {
    update(1, vec![change("CREATE", id, fields)])
}

impl Fleet {
    async fn update(&mut self, request: UpdateContextRequest) -> UpdateContextResponse {
        self.context.update_context(request).await.unwrap().into_inner()
    }

    /// The lines about decisions.
    async fn decisions(&mut self, subtask_id: &str) -> Vec<String> {
        let request = GetContextRequest { subtask_id: subtask_id.to_owned(), ..ask("QA") };
        let told = self.context.get_context(request).await.unwrap().into_inner().context;
        let (_, decisions) = told.split_once("Decisions:\n").unwrap_or_default();
        decisions.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn what_was_decided_is_told_to_every_role() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    let before = fleet.context.get_context(ask("QA")).await.unwrap().into_inner();
    let all = json!({"type": "TECHNICAL", "rationale": "One table\nfor all.", "status": "proposed"});
    let of_a_task = json!({"rationale": "A cache.", "status": "proposed", "affected_subtask": "task-1"});
    let request = update(1, vec![change("CREATE", "D-1", all), change("create", "D-2", of_a_task)]);
    assert_eq!(fleet.update(request).await.version, 1);
    let after = fleet.context.get_context(ask("QA")).await.unwrap().into_inner();
    assert_ne!(after.version, before.version);
    assert_eq!(after.scopes, ["story", "plan", "tasks", "decisions"]);
    let of_story = "- D-1 (TECHNICAL, proposed): One table for all.";
    assert_eq!(fleet.decisions("").await, [of_story, "- D-2 (proposed): A cache."]);
    assert_eq!(fleet.decisions("task-2").await, [of_story]);

    let approved = json!({"status": "approved", "approved_by": "ann", "comment": "Go ahead."});
    let rejected = json!({"status": "rejected", "rejected_by": "bob", "reason": "It goes stale."});
    fleet.update(update(2, vec![change("UPDATE", "D-1", approved)])).await;
    let told = fleet.update(update(2, vec![change("UPDATE", "D-2", rejected)])).await;
    assert_eq!((told.version, told.warnings.len()), (3, 0));
    assert_eq!(
        fleet.decisions("").await,
        [
            "- D-1 (TECHNICAL, approved by ann: Go ahead.): One table for all.",
            "- D-2 (rejected by bob: It goes stale.): A cache.",
        ]
    );
    fleet.update(update(3, vec![change("DELETE", "D-2", json!({}))])).await;
    assert_eq!(fleet.decisions("task-1").await.len(), 1);
}

#[tokio::test]
async fn versions_count_up_by_updates_that_change_something() {
    let mut fleet = Fleet::start(&[]).await.with_plan().await;
    let first = fleet.update(created("D", json!({"rationale": "One."}))).await;
    assert_eq!((first.version, first.hash.len(), first.warnings.len()), (1, 64, 0));
    let again = fleet.update(created("D", json!({"rationale": "One."}))).await;
    assert_eq!((again.version, &again.hash), (1, &first.hash));
    assert_eq!(again.warnings, ["DECISION D: CREATE changes nothing"]);
    let nothing = fleet.update(update(9, Vec::new())).await;
    assert_eq!((nothing.version, &nothing.hash), (1, &first.hash));
    let second = fleet.update(update(2, vec![change("CREATE", "D", json!({"rationale": "Two."}))])).await;
    assert_eq!(second.version, 2);
    assert_ne!(second.hash, first.hash);
    // One that comes late tells of what was.
    let late = fleet.update(update(1, vec![change("UPDATE", "D", json!({"status": "approved"}))])).await;
    assert_eq!((late.version, late.hash), (2, second.hash));
    let unheard = fleet.update(update(3, vec![change("UPDATE", "E", json!({"status": "approved"}))])).await;
    assert_eq!(unheard.warnings, ["DECISION E: UPDATE of what was not known; it is now"]);
    assert_eq!(unheard.version, 3);
}

#[tokio::test]
async fn an_update_with_a_key_is_taken_once() {
    let mut fleet = Fleet::start(&["--context-lose", "1"]).await.with_plan().await;
    let request = created("D", json!({"rationale": "One."}));
    let lost = fleet.context.update_context(keyed("k", request.clone())).await.unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable);
    for _ in 0..2 {
        let answer = fleet.context.update_context(keyed("k", request.clone())).await.unwrap().into_inner();
        assert_eq!((answer.version, answer.warnings.len()), (1, 0), "the first one's answer");
    }
    let other = fleet.context.update_context(keyed("k", created("E", json!({})))).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
    let rows: i64 = rusqlite::Connection::open(fleet.store.path())
        .unwrap()
        .query_row("SELECT count(*) FROM changes", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn an_update_is_taken_whole_or_not_at_all() {
    let mut fleet = Fleet::start(&["--context-fail", "1"]).await.with_plan().await;
    let good = change("CREATE", "D", json!({}));
    let refused = fleet.context.update_context(update(1, vec![good.clone()])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    for (bad, words) in [
        (change("MOVE", "D", json!({})), "none of CREATE, UPDATE, DELETE"),
        (change("CREATE", " ", json!({})), "entity_id"),
        (change("CREATE", "E", json!([1])), "no JSON object"),
    ] {
        let refused = fleet.context.update_context(update(1, vec![good.clone(), bad])).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(words), "{refused}");
    }
    let nameless = UpdateContextRequest { story_id: String::new(), ..update(1, vec![good.clone()]) };
    assert_eq!(fleet.context.update_context(nameless).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(fleet.update(update(1, vec![good])).await.version, 1);
}

#[tokio::test]
async fn a_story_that_planning_does_not_know_is_kept_with_a_warning() {
    let mut fleet = Fleet::start(&[]).await;
    let request =
        UpdateContextRequest { timestamp: "soon".to_owned(), ..created("D", json!({"rationale": "One."})) };
    let told = fleet.update(request).await;
    assert_eq!((told.version, told.warnings.len()), (1, 2), "{told:?}");
    assert!(told.warnings[0].contains("\"soon\"") && told.warnings[1].contains("does not know the story"));
    assert_eq!(fleet.decisions("").await, ["- D: One."]);
    let told = fleet.context.get_context(ask("QA")).await.unwrap().into_inner().context;
    assert!(told.starts_with("Story s, which Planning does not know"), "{told}");
}
