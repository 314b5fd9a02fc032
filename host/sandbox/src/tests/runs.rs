//! Runs that no limit ends.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{load, once, run};
use crate::testing::{Recorder, event, guest, guest_calling, guest_of_version, guest_with, small};
use crate::{Call, Ending, Failure, Limits, LoadError, LogLevel, Sandbox, SandboxConfig};

#[tokio::test]
async fn an_event_reaches_the_handler_and_the_host_comes_back() {
    // Traps unless the id's length and the time are those of the event.
    let body = "
        (if (i32.ne (local.get $id-len) (i32.const 3)) (then unreachable))
        (if (i64.ne (local.get $timestamp) (i64.const 1700000000000000000)) (then unreachable))
        (drop (call $now)) (call $report (i32.const 7))";
    let run = run(&load(guest_calling(body)).await, &Limits::default()).await;
    assert_eq!(run.ending, Ending::Ok);
    assert_eq!(run.usage.host_calls, 2);
    assert_eq!(run.usage.memory_peak, 65_536);
    assert!(run.usage.cpu > Duration::ZERO && run.usage.wall > Duration::ZERO);
    assert_eq!(run.into_host::<Recorder>().unwrap().calls, [Call::Now, Call::Random(7)]);
}

#[tokio::test]
async fn a_patch_release_of_the_contract_links() {
    assert_eq!(once(guest_of_version("0.1.9")).await.0, Ending::Ok);
}

#[tokio::test]
async fn a_component_links_that_was_built_before_a_function_was_added() {
    // `publish` as it was when it had nothing but `emit`.
    let before = r#"
      (import "cofferdam:plugin/publish@0.1.0" (instance $publish
        (type $emit-error' (variant (case "denied" string) (case "too-large" string) (case "limit" string)
          (case "invalid-subject" string) (case "no-stream" string) (case "unavailable" string)))
        (export "emit-error" (type $emit-error (eq $emit-error')))
        (export "emit" (func (param "subject" string) (param "headers" (list (tuple string string)))
          (param "data" (list u8)) (result (result string (error $emit-error)))))))"#;
    assert_eq!(once(guest(before, "", "")).await.0, Ending::Ok);
}

#[tokio::test]
async fn a_component_links_that_was_built_when_the_codes_were_those_of_rpc_alone() {
    let before = r#"
      (import "cofferdam:plugin/rpc@0.1.0" (instance $rpc
        (type $code' (enum "ok" "cancelled" "unknown" "invalid-argument" "deadline-exceeded" "not-found"
          "already-exists" "permission-denied" "resource-exhausted" "failed-precondition" "aborted" "out-of-range"
          "unimplemented" "internal" "unavailable" "data-loss" "unauthenticated"))
        (export "code" (type $code (eq $code')))
        (type $status' (record (field "code" $code) (field "message" string) (field "local" bool)))
        (export "status" (type $status (eq $status')))
        (type $options' (record (field "timeout-ms" (option u32)) (field "metadata" (list (tuple string string)))
          (field "repeat" bool)))
        (export "options" (type $options (eq $options')))
        (export "call" (func (param "upstream" string) (param "method" string) (param "request" (list u8))
          (param "options" $options) (result (result (list u8) (error $status)))))))"#;
    assert_eq!(once(guest(before, "", "")).await.0, Ending::Ok);
}

#[tokio::test]
async fn failures_are_the_guests_word() {
    // A result lies at 64: `err`, its case at 72, its fields from 80 on; the text is the event's id.
    let failed = |fields: &str| {
        let body = format!("(i32.store (i32.const 64) (i32.const 1)) {fields} (return (i32.const 64))");
        guest_with("", &body)
    };
    let text = "(i32.store (i32.const 80) (local.get $id)) (i32.store (i32.const 84) (local.get $id-len))";
    let rejected = failed(&format!("(i32.store (i32.const 72) (i32.const 1)) {text}"));
    assert_eq!(once(rejected).await.0, Ending::Failed(Failure::Reject("s.1".to_owned())));
    let retried = failed(&format!(
        "{text} (i32.store (i32.const 88) (i32.const 1)) (i64.store (i32.const 96) (i64.const 250))"
    ));
    let expected = Failure::Retry { reason: "s.1".to_owned(), after_ms: Some(250) };
    assert_eq!(once(retried).await.0, Ending::Failed(expected));
}

#[tokio::test]
async fn a_trap_tells_its_reason_the_last_words_and_where() {
    let (ending, host) = once(guest_calling("(call $complain) unreachable")).await;
    let Ending::Trap { message } = ending else { panic!("{ending:?}") };
    assert_eq!(
        message,
        "wasm trap: wasm `unreachable` instruction executed; the guest's last words: oh no; at handle"
    );
    assert_eq!(host.logs(), [(LogLevel::Error, "oh no")]);
}

#[tokio::test]
async fn every_event_gets_a_fresh_instance() {
    let counting = "
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
        (call $report (i32.load (i32.const 0)))";
    let plugin = load(guest_calling(counting)).await;
    for _ in 0..3 {
        let run = run(&plugin, &Limits::default()).await;
        assert_eq!(run.into_host::<Recorder>().unwrap().reports(), [1]);
    }
}

#[tokio::test]
async fn an_answer_to_another_call_is_the_hosts_fault() {
    let plugin = load(guest_calling("(drop (call $attempt))")).await;
    let host = Box::new(Recorder { lies: true, ..Recorder::default() });
    let run = plugin.handle(host, event(), &Limits::default()).await;
    let Ending::HostFault { message } = run.ending else { panic!("{run:?}") };
    assert!(message.contains("Answer::Attempt was answered by Answer::Config"), "{message}");
}

#[tokio::test]
async fn more_runs_than_instances_wait_for_their_turn() {
    let config = SandboxConfig { max_instances: 2, ..small() };
    let sandbox = Sandbox::new(config).unwrap();
    let plugin = sandbox.load(Bytes::from(guest_calling("(drop (call $attempt))"))).await.unwrap();
    let mut runs = JoinSet::new();
    for _ in 0..20 {
        let plugin = plugin.clone();
        let host = Box::new(Recorder { wait: Duration::from_millis(2), ..Recorder::default() });
        runs.spawn(async move { plugin.handle(host, event(), &Limits::default()).await.ending });
    }
    assert_eq!(runs.join_all().await, vec![Ending::Ok; 20]);
}

#[tokio::test]
async fn what_does_not_validate_does_not_load() {
    let sandbox = Sandbox::new(small()).unwrap();
    let broken = guest_with("", "(drop (i64.add (i32.const 1) (i32.const 2)))");
    let error = sandbox.load(Bytes::from(broken)).await.unwrap_err();
    assert!(matches!(error, LoadError::Compile(_)), "{error}");
}

#[tokio::test]
async fn a_handler_of_another_type_does_not_link() {
    let text = r#"(component
        (core module $m (func (export "handle")))
        (core instance $m (instantiate $m))
        (func $handle (canon lift (core func $m "handle")))
        (instance $handler (export "handle" (func $handle)))
        (export "cofferdam:plugin/handler@0.1.0" (instance $handler)))"#;
    let bytes = Bytes::from(crate::testing::assemble(text));
    let error = Sandbox::new(small()).unwrap().load(bytes).await.unwrap_err();
    assert!(error.to_string().contains("`handle` of cofferdam:plugin/handler@0.1.0 is not as"), "{error}");
}

#[test]
fn impossible_settings_are_named() {
    let error = Sandbox::new(SandboxConfig { max_instances: 0, ..small() }).unwrap_err().to_string();
    assert_eq!(error, "sandbox setting max_instances = 0 is not possible: it must be above zero");
}
