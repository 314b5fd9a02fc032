//! Timers: set and cancelled by commits, each fires once, at its time or as soon as it can.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cofferdam_bus::{CommitError, Committed, Timer};

use super::{
    commits::{commit, out, plant},
    *,
};

conformance![
    a_timer_fires_at_its_time_and_once,
    a_timer_whose_time_has_passed_fires_at_once,
    what_fires_has_its_own_headers_its_id_and_its_cause,
    a_timer_may_fire_into_our_own_stream,
    a_cancelled_timer_does_not_fire,
    a_timer_cancelled_by_the_event_that_sets_it_does_not_fire,
    a_cancel_before_the_timer_is_known_does_no_harm,
    a_cancel_after_the_firing_changes_nothing,
    timers_and_their_cancels_survive_a_restart,
    what_is_due_while_nobody_is_there_fires_later,
    an_event_that_does_not_commit_sets_and_cancels_nothing,
    a_rerun_of_a_settled_event_does_not_set_its_timers_again,
    many_timers_at_once_fire_once_each,
    a_change_with_an_unfit_timer_is_refused_whole,
];

const QUIET: Duration = Duration::from_millis(700);

/// In nanoseconds since the epoch.
pub(super) fn after(delay: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from((now + delay).as_nanos()).unwrap()
}

pub(super) fn timer(id: &str, at: u64, subject: &str, data: &str) -> Timer {
    Timer { id: id.into(), at, message: message(subject, data) }
}

pub(super) fn timers(timers: &[Timer]) -> Change {
    Change { timers: timers.to_vec(), ..Change::default() }
}

fn cancels(ids: &[&str]) -> Change {
    Change { cancels: ids.iter().map(|id| (*id).to_owned()).collect(), ..Change::default() }
}

/// Commits `change` by an event of its own.
async fn run(
    bus: &Arc<dyn Bus>,
    deliveries: &mut Box<dyn Deliveries>,
    point: &Point,
    change: Change,
) -> Delivery {
    put(bus, "in.1", "event").await;
    let delivery = next(deliveries).await;
    let base = fresh(bus, &delivery, point).await;
    assert_eq!(commit(bus, &delivery, base, change).await, Ok(Committed::default()));
    delivery
}

/// Follows what fires.
async fn outs(bus: &Arc<dyn Bus>) -> Box<dyn Reader> {
    reader(bus, "OUT", "out.>", Start::Sequence(0)).await
}

async fn fired(outs: &mut Box<dyn Reader>) -> Stored {
    soon("a firing", outs.next()).await.expect("a stored message")
}

async fn quiet(outs: &mut Box<dyn Reader>) {
    if let Ok(stored) = tokio::time::timeout(QUIET, outs.next()).await {
        panic!("nothing was to fire, but: {stored:?}");
    }
}

async fn a_timer_fires_at_its_time_and_once(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let mut outs = outs(&bus).await;
    for (n, point) in [cell("c"), Point::Record].iter().enumerate() {
        let at = after(Duration::from_millis(1234));
        let change = Change {
            effects: vec![message("out.now", "now")],
            ..timers(&[timer(&format!("t.{n}"), at, "out.a", "later")])
        };
        run(&bus, &mut deliveries, point, change).await;
        let now = fired(&mut outs).await;
        assert!(now.message.data == "now" && now.timestamp < at);
        let later = fired(&mut outs).await;
        assert_eq!((later.message.subject.as_str(), &later.message.data[..]), ("out.a", &b"later"[..]));
        assert!(later.timestamp >= at, "{} ns too early", at - later.timestamp);
        let late = Duration::from_nanos(later.timestamp - at);
        assert!(late < Duration::from_secs(5), "{late:?} late");
        quiet(&mut outs).await;
    }
}

async fn a_timer_whose_time_has_passed_fires_at_once(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let mut outs = outs(&bus).await;
    for (n, at) in [0, 1, after(Duration::ZERO)].into_iter().enumerate() {
        let past = timers(&[timer(&format!("t.{n}"), at, "out.a", &n.to_string())]);
        run(&bus, &mut deliveries, &cell("c"), past).await;
        assert_eq!(fired(&mut outs).await.message.data, n.to_string());
    }
    quiet(&mut outs).await;
}

async fn what_fires_has_its_own_headers_its_id_and_its_cause(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let mut outs = outs(&bus).await;
    for (n, point) in [cell("c"), Point::Record].iter().enumerate() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut timer = timer(&format!("t-{n}.x_Y"), 0, "out.a", "");
        timer.message.headers = vec![header("b", "2"), header("a", "1"), header("b", "1")];
        timer.message.data = Bytes::from_static(b"\0\xff\r\n");
        let delivery = run(&bus, &mut deliveries, point, timers(std::slice::from_ref(&timer))).await;
        let fired = fired(&mut outs).await.message;
        let expected = [
            header("Cofferdam-Cause", delivery.id()),
            header("Nats-Msg-Id", &timer.id),
            header("a", "1"),
            header("b", "2"),
            header("b", "1"),
        ];
        assert_eq!((fired.headers.as_slice(), &fired.data), (&expected[..], &timer.message.data));
        // Known by its id.
        let again = Publish { message_id: Some(timer.id.clone()), ..Publish::default() };
        assert!(bus.publish(message("out.a", "again"), again).await.unwrap().duplicate);
    }
}

async fn a_timer_may_fire_into_our_own_stream(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let (_, mut jobs) = follow(&bus, &consumer_spec("COFFERDAM", "jobs", "cd.j.>")).await;
    run(&bus, &mut deliveries, &cell("c"), timers(&[timer("t", 0, "cd.j.a", "job")])).await;
    let job = next(&mut jobs).await;
    assert_eq!((text(&job), job.stored.message.subject.as_str()), ("job", "cd.j.a"));
    nothing_for(&mut jobs, QUIET).await;
}

async fn a_cancelled_timer_does_not_fire(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let mut outs = outs(&bus).await;
    let (soon, later) = (after(Duration::from_millis(1500)), after(Duration::from_secs(8)));
    let set =
        [timer("a", soon, "out.a", "a"), timer("b", soon, "out.b", "b"), timer("c", later, "out.c", "c")];
    run(&bus, &mut deliveries, &cell("c"), timers(&set)).await;
    // By another event, at another point.
    run(&bus, &mut deliveries, &Point::Record, cancels(&["a", "c", "unknown"])).await;
    assert_eq!(fired(&mut outs).await.message.data, "b");
    quiet(&mut outs).await;
    // Cancelled for good, by whoever says so how often.
    run(&bus, &mut deliveries, &cell("c"), cancels(&["a", "c", "c"])).await;
    while after(Duration::ZERO) < later {
        quiet(&mut outs).await;
    }
}

async fn a_timer_cancelled_by_the_event_that_sets_it_does_not_fire(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let mut outs = outs(&bus).await;
    for (n, point) in [cell("c"), Point::Record].iter().enumerate() {
        let (a, b) = (format!("a{n}"), format!("b{n}"));
        let at = after(Duration::from_millis(1000));
        let set = timers(&[timer(&a, at, "out.a", &a), timer(&b, at, "out.b", &b)]);
        run(&bus, &mut deliveries, point, Change { cancels: vec![a], ..set }).await;
        assert_eq!(fired(&mut outs).await.message.data, b);
        quiet(&mut outs).await;
    }
}

async fn a_cancel_before_the_timer_is_known_does_no_harm(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let mut outs = outs(&bus).await;
    run(&bus, &mut deliveries, &cell("c"), cancels(&["a"])).await;
    run(&bus, &mut deliveries, &cell("c"), timers(&[timer("b", 0, "out.b", "b")])).await;
    assert_eq!(fired(&mut outs).await.message.data, "b");
    quiet(&mut outs).await;
}

async fn a_cancel_after_the_firing_changes_nothing(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let mut outs = outs(&bus).await;
    run(&bus, &mut deliveries, &cell("c"), timers(&[timer("a", 0, "out.a", "a")])).await;
    assert_eq!(fired(&mut outs).await.message.data, "a");
    run(&bus, &mut deliveries, &Point::Record, cancels(&["a"])).await;
    quiet(&mut outs).await;
    assert_eq!(data(&out(&bus).await), ["a"]);
}

async fn timers_and_their_cancels_survive_a_restart(mut world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let at = after(Duration::from_secs(3));
    let set = ["a", "b", "c"].map(|id| timer(id, at, &format!("out.{id}"), id));
    run(&bus, &mut deliveries, &cell("c"), timers(&set)).await;
    run(&bus, &mut deliveries, &Point::Record, cancels(&["b"])).await;
    deliveries.close().await;
    bus.flush().await;
    drop((bus, deliveries));
    world.restart().await;
    let bus = world.bus().await;
    let mut outs = outs(&bus).await;
    let (_, mut deliveries) = plant(&bus).await;
    run(&bus, &mut deliveries, &Point::Record, cancels(&["c"])).await;
    let a = fired(&mut outs).await;
    assert!(a.message.data == "a" && a.timestamp >= at);
    quiet(&mut outs).await;
}

async fn what_is_due_while_nobody_is_there_fires_later(mut world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let at = after(Duration::from_millis(300));
    let set: Vec<Timer> = (0..20).map(|n| timer(&format!("t{n}"), at, "out.a", &n.to_string())).collect();
    run(&bus, &mut deliveries, &cell("c"), timers(&set)).await;
    deliveries.close().await;
    bus.flush().await;
    drop((bus, deliveries));
    world.restart().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let bus = world.bus().await;
    let mut outs = outs(&bus).await;
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        seen.insert(fired(&mut outs).await.message.data);
    }
    assert_eq!(seen.len(), 20);
    quiet(&mut outs).await;
}

async fn an_event_that_does_not_commit_sets_and_cancels_nothing(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    let (_, mut deliveries) = plant(&one).await;
    let mut outs = outs(&one).await;
    let kept = timer("kept", after(Duration::from_secs(2)), "out.kept", "kept");
    run(&one, &mut deliveries, &Point::Record, timers(&[kept])).await;
    let void =
        |id: &str| Change { cancels: vec!["kept".into()], ..timers(&[timer(id, 0, "out.a", "never")]) };

    // A conflict.
    put(&one, "in.1", "a").await;
    put(&one, "in.1", "b").await;
    let (a, b) = (next(&mut deliveries).await, next(&mut deliveries).await);
    let (base_a, base_b) = (fresh(&one, &a, &cell("c")).await, fresh(&two, &b, &cell("c")).await);
    let moved = Change { writes: vec![write("k", "v")], ..effects(&[("out.x", "x")]) };
    commit(&one, &a, base_a, moved).await.unwrap();
    assert_eq!(commit(&two, &b, base_b, void("conflict")).await, Err(CommitError::Conflict));

    // Another run was first.
    for (n, point) in [cell("c"), Point::Record].iter().enumerate() {
        put(&one, "in.1", "event").await;
        let first = next(&mut deliveries).await;
        first.nak(None).await.unwrap();
        let second = next(&mut deliveries).await;
        let (winner, loser) = (fresh(&one, &first, point).await, fresh(&two, &second, point).await);
        commit(&one, &first, winner, effects(&[("out.x", "x")])).await.unwrap();
        let void = void(&format!("settled{n}"));
        assert_eq!(commit(&two, &second, loser, void).await, Err(CommitError::Settled));
    }

    // Opened, run, and never committed.
    put(&one, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&one, &delivery, &cell("c")).await;
    drop(one.commit(&delivery, base, void("dropped")));

    for expected in ["x", "x", "x", "kept"] {
        assert_eq!(fired(&mut outs).await.message.data, expected);
    }
    quiet(&mut outs).await;
}

async fn a_rerun_of_a_settled_event_does_not_set_its_timers_again(world: World) {
    let bus = world.bus().await;
    let window = Some(Duration::from_secs(1));
    bus.ensure_stream(&StreamSpec { duplicate_window: window, ..stream_spec("OUT", &["out.>"]) })
        .await
        .unwrap();
    let (_, mut deliveries) = plant(&bus).await;
    let mut outs = outs(&bus).await;
    let mut late = Vec::new();
    let later = after(Duration::from_secs(5));
    for (n, point) in [cell("c"), Point::Record].into_iter().enumerate() {
        put(&bus, "in.1", "event").await;
        let first = next(&mut deliveries).await;
        first.nak(None).await.unwrap();
        late.push((next(&mut deliveries).await, point.clone()));
        let base = fresh(&bus, &first, &point).await;
        let set =
            [timer(&format!("a{n}"), 0, "out.a", "fired"), timer(&format!("b{n}"), later, "out.b", "never")];
        commit(&bus, &first, base, timers(&set)).await.unwrap();
        run(&bus, &mut deliveries, &Point::Record, cancels(&[&format!("b{n}")])).await;
        assert_eq!(fired(&mut outs).await.message.data, "fired");
    }
    // Until the stream has forgotten the ids.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let host = world.bus().await;
    for (delivery, point) in &late {
        assert!(settled(&host, delivery, point).await);
    }
    while after(Duration::ZERO) < later {
        quiet(&mut outs).await;
    }
    assert_eq!(data(&out(&bus).await), ["fired", "fired"]);
}

async fn many_timers_at_once_fire_once_each(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    let (_, mut deliveries) = plant(&one).await;
    let mut outs = outs(&one).await;
    let at = after(Duration::from_secs(2));
    for event in 0..10 {
        let ids = (0..40).map(|n| event * 40 + n);
        let set: Vec<Timer> =
            ids.map(|n| timer(&format!("t.{n}"), at, &format!("out.{}", n % 7), &n.to_string())).collect();
        let (bus, point) = if event % 2 == 0 { (&one, cell("c")) } else { (&two, Point::Record) };
        put(bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(bus, &delivery, &point).await;
        commit(bus, &delivery, base, timers(&set)).await.unwrap();
    }
    let mut seen = BTreeSet::new();
    for _ in 0..400 {
        let fired = fired(&mut outs).await;
        assert!(fired.timestamp >= at);
        seen.insert(fired.message.data);
    }
    assert_eq!(seen.len(), 400);
    quiet(&mut outs).await;
}

async fn a_change_with_an_unfit_timer_is_refused_whole(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let mut outs = outs(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let good = || timer("good", 0, "out.a", "never");
    let with = |bad: Timer| timers(&[good(), bad]);
    let mut rollup = timer("t", 0, "out.a", "x");
    rollup.message.headers.push(("Nats-Rollup".into(), "all".into()));
    let (big, half) = ("x".repeat(1024 * 1024 - 60 * 1024), "x".repeat(500 * 1024));
    let halves =
        Change { effects: vec![message("out.a", half.clone())], ..with(timer("t", 0, "out.a", &half)) };
    let cases = [
        (with(timer("", 0, "out.a", "x")), "letters, digits"),
        (with(timer("a b", 0, "out.a", "x")), "letters, digits"),
        (with(timer("a.", 0, "out.a", "x")), "letters, digits"),
        (with(timer("a.*", 0, "out.a", "x")), "letters, digits"),
        (with(timer(&"a".repeat(600), 0, "out.a", "x")), "letters, digits"),
        (with(good()), "set twice"),
        (Change { cancels: vec!["a..b".into()], ..timers(&[good()]) }, "letters, digits"),
        (with(timer("t", 0, "nobody.home", "x")), "no stream stores the subject \"nobody.home\""),
        (with(timer("t", 0, "out..a", "x")), "not a valid subject"),
        (with(timer("t", 0, "out.*", "x")), "not a valid subject"),
        (with(timer("t", 0, "cd.s.test.x", "x")), "reserved"),
        (with(timer("t", 0, "cd.t.x", "x")), "reserved"),
        (with(timer("t", 0, "cd.d.x", "x")), "reserved"),
        (with(rollup), "Nats-Rollup"),
        (with(timer("t", 0, "out.a", &big)), "limit"),
        (halves, "limit"),
    ];
    for (change, why) in cases {
        for point in [cell("c"), Point::Record] {
            let base = fresh(&bus, &delivery, &point).await;
            match commit(&bus, &delivery, base, change.clone()).await {
                Err(CommitError::Unfit(reason)) => assert!(reason.contains(why), "{reason}"),
                other => panic!("{point:?} {why}: {other:?}"),
            }
        }
    }
    for change in [timers(&[good()]), cancels(&["a"])] {
        let base = fresh(&bus, &delivery, &Point::Publish).await;
        let refused = commit(&bus, &delivery, base, change).await;
        assert!(matches!(&refused, Err(CommitError::Unfit(why)) if why.contains("timers")), "{refused:?}");
    }
    quiet(&mut outs).await;
    // It can still commit.
    let base = fresh(&bus, &delivery, &Point::Record).await;
    commit(&bus, &delivery, base, timers(&[good()])).await.unwrap();
    assert_eq!(fired(&mut outs).await.message.data, "never");
}
