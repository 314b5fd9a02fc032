//! Guests that import WASI: they get time, randomness and a voice, all of them the host's, and no authority.

use std::time::Duration;

use tokio::time::Instant;

use super::{load, once, run};
use crate::testing::{Recorder, event, guest_importing};
use crate::{Ending, Event, Isolation, Limits, LogLevel};

const CLOCKS: &str = r#"
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $mono (export "now" (func (result u64)))))
  (import "wasi:random/random@0.2.0" (instance $rand (export "get-random-u64" (func (result u64)))))
  (core func $mono (canon lower (func $mono "now")))
  (core func $rand (canon lower (func $rand "get-random-u64")))"#;
const CLOCKS_HOST: &str = r#"(export "mono" (func $mono)) (export "rand" (func $rand))"#;
const CLOCKS_CORE: &str = r#"
  (import "host" "mono" (func $mono (result i64)))
  (import "host" "rand" (func $rand (result i64)))"#;

/// Reports the low half of two readings of the clock, relative to the event's time, and of two random numbers.
fn reading() -> Vec<u8> {
    let since = "(call $report (i32.wrap_i64 (i64.sub (call $mono) (local.get $timestamp))))";
    let random = "(call $report (i32.wrap_i64 (call $rand)))";
    guest_importing(CLOCKS, CLOCKS_HOST, CLOCKS_CORE, &format!("{since} {since} {random} {random}"))
}

#[tokio::test]
async fn time_and_randomness_follow_from_the_event() {
    let plugin = load(reading()).await;
    let reports = async |id: &str| {
        let mut event = event();
        event.id = id.to_owned();
        let run = plugin.handle(Box::<Recorder>::default(), event, &Limits::default()).await;
        assert_eq!(run.ending, Ending::Ok);
        run.into_host::<Recorder>().unwrap().reports()
    };
    let first = reports("s.1").await;
    assert_eq!(first[..2], [1_000, 2_000], "nanoseconds after the event");
    assert_ne!(first[2], first[3]);
    assert_eq!(reports("s.1").await, first, "a second run of the same event");
    assert_ne!(reports("s.2").await[2..], first[2..], "another event");
}

const BATCH: Isolation = Isolation::Batch { events: 100 };

#[tokio::test]
async fn the_same_in_an_instance_that_served_other_events() {
    let fresh = load(reading()).await;
    let used = fresh.clone().isolated(BATCH);
    for (id, timestamp) in [("s.1", 1 << 60), ("s.2", 1 << 59), ("s.1", 1 << 60)] {
        let mut seen = Vec::new();
        for plugin in [&fresh, &used] {
            let event = Event { id: id.to_owned(), timestamp, ..event() };
            let run = plugin.handle(Box::<Recorder>::default(), event, &Limits::default()).await;
            assert_eq!(run.ending, Ending::Ok);
            seen.push(run.into_host::<Recorder>().unwrap().reports());
        }
        assert_eq!(seen[0], seen[1]);
    }
    assert_eq!(used.shared.pool.live(), 1);
}

const OUTPUT: &str = r#"
  (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
  (alias export $errors "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $stream (sub resource)))
    (alias outer 1 $error (type $error'))
    (export "error" (type $error (eq $error')))
    (type $failure' (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $failure (eq $failure')))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $stream)) (param "contents" (list u8)) (result (result (error $failure)))))))
  (alias export $streams "output-stream" (type $stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $stream (type $stream'))
    (export "output-stream" (type $stream (eq $stream')))
    (export "get-stdout" (func (result (own $stream))))))
  (import "wasi:cli/stderr@0.2.0" (instance $stderr
    (alias outer 1 $stream (type $stream'))
    (export "output-stream" (type $stream (eq $stream')))
    (export "get-stderr" (func (result (own $stream))))))
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $get-stderr (canon lower (func $stderr "get-stderr")))
  (core func $print (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory (core memory $libc "memory"))))"#;
const OUTPUT_HOST: &str = r#"(export "get-stdout" (func $get-stdout)) (export "get-stderr" (func $get-stderr))
  (export "print" (func $print))"#;
const OUTPUT_CORE: &str = r#"
  (import "host" "get-stdout" (func $get-stdout (result i32)))
  (import "host" "get-stderr" (func $get-stderr (result i32)))
  (import "host" "print" (func $print (param i32 i32 i32 i32)))
  (data (i32.const 600) "one\ntwo\nrest")"#;

fn printing(body: &str) -> Vec<u8> {
    guest_importing(OUTPUT, OUTPUT_HOST, OUTPUT_CORE, body)
}

#[tokio::test]
async fn standard_output_and_error_become_log_lines_in_order() {
    let (ending, host) = once(printing(
        "(call $print (call $get-stdout) (i32.const 600) (i32.const 12) (i32.const 256))
         (call $complain)
         (call $print (call $get-stderr) (i32.const 600) (i32.const 3) (i32.const 256))",
    ))
    .await;
    assert_eq!(ending, Ending::Ok);
    assert_eq!(
        host.logs(),
        [
            (LogLevel::Info, "one"),
            (LogLevel::Info, "two"),
            (LogLevel::Error, "oh no"),
            (LogLevel::Info, "rest"),
            (LogLevel::Warn, "one"),
        ]
    );
}

#[tokio::test]
async fn what_a_guest_wrote_to_standard_error_is_its_last_word() {
    let (ending, _) = once(printing(
        "(call $print (call $get-stderr) (i32.const 600) (i32.const 7) (i32.const 256)) unreachable",
    ))
    .await;
    let Ending::Trap { message } = ending else { panic!("{ending:?}") };
    assert!(message.contains("the guest's last words: one two; at handle"), "{message}");
}

#[tokio::test]
async fn output_past_its_limit_is_dropped_and_counted() {
    let plugin = load(printing(
        "(local $stream i32) (local $left i32)
         (local.set $stream (call $get-stdout))
         (local.set $left (i32.const 1000))
         (loop $more
           (call $print (local.get $stream) (i32.const 600) (i32.const 4) (i32.const 256))
           (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))",
    ))
    .await;
    let run = run(&plugin, &Limits { output: 40, ..Limits::default() }).await;
    assert_eq!(run.ending, Ending::Ok);
    let host = run.into_host::<Recorder>().unwrap();
    let logs = host.logs();
    assert_eq!(logs.len(), 11);
    assert_eq!(logs[10], (LogLevel::Warn, "3960 more bytes of output dropped (limit `output`)"));
}

/// As guests do with their standard streams.
#[tokio::test]
async fn a_stream_that_a_guest_keeps_leads_to_the_event_of_the_day() {
    let plugin = load(printing(
        "(if (i32.eqz (i32.load (i32.const 320)))
           (then (i32.store (i32.const 320) (i32.add (call $get-stdout) (i32.const 1)))))
         (call $print (i32.sub (i32.load (i32.const 320)) (i32.const 1))
           (i32.const 600) (local.get $id-len) (i32.const 256))",
    ))
    .await
    .isolated(BATCH);
    let logs = async |id: &str| {
        let limits = Limits { output: 6, ..Limits::default() };
        let event = Event { id: id.to_owned(), ..event() };
        let run = plugin.handle(Box::<Recorder>::default(), event, &limits).await;
        assert_eq!(run.ending, Ending::Ok);
        let host = run.into_host::<Recorder>().unwrap();
        host.logs().into_iter().map(|(_, line)| line.to_owned()).collect::<Vec<_>>()
    };
    // The second reaches the limit, the third has all of its own.
    assert_eq!(logs("abc").await, ["one"]);
    assert_eq!(logs("abcdefgh").await, ["one", "tw", "2 more bytes of output dropped (limit `output`)"]);
    assert_eq!(logs("abcdef").await, ["one", "tw"]);
    assert_eq!(plugin.shared.pool.live(), 1);
}

#[tokio::test]
async fn an_exit_is_a_trap_that_says_so() {
    let (ending, _) = once(guest_importing(
        r#"(import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
           (core func $exit (canon lower (func $exit "exit")))"#,
        r#"(export "exit" (func $exit))"#,
        r#"(import "host" "exit" (func $exit (param i32)))"#,
        "(call $exit (i32.const 1))",
    ))
    .await;
    let Ending::Trap { message } = ending else { panic!("{ending:?}") };
    assert!(message.starts_with("the guest exited with status 1"), "{message}");
}

/// Sleeps for so many nanoseconds, then reports the milliseconds that its clock shows to have passed.
fn sleeping(nanoseconds: u64) -> Vec<u8> {
    guest_importing(
        r#"
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $mono
    (alias outer 1 $pollable (type $pollable'))
    (export "pollable" (type $pollable (eq $pollable')))
    (export "now" (func (result u64)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
  (core func $mono (canon lower (func $mono "now")))
  (core func $subscribe (canon lower (func $mono "subscribe-duration")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))"#,
        r#"(export "mono" (func $mono)) (export "subscribe" (func $subscribe)) (export "block" (func $block))"#,
        r#"
  (import "host" "mono" (func $mono (result i64)))
  (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
  (import "host" "block" (func $block (param i32)))"#,
        &format!(
            "(call $block (call $subscribe (i64.const {nanoseconds})))
             (call $report (i32.wrap_i64 (i64.div_u
               (i64.sub (call $mono) (local.get $timestamp)) (i64.const 1000000))))"
        ),
    )
}

#[tokio::test(start_paused = true)]
async fn sleeping_takes_real_time_and_the_guests_clock_shows_it() {
    let plugin = load(sleeping(3_000_000_000)).await;
    let start = Instant::now();
    let run = run(&plugin, &Limits::default()).await;
    assert_eq!(run.ending, Ending::Ok);
    assert!(start.elapsed() >= Duration::from_secs(3));
    assert_eq!(run.into_host::<Recorder>().unwrap().reports(), [3_000]);
}

#[tokio::test(start_paused = true)]
async fn an_instance_with_ever_more_resources_is_let_go() {
    // The guest never drops its timers: two resources each.
    let plugin = load(sleeping(1)).await.isolated(BATCH);
    let mut kept = 0;
    for _ in 0..70 {
        assert_eq!(run(&plugin, &Limits::default()).await.ending, Ending::Ok);
        kept += plugin.shared.pool.live();
    }
    assert_eq!(kept, 68, "let go after the 33rd and the 66th");
}

#[tokio::test(start_paused = true)]
async fn sleeping_ends_with_the_wall_limit() {
    // The second is more than this machine's clock can reach.
    for nanoseconds in [3_600_000_000_000, u64::MAX] {
        let run = run(&load(sleeping(nanoseconds)).await, &Limits::default()).await;
        assert_eq!(run.ending, Ending::WallLimit);
        assert_eq!(run.usage.wall.as_secs(), 60);
    }
}

#[tokio::test]
async fn there_is_no_network() {
    // `create-tcp-socket` answers an error; `access-denied` is number 1.
    let codes = r#""unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
        "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
        "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
        "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
        "permanent-resolver-failure""#;
    let imports = format!(
        r#"
  (import "wasi:sockets/network@0.2.0" (instance $network
    (type $code' (enum {codes}))
    (export "error-code" (type (eq $code')))
    (type $family' (enum "ipv4" "ipv6"))
    (export "ip-address-family" (type (eq $family')))))
  (alias export $network "error-code" (type $code))
  (alias export $network "ip-address-family" (type $family))
  (import "wasi:sockets/tcp@0.2.0" (instance $tcp (export "tcp-socket" (type (sub resource)))))
  (alias export $tcp "tcp-socket" (type $socket))
  (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
    (alias outer 1 $code (type $code'))
    (export "error-code" (type $code (eq $code')))
    (alias outer 1 $family (type $family'))
    (export "ip-address-family" (type $family (eq $family')))
    (alias outer 1 $socket (type $socket'))
    (export "tcp-socket" (type $socket (eq $socket')))
    (export "create-tcp-socket"
      (func (param "address-family" $family) (result (result (own $socket) (error $code)))))))
  (core func $create (canon lower (func $create "create-tcp-socket") (memory (core memory $libc "memory"))))"#
    );
    let (ending, host) = once(guest_importing(
        &imports,
        r#"(export "create" (func $create))"#,
        r#"(import "host" "create" (func $create (param i32 i32)))"#,
        "(call $create (i32.const 0) (i32.const 128))
         (call $report (i32.load8_u (i32.const 128)))
         (call $report (i32.load8_u (i32.const 132)))",
    ))
    .await;
    assert_eq!(ending, Ending::Ok);
    assert_eq!(host.reports(), [1, 1]);
}
