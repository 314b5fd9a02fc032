//! How far behind a durable is: what waits, what is out, how old the oldest is, what its stream discarded before its turn.

use std::time::Duration;

use cofferdam_bus::{Backlog, Limit};

use super::*;

conformance![
    a_backlog_counts_what_waits_and_what_is_out,
    a_backlog_counts_only_what_its_durable_wants,
    a_backlog_names_the_oldest_event_and_when_it_was_stored,
    a_backlog_shows_the_streams_limits_and_how_far_they_are_used_up,
    what_is_discarded_before_its_turn_is_counted,
    what_others_want_is_not_counted_as_discarded,
    what_was_handled_is_not_counted_as_discarded,
    a_backlog_is_the_same_after_a_restart,
    the_backlog_of_a_durable_that_is_gone_is_an_error,
];

/// Once the bus has heard of all acks.
async fn backlog(bus: &Arc<dyn Bus>, origin: &Arc<Origin>) -> Backlog {
    bus.flush().await;
    soon("a backlog", bus.backlog(origin)).await.expect("a backlog")
}

/// Acks are heard by and by.
async fn unsettled(bus: &Arc<dyn Bus>, origin: &Arc<Origin>, waiting: u64, outstanding: u64) -> Backlog {
    wait_for("the counts", async || {
        let backlog = backlog(bus, origin).await;
        ((backlog.waiting, backlog.outstanding) == (waiting, outstanding)).then_some(backlog)
    })
    .await
}

async fn durable(bus: &Arc<dyn Bus>, filter: &str) -> Arc<Origin> {
    bus.ensure_consumer(&consumer_spec("S", "d", filter)).await.unwrap()
}

async fn a_backlog_counts_what_waits_and_what_is_out(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    put(&bus, "s", "before the durable").await;
    let origin = durable(&bus, "s").await;
    for _ in 2..=10 {
        put(&bus, "s", "x").await;
    }
    let before = backlog(&bus, &origin).await;
    assert_eq!((before.waiting, before.outstanding, before.ack_floor), (10, 0, 0));
    assert_eq!(before.unsettled(), 10);

    // One at a time is fetched ahead.
    let mut deliveries = bus.deliveries(&origin, 1).await.unwrap();
    let held = [next(&mut deliveries).await, next(&mut deliveries).await, next(&mut deliveries).await];
    deliveries.close().await;
    held[0].ack().await.unwrap();
    held[2].ack().await.unwrap();
    // What was handed back on closing is out until somebody takes it again.
    let after = wait_for("the acks", async || {
        let backlog = backlog(&bus, &origin).await;
        (backlog.unsettled() == 8 && backlog.ack_floor == 1).then_some(backlog)
    })
    .await;
    assert!((1..=2).contains(&after.outstanding), "{after:?}");
    assert_eq!(after.oldest.map(|oldest| oldest.sequence), Some(2));
    assert_eq!(after.discarded.known, 0);
}

async fn a_backlog_counts_only_what_its_durable_wants(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.a", "x").await;
    put(&bus, "s.b", "x").await;
    let origin = durable(&bus, "s.a").await;
    for _ in 0..3 {
        put(&bus, "s.b", "x").await;
        put(&bus, "s.a", "x").await;
    }
    assert_eq!(backlog(&bus, &origin).await.waiting, 4);
    let mut deliveries = bus.deliveries(&origin, 16).await.unwrap();
    for _ in 0..4 {
        next(&mut deliveries).await.ack().await.unwrap();
    }
    let none = unsettled(&bus, &origin, 0, 0).await;
    assert_eq!((none.oldest, none.discarded.known), (None, 0));
}

async fn a_backlog_names_the_oldest_event_and_when_it_was_stored(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let origin = durable(&bus, "s.a").await;
    assert_eq!(backlog(&bus, &origin).await.oldest, None);
    put(&bus, "s.b", "not wanted").await;
    let sequence = put(&bus, "s.a", "wanted").await;
    put(&bus, "s.a", "later").await;
    let stored = bus.message("S", sequence).await.unwrap().unwrap();
    let oldest = backlog(&bus, &origin).await.oldest.unwrap();
    assert_eq!((oldest.sequence, oldest.timestamp), (sequence, stored.timestamp));
}

async fn a_backlog_shows_the_streams_limits_and_how_far_they_are_used_up(world: World) {
    let bus = world.bus().await;
    let day = Duration::from_secs(24 * 60 * 60);
    let spec = StreamSpec {
        max_messages: Some(10),
        max_bytes: Some(1_000_000),
        max_age: Some(day),
        ..stream_spec("S", &["s"])
    };
    bus.ensure_stream(&spec).await.unwrap();
    let origin = durable(&bus, "s").await;
    for _ in 0..8 {
        put(&bus, "s", "x").await;
    }
    let backlog = backlog(&bus, &origin).await;
    let stream = &backlog.stream;
    assert_eq!((stream.first, stream.last, stream.messages), (1, 8, 8));
    assert_eq!(
        (stream.max_messages, stream.max_bytes, stream.max_age),
        (Some(10), Some(1_000_000), Some(day))
    );
    assert!(stream.bytes > 0 && !stream.refuses_new, "{stream:?}");
    let now = backlog.oldest.unwrap().timestamp + u64::try_from(day.as_nanos()).unwrap() / 4;
    let used = backlog.used(now);
    let of = |limit| used.iter().find(|(l, _)| *l == limit).map(|(_, used)| *used);
    assert_eq!((of(Limit::Messages), of(Limit::Age)), (Some(0.8), Some(0.25)));
    assert!(of(Limit::Bytes).is_some_and(|used| used > 0.0 && used < 0.1), "{used:?}");
}

async fn what_is_discarded_before_its_turn_is_counted(world: World) {
    let bus = world.bus().await;
    let capped = StreamSpec { max_messages: Some(5), ..stream_spec("S", &["s.>"]) };
    bus.ensure_stream(&capped).await.unwrap();
    let origin = durable(&bus, "s.a").await;
    for _ in 0..4 {
        put(&bus, "s.a", "x").await;
    }
    assert_eq!(backlog(&bus, &origin).await.discarded.known, 0);
    for _ in 0..3 {
        put(&bus, "s.a", "x").await;
    }
    let two = backlog(&bus, &origin).await;
    assert_eq!((two.discarded.known, two.waiting), (2, 5));
    // Others push them out, too.
    for _ in 0..4 {
        put(&bus, "s.b", "x").await;
    }
    let six = backlog(&bus, &origin).await;
    assert_eq!((six.discarded.known, six.waiting), (6, 1));
    assert_eq!(six.oldest.map(|oldest| oldest.sequence), Some(7));
    let mut deliveries = bus.deliveries(&origin, 16).await.unwrap();
    let last = next(&mut deliveries).await;
    assert_eq!(last.stored.sequence, 7);
    last.ack().await.unwrap();
    assert_eq!(unsettled(&bus, &origin, 0, 0).await.discarded.known, 6);
}

async fn what_others_want_is_not_counted_as_discarded(world: World) {
    let bus = world.bus().await;
    let capped = StreamSpec { max_messages: Some(5), ..stream_spec("S", &["s.>"]) };
    bus.ensure_stream(&capped).await.unwrap();
    let origin = durable(&bus, "s.a").await;
    for _ in 0..3 {
        assert_eq!(backlog(&bus, &origin).await.discarded.known, 0);
        for _ in 0..4 {
            put(&bus, "s.b", "x").await;
        }
    }
    put(&bus, "s.a", "x").await;
    let backlog = backlog(&bus, &origin).await;
    assert_eq!((backlog.discarded.known, backlog.waiting), (0, 1));
}

async fn what_was_handled_is_not_counted_as_discarded(world: World) {
    let bus = world.bus().await;
    let capped = StreamSpec { max_messages: Some(5), ..stream_spec("S", &["s"]) };
    bus.ensure_stream(&capped).await.unwrap();
    let (origin, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s")).await;
    for _ in 0..20 {
        put(&bus, "s", "x").await;
        next(&mut deliveries).await.ack().await.unwrap();
        let backlog = backlog(&bus, &origin).await;
        assert_eq!((backlog.waiting, backlog.discarded.known), (0, 0), "{backlog:?}");
    }
}

async fn a_backlog_is_the_same_after_a_restart(mut world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let origin = durable(&bus, "s.a").await;
    for _ in 0..6 {
        put(&bus, "s.a", "x").await;
        put(&bus, "s.b", "x").await;
    }
    let mut deliveries = bus.deliveries(&origin, 1).await.unwrap();
    for _ in 0..2 {
        next(&mut deliveries).await.ack().await.unwrap();
    }
    deliveries.close().await;
    wait_for("the acks", async || (backlog(&bus, &origin).await.unsettled() == 4).then_some(())).await;
    drop((deliveries, bus));
    world.restart().await;
    let bus = world.bus().await;
    let origin = durable(&bus, "s.a").await;
    let backlog = backlog(&bus, &origin).await;
    assert_eq!((backlog.unsettled(), backlog.discarded.known), (4, 0));
    assert_eq!(backlog.oldest.map(|oldest| oldest.sequence), Some(5));
}

async fn the_backlog_of_a_durable_that_is_gone_is_an_error(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    let origin = durable(&bus, "s").await;
    bus.delete_durable("S", "d").await.unwrap();
    let error = bus.backlog(&origin).await.unwrap_err();
    assert!(matches!(error, cofferdam_bus::Error::Gone { .. }), "{error:?}");
    // Another of the same name is not it.
    durable(&bus, "s").await;
    assert!(bus.backlog(&origin).await.is_err());
}
