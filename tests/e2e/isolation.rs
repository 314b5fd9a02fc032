//! How far events of a plugin are kept apart: a fresh instance each, or batches, as the configuration and the manifest have it.

use harness::{daemon::Daemon, metrics::Scrape, plugin::Plugin, world::World};
use serde_json::{Value, json};

struct Stage {
    world: World,
    daemon: Daemon,
    before: Scrape,
}

/// Counts in its own memory, one event at a time.
fn counter() -> Plugin {
    Plugin::fixture("keeps-count")
        .named("counter")
        .on("test.in", "max-attempts = 1")
        .reports_to("test.seen")
        .limit("concurrency", 1)
}

impl Stage {
    async fn of(plugin: Plugin) -> Stage {
        let world = World::start().await;
        let daemon = world.setup().plugin(plugin).start().await;
        let before = daemon.scrape().await;
        Stage { world, daemon, before }
    }

    async fn events(&self, ends: &[&str]) {
        for end in ends {
            self.world.publish("test.in", json!({ "end": end })).await;
            self.world.quiet().await;
        }
    }

    /// What the guest counted, and how many instances that took.
    async fn counted(&self) -> (Vec<u64>, f64) {
        let seen = self.world.stored("test.seen").await;
        let count = |seen: Value| seen["count"].as_u64().expect("a count");
        let instances = self.daemon.scrape().await.since(&self.before);
        let instances = instances.sum("cofferdam_instances_total", &[("plugin", "counter")]);
        (seen.iter().map(|message| count(message.json())).collect(), instances)
    }
}

#[tokio::test]
async fn an_event_has_an_instance_of_its_own_unless_somebody_says_otherwise() {
    let stage = Stage::of(counter()).await;
    stage.events(&["ok", "ok", "ok"]).await;
    assert_eq!(stage.counted().await, (vec![1, 1, 1], 3.0));
}

#[tokio::test]
async fn events_of_a_batch_share_an_instance_until_it_is_full() {
    let plugin = counter().operator("isolation", "batch").operator("batch-events", 3);
    let stage = Stage::of(plugin).await;
    stage.events(&["ok"; 7]).await;
    assert_eq!(stage.counted().await, (vec![1, 2, 3, 1, 2, 3, 1], 3.0));
}

#[tokio::test]
async fn a_manifest_may_choose_batches_and_what_fails_ends_one() {
    let stage = Stage::of(counter().says("isolation", "batch")).await;
    stage.events(&["ok", "ok", "reject", "ok", "trap", "ok"]).await;
    assert_eq!(
        stage.counted().await,
        (vec![1, 2, 1, 1], 4.0),
        "the third and the fifth event publish nothing, and what trapped was run again in a fresh instance"
    );
    let mut reasons: Vec<String> = stage
        .world
        .dead_letters("counter", 2)
        .await
        .iter()
        .map(|letter| letter["reason"].as_str().expect("a reason").to_owned())
        .collect();
    reasons.sort_unstable();
    assert!(reasons[0].contains("the count is 3") && reasons[1].contains("the count is 1"), "{reasons:?}");
}

#[tokio::test]
async fn what_an_event_leaves_in_an_instance_costs_no_other_event_an_attempt() {
    let stage = Stage::of(counter().operator("isolation", "batch")).await;
    stage.events(&["ok", "spoil", "ok", "ok"]).await;
    assert_eq!(stage.counted().await, (vec![1, 2, 1, 2], 2.0));
}

#[tokio::test]
async fn the_operators_word_counts_more_than_the_manifests() {
    let plugin = counter().says("isolation", "batch").says("batch-events", 50).operator("isolation", "event");
    let stage = Stage::of(plugin).await;
    stage.events(&["ok", "ok"]).await;
    assert_eq!(stage.counted().await, (vec![1, 1], 2.0));
}
