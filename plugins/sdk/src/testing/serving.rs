//! That the in-memory host serves calls as the contract says.

use super::{Host, Request, call, event};
use crate::{
    Event, Failure, clock, delivery,
    executor::{ExecutorError, Job},
    log::Level,
    publish::{self, EmitError},
    rpc::{self, Code},
    service::{self, Call, Status},
    state::{self, StateError},
};

const MANIFEST: &str = r#"
[plugin]
name = "sample"
[[subscriptions]]
subject = "in.*"
order-key = ["/id"]
cell = "sample/{key}"
[state]
[asks]
publish = ["out.>"]
executor = ["*"]
rpc = ["up/pkg.Service/Ask"]
[[services]]
name = "pkg.Service"
descriptors = "sample.binpb"
[services.methods.Get]
kind = "read"
key = "id"
cell = "sample/{key}"
[services.methods.Put]
kind = "write"
key = "id"
cell = "sample/{key}"
[services.methods.Plain]
kind = "write"
key = "id"
[services.methods.Keyless]
kind = "write"
[[services]]
name = "pkg.Other"
descriptors = "sample.binpb"
[services.methods.Keyless]
kind = "read"
"#;

fn host() -> Host {
    Host::from_manifest(MANIFEST)
}

fn put(key: &str) -> Request {
    call("pkg.Service/Put", &key.to_owned()).key(key)
}

/// Adds one to the cell's count, publishes and answers it; at two it answers with a status.
fn counts(call: Call) -> Result<Vec<u8>, Status> {
    let count = state::load::<u64>("count")?.unwrap_or(0) + 1;
    state::save("count", &count)?;
    publish::emit_json("out.count", &count)?;
    publish::schedule(clock::now(), "out.later", "")?;
    crate::info!("counted"; method = call.name());
    match count {
        2 => Err(Status::already_exists("twice")),
        _ => service::answer(&count),
    }
}

#[test]
fn an_answer_keeps_the_effects_and_a_status_drops_them() {
    let mut host = host();
    let served = host.serve(counts, put("a"));
    assert_eq!((served.read::<u64>(), served.subjects(), served.timers.len()), (1, vec!["out.count"], 1));
    assert!(served.wrote && served.result.is_ok());
    assert_eq!(host.value::<u64>("sample/a", "count"), Some(1));

    let served = host.serve(counts, put("a"));
    assert_eq!(served.status(), &Status::new(Code::AlreadyExists, "twice"));
    assert!(served.published.is_empty() && served.timers.is_empty() && !served.wrote);
    assert!(served.result.is_err() && !served.acked_without_effect());
    assert_eq!(served.logged(Level::Info), ["counted"]);
    assert_eq!(host.value::<u64>("sample/a", "count"), Some(1));
}

#[test]
fn a_call_and_an_event_of_one_key_share_the_cell() {
    fn handle(_: Event) -> Result<(), Failure> {
        state::save("count", &5)?;
        Ok(())
    }
    let mut host = host();
    assert!(host.run(handle, event("in.a", r#"{"id": "a"}"#)).wrote);
    assert_eq!(host.serve(counts, put("a")).read::<u64>(), 6);
}

#[test]
fn the_manifest_says_which_cell_a_call_has() {
    let place = |request: Request| {
        let served = host().serve(
            |_| {
                let key = delivery::order_key();
                match state::put("k", "v") {
                    Err(StateError::NoCell(_)) if key.is_none() => state::cell("other").put("k", "v")?,
                    other => other?,
                }
                service::answer(&key.unwrap_or_default())
            },
            request,
        );
        served.read::<String>()
    };
    let of = |method: &str| call(method, &String::new());
    assert_eq!(place(put("a")), "a");
    assert_eq!(place(put("")), "", "an empty key is none");
    assert_eq!(place(of("pkg.Service/Put")), "");
    assert_eq!(place(of("pkg.Service/Keyless").key("a")), "", "the manifest gives it no key");

    let mut host = host();
    assert!(host.serve(counts, of("pkg.Service/Plain").key("a")).answer.is_ok());
    assert_eq!(host.cells().names(), ["a"], "without `cell` it is the key itself");
}

#[test]
fn without_a_manifest_the_test_says_which_cell_a_call_has() {
    let mut host = Host::new().order_key("b");
    assert_eq!(host.serve(counts, put("a")).read::<u64>(), 1);
    assert_eq!(host.serve(counts, call("any.Service/Any", &())).read::<u64>(), 1);
    assert_eq!(host.cells().names(), ["a", "b"]);
}

#[test]
fn what_only_reads_is_denied_every_effect() {
    fn tries(call: Call) -> Result<Vec<u8>, Status> {
        assert_eq!(state::load::<u64>("count")?, Some(7));
        assert_eq!(state::cell("sample/b").keys("")?, Vec::<String>::new());
        let job = Job::new("t", "r", "p").agent("a", "r");
        let method = &call.method;
        for denied in [
            matches!(publish::emit("out.a", ""), Err(EmitError::Denied(why)) if why.contains(method)),
            matches!(publish::schedule(0, "out.a", ""), Err(EmitError::Denied(_))),
            matches!(publish::cancel("sample.test.1.0"), Err(EmitError::Denied(_))),
            matches!(job.submit(), Err(ExecutorError::Denied(_))),
            matches!(state::put("count", "8"), Err(StateError::Denied(_))),
            matches!(state::delete("count"), Err(StateError::Denied(_))),
            matches!(state::cell("sample/b").put("k", "v"), Err(StateError::Denied(_))),
        ] {
            assert!(denied);
        }
        let asked = rpc::call("up", "pkg.Service/Ask", &[], &rpc::Options::default())?;
        assert_eq!(asked, b"yes");
        service::answer(&7_u64)
    }
    let mut host = host().answers_bytes("up", "pkg.Service/Ask", |_| Ok(b"yes".to_vec()));
    host.set_value("sample/a", "count", &7);
    let served = host.serve(tries, call("pkg.Service/Get", &String::new()).key("a"));
    assert!(served.acked_without_effect(), "{:?}", served.answer);
    let denied = host.serve(counts, call("pkg.Service/Get", &String::new()).key("a"));
    assert_eq!(denied.status().code, Code::FailedPrecondition);
}

#[test]
fn a_method_that_is_not_listed_does_not_reach_the_plugin() {
    for method in ["pkg.Service/Nothing", "pkg.Other/Put", "pkg.Nothing/Put", "Put"] {
        let served = host().serve(|_| unreachable!("{method}"), call(method, &()).key("a"));
        assert_eq!(served.status().code, Code::Unimplemented, "{method}");
        assert!(served.status().message.contains(method));
    }
}

#[test]
fn a_call_is_tried_once_and_is_the_same_on_every_run() {
    fn tells(call: Call) -> Result<Vec<u8>, Status> {
        assert_eq!((delivery::attempt(), delivery::last_attempt()), (1, true));
        assert_eq!((clock::now(), call.header("x-b")), (call.timestamp + 1_000, Some("2")));
        let id = publish::emit("out.a", "")?;
        assert!(id.starts_with(&call.id));
        service::answer(&format!("{id} {:?} {:?}", clock::random(8), call.metadata))
    }
    let request = put("a").metadata("X-B", "2").metadata("x-a", "1").metadata("x-b", "3");
    let metadata =
        request.call.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    assert_eq!(metadata, ["x-a=1", "x-b=2", "x-b=3"]);
    let mut host = host().attempt(3, false);
    let once = host.serve(tells, request.clone()).read::<String>();
    assert_eq!(once, host.serve(tells, request).read::<String>());
}
