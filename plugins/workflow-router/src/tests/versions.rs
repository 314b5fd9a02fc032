//! Cells that another version of the plugin wrote.

use cofferdam_sdk::testing::Host;
use serde_json::{Value, json};

use super::support::*;
use crate::board::number;

/// As if a version that is yet to come had written it.
fn from_the_future(host: &mut Host, cell: &str, key: &str) {
    let mut value: Value = host.value(cell, key).unwrap();
    value["schema"] = json!(2);
    host.set_value(cell, key, &value);
}

#[test]
fn what_a_newer_version_wrote_is_handed_back() {
    let board = format!("board/{}", number("T"));
    for (cell, key, subject) in
        [("task/T", "task", WORK), ("story/S", "story", OPENED), (&*board, "board", BOARD)]
    {
        let mut host = opened();
        let picture = json!({"board": number("T"), "task_id": "T", "story_id": "S", "state": "done", "since": 7, "version": 9});
        let message = match subject {
            WORK => act("commit_code", "developer"),
            OPENED => json!({"task_id": "T-2", "story_id": "S", "state": "todo"}),
            _ => picture,
        };
        from_the_future(&mut host, cell, key);
        let run = run(&mut host, subject, message);
        assert!(retried(&run), "{cell}: {:?}", run.result);
        assert!(format!("{:?}", run.result).contains("schema 2"), "{:?}", run.result);
    }
}
