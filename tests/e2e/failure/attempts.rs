//! Attempts: counted exactly, each made once, and told apart from deliveries.

use harness::{
    daemon::message,
    plugin::Plugin,
    way_in::{body, header},
};
use serde_json::json;

use super::{ASKED, Ground, SOON, TOLD, failing};
use crate::both::on_both_buses;

on_both_buses! {
    attempts_are_exact_whoever_dies_between_them,
    an_event_keeps_its_id_through_its_attempts,
    a_failed_event_frees_its_key_at_once,
    a_pause_of_nothing_is_no_loop_and_no_loss,
    pauses_grow_as_the_subscription_says,
    an_event_too_large_for_a_commit_is_tried_as_often,
    the_class_publish_counts_as_exactly,
    an_event_whose_subscription_is_gone_waits_for_it,
    a_dead_letter_knows_when_and_how_often,
    a_subscription_has_a_deadline_of_its_own,
}

async fn attempts_are_exact_whoever_dies_between_them(ground: Ground) {
    let ground = ground.plugin(failing(&format!("max-attempts = 3\nbackoff = \"1500ms\"\n{SOON}")));
    let mut stage = ground.start().await;
    stage.ask(json!({ "retries": 2 })).await;
    stage.ask(json!({ "retries": 9 })).await;
    // Both have failed, and whoever counted is gone.
    for attempt in 1..=2 {
        let failed = |line: &serde_json::Value| {
            message(line).contains("will be tried again") && line["attempt"] == attempt
        };
        stage.daemon.logged(&format!("attempt {attempt}"), failed).await;
        stage.kill().await;
        stage.again().await;
    }
    assert_eq!(stage.told(1).await, [json!({ "attempt": 3, "last": true })]);
    let letter = stage.dead(1).await.remove(0);
    assert_eq!((&letter["attempts"], &letter["reason"]), (&json!(3), &json!("attempt 3 fails")));
    stage.in_the_end(1, 1).await;
}

async fn an_event_keeps_its_id_through_its_attempts(ground: Ground) {
    let stage = ground.plugin(failing("max-attempts = 3\nbackoff = \"50ms\"")).start().await;
    stage.ask(json!({ "retries": 2 })).await;
    let failed = stage.daemon.says("will be tried again").await;
    let event = failed["event"].as_str().expect("an id");
    let told = stage.daemon.wait_stored(TOLD, 1).await;
    assert_eq!(header(&told[0], "Cofferdam-Cause"), Some(event));
    assert_eq!(header(&told[0], "Nats-Msg-Id"), Some(format!("{event}.0").as_str()));
    let done = stage.daemon.logged("the end", |line| message(line) == "done").await;
    assert_eq!((done["event"].as_str(), &done["subject"]), (Some(event), &json!(ASKED)));
}

async fn a_failed_event_frees_its_key_at_once(ground: Ground) {
    let keyed = "order-key = \"/key\"\nbackoff = \"1h\"";
    let stage = ground.plugin(failing(keyed).state("p")).start().await;
    stage.ask(json!({ "key": "k", "retries": 1, "after_ms": 1500 })).await;
    for _ in 0..3 {
        stage.ask(json!({ "key": "k", "retries": 0 })).await;
    }
    let attempts = |told: &[serde_json::Value]| told.iter().map(|t| t["attempt"].clone()).collect::<Vec<_>>();
    assert_eq!(attempts(&stage.told(4).await), [1, 1, 1, 2]);
    stage.in_the_end(4, 0).await;
}

async fn a_pause_of_nothing_is_no_loop_and_no_loss(ground: Ground) {
    let stage = ground.plugin(failing("max-attempts = 4")).start().await;
    for n in 0..10 {
        stage.ask(json!({ "retries": n % 5, "after_ms": 0 })).await;
    }
    // Those of four failures have no attempt left.
    stage.dead(2).await;
    let mut attempts: Vec<u64> =
        stage.told(8).await.iter().map(|told| told["attempt"].as_u64().expect("a number")).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 1, 2, 2, 3, 3, 4, 4]);
    stage.in_the_end(8, 2).await;
}

async fn pauses_grow_as_the_subscription_says(ground: Ground) {
    let policy =
        "max-attempts = 4\nbackoff = \"100ms\"\nbackoff-factor = 3\nbackoff-max = \"700ms\"\njitter = 0.1";
    let stage = ground.plugin(failing(policy)).start().await;
    stage.ask(json!({ "retries": 3 })).await;
    stage.told(1).await;
    for (attempt, least) in [(1, 100), (2, 300), (3, 700)] {
        let failed = |line: &serde_json::Value| line["attempt"] == attempt && line["pause_ms"].is_u64();
        let pause = stage.daemon.logged("a pause", failed).await["pause_ms"].as_u64();
        assert!(pause.is_some_and(|ms| (least..=least * 11 / 10).contains(&ms)), "{attempt}: {pause:?}");
    }
}

async fn an_event_too_large_for_a_commit_is_tried_as_often(ground: Ground) {
    let stage = ground.plugin(failing("max-attempts = 2\nbackoff = \"50ms\"")).start().await;
    let padding = "x".repeat(1_000_000);
    stage.ask(json!({ "retries": 1, "padding": padding })).await;
    assert_eq!(stage.told(1).await, [json!({ "attempt": 2, "last": true })]);
    stage.ask(json!({ "retries": 2, "padding": padding })).await;
    let letter = stage.dead(1).await.remove(0);
    assert_eq!(letter["attempts"], 2);
    assert!(letter["event"]["data"]["omitted_bytes"].as_u64() > Some(1_000_000), "{letter}");
    assert_eq!((&letter["stream"], &letter["sequence"]), (&json!("COFFERDAM_EVENTS"), &json!(3)));
    stage.in_the_end(1, 1).await;
}

async fn the_class_publish_counts_as_exactly(ground: Ground) {
    let policy = format!("commit = \"publish\"\nmax-attempts = 2\nbackoff = \"1s\"\n{SOON}");
    let mut stage = ground.plugin(failing(&policy)).start().await;
    stage.ask(json!({ "retries": 1 })).await;
    stage.ask(json!({ "retries": 2 })).await;
    stage.daemon.says("will be tried again").await;
    stage.kill().await;
    stage.again().await;
    assert_eq!(stage.told(1).await, [json!({ "attempt": 2, "last": true })]);
    assert_eq!(stage.dead(1).await[0]["attempts"], 2);
    stage.in_the_end(1, 1).await;
}

async fn an_event_whose_subscription_is_gone_waits_for_it(ground: Ground) {
    let policy = "durable = \"theirs\"\nmax-attempts = 2\nbackoff = \"2s\"";
    let mut stage = ground.plugin(failing(policy)).start().await;
    stage.ask(json!({ "retries": 1 })).await;
    stage.daemon.says("will be tried again").await;
    stage.daemon.stop().await;

    let other = Plugin::fixture("retry-then-ok").named("p").on("cofferdam.other", "").reports_to(TOLD);
    stage.now_with(other).await;
    let warned = stage.daemon.says("in the inbox of plugin \"p\" waits").await;
    let told = message(&warned);
    assert_eq!((&warned["level"], &warned["plugin"]), (&json!("WARN"), &json!("p")));
    assert!(told.contains("durable \"theirs\"") && told.contains("durable = \"theirs\""), "{told}");
    stage.daemon.stop().await;
    stage.now_with(failing(policy)).await;
    assert_eq!(stage.told(1).await, [json!({ "attempt": 2, "last": true })]);
    stage.in_the_end(1, 0).await;
}

async fn a_dead_letter_knows_when_and_how_often(ground: Ground) {
    let stage = ground.plugin(failing("max-attempts = 2\nbackoff = \"300ms\"")).start().await;
    stage.ask(json!({ "retries": 2 })).await;
    let stored = stage.daemon.wait_stored("cofferdam.dead.p", 1).await.remove(0);
    let letter = body(&stored);
    let event = letter["event"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(header(&stored, "Cofferdam-Cause"), Some(event.as_str()));
    assert_eq!(header(&stored, "Nats-Msg-Id"), Some(format!("{event}.dead.0.0").as_str()));
    assert_eq!((&letter["life"], &letter["deliveries"]), (&json!(0), &json!(2)));
    assert_eq!(
        (&letter["stream"], &letter["durable"], &letter["sequence"]),
        (&json!("COFFERDAM_EVENTS"), &json!("cofferdam-p-cofferdam-asked"), &json!(1))
    );
    let times: Vec<&str> = ["first_seen", "first_failed", "last_failed", "given_up"]
        .map(|time| letter["times"][time].as_str().unwrap_or_else(|| panic!("no {time}: {letter}")))
        .into();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(times[2], times[3], "{times:?}");
    assert!(times[1] < times[2] && times[0] < times[1] && times[3].ends_with('Z'), "{times:?}");
}

async fn a_subscription_has_a_deadline_of_its_own(ground: Ground) {
    let plugin = super::guest("spin", "max-attempts = 1\ndeadline = \"200ms\"").limit("cpu", "60s");
    let stage = ground.plugin(plugin).start().await;
    stage.ask("").await;
    let letter = stage.dead(1).await.remove(0);
    let reason = letter["reason"].as_str().unwrap_or_default();
    assert_eq!(letter["outcome"], "timed-out");
    assert!(reason.contains("(limit `wall`)") && reason.contains("200"), "{reason}");
}
