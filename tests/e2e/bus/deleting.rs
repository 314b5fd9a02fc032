//! Deleting streams and durables: what goes with them, and that what is made anew begins anew.

use std::time::Duration;

use cofferdam_bus::Error;

use super::*;

conformance![
    a_deleted_stream_is_gone_with_all_it_held,
    a_stream_made_anew_is_empty_and_counts_from_one,
    deleting_what_is_not_there_is_an_error,
    our_own_stream_is_not_to_be_deleted,
    a_durable_made_anew_begins_with_all_its_stream_holds,
    a_deleted_durable_leaves_the_others_alone,
    message_ids_go_with_their_stream,
    what_was_deleted_stays_deleted_over_a_restart,
];

fn gone(what: &'static str, name: &str) -> Error {
    Error::Gone { what, name: name.to_owned() }
}

async fn a_deleted_stream_is_gone_with_all_it_held(world: World) {
    let bus = world.bus().await;
    stream(&bus, "KEPT", &["kept"]).await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "kept", "x").await;
    put(&bus, "s.1", "x").await;
    bus.delete_stream("S").await.unwrap();
    let names: Vec<_> = bus.streams().await.unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["COFFERDAM", "KEPT"]);
    let no_stream = Err(Error::NoStream { subject: "s.1".into() });
    assert_eq!(bus.publish(message("s.1", "x"), Publish::default()).await, no_stream);
    let made = bus.ensure_consumer(&consumer_spec("S", "d", "s.>")).await;
    assert_eq!(made, Err(gone("stream", "S")));
    assert_eq!(data(&stored(&bus, "KEPT", "kept").await), ["x"]);
}

async fn a_stream_made_anew_is_empty_and_counts_from_one(world: World) {
    let bus = world.bus().await;
    for _ in 0..3 {
        stream(&bus, "S", &["s.>"]).await;
        assert_eq!(bus.last("s.1").await, Ok(None));
        assert_eq!(stored(&bus, "S", "s.>").await, []);
        let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s.>")).await;
        nothing_for(&mut deliveries, Duration::from_millis(30)).await;
        for n in 1..=3 {
            assert_eq!(put(&bus, "s.1", "x").await, n);
        }
        next(&mut deliveries).await.ack().await.unwrap();
        deliveries.close().await;
        bus.delete_stream("S").await.unwrap();
    }
}

async fn our_own_stream_is_not_to_be_deleted(world: World) {
    let bus = world.bus().await;
    put(&bus, "cd.j.a", "x").await;
    match bus.delete_stream("COFFERDAM").await {
        Err(Error::Refused(why)) => assert!(why.contains("COFFERDAM"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(data(&stored(&bus, "COFFERDAM", "cd.j.a").await), ["x"]);
}

async fn deleting_what_is_not_there_is_an_error(world: World) {
    let bus = world.bus().await;
    assert_eq!(bus.delete_stream("S").await, Err(gone("stream", "S")));
    assert!(matches!(bus.delete_durable("S", "d").await, Err(Error::Gone { .. })));
    stream(&bus, "S", &["s"]).await;
    assert_eq!(bus.delete_durable("S", "d").await, Err(gone("durable", "S/d")));
    bus.ensure_consumer(&consumer_spec("S", "d", "s")).await.unwrap();
    bus.delete_durable("S", "d").await.unwrap();
    assert_eq!(bus.delete_durable("S", "d").await, Err(gone("durable", "S/d")));
    bus.delete_stream("S").await.unwrap();
    assert_eq!(bus.delete_stream("S").await, Err(gone("stream", "S")));
}

async fn a_durable_made_anew_begins_with_all_its_stream_holds(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    for n in 1..=5 {
        put(&bus, "s", n.to_string()).await;
    }
    let spec = consumer_spec("S", "d", "s");
    for _ in 0..3 {
        let (_, mut deliveries) = follow(&bus, &spec).await;
        for n in 1..=5 {
            let delivery = next(&mut deliveries).await;
            assert_eq!((delivery.stored.sequence, delivery.count), (n, 1));
            match n {
                1 | 3 | 4 => delivery.ack().await.unwrap(),
                2 => delivery.nak(Some(Duration::from_secs(20))).await.unwrap(),
                _ => {}
            }
        }
        bus.flush().await;
        bus.delete_durable("S", "d").await.unwrap();
    }
    // Also with other settings.
    let (_, mut deliveries) = follow(&bus, &ConsumerSpec { max_ack_pending: 3, ..spec }).await;
    assert_eq!(next(&mut deliveries).await.stored.sequence, 1);
}

async fn a_deleted_durable_leaves_the_others_alone(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    let (_, mut stays) = follow(&bus, &consumer_spec("S", "stays", "s")).await;
    let (_, mut goes) = follow(&bus, &consumer_spec("S", "goes", "s")).await;
    put(&bus, "s", "1").await;
    put(&bus, "s", "2").await;
    next(&mut stays).await.ack().await.unwrap();
    next(&mut goes).await.ack().await.unwrap();
    bus.delete_durable("S", "goes").await.unwrap();
    assert_eq!(text(&next(&mut stays).await), "2");
    put(&bus, "s", "3").await;
    assert_eq!(text(&next(&mut stays).await), "3");
}

async fn message_ids_go_with_their_stream(world: World) {
    let bus = world.bus().await;
    let id = || Publish { message_id: Some("id".into()), ..Publish::default() };
    for _ in 0..2 {
        stream(&bus, "S", &["s"]).await;
        assert!(!bus.publish(message("s", "x"), id()).await.unwrap().duplicate);
        assert!(bus.publish(message("s", "x"), id()).await.unwrap().duplicate);
        bus.delete_stream("S").await.unwrap();
    }
}

async fn what_was_deleted_stays_deleted_over_a_restart(mut world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    stream(&bus, "GONE", &["gone"]).await;
    put(&bus, "s", "1").await;
    put(&bus, "gone", "1").await;
    let (first, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s")).await;
    next(&mut deliveries).await.ack().await.unwrap();
    deliveries.close().await;
    bus.flush().await;
    bus.delete_durable("S", "d").await.unwrap();
    bus.delete_stream("GONE").await.unwrap();
    drop((bus, deliveries));
    world.restart().await;
    let bus = world.bus().await;
    let names: Vec<_> = bus.streams().await.unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["COFFERDAM", "S"]);
    stream(&bus, "GONE", &["gone"]).await;
    assert_eq!(stored(&bus, "GONE", "gone").await, []);
    let (second, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s")).await;
    assert_ne!(first.id, second.id);
    assert_eq!(text(&next(&mut deliveries).await), "1");
}
