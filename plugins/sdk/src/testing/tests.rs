//! That the in-memory host behaves as the contract says.

use serde_json::json;

use super::{Host, event};
use crate::{
    Event, Failure, clock, config, delivery,
    executor::{Agent, ExecutorError, Job},
    log::Level,
    metrics::{self, MetricError},
    publish::{self, EmitError},
    rpc::{self, Code, Options},
    state::{self, StateError},
};

const MANIFEST: &str = r#"
[plugin]
name = "sample"
version = "0.1.0"
description = "for this test"
wit = "0.1"
[[subscriptions]]
subject = "in.*"
order-key = ["/payload/id", "/id", { pointer = "/task", strip-prefix = "t-" }, { header = "X-Id" }]
cell = "sample/{key}"
[state]
[asks]
publish = ["out.>"]
rpc = ["up/pkg.Service/*"]
executor = ["small"]
[config.least]
type = "integer"
default = 3
min = 1
max = 9
description = "a number"
[config.how]
type = "string"
one-of = ["first", "all"]
[metrics.done]
kind = "counter"
help = "..."
labels = ["how"]
[metrics.waiting]
kind = "gauge"
labels = ["queue", "state"]
"#;

fn write_and_fail(_: Event) -> Result<(), Failure> {
    publish::emit("out.a", "x")?;
    Job::new("t", "r", "p").agent("a", "r").submit()?;
    state::put("k", "v")?;
    assert_eq!(state::get("k")?, Some(b"v".to_vec()), "the handler sees its own writes");
    crate::warn!("about to fail"; k = 1);
    metrics::count("any", &[])?;
    Err(Failure::retry("no"))
}

#[test]
fn a_failure_drops_effects_and_keeps_the_rest() {
    let mut host = Host::new().order_key("a");
    let run = host.run(write_and_fail, event("in.a", "{}"));
    assert_eq!(run.result, Err(Failure::retry("no")));
    assert!(run.published.is_empty() && run.jobs.is_empty() && !run.wrote);
    assert!(host.cells().names().is_empty());
    assert_eq!(run.logged(Level::Warn), ["about to fail"]);
    assert_eq!(run.logs[0].fields, [("k".to_owned(), "1".to_owned())]);
    assert_eq!(run.metric("any"), 1.0);
}

#[test]
fn ids_time_and_randomness_are_the_same_on_every_run() {
    fn handle(_: Event) -> Result<(), Failure> {
        let id = publish::emit("out.a", format!("{} {:?}", clock::now(), clock::random(40)))?;
        assert!(id.ends_with(".0"));
        Ok(())
    }
    let event = event("in.a", "{}");
    let run = || Host::new().run(handle, event.clone()).published;
    assert_eq!(run(), run());
    let times = Host::new().run(
        |_| {
            assert_eq!(clock::now() + 1_000, clock::now());
            assert_eq!(clock::random(1 << 20).len(), 64 << 10);
            Ok(())
        },
        event.clone(),
    );
    assert_eq!(times.result, Ok(()));
}

#[test]
fn what_the_contract_refuses_is_a_typed_error() {
    let run = Host::new().run(
        |_| {
            for subject in ["", "a..b", "a.*", "a.>", "a b", ".a"] {
                assert!(
                    matches!(publish::emit(subject, ""), Err(EmitError::InvalidSubject(_))),
                    "{subject:?}"
                );
            }
            let header = [("nats-msg-id".to_owned(), "x".to_owned())];
            assert!(matches!(publish::emit_with("a", &header, ""), Err(EmitError::Denied(_))));
            assert!(matches!(publish::emit("a", vec![0; (1 << 20) + 1]), Err(EmitError::TooLarge(_))));
            assert!(matches!(state::get("k"), Err(StateError::NoCell(_))));
            assert!(matches!(Job::new("t", "r", "p").submit(), Err(ExecutorError::Invalid(_))));
            let twice = Job::new("t", "r", "p").agent("a", "r").agent("a", "other");
            assert!(matches!(twice.submit(), Err(ExecutorError::Invalid(_))));
            let again = Job::new("t", "r", "p").with_agent(Agent::new("a", "r").template("{prompt}{prompt}"));
            assert!(matches!(again.submit(), Err(ExecutorError::Invalid(_))));
            let mut late = Job::new("t", "r", "p").agent("a", "r");
            late.timeout_seconds = 6 * 24 * 60 * 60 + 1;
            assert!(matches!(late.submit(), Err(ExecutorError::Invalid(_))));
            let huge = Job::new("t", "r", "x".repeat(300 << 10)).agent("a", "r");
            assert!(matches!(huge.submit(), Err(ExecutorError::Limit(_))));
            let metadata =
                Options { metadata: vec![("Authorization".into(), "x".into())], ..Options::default() };
            let refused = rpc::call("up", "pkg.Service/Do", &[], &metadata).unwrap_err();
            assert!(refused.local && !refused.is_transient());
            let unscripted = rpc::call("up", "pkg.Service/Do", &[], &Options::default()).unwrap_err();
            assert_eq!((unscripted.code, unscripted.is_transient()), (Code::Unavailable, true));
            for n in 0..1_000 {
                publish::emit("a", n.to_string())?;
            }
            assert!(matches!(publish::emit("a", ""), Err(EmitError::Limit(_))));
            Ok(())
        },
        event("in.a", "{}"),
    );
    assert_eq!((run.result, run.published.len()), (Ok(()), 1_000));
}

#[test]
fn timers_are_set_and_taken_back_by_a_handler_that_succeeds() {
    const MINUTE: u64 = 60_000_000_000;
    fn handle(event: Event) -> Result<(), Failure> {
        let at = clock::now() + MINUTE;
        let first = publish::schedule(at, "out.a", "1")?;
        publish::schedule_json(at, "out.b", &json!({ "n": 2 }))?;
        publish::cancel(&first)?;
        let third = publish::schedule_with(at, "out.c", &[("X-A".into(), "b".into())], "3")?;
        assert!(third.ends_with(&format!(".{}.2", event.id)), "an id is given once: {third}");
        let earlier = format!("{}.test.0.0", third.split('.').next().unwrap_or_default());
        publish::cancel(&earlier)?;
        publish::cancel(&earlier)?;
        if event.data.is_empty() { Err(Failure::reject("nothing")) } else { Ok(()) }
    }
    let event = event("in.a", r#"{"id": 7}"#);
    let run = Host::from_manifest(MANIFEST).run(handle, event.clone());
    assert_eq!(run.result, Ok(()));
    let ids: Vec<&str> = run.timers.iter().map(|timer| timer.id.as_str()).collect();
    assert_eq!(ids, [format!("sample.{}.1", event.id), format!("sample.{}.2", event.id)]);
    assert_eq!(
        (run.timers[0].at, run.timers[0].json()),
        (event.timestamp + 1_000 + MINUTE, json!({ "n": 2 }))
    );
    assert_eq!(run.cancelled, ["sample.test.0.0"]);
    assert!(run.published.is_empty() && !run.acked_without_effect());

    let run = Host::new().run(handle, Event { data: Vec::new(), ..event });
    assert!(run.result.is_err() && run.timers.is_empty() && run.cancelled.is_empty());
}

#[test]
fn a_timer_is_refused_as_a_message_is_and_a_foreign_one_is_not_cancelled() {
    let mut host =
        Host::from_manifest(MANIFEST).refuses_publish("out.x", EmitError::NoStream("out.x".into()));
    let run = host.run(
        |_| {
            assert!(matches!(publish::schedule(0, "a..b", ""), Err(EmitError::InvalidSubject(_))));
            assert!(matches!(publish::schedule(0, "other.a", ""), Err(EmitError::Denied(_))));
            assert!(matches!(publish::schedule(0, "out.x", ""), Err(EmitError::NoStream(_))));
            assert!(matches!(publish::schedule(0, "out.a", vec![0; 2 << 20]), Err(EmitError::TooLarge(_))));
            for foreign in ["another.test.1.0", "samples.test.1.0", "sample", ""] {
                assert!(matches!(publish::cancel(foreign), Err(EmitError::Denied(_))), "{foreign:?}");
            }
            assert!(matches!(publish::cancel("sample.a b"), Err(EmitError::InvalidSubject(_))));
            for n in 0..998 {
                publish::emit("out.a", n.to_string())?;
            }
            publish::schedule(0, "out.a", "")?;
            publish::cancel("sample.test.1.0")?;
            assert!(matches!(publish::cancel("sample.test.1.1"), Err(EmitError::Limit(_))));
            assert!(matches!(publish::schedule(0, "out.a", ""), Err(EmitError::Limit(_))));
            assert!(matches!(publish::emit("out.a", ""), Err(EmitError::Limit(_))));
            Ok(())
        },
        event("in.a", r#"{"id": 7}"#),
    );
    assert_eq!((run.result, run.published.len(), run.timers.len()), (Ok(()), 998, 1));
}

#[test]
fn a_cell_has_limits() {
    let mut host = Host::new().order_key("a");
    let run = host.run(
        |_| {
            assert!(matches!(state::put(&"k".repeat(257), ""), Err(StateError::Limit(_))));
            assert!(matches!(state::put("k", vec![0; 512 << 10]), Err(StateError::Limit(_))));
            for n in 0..1_024 {
                state::put(&format!("k{n}"), "")?;
            }
            assert!(matches!(state::put("one more", ""), Err(StateError::Limit(_))));
            state::put("k1", "again")?;
            assert_eq!(
                state::keys("k100")?,
                [
                    "k100", "k1000", "k1001", "k1002", "k1003", "k1004", "k1005", "k1006", "k1007", "k1008",
                    "k1009"
                ]
            );
            state::delete("not there")?;
            Ok(())
        },
        event("in.a", "{}"),
    );
    assert_eq!(run.result, Ok(()));
}

#[test]
fn cells_are_reached_by_name_and_kept_together() {
    let mut host = Host::new().order_key("a");
    let run = host.run(
        |_| {
            let (own, b) = (state::cell("a"), state::cell("b"));
            own.put("k", "1")?;
            assert_eq!(state::get("k")?, Some(b"1".to_vec()), "its own cell by name is its own cell");
            b.save("n", &7)?;
            assert_eq!((b.load::<u32>("n")?, b.keys("")?), (Some(7), vec!["n".to_owned()]));
            assert_eq!(state::cell("c").get("n")?, None);
            Ok(())
        },
        event("in.a", "{}"),
    );
    assert!(run.result.is_ok() && run.wrote);
    assert_eq!((host.value("a", "k"), host.value("b", "n")), (Some(1), Some(7)));
    let dropped = host.run(
        |_| {
            state::cell("b").delete("n")?;
            Err(Failure::reject("no"))
        },
        event("in.a", "{}"),
    );
    assert!(!dropped.wrote);
    assert_eq!(host.value("b", "n"), Some(7));
}

#[test]
fn an_event_without_an_order_key_reaches_cells_up_to_a_limit() {
    let run = Host::new().run(
        |_| {
            for n in 0..64 {
                state::cell(n.to_string()).get("k")?;
            }
            state::cell("0").get("k")?;
            for bad in ["64", "", &"x".repeat(1_025)] {
                assert!(matches!(state::cell(bad).get("k"), Err(StateError::Limit(_))), "{bad}");
            }
            Ok(())
        },
        event("in.a", "{}"),
    );
    assert_eq!(run.result, Ok(()));
}

#[test]
fn log_lines_over_the_limit_are_dropped_and_counted() {
    let run = Host::new().run(
        |_| {
            for _ in 0..70 {
                crate::info!("{}", "x".repeat(1 << 10));
            }
            Ok(())
        },
        event("in.a", "{}"),
    );
    assert_eq!((run.logs.len(), run.logs_dropped), (64, 6));
}

#[test]
fn a_manifest_decides_cell_grants_config_and_metrics() {
    let mut host = Host::from_manifest(MANIFEST).config("not.named", 1).config("wire.envelope", "bare");
    let run = host.run(
        |_| {
            assert_eq!(delivery::order_key().as_deref(), Some("7"));
            state::save("k", &1)?;
            assert!(matches!(publish::emit("other.a", ""), Err(EmitError::Denied(_))));
            publish::emit("out.a.b", "")?;
            let denied = rpc::call("up", "pkg.Other/Do", &[], &Options::default()).unwrap_err();
            assert_eq!((denied.code, denied.local), (Code::PermissionDenied, true));
            assert!(!rpc::call("up", "pkg.Service/Do", &[], &Options::default()).unwrap_err().local);
            let job = Job::new("t", "r", "p").agent("a", "r");
            assert!(matches!(job.submit(), Err(ExecutorError::Denied(_))), "the default model");
            job.clone().model("small").submit()?;
            assert!(matches!(job.model("large").submit(), Err(ExecutorError::Denied(_))));
            assert_eq!(config::get::<u32>("least")?, Some(3));
            assert_eq!(config::raw("not.named"), None);
            assert_eq!(config::get_or::<String>("wire.envelope", "mirror")?, "bare");
            assert_eq!(config::raw("how"), None);
            let told = config::get::<String>("least").unwrap_err().to_string();
            assert!(told.contains("\"least\" is 3, which can't be used: "), "{told}");
            let remedy = "correct it in the daemon's configuration, under config of this plugin";
            assert!(told.contains(remedy), "{told}");
            metrics::count("done", &[("how", "well")])?;
            assert!(matches!(metrics::count("done", &[]), Err(MetricError::Undeclared(_))));
            assert!(matches!(
                metrics::observe("done", &[("how", "well")], 1.0),
                Err(MetricError::Undeclared(_))
            ));
            Ok(())
        },
        event("in.a", json!({"id": 7, "payload": {"id": ""}})),
    );
    assert_eq!(run.result, Ok(()));
    assert_eq!(host.value::<u32>("sample/7", "k"), Some(1));
}

#[test]
fn of_what_a_gauge_is_set_to_the_last_of_a_series_stays() {
    let mut host = Host::from_manifest(MANIFEST);
    let run = host.run(
        |_| {
            metrics::set("waiting", &[("queue", "a"), ("state", "new")], 1.0)?;
            metrics::set("waiting", &[("queue", "b"), ("state", "new")], 5.0)?;
            metrics::set("waiting", &[("state", "new"), ("queue", "a")], 2.0)?;
            metrics::set("waiting", &[("state", "new"), ("queue", "a")], f64::NAN)?;
            assert!(matches!(metrics::set("waiting", &[], 1.0), Err(MetricError::Undeclared(_))));
            assert!(matches!(metrics::set("done", &[("how", "well")], 1.0), Err(MetricError::Undeclared(_))));
            assert!(metrics::count("waiting", &[("queue", "a"), ("state", "new")]).is_err());
            Ok(())
        },
        event("in.a", json!({"id": 7})),
    );
    assert_eq!(run.result, Ok(()));
    assert_eq!(run.gauge("waiting", &[("queue", "a"), ("state", "new")]), Some(2.0));
    assert_eq!(run.gauge("waiting", &[("state", "new"), ("queue", "b")]), Some(5.0));
    assert_eq!(run.gauge("waiting", &[("queue", "c"), ("state", "new")]), None);
    assert_eq!(run.metric("waiting"), 7.0);
}

#[test]
fn the_order_key_is_the_first_that_is_found() {
    let key = |data: serde_json::Value| {
        let mut found = None;
        let mut event = event("in.a", data);
        event.headers.push(("x-id".into(), "from the header".into()));
        Host::from_manifest(MANIFEST).run(
            |_| {
                found = delivery::order_key();
                Ok(())
            },
            event,
        );
        found.unwrap_or_default()
    };
    assert_eq!(key(json!({"id": "top", "payload": {"id": "inner"}})), "inner");
    assert_eq!(key(json!({"id": "", "task": "t-t-1"})), "t-1");
    assert_eq!(key(json!({"task": "other"})), "from the header");
}

#[test]
fn a_panic_in_a_handler_does_not_reach_the_next_test() {
    let caught = std::panic::catch_unwind(|| {
        Host::new().order_key("a").run(|_| panic!("as tests do"), event("in.a", "{}"));
    });
    assert!(caught.is_err());
    assert_eq!(delivery::order_key(), None);
}
