//! Commits that can't be as they are, and are refused whole; or that are found done already, however late.

use std::time::Duration;

use cofferdam_bus::CommitError;

use super::{
    commits::{commit, out, plant},
    *,
};

conformance![
    what_is_unfit_changes_nothing,
    a_commit_over_the_limit_is_unfit,
    a_late_effect_is_not_repeated_after_its_window,
];

async fn what_is_unfit_changes_nothing(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let writes = Change { writes: vec![write("k", "v")], ..Change::default() };
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
    // 1 MiB is the limit of a message, of which 64 KiB stay free.
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
        commit(&bus, &delivery, base, Change { writes: vec![write("k", &big)], ..Change::default() }).await;
    assert!(matches!(refused, Err(CommitError::Unfit(_))), "{refused:?}");
    let base = fresh(&bus, &delivery, &Point::Record).await;
    commit(&bus, &delivery, base, effects(&[("out.a", &half)])).await.unwrap();
    assert_eq!(out(&bus).await.len(), 1);
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
    let mut late = Vec::new();
    for point in [cell("c"), Point::Record] {
        put(&bus, "in.1", "event").await;
        let first = next(&mut deliveries).await;
        first.nak(None).await.unwrap();
        late.push((next(&mut deliveries).await, point.clone()));
        let base = fresh(&bus, &first, &point).await;
        commit(&bus, &first, base, effects(&[("out.a", "1"), ("out.a", "2"), ("out.b", "3")])).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // A host that knows nothing finds the commits and applies them again.
    let host = world.bus().await;
    for (delivery, point) in &late {
        assert!(settled(&host, delivery, point).await);
    }
    assert_eq!(data(&stored(&bus, "OUT", "out.a").await), ["1", "2", "1", "2"]);
    assert_eq!(data(&stored(&bus, "OUT", "out.b").await), ["3", "3"]);
}
