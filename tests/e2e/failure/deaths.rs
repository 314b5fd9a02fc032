//! Hosts that die: that uses up no attempt; an event that kills its host is found out, and only that one.

use harness::{
    planning::{Planning, SERVICE},
    plugin::Plugin,
    wait::wait_for,
    way_in::{Client, body, request},
};
use serde_json::json;

use super::{Ground, SOON, TOLD, call, caller};
use crate::both::on_both_buses;

on_both_buses! {
    an_event_outlives_more_deaths_than_it_has_attempts,
    what_kills_the_host_is_stopped_and_its_neighbours_are_done_once,
    a_stop_while_an_event_runs_alone_is_no_death,
}

const DEADLY: &str = "cofferdam.deadly";

async fn an_event_outlives_more_deaths_than_it_has_attempts(ground: Ground) {
    let planning = Planning::held().await;
    let ground = ground.planning(&planning).plugin(caller(&format!("max-attempts = 3\n{SOON}")));
    let mut stage = ground.start().await;
    stage.ask(call("k")).await;
    for deaths in 1..=6 {
        planning.wait_calls(deaths).await;
        stage.kill().await;
        stage.again().await;
    }
    planning.wait_calls(7).await;
    planning.release();
    stage.told(1).await;
    let done = stage.daemon.logged("the end", |line| harness::daemon::message(line) == "done").await;
    assert_eq!(done["attempt"], json!(1), "no death is an attempt");
    assert_eq!(
        (stage.daemon.stored(TOLD).await.len(), stage.daemon.stored("cofferdam.dead.p").await.len()),
        (1, 0)
    );
}

/// A plugin with neighbours that call Planning and one whose events kill the host, which may die twice with one alone.
fn among_neighbours(ground: Ground, planning: &Planning) -> Ground {
    let killer = Plugin::fixture("echo").named("killer").on(DEADLY, SOON).reports_to(TOLD);
    let keyed = format!("order-key = \"/key\"\nmax-attempts = 1\n{SOON}");
    let neighbours = Plugin::fixture("sleep-in-rpc")
        .named("keyed")
        .on("cofferdam.keyed", &keyed)
        .state("keyed")
        .may("rpc", &[&format!("planning/{SERVICE}/GetPlanContext")])
        .reports_to(TOLD);
    let plain = caller(&format!("max-attempts = 1\n{SOON}"));
    ground
        .planning(planning)
        .plugin(killer)
        .plugin(neighbours)
        .plugin(plain)
        .with("dispatch.max-deliveries", 2)
        .env("COFFERDAM_BROKEN", &format!("die-on:{DEADLY}"))
}

/// The first message on a subject, read from a daemon that may die meanwhile.
async fn first(client: &Client, subject: &str) -> serde_json::Value {
    wait_for(&format!("a message on {subject}"), async || {
        client.stored(subject).await.ok()?.first().map(body)
    })
    .await
}

async fn what_kills_the_host_is_stopped_and_its_neighbours_are_done_once(ground: Ground) {
    let planning = Planning::held().await;
    let mut stage = among_neighbours(ground, &planning).start().await;
    for n in 0..5 {
        stage.ask(call(&n.to_string())).await;
        stage.daemon.publish("cofferdam.keyed", call(&(n % 2).to_string())).await;
    }
    // All that may run at once is in flight: five without a key, one of each key.
    planning.wait_calls(7).await;
    // Stored, or the rest waits in vain.
    drop(stage.daemon.client().send(request(DEADLY, "boom")).await);
    let mut deaths = 0;
    let letter = 'found_out: loop {
        let client = stage.daemon.client();
        tokio::select! {
            ended = stage.daemon.end() => assert!(!ended.success(), "{ended}"),
            letter = first(&client, "cofferdam.dead.killer") => break letter,
        }
        loop {
            deaths += 1;
            assert!(deaths <= 5, "three with others beside it, two alone");
            if deaths == 3 {
                // Whatever is suspected runs alone from now on, and may come to its end.
                planning.release();
            }
            if let Some(daemon) = stage.setup.start_perhaps().await {
                stage.daemon = daemon;
                continue 'found_out;
            }
        }
    };
    let (outcome, reason) = (&letter["outcome"], letter["reason"].as_str().unwrap_or_default());
    assert_eq!((outcome, &letter["event"]["subject"]), (&json!("deadly"), &json!(DEADLY)));
    assert!(reason.contains("2 times") && reason.contains("cofferdam dlq redrive"), "{reason}");
    assert!(deaths >= 3, "{deaths}");
    assert_eq!(stage.daemon.wait_stored(TOLD, 10).await.len(), 10);
    // Nothing more comes of any of them.
    stage.ask(call("last")).await;
    assert_eq!(stage.daemon.wait_stored(TOLD, 11).await.len(), 11);
    for plugin in ["p", "keyed"] {
        assert_eq!(stage.daemon.stored(&format!("cofferdam.dead.{plugin}")).await.len(), 0, "{plugin}");
    }
}

async fn a_stop_while_an_event_runs_alone_is_no_death(ground: Ground) {
    let planning = Planning::held().await;
    let ground = ground.planning(&planning).plugin(caller(SOON));
    let ground = ground.with("dispatch.max-deliveries", 1).with("dispatch.drain", "300ms");
    let mut stage = ground.start().await;
    stage.ask(call("k")).await;
    for deaths in 1..=3 {
        planning.wait_calls(deaths).await;
        stage.kill().await;
        stage.again().await;
    }
    // Each of these would be one too many.
    for stops in 1..=2 {
        planning.wait_calls(3 + stops).await;
        stage.daemon.says("it runs alone").await;
        stage.daemon.stop().await;
        stage.again().await;
    }
    planning.release();
    stage.told(1).await;
    assert_eq!(stage.daemon.stored("cofferdam.dead.p").await.len(), 0);
}
