//! Commits that can't be, or can't be applied as they are: refused whole, dead-lettered in part, or found done already.

use std::time::Duration;

use cofferdam_bus::{CommitError, Error, StreamSpec};

use super::{
    commits::{commit, out, plant},
    *,
};

conformance![
    what_is_unfit_changes_nothing,
    a_commit_over_the_limit_is_unfit,
    what_a_newer_version_wrote_is_an_error_and_stays,
    an_effect_whose_stream_is_gone_becomes_a_dead_letter,
    a_late_effect_is_not_repeated_after_its_window,
];

async fn what_is_unfit_changes_nothing(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let writes = Change { writes: vec![write("k", "v")], effects: Vec::new() };
    let good = ("out.a", "never");
    let mut rollup = effects(&[good]);
    rollup.effects[0].headers.push(("Nats-Rollup".into(), "all".into()));
    let no_key = Change { writes: vec![write("", "v")], ..effects(&[good]) };
    let cases = [
        (cell("c"), effects(&[good, ("nobody.home", "x")]), "no stream stores the subject \"nobody.home\""),
        (
            Point::Record,
            effects(&[good, ("nobody.home", "x")]),
            "no stream stores the subject \"nobody.home\"",
        ),
        (Point::Publish, effects(&[("nobody.home", "x")]), "no stream stores the subject \"nobody.home\""),
        (Point::Record, effects(&[good, ("out..a", "x")]), "not a valid subject"),
        (Point::Record, effects(&[good, ("out.*", "x")]), "not a valid subject"),
        (cell("c"), effects(&[good, ("cd.s.test.x", "x")]), "reserved"),
        (cell("c"), rollup, "Nats-Rollup"),
        (cell("c"), no_key, "state key"),
        (Point::Record, writes.clone(), "order key"),
        (Point::Publish, writes, "order key"),
        (Point::Publish, effects(&[good, good]), "may publish one"),
    ];
    for (point, change, why) in cases {
        let base = fresh(&bus, &delivery, &point).await;
        match commit(&bus, &delivery, base, change).await {
            Err(CommitError::Unfit(reason)) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{point:?} {why}: {other:?}"),
        }
    }
    assert_eq!(out(&bus).await, []);
    // Not even acked: it can still commit.
    let base = fresh(&bus, &delivery, &cell("c")).await;
    assert!(base.state.entries.is_empty());
    commit(&bus, &delivery, base, effects(&[("out.a", "yes")])).await.unwrap();
    assert_eq!(data(&out(&bus).await), ["yes"]);
}

async fn a_commit_over_the_limit_is_unfit(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    // 1 MiB is the server's limit, of which 64 KiB stay free.
    let (big, half) = ("x".repeat(1024 * 1024 - 60 * 1024), "x".repeat(500 * 1024));
    for point in [cell("c"), Point::Record] {
        for change in [effects(&[("out.a", &big)]), effects(&[("out.a", &half), ("out.b", &half)])] {
            let base = fresh(&bus, &delivery, &point).await;
            let refused = commit(&bus, &delivery, base, change).await;
            assert!(matches!(&refused, Err(CommitError::Unfit(why)) if why.contains("limit")), "{refused:?}");
        }
    }
    let base = fresh(&bus, &delivery, &cell("c")).await;
    let refused =
        commit(&bus, &delivery, base, Change { writes: vec![write("k", &big)], effects: Vec::new() }).await;
    assert!(matches!(refused, Err(CommitError::Unfit(_))), "{refused:?}");
    let base = fresh(&bus, &delivery, &Point::Record).await;
    commit(&bus, &delivery, base, effects(&[("out.a", &half)])).await.unwrap();
    assert_eq!(out(&bus).await.len(), 1);
}

async fn what_a_newer_version_wrote_is_an_error_and_stays(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &cell("c")).await;
    commit(&bus, &delivery, base, Change { writes: vec![write("k", "v")], effects: Vec::new() })
        .await
        .unwrap();
    // Field 1, the format, is 1 in what we write.
    let client = world.server.client().await;
    let got = client
        .request("$JS.API.STREAM.MSG.GET.COFFERDAM", r#"{"last_by_subj":"cd.s.>"}"#.into())
        .await
        .unwrap();
    let got: serde_json::Value = serde_json::from_slice(&got.payload).unwrap();
    let subject = got["message"]["subject"].as_str().unwrap().to_owned();
    for damaged in [&b"\x08\x02\x12\x01c"[..], b"\xff\xff\xff"] {
        client.request(subject.clone(), Bytes::copy_from_slice(damaged)).await.unwrap();
        put(&bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        match bus.open(&delivery, &cell("c")).await {
            Err(Error::Unreadable { subject: at, .. }) => assert_eq!(at, subject),
            other => panic!("{other:?}"),
        }
        let kept = client
            .request("$JS.API.STREAM.MSG.GET.COFFERDAM", format!(r#"{{"last_by_subj":"{subject}"}}"#).into())
            .await
            .unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&kept.payload).unwrap();
        assert_eq!(kept["message"]["seq"], bus_sequence(&client).await);
    }
}

async fn bus_sequence(client: &async_nats::Client) -> serde_json::Value {
    let info = client.request("$JS.API.STREAM.INFO.COFFERDAM", "".into()).await.unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    info["state"]["last_seq"].clone()
}

async fn an_effect_whose_stream_is_gone_becomes_a_dead_letter(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    stream(&bus, "BRIEF", &["brief.>"]).await;
    for point in [cell("c"), Point::Record] {
        put(&bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        // The check still sees it: what is known of a stream holds for some seconds.
        stream(&bus, "BRIEF", &["brief.>"]).await;
        assert!(bus.covering("brief.x").await.unwrap().is_some());
        let client = world.server.client().await;
        client.request("$JS.API.STREAM.DELETE.BRIEF", "".into()).await.unwrap();
        let change = effects(&[("out.a", "1"), ("brief.x", "lost"), ("out.b", "2")]);
        let committed = commit(&bus, &delivery, base, change).await.unwrap();
        let refused: Vec<_> = committed.refused.iter().map(|r| (r.ordinal, r.subject.as_str())).collect();
        assert_eq!(refused, [(1, "brief.x")]);
        assert!(committed.refused[0].reason.contains("no stream stores"), "{committed:?}");
        let letter = bus.last("dead.brief.x").await.unwrap().unwrap().message;
        assert_eq!(letter.data, "lost");
        assert!(letter.headers.contains(&("Nats-Msg-Id".into(), format!("{}.1.dead", delivery.id()))));
        assert!(letter.headers.contains(&("Cofferdam-Cause".into(), delivery.id())));
    }
    assert_eq!(data(&out(&bus).await), ["1", "2", "1", "2"]);
    assert_eq!(stored(&bus, "DEAD", "dead.>").await.len(), 2);
}

/// A stream that remembers ids for a second, and waits until it has forgotten one.
async fn short_window(bus: &Arc<dyn Bus>) {
    let window = Some(Duration::from_secs(1));
    bus.ensure_stream(&StreamSpec { duplicate_window: window, ..stream_spec("OUT", &["out.>"]) })
        .await
        .unwrap();
}

async fn a_late_effect_is_not_repeated_after_its_window(world: World) {
    let bus = world.bus().await;
    short_window(&bus).await;
    let (_, mut deliveries) = plant(&bus).await;
    for point in [cell("c"), Point::Record] {
        put(&bus, "in.1", "event").await;
        let first = next(&mut deliveries).await;
        first.nak(None).await.unwrap();
        let second = next(&mut deliveries).await;
        let base = fresh(&bus, &first, &point).await;
        commit(&bus, &first, base, effects(&[("out.a", "1"), ("out.a", "2"), ("out.b", "3")])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        // A host that knows nothing finds the commit and applies it again.
        assert!(settled(&world.bus().await, &second, &point).await);
        assert_eq!(data(&out(&bus).await).len() % 3, 0);
    }
    assert_eq!(data(&stored(&bus, "OUT", "out.a").await), ["1", "2", "1", "2"]);
}
