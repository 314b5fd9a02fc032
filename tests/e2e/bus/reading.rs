//! Reading what a stream stores: in its order, from a place, without consuming anything.

use std::time::Duration;

use cofferdam_bus::Error;

use super::*;

conformance![
    a_reader_gives_what_is_stored_in_order_and_then_nothing,
    a_reader_gives_what_its_filter_matches_and_nothing_else,
    a_reader_waits_for_what_comes,
    a_reader_begins_at_a_sequence_or_the_first_after_it,
    a_reader_from_a_sequence_still_to_come_waits_for_it,
    a_reader_begins_at_a_time,
    a_reader_from_the_end_gives_what_is_stored_from_now_on,
    readers_consume_nothing_and_do_not_touch_each_other,
    a_reader_passes_over_what_was_discarded,
    a_reader_that_lags_behind_goes_on_with_what_is_left,
    a_long_stream_is_read_whole_while_it_grows,
    large_messages_are_read_whole,
    a_reader_of_a_missing_or_deleted_stream_is_an_error,
    a_reader_takes_no_malformed_filter,
];

async fn filled(bus: &Arc<dyn Bus>, count: u64) {
    stream(bus, "S", &["s.>"]).await;
    for n in 1..=count {
        assert_eq!(put(bus, &format!("s.{}", n % 3), n.to_string()).await, n);
    }
}

fn sequences(found: &[Stored]) -> Vec<u64> {
    found.iter().map(|s| s.sequence).collect()
}

async fn next_sequence(reader: &mut Box<dyn Reader>) -> u64 {
    soon("a message", reader.next()).await.expect("a message").sequence
}

async fn nothing_to_read_for(reader: &mut Box<dyn Reader>, time: Duration) {
    if let Ok(found) = tokio::time::timeout(time, reader.next()).await {
        panic!("nothing was to come, but: {found:?}");
    }
}

async fn a_reader_gives_what_is_stored_in_order_and_then_nothing(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let mut from_empty = reader(&bus, "S", "s.>", Start::Sequence(0)).await;
    assert_eq!(from_empty.stored().await, Ok(None));
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s.>")).await;
    let mut delivered = Vec::new();
    for n in 0..100u32 {
        let headers = vec![("B".into(), n.to_string()), ("a".into(), "1".into()), ("B".into(), "0".into())];
        let how = Publish { message_id: Some(format!("id {n}")), ..Publish::default() };
        let sent = Message { headers, ..message(&format!("s.{}", n % 3), "x".repeat(n as usize)) };
        bus.publish(sent, how).await.unwrap();
        delivered.push(next(&mut deliveries).await.stored);
    }
    assert_eq!(held(&bus, "S", "s.>").await, delivered, "a read gives what a delivery gives");
    assert_eq!(rest(&mut from_empty).await, delivered);
    assert_eq!(from_empty.stored().await, Ok(None), "and again nothing");
}

async fn a_reader_gives_what_its_filter_matches_and_nothing_else(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    for subject in ["s.a", "s.b", "s.a.x", "s.b.x", "s.a.x.y"] {
        put(&bus, subject, "x").await;
    }
    for (filter, expected) in [
        (">", &[1, 2, 3, 4, 5][..]),
        ("s.>", &[1, 2, 3, 4, 5]),
        ("s.*", &[1, 2]),
        ("s.*.x", &[3, 4]),
        ("s.a.>", &[3, 5]),
        ("s.a", &[1]),
        ("s.c", &[]),
    ] {
        assert_eq!(sequences(&held(&bus, "S", filter).await), expected, "{filter}");
    }
}

async fn a_reader_waits_for_what_comes(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    filled(&one, 2).await;
    let mut reader = reader(&one, "S", "s.>", Start::Sequence(0)).await;
    assert_eq!((next_sequence(&mut reader).await, next_sequence(&mut reader).await), (1, 2));
    nothing_to_read_for(&mut reader, Duration::from_millis(50)).await;
    for n in 3..30 {
        // By turns from before and after the message is there, with either call.
        if n % 2 == 0 {
            put(&two, "s.x", "x").await;
            assert_eq!(rest(&mut reader).await.len(), 1);
        } else {
            let (got, _) = tokio::join!(next_sequence(&mut reader), put(&two, "s.x", "x"));
            assert_eq!(got, n);
        }
    }
}

async fn a_reader_begins_at_a_sequence_or_the_first_after_it(world: World) {
    let bus = world.bus().await;
    filled(&bus, 9).await;
    for (start, filter, expected) in [
        (0, "s.>", &[1, 2, 3, 4, 5, 6, 7, 8, 9][..]),
        (1, "s.>", &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (7, "s.>", &[7, 8, 9]),
        (9, "s.>", &[9]),
        (4, "s.0", &[6, 9]),
        (6, "s.0", &[6, 9]),
        (10, "s.>", &[]),
    ] {
        let mut reader = reader(&bus, "S", filter, Start::Sequence(start)).await;
        assert_eq!(sequences(&rest(&mut reader).await), expected, "{start} {filter}");
    }
}

async fn a_reader_from_a_sequence_still_to_come_waits_for_it(world: World) {
    let bus = world.bus().await;
    filled(&bus, 3).await;
    let mut reader = reader(&bus, "S", "s.>", Start::Sequence(6)).await;
    assert_eq!(reader.stored().await, Ok(None));
    for n in 4..=7 {
        assert_eq!(put(&bus, "s.x", "x").await, n);
    }
    assert_eq!((next_sequence(&mut reader).await, next_sequence(&mut reader).await), (6, 7));
}

async fn a_reader_begins_at_a_time(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    for n in 1..=5 {
        put(&bus, &format!("s.{}", n % 2), n.to_string()).await;
        // So that no two have the same time.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let times: Vec<u64> = held(&bus, "S", "s.>").await.iter().map(|s| s.timestamp).collect();
    assert!(times.is_sorted(), "{times:?}");
    let minute = 60_000_000_000;
    for (time, filter, expected) in [
        (0, "s.>", &[1, 2, 3, 4, 5][..]),
        (times[0], "s.>", &[1, 2, 3, 4, 5]),
        (times[2], "s.>", &[3, 4, 5]),
        (times[2] + 1, "s.>", &[4, 5]),
        (times[2], "s.0", &[4]),
        (times[4], "s.>", &[5]),
        (times[4] + 1, "s.>", &[]),
        (times[4] + minute, "s.>", &[]),
    ] {
        let mut reader = reader(&bus, "S", filter, Start::Time(time)).await;
        assert_eq!(sequences(&rest(&mut reader).await), expected, "{} {filter}", time.wrapping_sub(times[0]));
    }
    let mut reader = reader(&bus, "S", "s.>", Start::Time(times[4] + 1)).await;
    put(&bus, "s.x", "x").await;
    assert_eq!(next_sequence(&mut reader).await, 6);
}

async fn a_reader_from_the_end_gives_what_is_stored_from_now_on(world: World) {
    let bus = world.bus().await;
    filled(&bus, 3).await;
    let mut reader = reader(&bus, "S", "s.>", Start::End).await;
    assert_eq!(reader.stored().await, Ok(None));
    put(&bus, "s.x", "x").await;
    put(&bus, "s.x", "x").await;
    assert_eq!((next_sequence(&mut reader).await, next_sequence(&mut reader).await), (4, 5));
    // Even if it is not asked for anything before.
    let mut late = self::reader(&bus, "S", "s.>", Start::End).await;
    put(&bus, "s.x", "x").await;
    assert_eq!(next_sequence(&mut late).await, 6);
}

async fn readers_consume_nothing_and_do_not_touch_each_other(world: World) {
    let bus = world.bus().await;
    filled(&bus, 10).await;
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s.>")).await;
    let mut slow = reader(&bus, "S", "s.>", Start::Sequence(0)).await;
    assert_eq!(next_sequence(&mut slow).await, 1);
    assert_eq!(held(&bus, "S", "s.>").await.len(), 10);
    for n in 1..=10 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.stored.sequence, n);
        delivery.ack().await.unwrap();
    }
    bus.flush().await;
    assert_eq!(sequences(&rest(&mut slow).await), (2..=10).collect::<Vec<_>>());
}

async fn a_reader_passes_over_what_was_discarded(world: World) {
    let bus = world.bus().await;
    for n in 0..9 {
        put(&bus, &format!("cd.j.{}", n % 4), n.to_string()).await;
    }
    // One message a subject: 1 to 5 have been replaced.
    let found = held(&bus, "COFFERDAM", "cd.j.>").await;
    assert_eq!(sequences(&found), sequences(&held(&bus, "COFFERDAM", "cd.j.*").await));
    let data: Vec<_> = found.iter().map(|s| s.message.data.as_ref()).collect();
    assert_eq!(data, [&b"5"[..], b"6", b"7", b"8"]);
    let mut reader = reader(&bus, "COFFERDAM", "cd.j.>", Start::Sequence(1)).await;
    assert_eq!(rest(&mut reader).await, found);
}

async fn a_reader_that_lags_behind_goes_on_with_what_is_left(world: World) {
    let bus = world.bus().await;
    bus.ensure_stream(&StreamSpec { max_messages: Some(10), ..stream_spec("S", &["s"]) }).await.unwrap();
    put(&bus, "s", "x").await;
    let mut reader = reader(&bus, "S", "s", Start::Sequence(0)).await;
    assert_eq!(next_sequence(&mut reader).await, 1);
    futures_util::future::join_all((0..2000).map(|_| put(&bus, "s", "x"))).await;
    // What was on its way may still come.
    let found = sequences(&rest(&mut reader).await);
    assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
    assert!(found.ends_with(&(1992..=2001).collect::<Vec<_>>()), "{found:?}");
}

async fn a_long_stream_is_read_whole_while_it_grows(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    let count = 3000;
    let feed = tokio::spawn({
        let bus = bus.clone();
        async move {
            for _ in 0..count / 100 {
                futures_util::future::join_all((0..100).map(|_| put(&bus, "s", "x"))).await;
            }
        }
    });
    let mut reader = reader(&bus, "S", "s", Start::Sequence(0)).await;
    for n in 1..=count {
        assert_eq!(next_sequence(&mut reader).await, n);
    }
    feed.await.unwrap();
    assert_eq!(reader.stored().await, Ok(None));
    assert_eq!(sequences(&held(&bus, "S", "s").await), (1..=count).collect::<Vec<_>>());
}

async fn large_messages_are_read_whole(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    let size = 1024 * 1024;
    for n in b'a'..b'k' {
        put(&bus, "s", String::from_utf8(vec![n; size]).unwrap()).await;
    }
    let mut reader = reader(&bus, "S", "s", Start::Sequence(0)).await;
    for n in b'a'..b'k' {
        let stored = soon("a message", reader.next()).await.unwrap();
        assert!(stored.message.data.len() == size && stored.message.data.iter().all(|b| *b == n));
    }
    assert_eq!(reader.stored().await, Ok(None));
}

async fn a_reader_of_a_missing_or_deleted_stream_is_an_error(world: World) {
    let bus = world.bus().await;
    let gone = Error::Gone { what: "stream", name: "S".into() };
    match bus.read("S", "s.>", Start::End).await {
        Err(e) => assert_eq!(e, gone),
        Ok(_) => panic!("a reader of nothing"),
    }
    filled(&bus, 1).await;
    let mut reader = reader(&bus, "S", "s.>", Start::Sequence(0)).await;
    assert_eq!(next_sequence(&mut reader).await, 1);
    bus.delete_stream("S").await.unwrap();
    assert_eq!(soon("an error", reader.next()).await, Err(gone.clone()));
    assert_eq!(soon("an error", reader.stored()).await, Err(gone));
}

async fn a_reader_takes_no_malformed_filter(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    for bad in ["", "a..b", "a b", ".a", "a.>.b"] {
        match bus.read("S", bad, Start::End).await {
            Err(e) => assert_eq!(e, Error::InvalidSubject(bad.to_owned())),
            Ok(_) => panic!("{bad:?}"),
        }
    }
}
