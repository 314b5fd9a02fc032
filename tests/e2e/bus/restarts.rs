//! What was confirmed is there after a restart, and goes on as it was.

use std::{collections::BTreeSet, time::Duration};

use cofferdam_bus::{CommitError, Committed, Error};
use tokio::time::Instant;

use super::{
    commits::{commit, out, plant},
    kv::{bucket, bytes, entry, seen},
    *,
};

conformance![
    messages_survive_a_restart_and_sequences_go_on,
    streams_and_durables_keep_their_settings_over_a_restart,
    limits_go_on_over_a_restart,
    a_commit_survives_a_restart_and_its_event_does_not_come_again,
    a_cell_goes_on_after_a_restart,
    acks_survive_a_restart,
    the_unacked_come_again_after_a_restart_with_a_count_of_at_least_one,
    what_was_never_delivered_comes_after_a_restart,
    a_nak_delay_survives_a_restart,
    message_ids_are_remembered_over_a_restart,
    the_expected_sequence_is_known_after_a_restart,
    a_bucket_survives_a_restart,
    a_reader_begins_after_a_restart_where_one_ended_before,
    many_restarts_change_nothing,
];

fn short(wait: Duration) -> ConsumerSpec {
    ConsumerSpec { ack_wait: wait, ..consumer_spec("S", "d", "s.>") }
}

/// The sequences that come until nothing has come for `quiet`; all are acked.
async fn drain(deliveries: &mut Box<dyn Deliveries>, quiet: Duration) -> Vec<u64> {
    let mut seen = Vec::new();
    while let Ok(delivery) = tokio::time::timeout(quiet, deliveries.next()).await {
        let delivery = delivery.unwrap();
        delivery.ack().await.unwrap();
        seen.push(delivery.stored.sequence);
    }
    seen
}

async fn messages_survive_a_restart_and_sequences_go_on(mut world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    for n in 0..50u8 {
        let headers = vec![("B".to_owned(), n.to_string()), ("B".to_owned(), "0".to_owned())];
        let data = Bytes::from(vec![n; n as usize]);
        let sent = Message { subject: format!("s.{}", n % 3), headers, data };
        bus.publish(sent, Publish::default()).await.unwrap();
    }
    let before = held(&bus, "S", "s.>").await;
    drop(bus);
    world.restart().await;
    let bus = world.bus().await;
    assert_eq!(held(&bus, "S", "s.>").await, before);
    assert_eq!(bus.last("s.1").await.unwrap().as_ref(), before.iter().rfind(|s| s.message.subject == "s.1"));
    assert_eq!(put(&bus, "s.1", "x").await, 51);
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s.>")).await;
    for expected in &before {
        assert_eq!(next(&mut deliveries).await.stored, *expected);
    }
}

async fn streams_and_durables_keep_their_settings_over_a_restart(mut world: World) {
    let bus = world.bus().await;
    let window = Some(Duration::from_secs(9));
    let spec = StreamSpec { duplicate_window: window, ..stream_spec("S", &["s.>", "t"]) };
    let made = bus.ensure_stream(&spec).await.unwrap();
    let durable = ConsumerSpec { max_deliver: Some(4), max_ack_pending: 7, ..consumer_spec("S", "d", "s.*") };
    let origin = bus.ensure_consumer(&durable).await.unwrap();
    drop(bus);
    world.restart().await;
    let bus = world.bus().await;
    assert_eq!(bus.covering("s.x").await.unwrap(), Some(made.clone()));
    assert_eq!(bus.ensure_stream(&spec).await.unwrap(), made);
    assert_eq!(bus.ensure_consumer(&durable).await.unwrap(), origin);
    let other = ConsumerSpec { max_ack_pending: 8, ..durable };
    assert!(matches!(bus.ensure_consumer(&other).await, Err(Error::Differs { .. })));
}

async fn limits_go_on_over_a_restart(mut world: World) {
    let bus = world.bus().await;
    bus.ensure_stream(&StreamSpec { max_messages: Some(3), ..stream_spec("S", &["s"]) }).await.unwrap();
    bus.ensure_stream(&StreamSpec { max_bytes: Some(10_000), ..stream_spec("B", &["b"]) }).await.unwrap();
    for _ in 0..5 {
        put(&bus, "s", "x").await;
        put(&bus, "b", "x".repeat(3000)).await;
    }
    drop(bus);
    world.restart().await;
    let bus = world.bus().await;
    let sequences = async |stream: &str, subject: &str| {
        held(&bus, stream, subject).await.iter().map(|s| s.sequence).collect::<Vec<_>>()
    };
    assert_eq!((sequences("S", "s").await, sequences("B", "b").await), (vec![3, 4, 5], vec![3, 4, 5]));
    put(&bus, "s", "x").await;
    put(&bus, "b", "x".repeat(6000)).await;
    assert_eq!((sequences("S", "s").await, sequences("B", "b").await), (vec![4, 5, 6], vec![5, 6]));
}

async fn a_commit_survives_a_restart_and_its_event_does_not_come_again(mut world: World) {
    let bus = world.bus().await;
    let (origin, mut deliveries) = plant(&bus).await;
    for (n, point) in [cell("c"), Point::Record, Point::Publish].into_iter().enumerate() {
        put(&bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        let mut change = effects(&[("out.a", &n.to_string())]);
        if matches!(point, Point::Cell { .. }) {
            change.writes.push(write("k", "v"));
        }
        assert_eq!(commit(&bus, &delivery, base, change).await, Ok(Committed::default()));
    }
    deliveries.close().await;
    bus.flush().await;
    drop((bus, deliveries));
    world.restart().await;
    let bus = world.bus().await;
    assert_eq!(data(&out(&bus).await), ["0", "1", "2"]);
    put(&bus, "in.1", "later").await;
    let (again, mut deliveries) = follow(&bus, &consumer_spec("IN", "d", "in.>")).await;
    assert_eq!(again, origin);
    let later = next(&mut deliveries).await;
    assert_eq!(later.stored.sequence, 4);
    assert_eq!(value(&fresh(&bus, &later, &cell("c")).await, "k"), Some("v"));
    nothing_for(&mut deliveries, Duration::from_millis(50)).await;
}

async fn a_cell_goes_on_after_a_restart(mut world: World) {
    for n in 0..4u32 {
        let bus = world.bus().await;
        let (_, mut deliveries) = plant(&bus).await;
        put(&bus, "in.1", "event").await;
        put(&bus, "in.1", "event").await;
        let (first, second) = (next(&mut deliveries).await, next(&mut deliveries).await);
        let base = fresh(&bus, &first, &cell("c")).await;
        let stale = fresh(&bus, &second, &cell("c")).await;
        assert_eq!(value(&base, "n").map(str::to_owned), (n > 0).then(|| (n - 1).to_string()));
        let change = |n: u32| Change { writes: vec![write("n", &n.to_string())], ..Change::default() };
        commit(&bus, &first, base, change(n)).await.unwrap();
        assert_eq!(commit(&bus, &second, stale, change(99)).await, Err(CommitError::Conflict));
        let base = fresh(&bus, &second, &cell("c")).await;
        commit(&bus, &second, base, change(n)).await.unwrap();
        deliveries.close().await;
        bus.flush().await;
        drop((bus, deliveries, first, second));
        world.restart().await;
    }
}

async fn acks_survive_a_restart(mut world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let wait = Duration::from_millis(500);
    let (_, mut deliveries) = follow(&bus, &short(wait)).await;
    for n in 1..=40 {
        put(&bus, "s.1", n.to_string()).await;
    }
    let mut unacked = BTreeSet::new();
    for n in 1..=40u64 {
        let delivery = next(&mut deliveries).await;
        if n == 1 || n == 17 || n == 40 {
            unacked.insert(delivery.stored.sequence);
        } else {
            delivery.ack().await.unwrap();
        }
    }
    deliveries.close().await;
    bus.flush().await;
    drop((bus, deliveries));
    for _ in 0..2 {
        world.restart().await;
    }
    let bus = world.bus().await;
    let (_, mut deliveries) = follow(&bus, &short(wait)).await;
    let mut seen = BTreeSet::new();
    while seen.len() < unacked.len() {
        let delivery = next(&mut deliveries).await;
        delivery.ack().await.unwrap();
        seen.insert(delivery.stored.sequence);
    }
    assert_eq!(seen, unacked);
    assert_eq!(drain(&mut deliveries, wait * 2).await, [0u64; 0]);
}

async fn the_unacked_come_again_after_a_restart_with_a_count_of_at_least_one(mut world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let wait = Duration::from_millis(500);
    let (origin, mut deliveries) = follow(&bus, &short(wait)).await;
    put(&bus, "s.1", "1").await;
    put(&bus, "s.1", "2").await;
    let held = (next(&mut deliveries).await, next(&mut deliveries).await);
    held.0.nak(None).await.unwrap();
    assert_eq!(next(&mut deliveries).await.count, 2);
    bus.flush().await;
    drop((bus, deliveries, held));
    world.restart().await;
    let bus = world.bus().await;
    let (again, mut deliveries) = follow(&bus, &short(wait)).await;
    assert_eq!(again, origin);
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let delivery = next(&mut deliveries).await;
        assert!(delivery.count >= 1, "{}", delivery.count);
        delivery.ack().await.unwrap();
        seen.insert(text(&delivery).to_owned());
    }
}

async fn what_was_never_delivered_comes_after_a_restart(mut world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    bus.ensure_consumer(&consumer_spec("S", "d", "s.>")).await.unwrap();
    for n in 1..=20 {
        put(&bus, "s.1", n.to_string()).await;
    }
    drop(bus);
    world.restart().await;
    let bus = world.bus().await;
    put(&bus, "s.1", "21").await;
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s.>")).await;
    for n in 1..=21 {
        let delivery = next(&mut deliveries).await;
        assert_eq!((delivery.stored.sequence, delivery.count), (n, 1), "in order, for the first time");
        delivery.ack().await.unwrap();
    }
}

async fn a_nak_delay_survives_a_restart(mut world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.1", "x").await;
    let spec = short(Duration::from_secs(20));
    let (_, mut deliveries) = follow(&bus, &spec).await;
    let delay = Duration::from_secs(2);
    let first = next(&mut deliveries).await;
    let began = Instant::now();
    first.nak(Some(delay)).await.unwrap();
    deliveries.close().await;
    bus.flush().await;
    drop((bus, deliveries, first));
    world.restart().await;
    let bus = world.bus().await;
    let (_, mut deliveries) = follow(&bus, &spec).await;
    put(&bus, "s.1", "y").await;
    assert_eq!(text(&next(&mut deliveries).await), "y", "others are not held up");
    assert_eq!(text(&next(&mut deliveries).await), "x");
    // A server keeps it to a second.
    let after = began.elapsed();
    assert!(
        after >= delay - Duration::from_millis(1050) && after < Duration::from_secs(15),
        "after {after:?}"
    );
}

async fn message_ids_are_remembered_over_a_restart(mut world: World) {
    let id = |n: u32| Publish { message_id: Some(format!("id {n}")), ..Publish::default() };
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    for n in 0..50 {
        let ack = bus.publish(message("s", "x"), id(n)).await.unwrap();
        assert!(!ack.duplicate);
    }
    drop(bus);
    world.restart().await;
    let bus = world.bus().await;
    for n in 0..50 {
        let ack = bus.publish(message("s", "x"), id(n)).await.unwrap();
        assert_eq!((ack.duplicate, ack.sequence), (true, u64::from(n) + 1));
    }
    assert!(!bus.publish(message("s", "x"), id(50)).await.unwrap().duplicate);
    assert_eq!(held(&bus, "S", "s").await.len(), 51);
}

async fn the_expected_sequence_is_known_after_a_restart(mut world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.a", "1").await;
    put(&bus, "s.b", "2").await;
    put(&bus, "s.a", "3").await;
    drop(bus);
    world.restart().await;
    let bus = world.bus().await;
    let expecting = |n| Publish { expected_last_subject_sequence: Some(n), ..Publish::default() };
    for (subject, wrong, right) in [("s.a", 1, 3), ("s.b", 0, 2), ("s.c", 2, 0)] {
        let e = bus.publish(message(subject, "x"), expecting(wrong)).await;
        assert_eq!(e, Err(Error::WrongLastSequence { subject: subject.into(), expected: wrong }));
        bus.publish(message(subject, "x"), expecting(right)).await.unwrap();
    }
}

async fn a_bucket_survives_a_restart(mut world: World) {
    let bus = world.bus().await;
    let kv = bucket(&bus).await;
    kv.put("a", bytes("1"), None).await.unwrap();
    kv.put("b", bytes("2"), None).await.unwrap();
    kv.put("a", bytes("3"), None).await.unwrap();
    kv.delete("b", None).await.unwrap();
    kv.put("c", bytes(""), None).await.unwrap();
    drop((bus, kv));
    world.restart().await;
    let kv = bucket(&world.bus().await).await;
    assert_eq!(kv.get("a").await, Ok(Some(entry("a", Some("3"), 3))));
    assert_eq!(kv.get("b").await, Ok(Some(entry("b", None, 4))));
    assert_eq!(kv.keys().await, Ok(vec!["a".into(), "c".into()]));
    let mut watch = kv.watch().await.unwrap();
    for expected in [entry("a", Some("3"), 3), entry("b", None, 4), entry("c", Some(""), 5)] {
        assert_eq!(seen(&mut watch).await, expected);
    }
    assert!(matches!(kv.put("a", bytes("4"), Some(1)).await, Err(Error::WrongLastSequence { .. })));
    assert_eq!(kv.put("a", bytes("4"), Some(3)).await, Ok(6), "revisions go on");
    assert_eq!(seen(&mut watch).await, entry("a", Some("4"), 6));
}

async fn a_reader_begins_after_a_restart_where_one_ended_before(mut world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    for n in 1..=5 {
        put(&bus, "s", n.to_string()).await;
    }
    let mut before = reader(&bus, "S", "s", Start::Sequence(0)).await;
    let last = rest(&mut before).await.pop().unwrap();
    drop((bus, before));
    world.restart().await;
    let bus = world.bus().await;
    put(&bus, "s", "6").await;
    let mut by_sequence = reader(&bus, "S", "s", Start::Sequence(last.sequence + 1)).await;
    let mut by_time = reader(&bus, "S", "s", Start::Time(last.timestamp + 1)).await;
    for after in [&mut by_sequence, &mut by_time] {
        let found = rest(after).await;
        assert_eq!(found.iter().map(|s| s.sequence).collect::<Vec<_>>(), [6]);
    }
}

async fn many_restarts_change_nothing(mut world: World) {
    for n in 1..=8u64 {
        let bus = world.bus().await;
        stream(&bus, "S", &["s.>"]).await;
        let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s.>")).await;
        assert_eq!(put(&bus, "s.1", n.to_string()).await, n);
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.stored.sequence, n, "those before were acked");
        delivery.ack().await.unwrap();
        deliveries.close().await;
        bus.flush().await;
        assert_eq!(held(&bus, "S", "s.>").await.len() as u64, n);
        drop((bus, deliveries, delivery));
        world.restart().await;
    }
}
