//! A task stays small, however long it goes back and forth.

use std::collections::HashSet;

use fleet_proto::workflow::v1::WorkResult;
use serde_json::{Value, json};

use super::support::*;

const MANY: [(&str, &str); 2] = [("commit_code", "developer"), ("reject_design", "architect")];

/// Commits and rejects so often; returns the keys of what was told.
fn to_and_fro(times: usize, feedback: &str, host: &mut cofferdam_sdk::testing::Host) -> Vec<String> {
    let mut keys = Vec::new();
    for number in 0..times {
        for (action, role) in MANY {
            let mut message = act(action, role);
            message["feedback"] = json!(feedback);
            message["number"] = json!(number);
            let run = run(host, WORK, message);
            assert_eq!(run.result, Ok(()));
            keys.extend(run.published.iter().map(|told| told.json()["idempotency_key"].to_string()));
            follow(host, run.published);
        }
    }
    keys
}

#[test]
fn feedback_is_cut_to_4000_characters_by_either_way() {
    for (length, cut) in [(4_000, false), (4_001, true), (100_000, true)] {
        let long = "\u{e9}".repeat(length);
        let kept = if cut { "\u{e9}".repeat(3_999) + "\u{2026}" } else { long.clone() };
        let mut by_event = opened();
        does(&mut by_event, "commit_code", "developer");
        let mut message = act("reject_design", "architect");
        message["feedback"] = json!(format!(" {long} "));
        assert_eq!(does_as(&mut by_event, message).on(ASSIGNED)[0]["feedback"], kept.as_str());
        let mut by_call = opened();
        does(&mut by_call, "commit_code", "developer");
        let result = WorkResult { feedback: long, ..WorkResult::default() };
        validate_with(&mut by_call, "T", "architect", "reject_design", result);
        for host in [by_event, by_call] {
            assert_eq!(stored(&host, "T")["feedback"], kept.as_str());
            assert_eq!(history(&host).last().unwrap()["feedback"], kept.as_str());
        }
    }
}

#[test]
fn the_last_200_hops_are_kept_and_all_are_counted_and_told_by_keys_of_their_own() {
    let mut host = opened();
    let keys = to_and_fro(70, WHY, &mut host);
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    let task = stored(&host, "T");
    // The first assignment; a commit and its routing, a claim and its rejection; all but the first commit after a revision.
    assert_eq!((history(&host).len(), &task["hops"]), (200, &json!(1 + 70 * 4 + 69)));
    assert_eq!(history(&host).last().unwrap()["to"], "arch_rejected");
    assert_eq!(stats(&mut host, "", "").total_rejections, 70);
}

#[test]
fn the_history_keeps_its_newest_feedback_and_stays_small() {
    let mut host = opened();
    to_and_fro(60, &"\u{1}".repeat(4_500), &mut host);
    let size = stored(&host, "T").to_string().len();
    assert!(size < 400 * 1_024, "{size}");
    let history = history(&host);
    assert_eq!(history.len(), 200);
    assert!(history[0]["feedback"].is_null() && history[199]["feedback"].is_string());
}

#[test]
fn a_task_of_a_version_that_did_not_count_its_hops_goes_on_from_its_history() {
    let mut host = opened();
    let mut keys = to_and_fro(2, WHY, &mut host);
    let mut task: Value = stored(&host, "T");
    task.as_object_mut().unwrap().remove("hops");
    host.set_value("task/T", "task", &task);
    let revised = run(&mut host, WORK, act("revise_code", "developer"));
    keys.extend(revised.published.iter().map(|told| told.json()["idempotency_key"].to_string()));
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    assert_eq!(stored(&host, "T")["hops"], json!(history(&host).len()));
}
