//! What a stream's limits discard: the oldest, whether somebody still waits for it or not.

use std::time::Duration;

use super::*;

conformance![
    retention_by_count_drops_the_oldest,
    retention_by_age_drops_what_is_too_old,
    retention_by_size_drops_the_oldest,
    what_was_discarded_before_its_turn_does_not_come,
    what_was_discarded_unacked_does_not_come_again_and_blocks_nothing,
    what_aged_unacked_does_not_come_again_and_blocks_nothing,
    a_stream_whose_messages_are_all_gone_counts_on,
];

async fn retention_by_count_drops_the_oldest(world: World) {
    let bus = world.bus().await;
    bus.ensure_stream(&StreamSpec { max_messages: Some(3), ..stream_spec("S", &["s"]) }).await.unwrap();
    for n in 1..=5 {
        put(&bus, "s", n.to_string()).await;
    }
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s")).await;
    for n in 3..=5 {
        let delivery = next(&mut deliveries).await;
        assert_eq!((text(&delivery), delivery.stored.sequence), (n.to_string().as_str(), n));
    }
}

async fn retention_by_age_drops_what_is_too_old(world: World) {
    let bus = world.bus().await;
    let spec = StreamSpec {
        max_age: Some(Duration::from_millis(500)),
        duplicate_window: Some(Duration::from_millis(500)),
        ..stream_spec("S", &["s"])
    };
    bus.ensure_stream(&spec).await.unwrap();
    put(&bus, "s", "old").await;
    ended(&bus, "s").await;
    put(&bus, "s", "new").await;
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s")).await;
    let delivery = next(&mut deliveries).await;
    assert_eq!((text(&delivery), delivery.stored.sequence), ("new", 2));
}

async fn retention_by_size_drops_the_oldest(world: World) {
    let bus = world.bus().await;
    bus.ensure_stream(&StreamSpec { max_bytes: Some(10_000), ..stream_spec("S", &["s"]) }).await.unwrap();
    for _ in 0..10 {
        put(&bus, "s", "x".repeat(3000)).await;
    }
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s")).await;
    assert_eq!(next(&mut deliveries).await.stored.sequence, 8);
}

fn capped(messages: u64) -> StreamSpec {
    StreamSpec { max_messages: Some(messages), ..stream_spec("S", &["s"]) }
}

async fn what_was_discarded_before_its_turn_does_not_come(world: World) {
    let bus = world.bus().await;
    bus.ensure_stream(&capped(5)).await.unwrap();
    let (origin, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s")).await;
    put(&bus, "s", "x").await;
    next(&mut deliveries).await.ack().await.unwrap();
    deliveries.close().await;
    for _ in 2..=20 {
        put(&bus, "s", "x").await;
    }
    let mut deliveries = bus.deliveries(&origin, 16).await.unwrap();
    for n in 16..=20 {
        let delivery = next(&mut deliveries).await;
        assert_eq!((delivery.stored.sequence, delivery.count), (n, 1));
        delivery.ack().await.unwrap();
    }
    nothing_for(&mut deliveries, Duration::from_millis(50)).await;
}

async fn what_was_discarded_unacked_does_not_come_again_and_blocks_nothing(world: World) {
    let bus = world.bus().await;
    bus.ensure_stream(&capped(3)).await.unwrap();
    let wait = Duration::from_millis(500);
    let spec = ConsumerSpec { max_ack_pending: 2, ack_wait: wait, ..consumer_spec("S", "d", "s") };
    let (_, mut deliveries) = follow(&bus, &spec).await;
    put(&bus, "s", "1").await;
    put(&bus, "s", "2").await;
    let delayed = next(&mut deliveries).await;
    let unacked = next(&mut deliveries).await;
    for n in 3..=10 {
        put(&bus, "s", n.to_string()).await;
    }
    // Both places are taken by what is gone; they are free at the latest when those would have come again.
    delayed.nak(Some(wait)).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&10) {
        let delivery = next(&mut deliveries).await;
        seen.push(delivery.stored.sequence);
        delivery.ack().await.unwrap();
    }
    // Before them what was on its way when it was discarded.
    assert!(seen.is_sorted_by(|a, b| a < b) && seen[0] > 2 && seen.ends_with(&[8, 9, 10]), "{seen:?}");
    // Too late, but no harm.
    unacked.ack().await.unwrap();
    nothing_for(&mut deliveries, wait * 2).await;
}

async fn what_aged_unacked_does_not_come_again_and_blocks_nothing(world: World) {
    let bus = world.bus().await;
    let age = Duration::from_millis(700);
    let spec = StreamSpec { max_age: Some(age), duplicate_window: Some(age), ..stream_spec("S", &["s"]) };
    bus.ensure_stream(&spec).await.unwrap();
    let spec =
        ConsumerSpec { max_ack_pending: 1, ack_wait: Duration::from_secs(2), ..consumer_spec("S", "d", "s") };
    let (_, mut deliveries) = follow(&bus, &spec).await;
    put(&bus, "s", "old").await;
    let held = next(&mut deliveries).await;
    ended(&bus, "s").await;
    drop(held);
    // Comes when the place is free, and may have aged by then: there is always a younger one.
    let feed = tokio::spawn({
        let bus = bus.clone();
        async move {
            for _ in 0.. {
                put(&bus, "s", "new").await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let delivery = next(&mut deliveries).await;
    feed.abort();
    assert_eq!(text(&delivery), "new");
}

async fn a_stream_whose_messages_are_all_gone_counts_on(mut world: World) {
    let bus = world.bus().await;
    let age = Some(Duration::from_millis(300));
    let spec = StreamSpec { max_age: age, duplicate_window: age, ..stream_spec("S", &["s"]) };
    let made = bus.ensure_stream(&spec).await.unwrap();
    for n in 1..=3 {
        assert_eq!(put(&bus, "s", "x").await, n);
    }
    emptied(&bus, "S", "s").await;
    assert_eq!(put(&bus, "s", "x").await, 4);
    ended(&bus, "s").await;
    drop(bus);
    world.restart().await;
    let bus = world.bus().await;
    assert_eq!(bus.ensure_stream(&spec).await.unwrap(), made);
    assert_eq!(put(&bus, "s", "x").await, 5, "also after a restart");
}
