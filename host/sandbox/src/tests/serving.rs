//! Requests: what the guest gets and what comes back, and that they share instances and limits with events.

use std::time::Duration;

use bytes::Bytes;

use super::load;
use crate::testing::{Recorder, assemble, event, guest, guest_serving, request, small};
use crate::{Call, Ending, Failure, Isolation, Limits, Plugin, Request, Run, Sandbox, ServeError};

/// Lies at 64: the request is the answer.
const ECHO: &str = "
    (i32.store (i32.const 64) (i32.const 0))
    (i32.store (i32.const 68) (local.get $request)) (i32.store (i32.const 72) (local.get $request-len))
    (return (i32.const 64))";

/// The status of this number, with the request as its message.
fn refusing(code: u8) -> String {
    format!(
        "(i32.store (i32.const 64) (i32.const 1)) (i32.store8 (i32.const 68) (i32.const {code}))
         (i32.store (i32.const 72) (local.get $request)) (i32.store (i32.const 76) (local.get $request-len))
         (return (i32.const 64))"
    )
}

async fn serving(serve: &str) -> Plugin {
    load(guest_serving("", serve)).await
}

async fn serve(plugin: &Plugin, limits: &Limits) -> Run {
    plugin.serve(Box::<Recorder>::default(), request(), limits).await
}

#[tokio::test]
async fn a_request_reaches_the_guest_and_its_answer_comes_back() {
    let serve_ = format!(
        "(if (i32.ne (local.get $id-len) (i32.const 3)) (then unreachable))
         (if (i32.ne (local.get $method-len) (i32.const 15)) (then unreachable))
         (if (i64.ne (local.get $timestamp) (i64.const 1700000000000000000)) (then unreachable))
         (drop (call $now)) {ECHO}"
    );
    let run = serve(&serving(&serve_).await, &Limits::default()).await;
    assert_eq!((&run.ending, run.answer.as_deref()), (&Ending::Ok, Some(&b"please"[..])));
    assert_eq!((run.usage.host_calls, run.usage.fresh), (1, true));
    assert_eq!(run.into_host::<Recorder>().unwrap().calls, [Call::Now]);
}

#[tokio::test]
async fn an_empty_answer_is_one() {
    let plugin = serving(ECHO).await;
    let nothing = Request { request: Bytes::new(), ..request() };
    let run = plugin.serve(Box::<Recorder>::default(), nothing, &Limits::default()).await;
    assert_eq!((run.ending, run.answer), (Ending::Ok, Some(Bytes::new())));
}

#[tokio::test]
async fn a_status_is_the_guests_word_and_never_ok() {
    for (code, told) in [(0, 2), (1, 1), (2, 2), (5, 5), (8, 8), (12, 12), (16, 16)] {
        let run = serve(&serving(&refusing(code)).await, &Limits::default()).await;
        let status = ServeError { code: told, message: "please".to_owned() };
        assert_eq!((run.ending, run.answer), (Ending::Refused(status), None));
    }
}

#[tokio::test]
async fn the_same_component_takes_events() {
    let plugin = load(guest_serving("(drop (call $now))", ECHO)).await;
    let run = plugin.handle(Box::<Recorder>::default(), event(), &Limits::default()).await;
    assert_eq!((&run.ending, &run.answer), (&Ending::Ok, &None));
    assert_eq!(run.into_host::<Recorder>().unwrap().calls, [Call::Now]);
}

#[tokio::test]
async fn a_component_without_a_service_is_not_asked() {
    let plugin = load(guest("", "unreachable", "")).await;
    let run = serve(&plugin, &Limits::default()).await;
    let Ending::HostFault { message } = &run.ending else { panic!("{run:?}") };
    assert!(message.contains("test.Service/Do"), "{message}");
    assert!(run.into_host::<Recorder>().is_some());
}

#[tokio::test]
async fn a_service_of_another_type_does_not_link() {
    let with = |service: &str| {
        let more = format!(
            r#"(core module $more (func (export "serve")))
               (core instance $more (instantiate $more))
               (func $more (canon lift (core func $more "serve")))
               (instance $more {service})
               (export "cofferdam:plugin/service@0.1.0" (instance $more))"#
        );
        guest("", "", &more)
    };
    for (service, expected) in [
        (
            r#"(export "serve" (func $more))"#,
            "`serve` of cofferdam:plugin/service@0.1.0 is not as the contract",
        ),
        (r#"(export "answer" (func $more))"#, "cofferdam:plugin/service@0.1.0 has no function `serve`"),
    ] {
        let sandbox = Sandbox::new(small()).unwrap();
        let error = sandbox.load(Bytes::from(with(service))).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot link the component: ") && error.contains(expected), "{error}");
    }
    // A service alone is no plugin.
    let alone = "(component (instance $a) (export \"cofferdam:plugin/service@0.1.0\" (instance $a)))";
    let error = Sandbox::inspect(&assemble(alone)).unwrap_err().to_string();
    assert!(error.contains("no export cofferdam:plugin/handler"), "{error}");
}

#[tokio::test]
async fn limits_are_those_of_an_event() {
    let limits =
        Limits { cpu: Duration::from_millis(30), host_calls: 1, memory: 1 << 20, ..Limits::default() };
    for (serve_, expected) in [
        ("(loop $forever (br $forever)) unreachable", Ending::CpuLimit),
        ("(drop (call $now)) (drop (call $now)) unreachable", Ending::HostCallLimit),
        ("(drop (memory.grow (i32.const 16))) unreachable", Ending::MemoryLimit),
        (
            "(call $serve (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5)
            (local.get 6) (local.get 7) (local.get 8)) (drop) unreachable",
            Ending::StackOverflow,
        ),
    ] {
        assert_eq!(serve(&serving(serve_).await, &limits).await.ending, expected);
    }
    let run = serve(&serving("(call $complain) unreachable").await, &Limits::default()).await;
    let Ending::Trap { message } = &run.ending else { panic!("{run:?}") };
    assert!(message.ends_with("the guest's last words: oh no; at serve"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_too_long_is_stopped() {
    let plugin = serving("(drop (call $attempt)) unreachable").await;
    let host = Box::new(Recorder { wait: Duration::from_secs(61), ..Recorder::default() });
    let run = plugin.serve(host, request(), &Limits::default()).await;
    assert_eq!(run.ending, Ending::WallLimit);
}

#[tokio::test]
async fn an_instance_of_a_batch_has_events_and_requests_alike() {
    const COUNT: &str = "
        (i32.store (i32.const 384) (i32.add (i32.load (i32.const 384)) (i32.const 1)))
        (call $report (i32.load (i32.const 384)))";
    // An empty request is answered with a status.
    let body = format!(
        "{COUNT} (if (i32.eq (local.get $id-len) (i32.const 1)) (then
        (i32.store (i32.const 64) (i32.const 1)) (i32.store (i32.const 72) (i32.const 1))
        (i32.store (i32.const 80) (i32.const 0)) (i32.store (i32.const 84) (i32.const 0))
        (return (i32.const 64))))"
    );
    let serve_ = format!("{COUNT} (if (i32.eqz (local.get $request-len)) (then {})) {ECHO}", refusing(5));
    let plugin = load(guest_serving(&body, &serve_)).await.isolated(Isolation::Batch { events: 100 });
    let limits = Limits::default();
    let host = Box::<Recorder>::default;
    let count = |run: Run| (run.ending.clone(), run.into_host::<Recorder>().unwrap().reports());
    let refused = || Request { request: Bytes::new(), ..request() };

    for expected in [1, 3] {
        assert_eq!(count(plugin.handle(host(), event(), &limits).await), (Ending::Ok, vec![expected]));
        assert_eq!(count(plugin.serve(host(), request(), &limits).await), (Ending::Ok, vec![expected + 1]));
    }
    assert_eq!(count(plugin.serve_in_fresh(host(), request(), &limits).await), (Ending::Ok, vec![1]));
    let status = Ending::Refused(ServeError { code: 5, message: String::new() });
    let run = plugin.serve(host(), refused(), &limits).await;
    assert!(matches!(count(run), (ending, seen) if ending == status && seen[0] >= 2));
    // The two instances there were: one is left, and then none.
    let run = plugin.serve(host(), refused(), &limits).await;
    assert_eq!(count(run).0, status);
    assert_eq!(count(plugin.serve(host(), request(), &limits).await), (Ending::Ok, vec![1]));
    let rejected = plugin.handle(host(), crate::Event { id: "1".to_owned(), ..event() }, &limits).await;
    assert_eq!(count(rejected), (Ending::Failed(Failure::Reject(String::new())), vec![2]));
    assert_eq!(count(plugin.serve(host(), request(), &limits).await), (Ending::Ok, vec![1]));
}

#[tokio::test]
async fn a_patch_release_of_the_service_links() {
    let parts = crate::testing::Parts { serve: Some(ECHO), ..crate::testing::Parts::default() };
    let run = serve(&load(parts.assemble("0.1.7")).await, &Limits::default()).await;
    assert_eq!((run.ending, run.answer.as_deref()), (Ending::Ok, Some(&b"please"[..])));
}
