//! Commits: all or nothing, once, from one run, at each kind of commit point.

use std::time::Duration;

use cofferdam_bus::{CommitError, Committed, Error};

use super::*;

conformance![
    a_cell_commit_shows_state_and_effects_and_acks,
    a_record_commit_shows_its_effects_and_acks,
    a_publish_commit_shows_its_effect_and_acks,
    a_run_without_effects_commits_and_acks,
    a_run_without_effects_is_the_event_s_only_one,
    effects_of_a_subject_keep_their_order,
    effects_name_their_cause_and_keep_their_headers,
    a_cell_keeps_its_state_from_event_to_event,
    a_second_run_of_a_settled_event_is_void_at_every_point,
    two_runs_at_once_commit_once_at_every_point,
    a_cell_that_moved_is_a_conflict_and_the_rerun_sees_the_change,
    cells_and_spaces_do_not_touch_each_other,
    many_commits_at_once_lose_and_repeat_nothing,
];

/// A stream of events `in.>`, one of effects `out.>`, one of dead letters, and deliveries of the events.
pub(super) async fn plant(bus: &Arc<dyn Bus>) -> (Arc<Origin>, Box<dyn Deliveries>) {
    stream(bus, "IN", &["in.>"]).await;
    stream(bus, "OUT", &["out.>"]).await;
    stream(bus, "DEAD", &["dead.>"]).await;
    follow(bus, &consumer_spec("IN", "d", "in.>")).await
}

pub(super) async fn commit(
    bus: &Arc<dyn Bus>,
    delivery: &Delivery,
    base: Snapshot,
    change: Change,
) -> Result<Committed, CommitError> {
    soon("a commit", bus.commit(delivery, base, change)).await
}

pub(super) async fn out(bus: &Arc<dyn Bus>) -> Vec<(String, String)> {
    stored(bus, "OUT", "out.>").await
}

fn points() -> [Point; 3] {
    [cell("c"), Point::Record, Point::Publish]
}

async fn a_cell_commit_shows_state_and_effects_and_acks(world: World) {
    let bus = world.bus().await;
    let (origin, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &cell("c")).await;
    assert!(base.state.entries.is_empty());
    let change = Change { writes: vec![write("k", "v")], ..effects(&[("out.a", "1"), ("out.b", "2")]) };
    assert_eq!(commit(&bus, &delivery, base, change).await, Ok(Committed::default()));
    assert_eq!(out(&bus).await, [("out.a".into(), "1".into()), ("out.b".into(), "2".into())]);
    acked(&bus, &origin).await;
    put(&bus, "in.1", "later").await;
    let later = next(&mut deliveries).await;
    assert_eq!(value(&fresh(&bus, &later, &cell("c")).await, "k"), Some("v"));
}

/// A durable hands out nothing that was acked: its next host gets only what comes now.
async fn acked(bus: &Arc<dyn Bus>, origin: &Arc<Origin>) {
    bus.flush().await;
    let mut deliveries = bus.deliveries(origin, 4).await.unwrap();
    nothing_for(&mut deliveries, Duration::from_millis(50)).await;
    deliveries.close().await;
}

async fn a_record_commit_shows_its_effects_and_acks(world: World) {
    let bus = world.bus().await;
    let (origin, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &Point::Record).await;
    let change = effects(&[("out.a", "1"), ("out.b", "2")]);
    assert_eq!(commit(&bus, &delivery, base, change).await, Ok(Committed::default()));
    assert_eq!(out(&bus).await, [("out.a".into(), "1".into()), ("out.b".into(), "2".into())]);
    acked(&bus, &origin).await;
}

async fn a_publish_commit_shows_its_effect_and_acks(world: World) {
    let bus = world.bus().await;
    let (origin, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &Point::Publish).await;
    assert_eq!(commit(&bus, &delivery, base, effects(&[("out.a", "1")])).await, Ok(Committed::default()));
    assert_eq!(data(&out(&bus).await), ["1"]);
    acked(&bus, &origin).await;
}

async fn a_run_without_effects_commits_and_acks(world: World) {
    let bus = world.bus().await;
    let (origin, mut deliveries) = plant(&bus).await;
    for point in points() {
        put(&bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        assert_eq!(commit(&bus, &delivery, base, Change::default()).await, Ok(Committed::default()));
    }
    acked(&bus, &origin).await;
    assert_eq!(out(&bus).await, []);
}

async fn a_run_without_effects_is_the_event_s_only_one(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    for point in [cell("c"), Point::Record] {
        put(&bus, "in.1", "event").await;
        let first = next(&mut deliveries).await;
        first.nak(None).await.unwrap();
        let second = next(&mut deliveries).await;
        // Both have begun; the one that is done first decides, with effects or without.
        let bases = (fresh(&bus, &first, &point).await, fresh(&bus, &second, &point).await);
        assert_eq!(commit(&bus, &first, bases.0, Change::default()).await, Ok(Committed::default()));
        let late = commit(&bus, &second, bases.1, effects(&[("out.a", "never")])).await;
        let void = match point {
            // Its cell has moved: it would run again, but for what that begins with.
            Point::Cell { .. } => late == Err(CommitError::Settled) || late == Err(CommitError::Conflict),
            _ => late == Err(CommitError::Settled),
        };
        assert!(void, "{point:?}: {late:?}");
        assert!(settled(&bus, &second, &point).await, "{point:?}");
    }
    assert_eq!(out(&bus).await, []);
}

async fn effects_of_a_subject_keep_their_order(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    for point in [cell("c"), Point::Record] {
        put(&bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        let many: Vec<_> = (0..60).map(|n| message(&format!("out.{}", n % 3), n.to_string())).collect();
        commit(&bus, &delivery, base, Change { effects: many, ..Change::default() }).await.unwrap();
    }
    for k in 0..3 {
        let found = stored(&bus, "OUT", &format!("out.{k}")).await;
        let numbers: Vec<u32> = found.iter().map(|(_, n)| n.parse().unwrap()).collect();
        let once: Vec<u32> = (0..20).map(|n| n * 3 + k).collect();
        assert_eq!(numbers, [once.clone(), once].concat());
    }
}

async fn effects_name_their_cause_and_keep_their_headers(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    for point in points() {
        put(&bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        let headers = vec![("X-Plan".to_owned(), "p".to_owned())];
        let change =
            Change { effects: vec![Message { headers, ..message("out.a", "1") }], ..Change::default() };
        commit(&bus, &delivery, base, change).await.unwrap();
        let last = bus.last("out.a").await.unwrap().unwrap();
        let header =
            |name: &str| last.message.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        assert_eq!(header("Cofferdam-Cause"), Some(delivery.id().to_owned()));
        assert_eq!(header("Nats-Msg-Id"), Some(format!("{}.0", delivery.id())));
        assert_eq!(header("X-Plan").as_deref(), Some("p"));
    }
}

async fn a_cell_keeps_its_state_from_event_to_event(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    for n in 0..30u32 {
        put(&bus, "in.1", n.to_string()).await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &cell("plan 1")).await;
        let sum: u32 = value(&base, "sum").map_or(0, |v| v.parse().unwrap());
        assert_eq!(sum, (0..n).sum::<u32>());
        assert_eq!(value(&base, "gone"), (n % 2 == 1).then_some("x"));
        let gone = match n % 2 {
            0 => write("gone", "x"),
            _ => Write::Delete { key: "gone".into() },
        };
        let change = Change { writes: vec![write("sum", &(sum + n).to_string()), gone], ..Change::default() };
        commit(&bus, &delivery, base, change).await.unwrap();
    }
}

async fn a_second_run_of_a_settled_event_is_void_at_every_point(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    for point in points() {
        put(&bus, "in.1", "event").await;
        let first = next(&mut deliveries).await;
        // Handed back while it is still being run: another host gets it as well.
        first.nak(None).await.unwrap();
        let second = next(&mut deliveries).await;
        let (base, late) = (fresh(&bus, &first, &point).await, fresh(&bus, &second, &point).await);
        commit(&bus, &first, base, effects(&[("out.a", "kept")])).await.unwrap();
        let void = commit(&bus, &second, late, effects(&[("out.a", "void")])).await;
        assert_eq!(void, Err(CommitError::Settled), "{point:?}");
        if point != Point::Publish {
            assert!(settled(&bus, &second, &point).await);
        }
    }
    assert_eq!(data(&out(&bus).await), ["kept", "kept", "kept"]);
    nothing_for(&mut deliveries, Duration::from_millis(100)).await;
}

async fn two_runs_at_once_commit_once_at_every_point(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    let (_, mut deliveries) = plant(&one).await;
    for round in 0..10 {
        for point in points() {
            put(&one, "in.1", "event").await;
            let first = next(&mut deliveries).await;
            first.nak(None).await.unwrap();
            let second = next(&mut deliveries).await;
            let (a, b) = (fresh(&one, &first, &point).await, fresh(&two, &second, &point).await);
            let subject = format!("out.{round}");
            let (a, b) = tokio::join!(
                commit(&one, &first, a, effects(&[(&subject, "a")])),
                commit(&two, &second, b, effects(&[(&subject, "b")])),
            );
            let winners = [&a, &b].into_iter().filter(|r| r.is_ok()).count();
            assert_eq!(winners, 1, "{point:?}: {a:?}, {b:?}");
            assert!([&a, &b].into_iter().any(|r| *r == Err(CommitError::Settled)), "{point:?}: {a:?}, {b:?}");
            let last = one.last(&subject).await.unwrap().unwrap();
            assert_eq!(last.message.data, if a.is_ok() { "a" } else { "b" });
        }
    }
    assert_eq!(out(&one).await.len(), 30);
}

async fn a_cell_that_moved_is_a_conflict_and_the_rerun_sees_the_change(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    let (_, mut deliveries) = plant(&one).await;
    put(&one, "in.1", "a").await;
    put(&one, "in.1", "b").await;
    let (a, b) = (next(&mut deliveries).await, next(&mut deliveries).await);
    let (base_a, base_b) = (fresh(&one, &a, &cell("c")).await, fresh(&two, &b, &cell("c")).await);
    let change = |data: &str| Change { writes: vec![write("last", data)], ..effects(&[("out.x", data)]) };
    commit(&one, &a, base_a, change("a")).await.unwrap();
    assert_eq!(commit(&two, &b, base_b, change("lost")).await, Err(CommitError::Conflict));
    let base_b = fresh(&two, &b, &cell("c")).await;
    assert_eq!(value(&base_b, "last"), Some("a"));
    commit(&two, &b, base_b, change("b")).await.unwrap();
    assert_eq!(data(&out(&one).await), ["a", "b"]);
}

async fn cells_and_spaces_do_not_touch_each_other(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let point = |space: &str, cell: &str| Point::Cell { space: space.into(), cell: cell.into() };
    let all = [point("a", "1"), point("a", "2"), point("b", "1"), point("a", "sehr: lang/größer * >")];
    for (n, at) in all.iter().enumerate() {
        put(&bus, "in.1", "x").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, at).await;
        assert!(base.state.entries.is_empty());
        let change = Change { writes: vec![write("n", &n.to_string())], ..Change::default() };
        commit(&bus, &delivery, base, change).await.unwrap();
    }
    put(&bus, "in.1", "x").await;
    let delivery = next(&mut deliveries).await;
    for (n, at) in all.iter().enumerate() {
        assert_eq!(value(&fresh(&bus, &delivery, at).await, "n"), Some(n.to_string().as_str()));
    }
    for bad in [point("", "a"), point("a.b", "a"), point("a", "")] {
        assert!(matches!(bus.open(&delivery, &bad).await, Err(Error::Refused(_))), "{bad:?}");
    }
}

async fn many_commits_at_once_lose_and_repeat_nothing(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    let (origin, first) = plant(&one).await;
    let second = two.ensure_consumer(&consumer_spec("IN", "d", "in.>")).await.unwrap();
    assert_eq!(origin, second);
    let second = two.deliveries(&second, 64).await.unwrap();
    let count = 600;
    for n in 0..count {
        put(&one, &format!("in.{}", n % 7), n.to_string()).await;
    }
    let done = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let host = |bus: Arc<dyn Bus>, mut deliveries: Box<dyn Deliveries>| {
        let done = done.clone();
        async move {
            let mut runs = tokio::task::JoinSet::new();
            while done.load(std::sync::atomic::Ordering::Relaxed) < count {
                let Ok(delivery) = tokio::time::timeout(Duration::from_millis(50), deliveries.next()).await
                else {
                    continue;
                };
                let (bus, delivery, done) = (bus.clone(), delivery.unwrap(), done.clone());
                runs.spawn(async move {
                    let n: u32 = text(&delivery).parse().unwrap();
                    let point =
                        if n.is_multiple_of(2) { cell(&format!("c{}", n % 7)) } else { Point::Record };
                    loop {
                        let Opened::Fresh(base) = bus.open(&delivery, &point).await.unwrap() else { break };
                        let mut change = effects(&[("out.a", text(&delivery)), ("out.b", text(&delivery))]);
                        if n.is_multiple_of(2) {
                            let sum: u32 = value(&base, "sum").map_or(0, |v| v.parse().unwrap());
                            change.writes.push(write("sum", &(sum + n).to_string()));
                        }
                        match bus.commit(&delivery, base, change).await {
                            Err(CommitError::Conflict) => {}
                            other => {
                                other.unwrap();
                                break;
                            }
                        }
                    }
                    done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                });
            }
            while let Some(run) = runs.join_next().await {
                run.unwrap();
            }
        }
    };
    soon("all of them", async { tokio::join!(host(one.clone(), first), host(two.clone(), second)) }).await;
    for subject in ["out.a", "out.b"] {
        let mut seen: Vec<u32> =
            stored(&one, "OUT", subject).await.iter().map(|(_, n)| n.parse().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }
    put(&one, "in.x", "probe").await;
    let mut deliveries = one.deliveries(&origin, 1).await.unwrap();
    let probe = next(&mut deliveries).await;
    for k in 0..7 {
        let sum: u32 = (0..count).filter(|n| n % 2 == 0 && n % 7 == k).sum();
        let base = fresh(&one, &probe, &cell(&format!("c{k}"))).await;
        assert_eq!(value(&base, "sum"), Some(sum.to_string().as_str()));
    }
}
