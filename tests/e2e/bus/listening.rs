//! Listening: what is published from now on, whether it is stored or not.

use std::time::Duration;

use cofferdam_bus::{Error, Listener};

use super::*;

conformance![
    a_listener_hears_what_is_published_from_now_on,
    a_listener_hears_what_its_filter_matches_and_nothing_else,
    a_listener_hears_advice_that_nobody_stores,
    a_listener_hears_the_effects_of_commits,
    a_listener_hears_nothing_of_how_the_bus_works,
    every_listener_hears_everything,
    a_listener_takes_no_malformed_filter,
    a_listener_that_takes_nothing_holds_nobody_up,
];

async fn listen(bus: &Arc<dyn Bus>, filter: &str) -> Box<dyn Listener> {
    bus.listen(filter).await.expect("a listener")
}

async fn hear(listener: &mut Box<dyn Listener>) -> Message {
    soon("a message", listener.next()).await.expect("a message")
}

async fn hear_data(listener: &mut Box<dyn Listener>) -> String {
    String::from_utf8(hear(listener).await.data.into()).expect("text")
}

async fn a_listener_hears_what_is_published_from_now_on(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    stream(&one, "S", &["s.>"]).await;
    put(&one, "s.1", "before").await;
    let mut listener = listen(&one, "s.>").await;
    let sent = Message {
        headers: vec![("B".into(), "2".into()), ("a".into(), "1".into()), ("B".into(), "1".into())],
        ..message("s.1", "1")
    };
    two.publish(sent, Publish::default()).await.unwrap();
    for n in 2..=100 {
        put(&two, "s.1", n.to_string()).await;
    }
    let first = hear(&mut listener).await;
    assert_eq!((first.subject.as_str(), first.data.as_ref()), ("s.1", &b"1"[..]));
    let headers: Vec<_> = first.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(headers, [("B", "2"), ("B", "1"), ("a", "1")], "as they are stored");
    for n in 2..=100 {
        assert_eq!(hear_data(&mut listener).await, n.to_string());
    }
}

async fn a_listener_hears_what_its_filter_matches_and_nothing_else(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    let mut one = listen(&bus, "s.*.x").await;
    let mut all = listen(&bus, "s.>").await;
    let mut exact = listen(&bus, "s.a").await;
    for subject in ["s.a", "s.a.x", "s.b", "s.b.x", "s.b.x.y", "s.a"] {
        put(&bus, subject, subject).await;
    }
    for subject in ["s.a", "s.a.x", "s.b", "s.b.x", "s.b.x.y", "s.a"] {
        assert_eq!(hear(&mut all).await.subject, subject);
    }
    for subject in ["s.a.x", "s.b.x"] {
        assert_eq!(hear(&mut one).await.subject, subject);
    }
    for _ in 0..2 {
        assert_eq!(hear(&mut exact).await.subject, "s.a");
    }
    for mut listener in [one, all, exact] {
        assert!(tokio::time::timeout(Duration::from_millis(30), listener.next()).await.is_err());
    }
}

async fn a_listener_hears_advice_that_nobody_stores(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    let mut listener = listen(&one, "advice.>").await;
    one.advise("other", "no".into()).await;
    two.advise("advice.now", "yes".into()).await;
    let heard = hear(&mut listener).await;
    assert_eq!((heard.subject.as_str(), heard.data.as_ref()), ("advice.now", &b"yes"[..]));
    let names: Vec<_> = one.streams().await.unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["COFFERDAM"]);
}

async fn a_listener_hears_the_effects_of_commits(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = super::commits::plant(&bus).await;
    let mut listener = listen(&bus, "out.>").await;
    for point in [cell("c"), Point::Record, Point::Publish] {
        put(&bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        bus.commit(&delivery, base, effects(&[("out.a", "1")])).await.unwrap();
        let heard = hear(&mut listener).await;
        assert_eq!((heard.subject.as_str(), heard.data.as_ref()), ("out.a", &b"1"[..]));
        assert!(heard.headers.contains(&("Cofferdam-Cause".into(), delivery.id().to_owned())), "{heard:?}");
    }
}

async fn a_listener_hears_nothing_of_how_the_bus_works(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = super::commits::plant(&bus).await;
    let mut listener = listen(&bus, ">").await;
    let kv = bus.bucket("config").await.unwrap();
    for point in [cell("c"), Point::Record] {
        put(&bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        bus.commit(&delivery, base, effects(&[("out.a", "1")])).await.unwrap();
        kv.put("k", "v".into(), None).await.unwrap();
        bus.last("out.a").await.unwrap();
    }
    put(&bus, "cd.j.x", "ours, and not hidden").await;
    for subject in ["in.1", "out.a", "in.1", "out.a", "cd.j.x"] {
        assert_eq!(hear(&mut listener).await.subject, subject);
    }
}

async fn every_listener_hears_everything(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    stream(&one, "S", &["s"]).await;
    let mut listeners = [listen(&one, "s").await, listen(&one, "s").await, listen(&two, "*").await];
    for n in 0..20 {
        put(&one, "s", n.to_string()).await;
    }
    for listener in &mut listeners {
        for n in 0..20 {
            assert_eq!(hear_data(listener).await, n.to_string());
        }
    }
}

async fn a_listener_takes_no_malformed_filter(world: World) {
    let bus = world.bus().await;
    for bad in ["", "a..b", "a b", ".a", "a.>.b"] {
        match bus.listen(bad).await {
            Err(e) => assert_eq!(e, Error::InvalidSubject(bad.to_owned())),
            Ok(_) => panic!("{bad:?}"),
        }
    }
}

async fn a_listener_that_takes_nothing_holds_nobody_up(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s"]).await;
    let mut idle = listen(&bus, "s").await;
    let many = (0..2000).map(|n| put(&bus, "s", n.to_string()));
    soon("the publishes", futures_util::future::join_all(many)).await;
    assert_eq!(held(&bus, "S", "s").await.len(), 2000);
    // It may have missed some, and hears again once it takes.
    while tokio::time::timeout(Duration::from_millis(100), idle.next()).await.is_ok() {}
    put(&bus, "s", "newest").await;
    assert_eq!(hear_data(&mut idle).await, "newest");
}
