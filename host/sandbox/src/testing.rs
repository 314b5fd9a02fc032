//! For unit tests: guests written by hand in the component text format, and a host that answers from a script.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::config::SandboxConfig;
use crate::seam::{Answer, Call, Event, Host, LogLevel, Request};

/// Few instances: tests run side by side, and each sandbox reserves address space for its own.
pub(crate) fn small() -> SandboxConfig {
    SandboxConfig { max_instances: 4, ..SandboxConfig::default() }
}

pub(crate) fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The parts of a guest that a test fills in; the rest is a handler that returns `ok`.
#[derive(Default)]
pub(crate) struct Parts<'a> {
    /// Component definitions before the module: imports, and core functions lowered from them with
    /// `(memory (core memory $libc "memory"))`.
    pub(crate) imports: &'a str,
    /// Exports of the instance that the module imports as `host`.
    pub(crate) host: &'a str,
    /// What the module takes from it, and its own memories, tables and functions.
    pub(crate) definitions: &'a str,
    /// What the handler does.
    pub(crate) body: &'a str,
    /// What `serve` does, of a guest that has it: it is to return where the result lies. `$id-len`, `$method-len`, `$request`,
    /// `$request-len` and `$timestamp` are the call's.
    pub(crate) serve: Option<&'a str>,
    /// Component definitions after all others.
    pub(crate) more: &'a str,
}

pub(crate) fn guest(imports: &str, body: &str, more: &str) -> Vec<u8> {
    Parts { imports, body, more, ..Parts::default() }.assemble("0.1.0")
}

pub(crate) fn guest_of_version(version: &str) -> Vec<u8> {
    Parts::default().assemble(version)
}

pub(crate) fn guest_with(definitions: &str, body: &str) -> Vec<u8> {
    Parts { definitions, body, ..Parts::default() }.assemble("0.1.0")
}

/// A guest that can `call $now` (-> i64), `call $attempt` (-> i32, answered when the host likes), `call $report`
/// (i32, tells the test a number) and `call $complain` (logs "oh no" as an error).
pub(crate) fn guest_calling(body: &str) -> Vec<u8> {
    guest_importing("", "", "", body)
}

/// [`guest_calling`] that serves, too, by [`Parts::serve`].
pub(crate) fn guest_serving(body: &str, serve: &str) -> Vec<u8> {
    guest_importing_serving("", "", "", body, Some(serve))
}

/// [`guest_calling`] with more to import, lower and take.
pub(crate) fn guest_importing(imports: &str, host: &str, definitions: &str, body: &str) -> Vec<u8> {
    guest_importing_serving(imports, host, definitions, body, None)
}

fn guest_importing_serving(
    imports: &str,
    host: &str,
    definitions: &str,
    body: &str,
    serve: Option<&str>,
) -> Vec<u8> {
    Parts {
        imports: &format!(
            r#"
  (import "cofferdam:plugin/clock@0.1.0" (instance $clock
    (export "now" (func (result u64))) (export "random" (func (param "len" u32) (result (list u8))))))
  (import "cofferdam:plugin/delivery@0.1.0" (instance $delivery (export "attempt" (func (result u32)))))
  (import "cofferdam:plugin/log@0.1.0" (instance $log
    (type $level' (enum "trace" "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $level')))
    (export "write" (func (param "level" $level) (param "message" string)
      (param "fields" (list (tuple string string)))))))
  (core func $now (canon lower (func $clock "now")))
  (core func $random (canon lower (func $clock "random")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $attempt (canon lower (func $delivery "attempt")))
  (core func $write (canon lower (func $log "write") (memory (core memory $libc "memory"))))
  {imports}"#
        ),
        host: &format!(
            r#"(export "now" (func $now)) (export "random" (func $random)) (export "attempt" (func $attempt))
               (export "write" (func $write)) {host}"#
        ),
        definitions: &format!(
            r#"
    (import "host" "now" (func $now (result i64)))
    (import "host" "random" (func $random (param i32 i32)))
    (import "host" "attempt" (func $attempt (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32 i32)))
    {definitions}
    (data (i32.const 512) "oh no")
    (func $report (param i32) (call $random (local.get 0) (i32.const 256)))
    (func $complain
      (call $write (i32.const 4) (i32.const 512) (i32.const 5) (i32.const 0) (i32.const 0)))"#
        ),
        body,
        serve,
        more: "",
    }
    .assemble("0.1.0")
}

impl Parts<'_> {
    /// The whole: types as the contract has them, a module with memory and allocator, the guest's own module, and
    /// the handler lifted from it.
    pub(crate) fn assemble(&self, version: &str) -> Vec<u8> {
        let Self { imports, host, definitions, body, serve, more } = self;
        let (served, service) = match serve {
            Some(serve) => (served(serve), service(version)),
            None => (String::new(), String::new()),
        };
        assemble(&format!(
            r#"
(component
  (import "cofferdam:plugin/types@{version}" (instance $types
    (type $event' (record
      (field "id" string) (field "subject" string) (field "headers" (list (tuple string string)))
      (field "data" (list u8)) (field "timestamp" u64)))
    (export "event" (type (eq $event')))
    (type $retry' (record (field "reason" string) (field "after-ms" (option u64))))
    (export "retry" (type $retry (eq $retry')))
    (type $failure' (variant (case "retry" $retry) (case "reject" string)))
    (export "failure" (type (eq $failure')))
    (type $code' (enum "ok" "cancelled" "unknown" "invalid-argument" "deadline-exceeded" "not-found" "already-exists"
      "permission-denied" "resource-exhausted" "failed-precondition" "aborted" "out-of-range" "unimplemented" "internal"
      "unavailable" "data-loss" "unauthenticated"))
    (export "code" (type (eq $code')))))
  (alias export $types "event" (type $event))
  (alias export $types "failure" (type $failure))
  (core module $libc
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  {imports}
  (core instance $host {host})
  (core module $main
    (import "libc" "memory" (memory $memory 1))
    {definitions}
    (func $handle (export "handle")
      (param $id i32) (param $id-len i32) (param i32 i32 i32 i32 i32 i32) (param $timestamp i64) (result i32)
      {body}
      (i32.const 0))
    {served})
  (core instance $main (instantiate $main
    (with "libc" (instance $libc)) (with "host" (instance $host))))
  (func $handle (param "event" $event) (result (result (error $failure)))
    (canon lift (core func $main "handle") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (instance $handler (export "handle" (func $handle)))
  (export "cofferdam:plugin/handler@{version}" (instance $handler))
  {service}
  {more}
)"#
        ))
    }
}

fn served(body: &str) -> String {
    format!(
        r#"
    (func $serve (export "serve")
      (param $id i32) (param $id-len i32) (param $method i32) (param $method-len i32) (param i32 i32)
      (param $request i32) (param $request-len i32) (param $timestamp i64) (result i32)
      {body})"#
    )
}

/// `serve` lifted from the guest's module, with the types that an interface's own are exported with.
fn service(version: &str) -> String {
    format!(
        r#"
  (alias export $types "code" (type $code))
  (type $call (record
    (field "id" string) (field "method" string) (field "metadata" (list (tuple string string)))
    (field "request" (list u8)) (field "timestamp" u64)))
  (type $status (record (field "code" $code) (field "message" string)))
  (func $serve (param "call" $call) (result (result (list u8) (error $status)))
    (canon lift (core func $main "serve") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (instance $service
    (export "call" (type $call)) (export "status" (type $status)) (export "serve" (func $serve)))
  (export "cofferdam:plugin/service@{version}" (instance $service))"#
    )
}

pub(crate) fn request() -> Request {
    Request {
        id: "c.1".to_owned(),
        method: "test.Service/Do".to_owned(),
        metadata: vec![("x-test".to_owned(), "1".to_owned())],
        request: Bytes::from_static(b"please"),
        timestamp: 1_700_000_000_000_000_000,
    }
}

pub(crate) fn event() -> Event {
    Event {
        id: "s.1".to_owned(),
        subject: "test.subject".to_owned(),
        headers: vec![("X-Test".to_owned(), "1".to_owned())],
        data: Bytes::from_static(b"{}"),
        timestamp: 1_700_000_000_000_000_000,
    }
}

/// Remembers the calls. `attempt` waits for `wait`; one that `lies` answers what was not asked.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) calls: Vec<Call>,
    pub(crate) wait: Duration,
    pub(crate) lies: bool,
}

#[async_trait]
impl Host for Recorder {
    async fn call(&mut self, call: Call) -> Answer {
        self.calls.push(call.clone());
        if self.lies {
            return Answer::Config(None);
        }
        match call {
            Call::Attempt => {
                tokio::time::sleep(self.wait).await;
                Answer::Attempt(1)
            }
            Call::Now => Answer::Now(1),
            Call::Log { .. } => Answer::Unit,
            Call::Random(_) => Answer::Random(Vec::new()),
            other => panic!("no answer to {other:?}"),
        }
    }
}

impl Recorder {
    /// The numbers that the guest reported.
    pub(crate) fn reports(&self) -> Vec<u32> {
        let report = |call: &Call| match call {
            Call::Random(number) => Some(*number),
            _ => None,
        };
        self.calls.iter().filter_map(report).collect()
    }

    /// The lines that were logged, each with its level.
    pub(crate) fn logs(&self) -> Vec<(LogLevel, &str)> {
        let mut logs = Vec::new();
        for call in &self.calls {
            if let Call::Log { level, message, .. } = call {
                logs.push((*level, message.as_str()));
            }
        }
        logs
    }
}
