//! `cofferdam sub` while its daemon goes and comes.

use std::{collections::BTreeSet, time::Duration};

use harness::wait::wait_for;
use serde_json::{Value, json};
use tokio::process::Child;

use super::Place;
use crate::both::on_both_buses;

on_both_buses! {
    a_followed_read_goes_on_over_restarts_without_gap_or_repeat,
    a_live_view_comes_back_with_the_daemon,
}

async fn a_followed_read_goes_on_over_restarts_without_gap_or_repeat(mut place: Place) {
    let mut daemon = place.setup.start().await;
    let mut one = place.sub(&["context.>", "--all", "--json"]);
    let mut several = place.sub(&["*.n", "--since", "1h", "--json"]);
    let (mut count, mut seen) = (0, BTreeSet::new());
    for round in 0..3 {
        let client = place.client();
        for _ in 0..20 {
            client.publish("context.n", count).await;
            client.publish("workflow.n", count).await;
            count += 1;
        }
        for n in count - 20..count {
            assert_eq!(one.json().await["data"], n);
        }
        for _ in 0..40 {
            let message = several.json().await;
            assert!(seen.insert((message["stream"].to_string(), message["sequence"].as_u64())), "{message}");
        }
        if round == 0 {
            daemon.stop().await;
        } else {
            daemon.kill().await;
        }
        if let Some(nats) = &mut place.nats {
            // What is stored while the daemon is away is shown as well.
            let jetstream = async_nats::jetstream::new(nats.client().await);
            jetstream.publish("context.n", count.to_string().into()).await.unwrap().await.unwrap();
            jetstream.publish("workflow.n", count.to_string().into()).await.unwrap().await.unwrap();
            count += 1;
        }
        daemon = place.setup.start().await;
        if place.nats.is_some() {
            assert_eq!(one.json().await["data"], count - 1);
            for _ in 0..2 {
                let message = several.json().await;
                assert!(
                    seen.insert((message["stream"].to_string(), message["sequence"].as_u64())),
                    "{message}"
                );
            }
        }
    }
    assert_eq!(seen.len(), 2 * count);
    place.client().publish("context.n", "the end").await;
    assert_eq!(one.json().await["data"], "the end");
    terminate(&one.child);
    let (code, told) = one.end().await;
    assert_eq!(code, 0, "{told}");
    assert_eq!(told.matches("trying again until it is back").count(), 3, "{told}");
    assert_eq!(told.matches("the daemon is back\n").count(), 3, "{told}");
}

async fn a_live_view_comes_back_with_the_daemon(place: Place) {
    let mut daemon = place.setup.start().await;
    let mut live = place.sub(&["context.>", "--json"]);
    assert_eq!(live.json().await, json!({ "ready": true }));
    daemon.kill().await;
    let _next = place.setup.start().await;
    let client = place.client();
    // It comes back by itself, some time later.
    let heard = wait_for("a message after the restart", async || {
        client.publish("context.n", "again").await;
        tokio::time::timeout(Duration::from_millis(50), live.lines.next_line()).await.ok()
    })
    .await;
    let heard: Value = serde_json::from_str(&heard.unwrap().unwrap()).unwrap();
    assert_eq!((&heard["subject"], &heard["data"]), (&json!("context.n"), &json!("again")));
    terminate(&live.child);
    let (code, told) = live.end().await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("what was published meanwhile is missed"), "{told}");
}

/// SIGTERM, as Ctrl-C: a quiet end.
fn terminate(child: &Child) {
    let pid = child.id().expect("a running process").to_string();
    let sent = std::process::Command::new("sh").arg("-c").arg(format!("kill -TERM {pid}")).status().unwrap();
    assert!(sent.success());
}
