//! The stream of our own: the newest message of each subject, each with a time to live of its own if it says so.

use std::time::Duration;

use cofferdam_bus::Error;
use tokio::time::Instant;

use super::*;

conformance![
    our_stream_is_there_and_covers_its_subjects,
    our_stream_keeps_the_newest_message_of_each_subject,
    a_replaced_message_does_not_come_and_blocks_nothing,
    the_expected_sequence_decides_in_our_stream_too,
    a_message_with_a_time_to_live_ends_with_it,
    a_message_that_has_ended_does_not_come_and_blocks_nothing,
    a_time_to_live_goes_on_over_a_restart,
    a_new_message_has_its_own_time_to_live,
    a_malformed_time_to_live_is_refused,
    other_streams_take_no_time_to_live,
];

fn living(subject: &str, data: &str, ttl: &str) -> Message {
    Message { headers: vec![("Nats-TTL".into(), ttl.into())], ..message(subject, data) }
}

async fn put_living(bus: &Arc<dyn Bus>, subject: &str, data: &str, ttl: &str) -> u64 {
    bus.publish(living(subject, data, ttl), Publish::default()).await.expect("a publish").sequence
}

fn jobs() -> ConsumerSpec {
    ConsumerSpec {
        ack_wait: Duration::from_millis(600),
        max_ack_pending: 1,
        ..consumer_spec("COFFERDAM", "d", "cd.j.*")
    }
}

async fn our_stream_is_there_and_covers_its_subjects(world: World) {
    let bus = world.bus().await;
    let ours = bus.covering("cd.j.x").await.unwrap().expect("our stream");
    assert_eq!((ours.name.as_str(), ours.subjects.as_slice()), ("COFFERDAM", &["cd.>".to_owned()][..]));
    assert_eq!(bus.streams().await.unwrap(), std::slice::from_ref(&ours));
    assert_eq!(bus.ensure_stream(&stream_spec("JOBS", &["cd.j.*"])).await.unwrap(), ours);
}

async fn our_stream_keeps_the_newest_message_of_each_subject(world: World) {
    let bus = world.bus().await;
    let mut last = 0;
    for n in 0..6 {
        let sequence = put(&bus, &format!("cd.j.{}", n % 2), n.to_string()).await;
        assert!(sequence > last);
        last = sequence;
    }
    assert_eq!(data(&stored(&bus, "COFFERDAM", "cd.j.>").await), ["4", "5"]);
    assert_eq!(bus.last("cd.j.0").await.unwrap().unwrap().message.data, "4");
    let (_, mut deliveries) = follow(&bus, &consumer_spec("COFFERDAM", "d", "cd.j.*")).await;
    for n in ["4", "5"] {
        assert_eq!(text(&next(&mut deliveries).await), n);
    }
}

async fn a_replaced_message_does_not_come_and_blocks_nothing(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = follow(&bus, &jobs()).await;
    put(&bus, "cd.j.a", "1").await;
    let taken = next(&mut deliveries).await;
    put(&bus, "cd.j.b", "2").await;
    // Replaces the one that is out, and the one that waits.
    put(&bus, "cd.j.a", "3").await;
    put(&bus, "cd.j.b", "4").await;
    drop(taken);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|n| n != "4") {
        let delivery = next(&mut deliveries).await;
        seen.push(text(&delivery).to_owned());
        delivery.ack().await.unwrap();
    }
    // The second may have been on its way when it was replaced.
    seen.retain(|n| n != "2");
    assert_eq!(seen, ["3", "4"]);
    nothing_for(&mut deliveries, Duration::from_millis(900)).await;
}

async fn the_expected_sequence_decides_in_our_stream_too(world: World) {
    let bus = world.bus().await;
    let expecting = |n| Publish { expected_last_subject_sequence: Some(n), ..Publish::default() };
    let wrong = |expected| Err(Error::WrongLastSequence { subject: "cd.j.a".into(), expected });
    let first = bus.publish(message("cd.j.a", "1"), expecting(0)).await.unwrap().sequence;
    assert_eq!(bus.publish(message("cd.j.a", "2"), expecting(0)).await, wrong(0));
    put(&bus, "cd.j.b", "x").await;
    let second = bus.publish(message("cd.j.a", "3"), expecting(first)).await.unwrap().sequence;
    assert_eq!(bus.publish(message("cd.j.a", "4"), expecting(first)).await, wrong(first));
    assert_eq!(bus.last("cd.j.a").await.unwrap().unwrap().sequence, second);
    // A subject whose message has ended has none.
    put_living(&bus, "cd.j.c", "x", "1s").await;
    assert!(bus.publish(message("cd.j.c", "y"), expecting(0)).await.is_err());
    ended(&bus, "cd.j.c").await;
    bus.publish(message("cd.j.c", "y"), expecting(0)).await.unwrap();
}

async fn a_message_with_a_time_to_live_ends_with_it(world: World) {
    let bus = world.bus().await;
    let began = Instant::now();
    put_living(&bus, "cd.j.a", "brief", "1s").await;
    put_living(&bus, "cd.j.b", "long", "1h").await;
    put(&bus, "cd.j.c", "for ever").await;
    let last = bus.last("cd.j.a").await.unwrap().unwrap();
    assert_eq!(last.message.headers, [("Nats-TTL".to_owned(), "1s".to_owned())]);
    ended(&bus, "cd.j.a").await;
    let after = began.elapsed();
    assert!(after >= Duration::from_millis(950) && after < Duration::from_secs(10), "after {after:?}");
    assert_eq!(data(&stored(&bus, "COFFERDAM", "cd.j.>").await), ["long", "for ever"]);
}

async fn a_message_that_has_ended_does_not_come_and_blocks_nothing(world: World) {
    let bus = world.bus().await;
    put_living(&bus, "cd.j.a", "before", "1s").await;
    ended(&bus, "cd.j.a").await;
    // Longer than the time to live: it ends while it is out.
    let spec = ConsumerSpec { ack_wait: Duration::from_secs(2), ..jobs() };
    let (_, mut deliveries) = follow(&bus, &spec).await;
    put_living(&bus, "cd.j.b", "held", "1s").await;
    let held = next(&mut deliveries).await;
    assert_eq!(text(&held), "held");
    put(&bus, "cd.j.c", "after").await;
    ended(&bus, "cd.j.b").await;
    drop(held);
    let delivery = next(&mut deliveries).await;
    assert_eq!(text(&delivery), "after");
    delivery.ack().await.unwrap();
    nothing_for(&mut deliveries, Duration::from_millis(1200)).await;
}

async fn a_time_to_live_goes_on_over_a_restart(mut world: World) {
    let bus = world.bus().await;
    put_living(&bus, "cd.j.during", "x", "1s").await;
    put_living(&bus, "cd.j.after", "x", "2s").await;
    put_living(&bus, "cd.j.long", "x", "1h").await;
    let began = Instant::now();
    drop(bus);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.restart().await;
    let bus = world.bus().await;
    ended(&bus, "cd.j.during").await;
    ended(&bus, "cd.j.after").await;
    assert!(began.elapsed() >= Duration::from_millis(1900), "after {:?}", began.elapsed());
    assert!(bus.last("cd.j.long").await.unwrap().is_some());
}

async fn a_new_message_has_its_own_time_to_live(world: World) {
    let bus = world.bus().await;
    put_living(&bus, "cd.j.a", "brief", "1s").await;
    put(&bus, "cd.j.a", "for ever").await;
    put_living(&bus, "cd.j.b", "brief", "1s").await;
    put_living(&bus, "cd.j.b", "long", "1h").await;
    put_living(&bus, "cd.j.c", "brief", "1s").await;
    ended(&bus, "cd.j.c").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(data(&stored(&bus, "COFFERDAM", "cd.j.>").await), ["for ever", "long"]);
}

async fn a_malformed_time_to_live_is_refused(world: World) {
    let bus = world.bus().await;
    for bad in ["soon", "1 s", "-1s", "100ms", "1x", "0s"] {
        let e = bus.publish(living("cd.j.a", "x", bad), Publish::default()).await;
        assert!(matches!(e, Err(Error::Refused(_))), "{bad:?}: {e:?}");
    }
    assert_eq!(bus.last("cd.j.a").await, Ok(None));
    for good in ["60s", "never", "86400s"] {
        put_living(&bus, "cd.j.a", "x", good).await;
    }
}

async fn other_streams_take_no_time_to_live(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    let e = bus.publish(living("s", "x", "1h"), Publish::default()).await;
    assert!(matches!(e, Err(Error::Refused(_))), "{e:?}");
    assert_eq!(bus.last("s").await, Ok(None));
}
