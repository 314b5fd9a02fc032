//! Publishing: order, identity, expectations, limits, and what happens where nobody stores the subject.

use std::time::Duration;

use cofferdam_bus::{Error, StreamSpec};
use tokio::time::Instant;

use super::*;

conformance![
    messages_come_back_whole_and_in_order,
    a_subject_that_no_stream_covers_is_an_error,
    a_listener_without_a_stream_is_still_no_stream,
    malformed_and_reserved_subjects_are_refused,
    headers_that_are_instructions_to_the_bus_are_refused,
    a_message_id_is_stored_once_within_the_window,
    a_message_id_is_forgotten_after_the_window,
    the_expected_last_sequence_decides,
    one_of_many_with_the_same_expectation_wins,
    a_message_over_the_limit_is_refused_and_the_bus_goes_on,
    last_gives_the_newest_message_of_a_subject,
];

async fn messages_come_back_whole_and_in_order(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let before =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    for n in 1..=200u64 {
        let headers = vec![
            ("B".to_owned(), n.to_string()),
            ("a".to_owned(), "1".to_owned()),
            ("B".to_owned(), "0".to_owned()),
        ];
        let sent = Message {
            subject: format!("s.{}", n % 3),
            headers,
            data: Bytes::from(vec![n as u8; n as usize]),
        };
        let ack = bus.publish(sent, Publish::default()).await.unwrap();
        assert_eq!((ack.stream.as_str(), ack.sequence, ack.duplicate), ("S", n, false));
    }
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s.>")).await;
    for n in 1..=200u64 {
        let delivery = next(&mut deliveries).await;
        let Stored { message, sequence, timestamp } = &delivery.stored;
        assert_eq!((*sequence, message.subject.as_str()), (n, format!("s.{}", n % 3).as_str()));
        assert_eq!(message.data, vec![n as u8; n as usize]);
        let headers: Vec<_> = message.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(headers, [("B", n.to_string().as_str()), ("B", "0"), ("a", "1")], "sorted by name");
        let minute = 60_000_000_000;
        assert!((before - minute..before + minute).contains(timestamp), "{timestamp} is about {before}");
        let last = bus.last(&message.subject).await.unwrap().unwrap();
        if n > 197 {
            assert_eq!(last, delivery.stored, "a read gives what a delivery gives");
        }
    }
}

async fn a_subject_that_no_stream_covers_is_an_error(world: World) {
    let bus = world.bus().await;
    let no_stream = Err(Error::NoStream { subject: "nobody.home".into() });
    assert_eq!(bus.publish(message("nobody.home", "x"), Publish::default()).await, no_stream);
    stream(&bus, "S", &["nobody.>"]).await;
    assert!(bus.publish(message("nobody.home", "x"), Publish::default()).await.is_ok());
}

async fn a_listener_without_a_stream_is_still_no_stream(world: World) {
    let bus = world.bus().await;
    let _everything = bus.listen(">").await.unwrap();
    let published = bus.publish(message("nobody.home", "x"), Publish::default()).await;
    assert_eq!(published, Err(Error::NoStream { subject: "nobody.home".into() }));
}

async fn malformed_and_reserved_subjects_are_refused(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["a.>"]).await;
    let long = format!("a.{}", "b".repeat(5000));
    for bad in ["", "a.", "a..b", "a.*", "a.>", "a. b", "a.\r\nPUB x 0", long.as_str()] {
        let e = bus.publish(message(bad, "x"), Publish::default()).await.unwrap_err();
        assert_eq!(e, Error::InvalidSubject(bad.to_owned()));
    }
    for reserved in ["cd.s.test.x", "$JS.API.STREAM.DELETE.S"] {
        let e = bus.publish(message(reserved, "x"), Publish::default()).await.unwrap_err();
        assert!(e.to_string().contains("reserved"), "{e}");
    }
    put(&bus, "a.b", "still here").await;
}

async fn headers_that_are_instructions_to_the_bus_are_refused(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["a.>"]).await;
    for (name, value) in
        [("Nats-Rollup", "all"), ("nats-msg-id", "x"), ("X", "a\r\nNats-Rollup: all"), ("X Y", "z")]
    {
        let sent = Message { headers: vec![(name.into(), value.into())], ..message("a.b", "x") };
        assert!(matches!(bus.publish(sent, Publish::default()).await, Err(Error::Refused(_))), "{name}");
    }
    assert_eq!(bus.last("a.b").await.unwrap(), None);
}

fn with_id(id: &str) -> Publish {
    Publish { message_id: Some(id.to_owned()), ..Publish::default() }
}

async fn a_message_id_is_stored_once_within_the_window(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let first = bus.publish(message("s.1", "one"), with_id("id")).await.unwrap();
    assert_eq!((first.sequence, first.duplicate), (1, false));
    // Another subject, other data, another bus: the id alone decides.
    let second = world.bus().await.publish(message("s.2", "two"), with_id("id")).await.unwrap();
    assert_eq!((second.sequence, second.duplicate), (1, true));
    assert_eq!(data(&stored(&bus, "S", "s.>").await), ["one"]);
}

async fn a_message_id_is_forgotten_after_the_window(world: World) {
    let bus = world.bus().await;
    let window = Duration::from_secs(1);
    bus.ensure_stream(&StreamSpec { duplicate_window: Some(window), ..stream_spec("S", &["s"]) })
        .await
        .unwrap();
    let began = Instant::now();
    bus.publish(message("s", "one"), with_id("id")).await.unwrap();
    wait_for("a second message", async || {
        let again = bus.publish(message("s", "two"), with_id("id")).await.unwrap();
        (!again.duplicate).then_some(())
    })
    .await;
    assert!(began.elapsed() >= window * 9 / 10, "remembered for {:?}", began.elapsed());
    assert_eq!(data(&stored(&bus, "S", "s").await), ["one", "two"]);
}

fn expecting(sequence: u64) -> Publish {
    Publish { expected_last_subject_sequence: Some(sequence), ..Publish::default() }
}

async fn the_expected_last_sequence_decides(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let wrong = |expected| Err(Error::WrongLastSequence { subject: "s.a".into(), expected });
    assert_eq!(bus.publish(message("s.a", "0"), expecting(7)).await, wrong(7));
    assert_eq!(bus.publish(message("s.a", "1"), expecting(0)).await.unwrap().sequence, 1);
    assert_eq!(bus.publish(message("s.a", "2"), expecting(0)).await, wrong(0));
    put(&bus, "s.b", "other subject").await;
    assert_eq!(bus.publish(message("s.a", "3"), expecting(1)).await.unwrap().sequence, 3);
    assert_eq!(bus.publish(message("s.a", "4"), expecting(1)).await, wrong(1));
    assert_eq!(bus.last("s.a").await.unwrap().unwrap().message.data, "3");
}

async fn one_of_many_with_the_same_expectation_wins(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    let mut last = 0;
    for _ in 0..5 {
        let attempts = (0..20).map(|n| {
            let bus = bus.clone();
            async move { bus.publish(message("s", n.to_string()), expecting(last)).await }
        });
        let won: Vec<_> =
            futures_util::future::join_all(attempts).await.into_iter().filter_map(Result::ok).collect();
        assert_eq!(won.len(), 1);
        last = won[0].sequence;
    }
}

async fn a_message_over_the_limit_is_refused_and_the_bus_goes_on(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    let publish = |size: usize| bus.publish(message("s", "x".repeat(size)), Publish::default());
    // What a NATS server takes by default.
    match publish(1024 * 1024 + 1).await {
        Err(Error::TooLarge { subject, size, max }) => {
            assert_eq!((subject.as_str(), size, max), ("s", 1024 * 1024 + 1, 1024 * 1024));
        }
        other => panic!("{other:?}"),
    }
    publish(1024 * 1024).await.unwrap();
    let headers = vec![("A".to_owned(), "b".to_owned())];
    let with_headers = Message { headers, ..message("s", "x".repeat(1024 * 1024)) };
    assert!(matches!(bus.publish(with_headers, Publish::default()).await, Err(Error::TooLarge { .. })));
    assert_eq!(*bus.connection().borrow(), cofferdam_bus::Connection::Up, "nothing broke the connection");
}

async fn last_gives_the_newest_message_of_a_subject(world: World) {
    let bus = world.bus().await;
    assert_eq!(bus.last("s.a").await, Err(Error::NoStream { subject: "s.a".into() }));
    stream(&bus, "S", &["s.>"]).await;
    assert_eq!(bus.last("s.a").await, Ok(None));
    put(&bus, "s.a", "1").await;
    put(&bus, "s.a", "2").await;
    put(&bus, "s.b", "3").await;
    let last = bus.last("s.a").await.unwrap().unwrap();
    assert_eq!((last.message.data.as_ref(), last.sequence), (&b"2"[..], 2));
}
