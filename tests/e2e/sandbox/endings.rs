//! Guests that misbehave: each ends as what it is, gives its host back, and harms nobody else.

use std::time::Duration;

use bytes::Bytes;
use cofferdam_sandbox::{Ending, Failure, Limits, LogLevel};
use tokio::time::{Instant, timeout};

use super::{event, fixture, host::Host, limits, once, run, sandbox};

#[tokio::test]
async fn a_panic_is_a_trap_with_its_message_and_place() {
    let seen = once("trap", "the plan has no tasks").await;
    let Ending::Trap { message } = &seen.ending else { panic!("{:?}", seen.ending) };
    assert!(message.contains("wasm `unreachable` instruction executed"), "{message}");
    assert!(message.contains("the plan has no tasks"), "{message}");
    assert!(message.contains("examples/trap.rs:"), "{message}");
    // What it did before it broke off is there for the caller to drop.
    assert_eq!(seen.host.published.len(), 1);
    assert!(seen.host.logs.iter().any(|(level, _)| *level == LogLevel::Error));
}

#[tokio::test]
async fn an_endless_loop_ends_at_its_cpu_limit() {
    let seen = once("spin", "").await;
    assert_eq!(seen.ending, Ending::CpuLimit);
    assert!(seen.usage.cpu >= limits().cpu && seen.usage.cpu < 2 * limits().cpu, "{:?}", seen.usage);
}

#[tokio::test]
async fn endless_allocation_ends_at_the_memory_limit() {
    let seen = once("grow-memory", "").await;
    assert_eq!(seen.ending, Ending::MemoryLimit);
    assert!(seen.usage.memory_peak <= limits().memory, "{:?}", seen.usage);
    assert!(seen.usage.memory_peak > limits().memory / 2, "{:?}", seen.usage);
}

#[tokio::test]
async fn allocation_within_the_limit_is_fine() {
    let seen = once("grow-memory", r#"{"bytes": 33554432}"#).await;
    assert_eq!(seen.report()["bytes"], 33_554_432);
}

#[tokio::test]
async fn endless_recursion_ends_the_run() {
    let ending = once("deep-recursion", "").await.ending;
    // Rust keeps a stack of its own in linear memory, below which nothing lies.
    let overflowed = match &ending {
        Ending::StackOverflow => true,
        Ending::Trap { message } => message.contains("out of bounds memory access"),
        _ => false,
    };
    assert!(overflowed, "{ending:?}");
}

#[tokio::test]
async fn a_growing_table_ends_at_the_table_limit() {
    let plugin = sandbox().load(harness::guests::by_hand("table-grow").into()).await.unwrap();
    let seen = run(&plugin, Host::default(), event(""), &limits()).await;
    assert_eq!(seen.ending, Ending::TableLimit);
}

#[tokio::test]
async fn a_list_outside_the_guests_memory_never_reaches_the_host() {
    let plugin = sandbox().load(harness::guests::by_hand("wild-pointer").into()).await.unwrap();
    let seen = run(&plugin, Host::default(), event(""), &limits()).await;
    let Ending::Trap { message } = &seen.ending else { panic!("{:?}", seen.ending) };
    assert!(message.contains("out of bounds"), "{message}");
}

#[tokio::test]
async fn endless_host_calls_end_at_their_limit() {
    let plugin = fixture("too-many-host-calls").await;
    let limits = Limits { host_calls: 500, cpu: Duration::from_secs(10), ..limits() };
    let seen = run(&plugin, Host::default(), event(""), &limits).await;
    assert_eq!(seen.ending, Ending::HostCallLimit);
    assert_eq!(seen.usage.host_calls, 500);
    // Up to the limit is fine: 499 and the report.
    let seen = run(&plugin, Host::default(), event(r#"{"calls": 499}"#), &limits).await;
    assert_eq!(seen.report()["calls"], 499);
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_ends_the_run_at_its_wall_limit() {
    let plugin = fixture("sleep-in-rpc").await;
    let host = Host { upstream_takes: Duration::from_secs(600), ..Host::default() };
    let start = Instant::now();
    let told = r#"{"upstream": "slow", "method": "a.B/C", "request": "hello"}"#;
    let seen = run(&plugin, host, event(told), &limits()).await;
    assert_eq!(seen.ending, Ending::WallLimit);
    assert_eq!(start.elapsed().as_secs(), limits().wall.as_secs());
    assert_eq!(seen.host.calls[0].request, "hello");
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_stops_and_frees_its_instance() {
    let plugin = fixture("spin").await;
    let patient = Limits { cpu: Duration::from_secs(600), wall: Duration::from_secs(600), ..limits() };
    // More often than there are instances.
    for _ in 0..10 {
        let dropped =
            timeout(Duration::from_millis(30), plugin.handle(Box::<Host>::default(), event(""), &patient));
        assert!(dropped.await.is_err());
    }
    assert_eq!(run(&plugin, Host::default(), event(""), &limits()).await.ending, Ending::CpuLimit);
}

#[tokio::test]
async fn failures_are_the_guests_own_word() {
    let seen = once("reject", "not a plan").await;
    assert_eq!(seen.ending, Ending::Failed(Failure::Reject("not a plan".to_owned())));
    let plugin = fixture("retry-then-ok").await;
    let told = r#"{"retries": 2, "after_ms": 1500}"#;
    for (attempt, fails) in [(1, true), (2, true), (3, false)] {
        let host = Host { attempt, ..Host::default() };
        let seen = run(&plugin, host, event(told), &limits()).await;
        if fails {
            let reason = format!("attempt {attempt} fails");
            assert_eq!(seen.ending, Ending::Failed(Failure::Retry { reason, after_ms: Some(1_500) }));
        } else {
            assert_eq!(seen.report()["attempt"], 3);
        }
    }
}

#[tokio::test]
async fn hostile_guests_do_not_hold_up_an_honest_one() {
    let sandbox = sandbox();
    let load = async |name: &str| {
        let bytes = std::fs::read(harness::guests::fixture(name)).unwrap();
        sandbox.load(Bytes::from(bytes)).await.unwrap()
    };
    let (spin, trap, grow, echo) =
        (load("spin").await, load("trap").await, load("grow-memory").await, load("echo").await);
    let limits = limits();
    let hostile = async {
        tokio::join!(
            run(&spin, Host::default(), event(""), &limits),
            run(&trap, Host::default(), event(""), &limits),
            run(&grow, Host::default(), event(""), &limits),
        )
    };
    let honest = async {
        for number in 0..20 {
            let seen = run(&echo, Host::default(), event(number.to_string()), &limits).await;
            assert_eq!(seen.report(), number);
        }
    };
    let ((spun, trapped, grown), ()) = tokio::join!(hostile, honest);
    assert_eq!(spun.ending, Ending::CpuLimit);
    assert!(matches!(trapped.ending, Ending::Trap { .. }));
    assert_eq!(grown.ending, Ending::MemoryLimit);
}
