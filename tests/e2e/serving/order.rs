//! Calls among events: one cell is one turn, whatever comes to it and by which way.

use fleet_proto::fixtures::v1::AddRequest;
use futures_util::StreamExt;
use harness::{
    counting::{Reply, SERVICE},
    plugin::Plugin,
    wait::{wait_for, within},
};
use serde_json::{Value, json};

use super::{ADDED, Ground, Ledger, add, add_calling, ledger};
use crate::both::{on_both_buses, on_nats};

on_both_buses!(
    a_call_waits_behind_the_events_of_its_cell_and_no_other,
    calls_of_a_cell_run_in_the_order_in_which_they_were_taken,
    a_call_of_what_is_served_no_more_waits_until_it_is,
);

/// A stream would store a repeat once: who listens without one hears all that is sent.
#[tokio::test]
async fn what_is_read_while_it_commits_is_sent_once() {
    on_nats(async |ground: Ground| {
        const ADDS: usize = 40;
        const MESSAGES: usize = 5;
        let nats = ground.nats.as_ref().expect("a server").client().await;
        let daemon = ground.start().await;
        let mut heard = nats.subscribe(ADDED).await.unwrap();
        nats.flush().await.unwrap();
        let client = Ledger::of(&daemon);
        client.add(add("a", 1)).await.unwrap();
        let (done, reads) = tokio::sync::watch::channel(false);
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (client, reads) = (client.clone(), reads.clone());
                tokio::spawn(async move {
                    while !*reads.borrow() {
                        client.sum("a").await;
                    }
                })
            })
            .collect();
        for _ in 0..ADDS {
            client.add(AddRequest { messages: MESSAGES as u32, ..add("a", 1) }).await.unwrap();
        }
        done.send_replace(true);
        for reader in readers {
            reader.await.unwrap();
        }
        // The last of all: what was sent before it has been heard.
        client.add(add("b", 1)).await.unwrap();
        let mut count = 0;
        loop {
            let message = within("a message", heard.next()).await.expect("a connection");
            count += 1;
            let added: Value = serde_json::from_slice(&message.payload).unwrap();
            if added["account"] == "b" {
                break;
            }
        }
        assert_eq!(count, 1 + ADDS * MESSAGES + 1);
    })
    .await;
}

async fn a_call_waits_behind_the_events_of_its_cell_and_no_other(ground: Ground) {
    ground.upstream.next("Hold", [Reply::Hold]);
    // Another plugin, whose events share the ledger's cells.
    let neighbour = Plugin::fixture("sleep-in-rpc")
        .named("neighbour")
        .on("cofferdam.neighbour-in", "order-key = [\"/key\"]\ncell = \"account/{key}\"")
        .may("rpc", &[&format!("counting/{SERVICE}/*")])
        .state("ledger")
        .reports_to("cofferdam.neighbour-out");
    let daemon = ground.setup.plugin(neighbour).start().await;
    let client = Ledger::of(&daemon);
    let event = json!({ "key": "a", "upstream": "counting", "method": format!("{SERVICE}/Hold") });
    daemon.publish("cofferdam.neighbour-in", event).await;
    ground.upstream.wait_calls("Hold", 1).await;
    let waits = tokio::spawn({
        let client = client.clone();
        async move { client.add(add("a", 1)).await }
    });
    wait_for("the call to be stored", async || {
        (daemon.stored("cd.in.ledger.>").await.len() == 1).then_some(())
    })
    .await;
    // Later, and through before it.
    assert_eq!(client.add(add("b", 2)).await.unwrap().sum, 2);
    assert!(!waits.is_finished());
    // A read waits for nobody.
    let absent =
        client.get(fleet_proto::fixtures::v1::GetRequest { account: "a".into(), ..Default::default() });
    absent.await.unwrap_err();
    ground.upstream.release();
    assert_eq!(waits.await.unwrap().unwrap().sum, 1);
    assert_eq!(daemon.stored("cofferdam.neighbour-out").await.len(), 1, "the event committed first");
}

async fn calls_of_a_cell_run_in_the_order_in_which_they_were_taken(ground: Ground) {
    ground.upstream.next("Hold", [Reply::Hold]);
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let mut calls = vec![tokio::spawn({
        let client = client.clone();
        async move { client.add(add_calling("a", "Hold")).await }
    })];
    ground.upstream.wait_calls("Hold", 1).await;
    for n in 1..6 {
        let client = client.clone();
        calls.push(tokio::spawn(async move { client.add(add("a", 1)).await }));
        wait_for("the call to be stored", async || {
            (daemon.stored("cd.in.ledger.>").await.len() == n + 1).then_some(())
        })
        .await;
    }
    ground.upstream.release();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap().sum, i64::try_from(n).unwrap() + 1);
    }
}

async fn a_call_of_what_is_served_no_more_waits_until_it_is(ground: Ground) {
    ground.upstream.next("Hold", [Reply::Hold]);
    let mut daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let cut = tokio::spawn(async move { client.add(super::keyed("k", add_calling("a", "Hold"))).await });
    ground.upstream.wait_calls("Hold", 1).await;
    daemon.kill().await;
    cut.await.unwrap().unwrap_err();
    let mut ground = ground;
    let get = [format!("{}/Get", harness::plugin::LEDGER)];
    ground.setup = ground.setup.plugin(ledger().granted("serve", &[&get[0]]));
    let mut daemon = ground.start().await;
    let warned = daemon.says("waits: it is a call of").await;
    assert!(warned["message"].as_str().unwrap().contains("[plugins.ledger.grants]"), "{warned}");
    daemon.stop().await;
    ground.setup = ground.setup.plugin(ledger());
    let daemon = ground.start().await;
    let answer = Ledger::of(&daemon).add(super::keyed("k", add_calling("a", "Hold"))).await.unwrap();
    assert_eq!(super::added(&daemon).await, [answer.call_id]);
}
