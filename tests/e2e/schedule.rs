//! Timers: what an event schedules is published once, at its time, whoever is killed meanwhile; what is taken back is not;
//! and what may not be published now may not be published later. Every test runs on both buses.

use std::time::{SystemTime, UNIX_EPOCH};

use fleet_proto::bus::v1::StoredMessage;
use harness::{
    daemon::{Daemon, message},
    nats::Server,
    plugin::Plugin,
    setup::Setup,
    wait::wait_for,
    way_in::{body, header},
};
use serde_json::{Value, json};

use crate::both::{Begin, on_both_buses};

on_both_buses! {
    a_timer_fires_once_at_its_time,
    a_timer_survives_the_daemon_that_set_it,
    a_timer_that_came_due_without_a_daemon_fires_when_there_is_one,
    an_event_that_fails_sets_none_and_takes_none_back,
    a_timer_that_is_taken_back_does_not_fire,
    what_may_not_be_published_now_may_not_be_later,
    a_timer_of_another_plugin_is_out_of_reach,
    timers_count_as_the_events_messages_do,
}

/// What the guest is told, where it tells what came of it, and where its timers publish.
const ASKED: &str = "cofferdam.asked";
const TOLD: &str = "cofferdam.told";
const DUE: &str = "cofferdam.due";
/// Not asked of the operator's grants by the stage.
const THEIRS: &str = "cofferdam.theirs";
const HOUR: u64 = 3_600_000;

/// A daemon with the fixture, and a second plugin of the same kind.
struct Stage {
    setup: Setup,
    daemon: Daemon,
    _nats: Option<Server>,
}

impl Begin for Stage {
    async fn on(setup: Setup, nats: Option<Server>) -> Stage {
        let guest = |name: &str, subject: &str| {
            Plugin::fixture("schedule")
                .named(name)
                .on(subject, "max-attempts = 3\nbackoff = \"50ms\"")
                .set("to", TOLD)
                .asks("publish", &[TOLD, DUE, THEIRS, "nowhere.>"])
                .granted("publish", &[TOLD, DUE, "nowhere.>"])
        };
        let setup = setup.plugin(guest("clerk", ASKED)).plugin(guest("thief", "cofferdam.stolen"));
        let daemon = setup.start().await;
        Stage { setup, daemon, _nats: nats }
    }
}

impl Stage {
    /// Tells a plugin what to do; gives what it says came of it.
    async fn tell(&self, subject: &str, told: Value) -> Value {
        let before = self.daemon.stored(TOLD).await.len();
        self.daemon.publish(subject, &told).await;
        let seen = self.daemon.wait_stored(TOLD, before + 1).await;
        let report = seen.last().expect("a report");
        let mut seen = body(report);
        seen["event"] = header(report, "Cofferdam-Cause").into();
        seen
    }

    /// Sets one timer; gives its id and its time.
    async fn set(&self, after_ms: u64, data: &str) -> (String, u64) {
        let seen = self.tell(ASKED, json!({ "set": [timer(after_ms, data)] })).await;
        id_and_time(&seen["set"][0])
    }

    /// Waits until a timer that is set now has fired; gives what all timers have said by then.
    async fn fired_until(&self, after_ms: u64) -> Vec<String> {
        self.set(after_ms, "the last").await;
        wait_for("the last timer", async || {
            let said = said(&self.daemon.stored(DUE).await);
            said.iter().any(|said| said == "the last").then_some(said)
        })
        .await
    }

    async fn dead_letter(&self, count: usize) {
        self.daemon.wait_stored("cofferdam.dead.clerk", count).await;
    }
}

fn timer(after_ms: u64, data: &str) -> Value {
    json!({ "after_ms": after_ms, "data": data, "subject": DUE })
}

fn id_and_time(set: &Value) -> (String, u64) {
    let id = set["id"].as_str().unwrap_or_else(|| panic!("not set: {set}"));
    (id.to_owned(), set["at"].as_u64().expect("a time"))
}

/// Nanoseconds since the epoch.
fn stored_at(stored: &StoredMessage) -> u64 {
    let at = stored.stored_at.expect("a time");
    u64::try_from(at.seconds * 1_000_000_000 + i64::from(at.nanos)).expect("this century")
}

fn said(due: &[StoredMessage]) -> Vec<String> {
    due.iter().map(|stored| body(stored)["timer"].as_str().expect("a text").to_owned()).collect()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    u64::try_from(now.as_nanos()).expect("this century")
}

async fn a_timer_fires_once_at_its_time(mut stage: Stage) {
    let seen = stage.tell(ASKED, json!({ "set": [timer(1_500, "second"), timer(700, "first")] })).await;
    let event = seen["event"].as_str().expect("a cause");
    let set = [id_and_time(&seen["set"][1]), id_and_time(&seen["set"][0])];
    assert_eq!(set.each_ref().map(|(id, _)| id), [&format!("clerk.{event}.1"), &format!("clerk.{event}.0")]);
    let due = stage.daemon.wait_stored(DUE, 2).await;
    assert_eq!(said(&due), ["first", "second"]);
    for (stored, (id, at)) in due.iter().zip(&set) {
        assert!(stored_at(stored) >= *at, "{} is before {at}", stored_at(stored));
        assert_eq!(header(stored, "Nats-Msg-Id"), Some(id.as_str()));
        assert_eq!(header(stored, "Cofferdam-Plugin"), Some("clerk"));
        assert_eq!(header(stored, "Cofferdam-Cause"), Some(event));
        assert_eq!(header(stored, "Content-Type"), Some("application/json"));
    }
    // A time that has passed is at once; and a daemon that starts does not begin anew.
    stage.daemon.stop().await;
    stage.daemon = stage.setup.start().await;
    assert_eq!(stage.fired_until(0).await, ["first", "second", "the last"]);
}

async fn a_timer_survives_the_daemon_that_set_it(mut stage: Stage) {
    let (_, at) = stage.set(3_000, "survivor").await;
    stage.daemon.kill().await;
    stage.daemon = stage.setup.start().await;
    let due = stage.daemon.wait_stored(DUE, 1).await;
    assert!(stored_at(&due[0]) >= at, "{} is before {at}", stored_at(&due[0]));
    assert_eq!(stage.fired_until(500).await, ["survivor", "the last"]);
}

async fn a_timer_that_came_due_without_a_daemon_fires_when_there_is_one(mut stage: Stage) {
    let (_, at) = stage.set(1_000, "late").await;
    stage.daemon.kill().await;
    wait_for("the time of the timer", async || (now() > at).then_some(())).await;
    stage.daemon = stage.setup.start().await;
    stage.daemon.wait_stored(DUE, 1).await;
    assert_eq!(stage.fired_until(500).await, ["late", "the last"]);
}

async fn an_event_that_fails_sets_none_and_takes_none_back(stage: Stage) {
    let (kept, _) = stage.set(2_000, "kept").await;
    let rejected = json!({ "set": [timer(0, "rejected")], "cancel": [kept], "reject": true });
    stage.daemon.publish(ASKED, &rejected).await;
    stage.dead_letter(1).await;
    stage.tell(ASKED, json!({ "set": [timer(0, "retried")], "fail": 2 })).await;
    assert_eq!(stage.fired_until(2_500).await, ["retried", "kept", "the last"]);
    let retried = body(&stage.daemon.stored(DUE).await[0]);
    assert_eq!(retried["attempt"], 3, "of the run that succeeded");
}

async fn a_timer_that_is_taken_back_does_not_fire(stage: Stage) {
    let (later, _) = stage.set(4_000, "later").await;
    let told = json!({ "set": [timer(0, "own"), timer(0, "kept")], "cancel": [0, 0] });
    let seen = stage.tell(ASKED, told).await;
    assert_eq!(seen["cancelled"], json!(["ok", "ok"]));
    let (kept, _) = id_and_time(&seen["set"][1]);
    assert!(kept.ends_with(".1"), "{kept}");
    stage.daemon.wait_stored(DUE, 1).await;
    // One that has fired, one that is gone already and one that never was are fine.
    let never = format!("clerk.{}.7", seen["event"].as_str().expect("a cause"));
    let seen = stage.tell(ASKED, json!({ "cancel": [later, kept, never] })).await;
    assert_eq!(seen["cancelled"], json!(["ok", "ok", "ok"]));
    let seen = stage.tell(ASKED, json!({ "cancel": [later] })).await;
    assert_eq!(seen["cancelled"], json!(["ok"]));
    assert_eq!(stage.fired_until(4_500).await, ["kept", "the last"]);
}

async fn what_may_not_be_published_now_may_not_be_later(mut stage: Stage) {
    let on = |subject: &str| json!({ "after_ms": 0, "data": "x", "subject": subject });
    let wrong = ["nowhere.at.all", "cd.j.forged", "cofferdam.*", "elsewhere"];
    let seen = stage.tell(ASKED, json!({ "set": wrong.map(on) })).await;
    let kinds =
        ["no stream: ", "denied: the subject \"cd.j.forged\"", "invalid subject: ", "denied: plugin "];
    for (subject, kind) in wrong.iter().enumerate() {
        let refused = seen["set"][subject]["refused"].as_str().unwrap_or_default();
        assert!(refused.starts_with(kinds[subject]), "{kind}: {seen}");
    }

    let seen = stage.tell(ASKED, json!({ "set": [on(THEIRS)] })).await;
    let refused = seen["set"][0]["refused"].as_str().unwrap_or_default();
    assert!(refused.starts_with("denied: plugin \"clerk\" has no publish grant for"), "{seen}");
    let denied = format!("has no publish grant for {THEIRS}");
    let line = stage.daemon.logged("a denial", |line| message(line).contains(&denied)).await;
    let paste = "write in the config under [plugins.clerk.grants]: ";
    let line = message(&line).split(paste).nth(1).unwrap_or_else(|| panic!("no line to paste: {line}"));
    assert_eq!(line, format!("publish = [\"{TOLD}\", \"{DUE}\", \"nowhere.>\", \"{THEIRS}\"]"));

    let line = line.to_owned();
    stage.setup.paste_grant("clerk", &line);
    stage.daemon.stop().await;
    stage.daemon = stage.setup.start().await;
    stage.tell(ASKED, json!({ "set": [on(THEIRS)] })).await;
    assert_eq!(said(&stage.daemon.wait_stored(THEIRS, 1).await), ["x"]);
}

async fn a_timer_of_another_plugin_is_out_of_reach(stage: Stage) {
    let (id, _) = stage.set(1_500, "the clerk's").await;
    let seen = stage.tell("cofferdam.stolen", json!({ "cancel": [id, "clerk", "thief. "] })).await;
    let told = |n: usize| seen["cancelled"][n].as_str().unwrap_or_default();
    assert!(
        told(0).starts_with(&format!("denied: the timer {id:?} is not plugin \"thief\"'s own")),
        "{seen}"
    );
    assert!(told(1).starts_with("denied: ") && told(2).starts_with("invalid subject: "), "{seen}");
    assert_eq!(stage.fired_until(2_000).await, ["the clerk's", "the last"]);
}

async fn timers_count_as_the_events_messages_do(stage: Stage) {
    // The one that is taken back makes room for the report.
    let many = |times: u64, data: &str| {
        let mut timer = timer(HOUR, data);
        timer["times"] = times.into();
        json!({ "set": [timer], "cancel": [0] })
    };
    let seen = stage.tell(ASKED, many(1_001, "x")).await;
    let set = seen["set"].as_array().expect("a list");
    assert!(set[..1_000].iter().all(|timer| timer["id"].is_string()), "{seen}");
    let refused = set[1_000]["refused"].as_str().unwrap_or_default();
    assert!(refused.starts_with("limit: ") && refused.contains("1000 messages"), "{refused}");

    let seen = stage.tell(ASKED, many(4, &"x".repeat(300 << 10))).await;
    assert!(seen["set"][2]["id"].is_string(), "{seen}");
    let refused = seen["set"][3]["refused"].as_str().unwrap_or_default();
    assert!(
        refused.starts_with("too large: a message of 30") && refused.contains("has room for"),
        "{refused}"
    );
}
