//! `on-failure = "hold"`: an event that failed is tried again in its place, and its key waits for it; others do not.

use serde_json::{Value, json};

use super::{Ground, SOON, failing, guest};
use crate::both::on_both_buses;

on_both_buses! {
    the_key_of_a_held_event_waits_and_no_other_does,
    a_held_event_is_given_up_in_the_end,
    a_stop_hands_a_held_event_back_at_once,
}

fn attempts(told: &[Value]) -> Vec<u64> {
    told.iter().map(|told| told["attempt"].as_u64().expect("a number")).collect()
}

async fn the_key_of_a_held_event_waits_and_no_other_does(ground: Ground) {
    let keyed = "order-key = \"/key\"\non-failure = \"hold\"\nmax-attempts = 3\nbackoff = \"1s\"\njitter = 0";
    // One permit: a held event does not keep it.
    let stage = ground.plugin(failing(keyed).state("p").limit("concurrency", 1)).start().await;
    stage.ask(json!({ "key": "held", "retries": 2 })).await;
    stage.ask(json!({ "key": "held", "retries": 0 })).await;
    stage.daemon.says("will be tried again").await;
    for _ in 0..3 {
        stage.ask(json!({ "key": "other", "retries": 0 })).await;
    }
    assert_eq!(attempts(&stage.told(5).await), [1, 1, 1, 3, 1]);
    stage.in_the_end(5, 0).await;
}

async fn a_held_event_is_given_up_in_the_end(ground: Ground) {
    let keyed = "order-key = \"/key\"\non-failure = \"hold\"\nmax-attempts = 2\nbackoff = \"100ms\"";
    let stage = ground.plugin(failing(keyed).state("p")).start().await;
    stage.ask(json!({ "key": "k", "retries": 9 })).await;
    stage.ask(json!({ "key": "k", "retries": 0 })).await;
    stage.told(1).await;
    let letter = stage.dead(1).await.remove(0);
    assert_eq!((&letter["attempts"], &letter["deliveries"]), (&json!(2), &json!(1)));
    stage.in_the_end(1, 1).await;
}

async fn a_stop_hands_a_held_event_back_at_once(ground: Ground) {
    let keyed = format!("order-key = \"/key\"\non-failure = \"hold\"\nbackoff = \"1h\"\n{SOON}");
    let mut stage = ground.plugin(guest("retry-then-ok", &keyed).state("p")).start().await;
    stage.ask(json!({ "key": "k", "retries": 1 })).await;
    stage.daemon.says("will be tried again").await;
    stage.daemon.stop().await;
    stage.again().await;
    // This host counts from the beginning.
    let again = stage.daemon.says("will be tried again").await;
    assert_eq!(again["attempt"], 1);
}
