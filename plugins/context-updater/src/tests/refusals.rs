//! A Context that can't, or does not want to.

use cofferdam_sdk::{Failure, log::Level, publish::EmitError, rpc::Code};
use serde_json::json;

use super::support::*;

fn refused(code: Code) -> cofferdam_sdk::testing::Run {
    run(&mut bare_host().fails("context", UPDATE, code, "its words"), DECIDED, decided())
}

#[test]
fn contract_2_1_a_context_that_is_away_or_fails_inside_is_asked_again() {
    for code in [
        Code::Unavailable,
        Code::DeadlineExceeded,
        Code::Cancelled,
        Code::Aborted,
        Code::ResourceExhausted,
        Code::Internal,
        Code::Unknown,
    ] {
        let run = refused(code);
        let Err(Failure::Retry { reason, after: None }) = &run.result else { panic!("{:?}", run.result) };
        assert!(reason.contains("its words"), "{reason}");
        assert!(!run.wrote && run.published.is_empty());
    }
}

#[test]
fn what_context_will_never_take_is_a_dead_letter_that_says_why() {
    for code in [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition, Code::PermissionDenied] {
        let run = refused(code);
        let Err(Failure::Reject(reason)) = &run.result else { panic!("{:?}", run.result) };
        assert!(reason.starts_with("Context refused it: ") && reason.contains("its words"), "{reason}");
        assert_eq!(run.metric("context_dropped"), 1.0);
    }
}

#[test]
fn a_context_that_takes_no_updates_is_a_dead_letter_that_names_the_remedy() {
    let run = refused(Code::Unimplemented);
    let Err(Failure::Reject(reason)) = &run.result else { panic!("{:?}", run.result) };
    for words in ["takes no updates", UPDATE, "out of the configuration", "cofferdam dlq redrive"] {
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn decisions_without_a_story_are_told_to_nobody() {
    let mut data = decided();
    data["story_id"] = json!("");
    let run = run(&mut host(), DECIDED, data);
    assert!(run.acked_without_effect() && run.calls.is_empty());
    assert_eq!(run.metric("context_dropped"), 1.0);
    let [warning] = &run.logged(Level::Warn)[..] else { panic!("one warning") };
    assert!(warning.contains("2 decisions") && warning.contains("story_id"), "{warning}");
}

#[test]
fn a_message_that_names_two_stories_is_malformed() {
    let mut both = json!({"event_type": DECIDED, "payload": decided()});
    both["story_id"] = json!("other");
    both["task_id"] = json!("T");
    both["decisions"] = decided()["decisions"].clone();
    // Without the marks of an envelope it is bare, and what `payload` says is not its story.
    let run = run(&mut host(), DECIDED, both);
    assert!(matches!(run.result, Err(Failure::Reject(_))) && run.calls.is_empty());
}

#[test]
fn an_event_that_may_not_be_published_keeps_nothing() {
    let mut host = host().refuses_publish(UPDATED, EmitError::Denied("no grant".into()));
    let run = run(&mut host, DECIDED, decided());
    assert!(matches!(run.result, Err(Failure::Reject(_))) && !run.wrote);
}
