//! Durables: what is delivered, to whom, how often and when again.

use std::{collections::BTreeSet, time::Duration};

use cofferdam_bus::Error;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::*;

conformance![
    a_durable_delivers_what_its_filter_matches_and_nothing_else,
    a_new_durable_delivers_what_its_stream_held_before,
    what_was_acked_never_comes_again,
    what_was_given_up_never_comes_again,
    a_nak_brings_the_event_again_at_once_with_a_higher_count,
    a_nak_with_delay_brings_it_after_the_delay,
    without_an_ack_it_comes_again_after_the_ack_wait,
    in_progress_begins_the_ack_wait_anew,
    what_waits_in_the_buffer_is_not_delivered_twice,
    max_deliver_ends_redelivery,
    no_more_than_max_ack_pending_are_out_at_once,
    hosts_share_a_durable_and_each_event_goes_to_one,
    two_durables_get_every_event_each,
    a_close_hands_back_what_was_not_taken,
    an_existing_durable_is_used_and_has_the_same_identity,
    a_durable_with_other_settings_is_an_error_that_shows_both_sides,
    a_durable_without_a_stream_is_an_error,
    a_durable_made_anew_has_another_identity,
    a_durable_is_found_as_it_is_and_not_made_by_looking,
    deliveries_of_a_deleted_durable_end_with_an_error,
    at_most_the_buffer_is_fetched_ahead,
    a_subscription_that_is_given_up_takes_nothing_along,
    a_wait_for_the_next_that_is_given_up_loses_nothing,
];

fn spec(durable: &str) -> ConsumerSpec {
    consumer_spec("S", durable, "s.>")
}

async fn a_durable_delivers_what_its_filter_matches_and_nothing_else(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    for (n, subject) in ["s.a", "s.b", "s.a.x", "s.b.x", "s.a.x.y"].into_iter().enumerate() {
        put(&bus, subject, n.to_string()).await;
    }
    for (n, (filter, expected)) in [
        ("s.>", &["0", "1", "2", "3", "4"][..]),
        ("s.*", &["0", "1"]),
        ("s.*.x", &["2", "3"]),
        ("s.a.>", &["2", "4"]),
        ("s.a", &["0"]),
    ]
    .into_iter()
    .enumerate()
    {
        let (origin, mut deliveries) = follow(&bus, &consumer_spec("S", &format!("d{n}"), filter)).await;
        for want in expected {
            let delivery = next(&mut deliveries).await;
            assert_eq!(text(&delivery), *want, "{filter}");
            assert_eq!(delivery.id(), format!("{}.{}", origin.id, delivery.stored.sequence));
        }
        nothing_for(&mut deliveries, Duration::from_millis(50)).await;
    }
}

async fn a_new_durable_delivers_what_its_stream_held_before(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.1", "before").await;
    let (_, mut deliveries) = follow(&bus, &spec("d")).await;
    assert_eq!(text(&next(&mut deliveries).await), "before");
    put(&bus, "s.1", "after").await;
    assert_eq!(text(&next(&mut deliveries).await), "after");
}

async fn what_was_acked_never_comes_again(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let short = ConsumerSpec { ack_wait: Duration::from_millis(300), ..spec("d") };
    let (_, mut deliveries) = follow(&bus, &short).await;
    for n in 0..20 {
        put(&bus, "s.1", n.to_string()).await;
        next(&mut deliveries).await.ack().await.unwrap();
    }
    nothing_for(&mut deliveries, Duration::from_millis(700)).await;
    deliveries.close().await;
    let (_, mut deliveries) = follow(&world.bus().await, &short).await;
    nothing_for(&mut deliveries, Duration::from_millis(400)).await;
}

async fn what_was_given_up_never_comes_again(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let short = ConsumerSpec { ack_wait: Duration::from_millis(300), ..spec("d") };
    let (_, mut deliveries) = follow(&bus, &short).await;
    put(&bus, "s.1", "x").await;
    put(&bus, "s.1", "y").await;
    next(&mut deliveries).await.term().await.unwrap();
    let second = next(&mut deliveries).await;
    assert_eq!(text(&second), "y", "the others go on");
    second.ack().await.unwrap();
    nothing_for(&mut deliveries, Duration::from_millis(700)).await;
}

async fn a_nak_brings_the_event_again_at_once_with_a_higher_count(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.1", "x").await;
    let (_, mut deliveries) = follow(&bus, &spec("d")).await;
    let mut id = None;
    for count in 1..=4 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.count, count);
        assert_eq!(*id.get_or_insert(delivery.id().to_owned()), delivery.id());
        delivery.nak(None).await.unwrap();
    }
}

async fn a_nak_with_delay_brings_it_after_the_delay(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.1", "x").await;
    let (_, mut deliveries) = follow(&bus, &spec("d")).await;
    let delay = Duration::from_millis(700);
    let first = next(&mut deliveries).await;
    let began = Instant::now();
    first.nak(Some(delay)).await.unwrap();
    put(&bus, "s.1", "y").await;
    assert_eq!(text(&next(&mut deliveries).await), "y", "others are not held up");
    assert_eq!(text(&next(&mut deliveries).await), "x");
    assert!(began.elapsed() >= delay - Duration::from_millis(20), "after {:?}", began.elapsed());
}

async fn without_an_ack_it_comes_again_after_the_ack_wait(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.1", "x").await;
    let wait = Duration::from_millis(600);
    let (_, mut deliveries) = follow(&bus, &ConsumerSpec { ack_wait: wait, ..spec("d") }).await;
    let began = Instant::now();
    drop(next(&mut deliveries).await);
    let again = next(&mut deliveries).await;
    assert_eq!(again.count, 2);
    assert!(began.elapsed() >= wait - Duration::from_millis(100), "after {:?}", began.elapsed());
}

async fn in_progress_begins_the_ack_wait_anew(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.1", "x").await;
    let wait = Duration::from_millis(700);
    let (_, mut deliveries) = follow(&bus, &ConsumerSpec { ack_wait: wait, ..spec("d") }).await;
    let delivery = next(&mut deliveries).await;
    let began = Instant::now();
    while began.elapsed() < wait * 3 {
        delivery.in_progress().await.unwrap();
        nothing_for(&mut deliveries, wait / 5).await;
    }
    drop(delivery);
    assert_eq!(next(&mut deliveries).await.count, 2);
}

async fn what_waits_in_the_buffer_is_not_delivered_twice(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    for n in 0..10 {
        put(&bus, "s.1", n.to_string()).await;
    }
    let wait = Duration::from_millis(600);
    let (_, mut deliveries) = follow(&bus, &ConsumerSpec { ack_wait: wait, ..spec("d") }).await;
    let first = next(&mut deliveries).await;
    first.ack().await.unwrap();
    // The caller is busy for longer than the ack wait.
    tokio::time::sleep(wait * 3).await;
    for n in 1..10 {
        let delivery = next(&mut deliveries).await;
        assert_eq!((text(&delivery), delivery.count), (n.to_string().as_str(), 1));
        delivery.ack().await.unwrap();
    }
    nothing_for(&mut deliveries, wait * 2).await;
}

async fn max_deliver_ends_redelivery(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.1", "x").await;
    let limited = ConsumerSpec { ack_wait: Duration::from_millis(300), max_deliver: Some(3), ..spec("d") };
    let (_, mut deliveries) = follow(&bus, &limited).await;
    for count in 1..=3 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.count, count);
        delivery.nak(None).await.unwrap();
    }
    nothing_for(&mut deliveries, Duration::from_secs(1)).await;
    put(&bus, "s.1", "y").await;
    assert_eq!(text(&next(&mut deliveries).await), "y");
}

async fn no_more_than_max_ack_pending_are_out_at_once(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    for n in 0..10 {
        put(&bus, "s.1", n.to_string()).await;
    }
    let (_, mut deliveries) = follow(&bus, &ConsumerSpec { max_ack_pending: 3, ..spec("d") }).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(&mut deliveries).await);
    }
    nothing_for(&mut deliveries, Duration::from_millis(200)).await;
    held.remove(0).ack().await.unwrap();
    assert_eq!(text(&next(&mut deliveries).await), "3");
    nothing_for(&mut deliveries, Duration::from_millis(100)).await;
}

async fn hosts_share_a_durable_and_each_event_goes_to_one(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    stream(&one, "S", &["s.>"]).await;
    let (a, mut first) = follow(&one, &spec("d")).await;
    let (b, mut second) = follow(&two, &spec("d")).await;
    assert_eq!(a, b);
    for n in 0..100 {
        put(&one, "s.1", n.to_string()).await;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 100 {
        let delivery = soon("a delivery", async {
            tokio::select! {
                d = first.next() => d.unwrap(),
                d = second.next() => d.unwrap(),
            }
        })
        .await;
        assert_eq!(delivery.count, 1);
        assert!(seen.insert(delivery.stored.sequence), "{delivery:?} came to both");
        delivery.ack().await.unwrap();
    }
}

async fn two_durables_get_every_event_each(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.1", "x").await;
    let (a, mut first) = follow(&bus, &spec("a")).await;
    let (b, mut second) = follow(&bus, &spec("b")).await;
    assert_ne!(a.id, b.id);
    let (x, y) = (next(&mut first).await, next(&mut second).await);
    assert_eq!((text(&x), text(&y)), ("x", "x"));
    assert_ne!(x.id(), y.id(), "what one does with an event is not what the other does");
}

async fn a_close_hands_back_what_was_not_taken(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    stream(&one, "S", &["s.>"]).await;
    for n in 0..10 {
        put(&one, "s.1", n.to_string()).await;
    }
    let (_, mut first) = follow(&one, &spec("d")).await;
    let taken = next(&mut first).await;
    first.close().await;
    let (_, mut second) = follow(&two, &spec("d")).await;
    let began = Instant::now();
    let mut seen = BTreeSet::new();
    for _ in 1..10 {
        let delivery = next(&mut second).await;
        seen.insert(delivery.stored.sequence);
        delivery.ack().await.unwrap();
    }
    assert_eq!(seen, (2..=10).collect());
    assert!(began.elapsed() < Duration::from_secs(15), "not by the ack wait of 30 s");
    taken.ack().await.unwrap();
}

async fn an_existing_durable_is_used_and_has_the_same_identity(mut world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let origin = bus.ensure_consumer(&spec("d")).await.unwrap();
    assert_eq!(bus.ensure_consumer(&spec("d")).await.unwrap(), origin);
    assert_eq!(world.bus().await.ensure_consumer(&spec("d")).await.unwrap(), origin);
    drop(bus);
    world.restart().await;
    assert_eq!(world.bus().await.ensure_consumer(&spec("d")).await.unwrap(), origin);
}

async fn a_durable_with_other_settings_is_an_error_that_shows_both_sides(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    bus.ensure_consumer(&spec("d")).await.unwrap();
    for (other, ours, theirs) in [
        (ConsumerSpec { ack_wait: Duration::from_secs(9), ..spec("d") }, "9s", "30s"),
        (ConsumerSpec { filter: "s.x".into(), ..spec("d") }, "s.x", "s.>"),
        (ConsumerSpec { max_deliver: Some(4), ..spec("d") }, "4", "unlimited"),
        (ConsumerSpec { max_ack_pending: 7, ..spec("d") }, "7", "1000"),
    ] {
        match bus.ensure_consumer(&other).await {
            Err(e @ Error::Differs { what: "durable", .. }) => {
                let e = e.to_string();
                assert!(e.contains("S/d") && e.contains(ours) && e.contains(theirs), "{e}");
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn a_durable_without_a_stream_is_an_error(world: World) {
    let bus = world.bus().await;
    let made = bus.ensure_consumer(&spec("d")).await;
    assert_eq!(made, Err(Error::Gone { what: "stream", name: "S".into() }));
}

async fn a_durable_made_anew_has_another_identity(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let first = bus.ensure_consumer(&spec("d")).await.unwrap();
    bus.delete_durable("S", "d").await.unwrap();
    let second = bus.ensure_consumer(&spec("d")).await.unwrap();
    bus.delete_stream("S").await.unwrap();
    stream(&bus, "S", &["s.>"]).await;
    let third = bus.ensure_consumer(&spec("d")).await.unwrap();
    let ids: BTreeSet<_> = [&first, &second, &third].map(|o| o.id.clone()).into();
    assert_eq!(ids.len(), 3);
}

async fn a_durable_is_found_as_it_is_and_not_made_by_looking(world: World) {
    let bus = world.bus().await;
    assert_eq!(bus.durable("S", "d").await, Ok(None));
    stream(&bus, "S", &["s.>"]).await;
    for name in ["d", "", "a.b", "*"] {
        assert_eq!(bus.durable("S", name).await, Ok(None), "{name:?}");
    }
    let made = bus.ensure_consumer(&spec("d")).await.unwrap();
    let ordered = ConsumerSpec { ordered: true, ..spec("o") };
    let ordered = bus.ensure_consumer(&ordered).await.unwrap();
    for made in [made, ordered] {
        assert_eq!(bus.durable("S", &made.durable).await, Ok(Some(made.clone())));
        put(&bus, "s.1", "x").await;
        assert!(bus.backlog(&made).await.unwrap().waiting >= 1);
    }
    bus.delete_durable("S", "d").await.unwrap();
    assert_eq!(bus.durable("S", "d").await, Ok(None));
}

async fn deliveries_of_a_deleted_durable_end_with_an_error(world: World) {
    let bus = world.bus().await;
    for stream_too in [true, false] {
        stream(&bus, "S", &["s.>"]).await;
        let (_, mut deliveries) = follow(&bus, &spec("d")).await;
        put(&bus, "s.1", "x").await;
        next(&mut deliveries).await.ack().await.unwrap();
        match stream_too {
            true => bus.delete_stream("S").await.unwrap(),
            false => bus.delete_durable("S", "d").await.unwrap(),
        }
        for _ in 0..2 {
            match soon("an error", deliveries.next()).await {
                Err(e) => assert_eq!(e, Error::Gone { what: "durable", name: "S/d".into() }),
                Ok(delivery) => panic!("{delivery:?}"),
            }
        }
    }
    // Made anew, it begins anew.
    let (_, mut deliveries) = follow(&bus, &spec("d")).await;
    assert_eq!(text(&next(&mut deliveries).await), "x");
}

async fn at_most_the_buffer_is_fetched_ahead(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    stream(&one, "S", &["s.>"]).await;
    for n in 0..20 {
        put(&one, "s.1", n.to_string()).await;
    }
    let origin = one.ensure_consumer(&spec("d")).await.unwrap();
    let mut small = one.deliveries(&origin, 4).await.unwrap();
    let taken = next(&mut small).await;
    let (_, mut rest) = follow(&two, &spec("d")).await;
    // One taken and four ahead at most; a small one refills in steps of half its buffer.
    for _ in 0..15 {
        next(&mut rest).await.ack().await.unwrap();
    }
    taken.ack().await.unwrap();
    for _ in 0..4 {
        let delivery = soon("a delivery", async {
            tokio::select! { d = small.next() => d, d = rest.next() => d }
        });
        delivery.await.unwrap().ack().await.unwrap();
    }
}

async fn a_subscription_that_is_given_up_takes_nothing_along(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    stream(&one, "S", &["s.>"]).await;
    let origin = one.ensure_consumer(&spec("d")).await.unwrap();
    two.ensure_consumer(&spec("d")).await.unwrap();
    for _ in 0..10 {
        // Given up before there is an answer.
        drop(two.deliveries(&origin, 16).now_or_never());
    }
    let (_, mut deliveries) = follow(&one, &spec("d")).await;
    let began = Instant::now();
    for n in 1..=40 {
        put(&one, "s.1", n.to_string()).await;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 40 {
        let delivery = next(&mut deliveries).await;
        delivery.ack().await.unwrap();
        seen.insert(delivery.stored.sequence);
    }
    assert!(began.elapsed() < Duration::from_secs(15), "not by the ack wait of 30 s");
}

async fn a_wait_for_the_next_that_is_given_up_loses_nothing(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let (_, mut deliveries) = follow(&bus, &spec("d")).await;
    let feed = tokio::spawn({
        let bus = bus.clone();
        async move {
            for n in 1..=100 {
                put(&bus, "s.1", n.to_string()).await;
            }
        }
    });
    let (mut expected, mut tries) = (1, 0);
    let began = Instant::now();
    while expected <= 100 {
        tries += 1;
        let wait = Duration::from_micros(tries % 7 * 100);
        let Ok(delivery) = tokio::time::timeout(wait, deliveries.next()).await else { continue };
        let delivery = delivery.unwrap();
        assert_eq!((delivery.stored.sequence, delivery.count), (expected, 1));
        delivery.ack().await.unwrap();
        expected += 1;
        assert!(began.elapsed() < PATIENCE, "at {expected}");
    }
    feed.await.unwrap();
}
