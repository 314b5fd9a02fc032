//! What callers see.

use cofferdam_sdk::rpc::Code;
use serde_json::json;

use super::support::*;

#[test]
fn contract_6_queue_statuses_are_told_in_the_fleets_words() {
    let mut host = one_by_one();
    assert_eq!(status(&mut host, "A"), "UNKNOWN");
    let mut message = depending("A", &["D"]);
    (message["priority"], message["assigned_to"]) = (json!(2), json!("qa"));
    settle(&mut host, CREATED, message);
    let task = get(&mut host, "A");
    assert_eq!((task.status.as_str(), task.story_id.as_str(), task.role.as_str()), ("QUEUED", "S", "QA"));
    assert_eq!((task.priority, task.dependencies, task.attempt), (2, vec!["D".to_owned()], 0));
    settle(&mut host, CREATED, created("D"));
    let task = get(&mut host, "D");
    assert_eq!((task.status.as_str(), task.agent_id.as_str()), ("IN_PROGRESS", "agent-dev-001"));
    assert!(task.updated_at > 1_767_225_600);
    settle(&mut host, ANSWERED, answer("D"));
    assert_eq!(status(&mut host, "D"), "COMPLETED");
    settle(&mut host, AGENT_FAILED, failure("A"));
    assert_eq!(status(&mut host, "A"), "FAILED:out of memory");
    assert_eq!(list(&mut host, ""), []);
    assert_eq!(try_get(&mut host, " ").status().code, Code::InvalidArgument);
}
