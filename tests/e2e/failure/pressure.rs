//! Neighbours: an event that fails holds up nobody, and neither does a plugin that is slow.

use harness::{
    planning::{Planning, SERVICE},
    plugin::Plugin,
};
use serde_json::json;

use super::{Ground, call, failing};
use crate::both::on_both_buses;

on_both_buses! {
    a_poison_event_holds_up_no_neighbour,
    a_slow_plugin_slows_no_other,
}

async fn a_poison_event_holds_up_no_neighbour(ground: Ground) {
    // Fewer places than poison.
    let ground = ground.with("dispatch.max-in-flight", 4).with("sandbox.instances", 2);
    let stage =
        ground.plugin(failing("max-attempts = 2\nbackoff = \"1h\"").limit("concurrency", 2)).start().await;
    for _ in 0..20 {
        stage.ask(json!({ "retries": 1 })).await;
    }
    for _ in 0..20 {
        stage.ask(json!({ "retries": 0 })).await;
    }
    stage.in_the_end(20, 0).await;
    let metrics = stage.daemon.scrape().await;
    assert_eq!(metrics.sum("cofferdam_events_total", &[("outcome", "retry")]), 20.0);
    assert_eq!(metrics.sum("cofferdam_events_in_flight", &[]), 0.0);
}

async fn a_slow_plugin_slows_no_other(ground: Ground) {
    let planning = Planning::held().await;
    let slow = Plugin::fixture("sleep-in-rpc")
        .named("slow")
        .on("cofferdam.slow", "")
        .may("rpc", &[&format!("planning/{SERVICE}/GetPlanContext")])
        .reports_to("cofferdam.called")
        .limit("concurrency", 2);
    // The slow one has as many events as this host takes, and then some, and could fill the host.
    let ground = ground.planning(&planning).with("dispatch.max-in-flight", 8).with("sandbox.instances", 4);
    let stage = ground.plugin(slow).plugin(failing("")).start().await;
    for n in 0..20 {
        stage.daemon.publish("cofferdam.slow", call(&n.to_string())).await;
    }
    planning.wait_calls(2).await;
    for _ in 0..40 {
        stage.ask(json!({ "retries": 0 })).await;
    }
    stage.told(40).await;
    assert_eq!(planning.calls().len(), 2, "the slow one runs as many as it may");
    planning.release();
    stage.daemon.wait_stored("cofferdam.called", 20).await;
}
