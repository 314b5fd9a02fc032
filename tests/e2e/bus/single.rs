//! One message of a stream, by its sequence: reading it, and deleting it from between its neighbours.

use std::time::Duration;

use cofferdam_bus::Error;

use super::*;

conformance![
    a_message_is_read_by_its_sequence,
    a_deleted_message_is_gone_and_its_neighbours_stay,
    of_several_who_delete_a_message_one_is_told_that_it_did,
    what_came_before_a_deleted_message_is_the_last_of_its_subject,
    a_deleted_message_makes_room,
    a_durable_passes_over_what_was_deleted,
    what_was_delivered_and_deleted_does_not_come_again,
    a_sequence_is_not_given_again_after_a_restart,
    no_message_of_a_missing_stream_is_read_or_deleted,
];

/// A stream `S` that holds the data `1` to `count` under `s.a`, `s.b`, `s.a` and so on.
async fn filled(bus: &Arc<dyn Bus>, count: u64) {
    stream(bus, "S", &["s.>"]).await;
    for n in 1..=count {
        let subject = if n % 2 == 1 { "s.a" } else { "s.b" };
        assert_eq!(put(bus, subject, n.to_string()).await, n);
    }
}

async fn delete(bus: &Arc<dyn Bus>, sequence: u64) -> bool {
    soon("a deletion", bus.delete_message("S", sequence)).await.unwrap()
}

async fn left(bus: &Arc<dyn Bus>) -> Vec<u64> {
    held(bus, "S", "s.>").await.iter().map(|stored| stored.sequence).collect()
}

async fn a_message_is_read_by_its_sequence(world: World) {
    let bus = world.bus().await;
    filled(&bus, 3).await;
    let found = bus.message("S", 2).await.unwrap().unwrap();
    assert_eq!(Some(&found), held(&bus, "S", "s.b").await.first());
    assert_eq!((found.sequence, &found.message.data[..]), (2, &b"2"[..]));
    for missing in [0, 4, u64::MAX] {
        assert_eq!(bus.message("S", missing).await, Ok(None), "{missing}");
    }
    let headers = vec![("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())];
    let sent = Message { headers, ..message("s.c", vec!["x"; 1000].concat()) };
    let sequence = bus.publish(sent.clone(), Publish::default()).await.unwrap().sequence;
    assert_eq!(bus.message("S", sequence).await.unwrap().unwrap().message, sent);
}

async fn a_deleted_message_is_gone_and_its_neighbours_stay(world: World) {
    let bus = world.bus().await;
    filled(&bus, 6).await;
    for sequence in [3, 1, 6] {
        assert!(delete(&bus, sequence).await);
        assert_eq!(bus.message("S", sequence).await, Ok(None));
        assert!(!delete(&bus, sequence).await, "{sequence} is deleted");
    }
    for missing in [0, 7, u64::MAX] {
        assert!(!delete(&bus, missing).await, "{missing} never was");
    }
    assert_eq!(left(&bus).await, [2, 4, 5]);
    assert_eq!(put(&bus, "s.a", "7").await, 7);
    assert_eq!(left(&bus).await, [2, 4, 5, 7]);
    for sequence in [2, 4, 5, 7] {
        assert!(delete(&bus, sequence).await);
    }
    assert_eq!(left(&bus).await, [0; 0]);
    assert_eq!(bus.last("s.a").await, Ok(None));
    assert_eq!(put(&bus, "s.a", "8").await, 8);
    assert_eq!(left(&bus).await, [8]);
}

async fn of_several_who_delete_a_message_one_is_told_that_it_did(world: World) {
    let bus = world.bus().await;
    filled(&bus, 20).await;
    let other = world.bus().await;
    for sequence in 1..=20 {
        let (one, two) = tokio::join!(delete(&bus, sequence), delete(&other, sequence));
        assert!(one != two, "{sequence}: {one} and {two}");
    }
}

async fn what_came_before_a_deleted_message_is_the_last_of_its_subject(world: World) {
    let bus = world.bus().await;
    filled(&bus, 6).await;
    let expecting =
        |expected| Publish { expected_last_subject_sequence: Some(expected), ..Publish::default() };
    assert!(delete(&bus, 5).await);
    assert_eq!(bus.last("s.a").await.unwrap().unwrap().sequence, 3);
    assert_eq!(bus.last("s.b").await.unwrap().unwrap().sequence, 6);
    for wrong in [0, 5] {
        let refused = bus.publish(message("s.a", "x"), expecting(wrong)).await;
        assert_eq!(
            refused,
            Err(Error::WrongLastSequence { subject: "s.a".into(), expected: wrong }),
            "{wrong}"
        );
    }
    assert_eq!(bus.publish(message("s.a", "x"), expecting(3)).await.unwrap().sequence, 7);
    for sequence in [7, 3, 1] {
        assert!(delete(&bus, sequence).await);
    }
    assert_eq!(bus.publish(message("s.a", "x"), expecting(0)).await.unwrap().sequence, 8);
}

async fn a_deleted_message_makes_room(world: World) {
    let bus = world.bus().await;
    bus.ensure_stream(&StreamSpec { max_messages: Some(4), ..stream_spec("S", &["s.>"]) }).await.unwrap();
    filled(&bus, 4).await;
    assert!(delete(&bus, 3).await);
    put(&bus, "s.a", "5").await;
    assert_eq!(left(&bus).await, [1, 2, 4, 5]);
    put(&bus, "s.a", "6").await;
    assert_eq!(left(&bus).await, [2, 4, 5, 6]);
}

async fn a_durable_passes_over_what_was_deleted(world: World) {
    let bus = world.bus().await;
    filled(&bus, 5).await;
    for sequence in [1, 3] {
        assert!(delete(&bus, sequence).await);
    }
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s.>")).await;
    for sequence in [2, 4, 5] {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.stored.sequence, sequence);
        delivery.ack().await.unwrap();
    }
    put(&bus, "s.a", "6").await;
    assert_eq!(text(&next(&mut deliveries).await), "6");
}

async fn what_was_delivered_and_deleted_does_not_come_again(world: World) {
    let bus = world.bus().await;
    filled(&bus, 3).await;
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s.>")).await;
    let taken = [next(&mut deliveries).await, next(&mut deliveries).await, next(&mut deliveries).await];
    assert!(delete(&bus, 2).await);
    for delivery in &taken {
        delivery.nak(None).await.unwrap();
    }
    let mut again =
        [next(&mut deliveries).await.stored.sequence, next(&mut deliveries).await.stored.sequence];
    again.sort_unstable();
    assert_eq!(again, [1, 3]);
    nothing_for(&mut deliveries, Duration::from_millis(300)).await;
}

async fn a_sequence_is_not_given_again_after_a_restart(mut world: World) {
    let bus = world.bus().await;
    filled(&bus, 4).await;
    for sequence in [2, 4] {
        assert!(delete(&bus, sequence).await);
    }
    drop(bus);
    world.restart().await;
    let bus = world.bus().await;
    assert_eq!(left(&bus).await, [1, 3]);
    assert_eq!(bus.last("s.b").await, Ok(None));
    assert!(!delete(&bus, 4).await);
    assert_eq!(put(&bus, "s.b", "5").await, 5);
}

async fn no_message_of_a_missing_stream_is_read_or_deleted(world: World) {
    let bus = world.bus().await;
    for name in ["S", "a.b", "", "*"] {
        let gone = Error::Gone { what: "stream", name: name.to_owned() };
        assert_eq!(bus.message(name, 1).await, Err(gone.clone()));
        assert_eq!(bus.delete_message(name, 1).await, Err(gone));
    }
}
