//! The methods of `WorkflowOrchestrationService` that are about many tasks: section 3 of the fleet's contract.

use cofferdam_sdk::{rpc::Code, testing::Host};
use fleet_proto::workflow::v1::PendingTasksResponse;
use serde_json::json;

use super::support::*;

fn create(host: &mut Host, task: &str, story: &str, priority: Option<i64>) {
    settle(host, CREATED, json!({"task_id": task, "story_id": story, "priority": priority}));
}

fn names(answer: &PendingTasksResponse) -> Vec<&str> {
    answer.tasks.iter().map(|task| task.task_id.as_str()).collect()
}

#[test]
fn contract_3_what_waits_for_a_role_is_listed_rework_included() {
    let mut host = host();
    for task in ["A", "B", "C", "D"] {
        create(&mut host, task, "S", None);
    }
    settle_work(&mut host, "A", "commit_code", "developer");
    settle_work(&mut host, "B", "commit_code", "developer");
    settle_work(&mut host, "B", "reject_design", "architect");
    settle_work(&mut host, "D", "cancel", "po");
    assert_eq!(names(&pending(&mut host, "architect")), ["A"]);
    assert_eq!(names(&pending(&mut host, "developer")), ["C", "B"], "the oldest first");
    assert_eq!(names(&pending(&mut host, "qa")), [] as [&str; 0]);
    assert_eq!(names(&pending(&mut host, "system")), [] as [&str; 0], "in charge of nothing");
    let rework = &pending(&mut host, "DEV").tasks[1];
    assert_eq!(
        (rework.story_id.as_str(), rework.current_state.as_str(), rework.required_action.as_str()),
        ("S", "arch_rejected", "revise_code")
    );
    assert!(rework.waiting_since > 1_767_225_600, "unix seconds");
}

#[test]
fn contract_3_what_is_claimed_is_not_listed() {
    let mut host = host();
    for task in ["A", "B"] {
        create(&mut host, task, "S", None);
        settle_work(&mut host, task, "commit_code", "developer");
    }
    assert!(claim(&mut host, "A", "a-1", "architect").claimed);
    assert_eq!(names(&pending(&mut host, "arch")), ["B"]);
    settle_work(&mut host, "A", "reject_design", "architect");
    assert_eq!(names(&pending(&mut host, "developer")), ["A"], "the claim was the architect's");
}

#[test]
fn contract_3_ten_are_listed_or_as_many_as_are_asked_for_from_an_offset() {
    let mut host = host();
    let tasks: Vec<String> = (0..13).map(|n| format!("T-{n:02}")).collect();
    tasks.iter().for_each(|task| create(&mut host, task, "S", None));
    let mut listed = |limit, offset| -> (Vec<String>, i32) {
        let answer: PendingTasksResponse = try_pending(&mut host, "developer", limit, offset).read();
        (answer.tasks.into_iter().map(|task| task.task_id).collect(), answer.total_count)
    };
    assert_eq!(listed(0, 0), (tasks[..10].to_vec(), 13));
    assert_eq!(listed(4, 0), (tasks[..4].to_vec(), 13));
    assert_eq!(listed(4, 10), (tasks[10..].to_vec(), 13));
    assert_eq!(listed(100, 0), (tasks.clone(), 13));
    assert_eq!(listed(4, 20), (vec![], 13));
    for (limit, offset) in [(-1, 0), (0, -1)] {
        let status = try_pending(&mut host, "developer", limit, offset);
        assert_eq!(status.status().code, Code::InvalidArgument);
    }
}

#[test]
fn contract_3_more_than_one_call_can_look_at_are_listed_from_the_boards() {
    let mut host = host();
    (0..50).for_each(|n| create(&mut host, &format!("T-{n:02}"), "S", Some(1)));
    let commit = json!({"task_id": "T-49", "story_id": "S", "action": "commit_code", "actor_role": "developer",
                        "artifacts": {"commit_sha": "c0ffee"}});
    settle(&mut host, WORK, commit);
    settle_work(&mut host, "T-49", "reject_design", "architect");
    claim(&mut host, "T-45", "a-1", "developer");
    settle_work(&mut host, "T-46", "commit_code", "developer");
    let answer: PendingTasksResponse = try_pending(&mut host, "developer", 60, 0).read();
    assert_eq!((answer.tasks.len(), answer.total_count), (48, 48));
    let last = answer.tasks.last().unwrap();
    assert_eq!((last.task_id.as_str(), last.current_state.as_str()), ("T-49", "arch_rejected"));
    assert_eq!((last.required_action.as_str(), last.priority), ("revise_code", 10));
    assert_eq!(last.work.as_ref().unwrap().commit_sha, "c0ffee");
}

#[test]
fn contract_k17_priorities_are_turned_round() {
    let mut host = host();
    for (task, priority) in [("A", Some(1)), ("B", Some(10)), ("C", None), ("D", Some(99)), ("E", Some(4))] {
        create(&mut host, task, "S", priority);
    }
    let listed = pending(&mut host, "developer").tasks;
    assert_eq!(listed.iter().map(|task| task.priority).collect::<Vec<_>>(), [10, 1, 0, 1, 7]);
}

#[test]
fn contract_3_the_work_to_validate_is_what_was_committed_last() {
    let mut host = opened();
    let mut commit = act("commit_code", "developer");
    commit["artifacts"] = json!({"commit_sha": "first"});
    does_as(&mut host, commit.clone());
    does(&mut host, "reject_design", "architect");
    commit["artifacts"] = json!({"commit_sha": "second", "files_changed": ["a.rs"], "branch": "main",
        "implementation_summary": "what", "context_preview": "where"});
    does_as(&mut host, commit);
    let work = pending(&mut host, "architect").tasks.remove(0).work.unwrap();
    assert_eq!((work.commit_sha.as_str(), work.files_changed), ("second", vec!["a.rs".to_owned()]));
    assert_eq!((work.implementation_summary.as_str(), work.context_preview.as_str()), ("what", "where"));
    assert_eq!(work.metadata.into_iter().collect::<Vec<_>>(), [("branch".to_owned(), "main".to_owned())]);
}

/// The boards hear a moment later.
#[test]
fn contract_3_what_has_moved_on_since_is_not_listed() {
    let mut host = host();
    for task in ["A", "B", "C"] {
        create(&mut host, task, "S", None);
        settle_work(&mut host, task, "commit_code", "developer");
    }
    // Nobody brings the boards what these publish.
    assert!(try_claim(&mut host, "A", "a-1", "architect").answer.is_ok());
    validate(&mut host, "B", "architect", "reject_design");
    let listed: PendingTasksResponse = try_pending(&mut host, "architect", 1, 0).read();
    assert_eq!((names(&listed), listed.total_count), (vec!["C"], 1), "the page is filled");
}

#[test]
fn get_stats_counts_all_tasks() {
    let mut host = host();
    for task in ["A", "B", "C", "D", "E", "F"] {
        create(&mut host, task, "S", None);
    }
    finish(&mut host, "A");
    for (task, action, role) in [
        ("B", "commit_code", "developer"),
        ("B", "reject_design", "architect"),
        ("C", "commit_code", "developer"),
        ("D", "commit_code", "developer"),
        ("D", "approve_design", "architect"),
        ("E", "cancel", "po"),
    ] {
        settle_work(&mut host, task, action, role);
    }
    let all = stats(&mut host, "", "");
    assert_eq!((all.total_tasks, all.tasks_completed, all.tasks_in_progress), (6, 2, 1));
    assert_eq!((all.tasks_waiting_architect, all.tasks_waiting_qa, all.tasks_waiting_po), (1, 1, 0));
    let states = [
        ("done", 1),
        ("cancelled", 1),
        ("arch_rejected", 1),
        ("pending_arch_review", 1),
        ("pending_qa", 1),
        ("implementing", 1),
    ];
    assert_eq!(all.tasks_by_state, states.map(|(state, count)| (state.to_owned(), count)).into());
    assert_eq!(all.total_rejections, 1);
    claim(&mut host, "C", "a-1", "architect");
    let claimed = stats(&mut host, "", "");
    assert_eq!((claimed.tasks_waiting_architect, claimed.tasks_in_progress), (0, 2), "it waits no more");
    // A and D were approved at once, B was not, the others were not looked at.
    assert!((all.approval_rate - 2.0 / 3.0).abs() < 1e-9);
    // The clock of these tests goes on by a second with each event.
    assert!((1.0..60.0).contains(&all.avg_time_in_arch_review_seconds));
    assert!((1.0..60.0).contains(&all.avg_time_in_qa_seconds));
    assert_eq!(stats(&mut self::host(), "", "").approval_rate, 0.0);
}

#[test]
fn another_try_is_no_approval() {
    let mut host = host();
    create(&mut host, "T", "S", None);
    settle_work(&mut host, "T", "retry", "system");
    let all = stats(&mut host, "", "");
    assert_eq!((all.approval_rate, all.total_rejections), (0.0, 0));
    finish(&mut host, "T");
    assert_eq!(stats(&mut host, "", "").approval_rate, 1.0);
}

#[test]
fn get_stats_is_of_one_story_or_of_what_a_role_is_in_charge_of() {
    let mut host = host();
    for (task, story) in [("A", "S"), ("B", "S"), ("C", "other")] {
        create(&mut host, task, story, None);
    }
    finish(&mut host, "A");
    let story = stats(&mut host, "S", "");
    assert_eq!((story.total_tasks, story.tasks_completed, story.tasks_in_progress), (2, 1, 1));
    assert!(story.avg_time_in_arch_review_seconds > 0.0);
    let developer = stats(&mut host, "", "dev");
    assert_eq!((developer.total_tasks, developer.tasks_completed), (2, 0));
    assert_eq!(stats(&mut host, "S", "developer").total_tasks, 1);
    assert_eq!(stats(&mut host, "S", "qa").total_tasks, 0);
    assert_eq!(stats(&mut host, "nobody's", "").total_tasks, 0);
    let request = fleet_proto::workflow::v1::GetStatsRequest { story_id: "S".into(), role: "wizard".into() };
    assert_eq!(serve(&mut host, "GetStats", &request, "").status().code, Code::InvalidArgument);
}

/// The boards hear a moment later.
#[test]
fn get_stats_of_a_story_with_few_tasks_asks_the_tasks() {
    let mut host = host();
    create(&mut host, "T", "S", None);
    validate(&mut host, "T", "developer", "commit_code");
    assert_eq!(stats(&mut host, "S", "").tasks_waiting_architect, 1);
    assert_eq!(stats(&mut host, "", "").tasks_waiting_architect, 0);
}

#[test]
fn get_stats_of_a_story_with_many_tasks_asks_the_boards() {
    let mut host = host();
    (0..45).for_each(|n| create(&mut host, &format!("T-{n:02}"), "S", None));
    create(&mut host, "A", "other", None);
    finish(&mut host, "T-07");
    settle_work(&mut host, "T-08", "commit_code", "developer");
    let story = stats(&mut host, "S", "");
    assert_eq!((story.total_tasks, story.tasks_completed, story.tasks_in_progress), (45, 1, 43));
    assert_eq!(story.tasks_waiting_architect, 1);
}
