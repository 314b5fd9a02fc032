//! What the boards keep of the tasks' pictures, in whichever order they come.

use cofferdam_sdk::{log::Level, testing::Host};
use serde_json::{Value, json};

use super::support::*;
use crate::board::{BOARDS, number};

fn board(host: &Host, task_id: &str) -> Value {
    host.value(&format!("board/{}", number(task_id)), "board").unwrap_or_default()
}

fn picture(version: u64, state: &str, ended: Value) -> Value {
    json!({"board": number("T"), "task_id": "T", "story_id": "S", "state": state, "ended": ended,
           "since": 7, "version": version, "figures": [1, 60, 0, 0, 1, 2]})
}

#[test]
fn a_board_has_the_tasks_that_are_not_over_and_counts_the_others() {
    let mut host = opened();
    assert_eq!(board(&host, "T")["rows"]["T"][1], "implementing");
    does(&mut host, "commit_code", "developer");
    assert_eq!(board(&host, "T")["rows"]["T"][1], "pending_arch_review");
    does(&mut host, "cancel", "po");
    let board = board(&host, "T");
    assert_eq!((&board["rows"], &board["over"]["states"]), (&json!({}), &json!({"cancelled": 1})));
}

#[test]
fn the_newest_picture_counts_whatever_comes_after_it() {
    let mut host = host();
    run(&mut host, BOARD, picture(3, "pending_qa", json!(null)));
    for old in [picture(3, "qa_testing", json!(null)), picture(2, "todo", json!(null))] {
        let run = run(&mut host, BOARD, old);
        assert!(run.acked_without_effect());
        assert_eq!(run.metric("workflow_dropped"), 1.0);
    }
    assert_eq!(board(&host, "T")["rows"]["T"][1], "pending_qa");
    run(&mut host, BOARD, picture(5, "done", json!("done")));
    for old in [picture(4, "pending_qa", json!(null)), picture(5, "done", json!("done"))] {
        assert!(run(&mut host, BOARD, old).acked_without_effect(), "it is over");
    }
    let over = &board(&host, "T")["over"];
    assert_eq!((&over["states"], &over["figures"]), (&json!({"done": 1}), &json!([1, 60, 0, 0, 1, 2])));
}

#[test]
fn figures_of_tasks_open_and_over_add_up_to_averages() {
    let mut host = host();
    let mut open = picture(1, "pending_qa", json!(null));
    open["figures"] = json!([1, 5, 2, 4, 3, 1]);
    let mut over = picture(1, "done", json!("done"));
    let other = (0..).map(|n| format!("other-{n}")).find(|task| number(task) == number("T"));
    over["task_id"] = json!(other);
    over["figures"] = json!([1, 2, 2, 2, 0, 2]);
    for picture in [open, over] {
        assert_eq!(run(&mut host, BOARD, picture).result, Ok(()));
    }
    let all = stats(&mut host, "", "");
    assert_eq!((all.avg_time_in_arch_review_seconds, all.avg_time_in_qa_seconds), (3.5, 1.5));
    assert_eq!((all.total_rejections, all.approval_rate), (3, 0.5));
    let none = stats(&mut self::host(), "", "");
    assert_eq!((none.avg_time_in_arch_review_seconds, none.avg_time_in_qa_seconds), (0.0, 0.0));
}

#[test]
fn a_task_that_is_over_is_remembered_when_others_of_its_board_end() {
    let mut host = host();
    let others = (0..).map(|n| format!("other-{n}")).filter(|task| number(task) == number("T"));
    run(&mut host, BOARD, picture(5, "done", json!("done")));
    for task_id in others.take(3) {
        let mut over = picture(5, "done", json!("done"));
        over["task_id"] = json!(task_id);
        run(&mut host, BOARD, over);
    }
    assert!(run(&mut host, BOARD, picture(4, "pending_qa", json!(null))).acked_without_effect());
    assert_eq!(board(&host, "T")["over"]["states"], json!({"done": 4}));
}

#[test]
fn a_picture_on_the_wrong_board_is_malformed() {
    let mut wrong = picture(1, "todo", json!(null));
    wrong["board"] = json!((number("T") + 1) % BOARDS);
    for message in [wrong, json!({"board": number("T"), "task_id": "T"})] {
        let run = run(&mut host(), BOARD, message);
        assert!(run.result.is_err());
        assert_eq!(run.metric("workflow_dropped"), 1.0);
    }
}

#[test]
fn tasks_are_spread_over_all_boards() {
    let mut tasks = [0_u32; BOARDS as usize];
    for task in 0..1_600 {
        tasks[number(&format!("task-{task}")) as usize] += 1;
    }
    assert!(tasks.iter().all(|count| (50..200).contains(count)), "{tasks:?}");
    // What is stored depends on it.
    assert_eq!(["T", "task-1", "\u{e9}"].map(number), [10, 2, 5]);
}

#[test]
fn tasks_move_where_boards_and_alerts_are_not_granted() {
    let less = include_str!("../../plugin.toml")
        .replace("    \"cofferdam.workflow.board\",\n    \"cofferdam.workflow.waiting\",\n", "");
    let mut host = Host::from_manifest(&less);
    let opened = run(&mut host, CREATED, json!({"task_id": "T", "story_id": "S"}));
    assert_eq!(opened.subjects(), [CHANGED, ASSIGNED, OPENED]);
    let commit = does(&mut host, "commit_code", "developer");
    assert_eq!((state(&host, "T"), commit.timers.len()), (json!("pending_arch_review"), 0));
    assert_eq!(commit.logged(Level::Warn).len(), 2);
}

/// What the README says of how many tasks the boards hold.
#[test]
fn a_board_holds_a_thousand_tasks_with_long_names() {
    let long = |what: &str, n: usize| format!("{what}-{n:05}-{}", "0".repeat(30));
    let mut tasks = (0..).map(|n| (n, long("task", n))).filter(|(_, task)| number(task) == 0);
    let first = tasks.next().map(|(n, task_id)| {
        json!({"board": 0, "task_id": task_id, "story_id": long("story", n), "state": "pending_po_approval",
               "since": 1_767_225_600, "priority": 1, "claimed_by": "a-1", "commit_sha": "c".repeat(40), "version": 12,
               "figures": [2, 7_200, 2, 14_400, 2, 3]})
    });
    let mut host = host();
    assert_eq!(run(&mut host, BOARD, first.unwrap()).result, Ok(()));
    let mut board: Value = host.value("board/0", "board").unwrap();
    let rows = board["rows"].as_object_mut().unwrap();
    let row = rows.values().next().unwrap().clone();
    rows.extend(tasks.take(999).map(|(_, task_id)| (task_id, row.clone())));
    host.set_value("board/0", "board", &board);
    let bytes = host.cells().get("board/0", "board").unwrap().len();
    assert!(bytes < 200 << 10, "{bytes}");
}
