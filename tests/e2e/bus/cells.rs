//! Events that read and write other cells than their own: all at once, or not at all, and only on what they saw.

use cofferdam_bus::{CommitError, Committed, OtherCell};

use super::{
    commits::{commit, out, plant},
    *,
};

conformance![
    an_event_writes_other_cells_with_its_effects,
    a_cell_that_was_only_read_stays_as_it_is,
    a_cell_that_moved_since_it_was_read_is_a_conflict_and_nothing_happens,
    a_cell_that_was_not_there_and_is_now_is_a_conflict,
    of_two_events_that_read_each_others_cells_one_sees_the_other,
    events_that_only_read_the_same_cell_do_not_disturb_each_other,
    an_event_that_only_reads_is_settled_all_the_same,
    a_second_run_of_a_settled_event_writes_no_other_cell,
    what_cant_be_stored_leaves_all_cells_as_they_were,
    a_run_on_cells_that_have_changed_since_is_stale,
    a_cells_own_events_go_on_after_it_was_written_by_others,
    amounts_that_are_moved_at_once_are_neither_lost_nor_doubled,
];

pub(super) async fn other(bus: &Arc<dyn Bus>, name: &str) -> OtherCell {
    soon("a cell", bus.cell("test", name)).await.expect("a cell")
}

fn writing(mut other: OtherCell, writes: &[(&str, &str)]) -> OtherCell {
    other.writes = writes.iter().map(|(k, v)| write(k, v)).collect();
    other
}

/// What a cell holds under `k`.
async fn held_by(bus: &Arc<dyn Bus>, name: &str) -> Option<String> {
    let state = other(bus, name).await.state;
    state.entries.get("k").map(|v| std::str::from_utf8(v).expect("text").to_owned())
}

async fn event(bus: &Arc<dyn Bus>, deliveries: &mut Box<dyn Deliveries>) -> Delivery {
    put(bus, "in.1", "event").await;
    next(deliveries).await
}

/// An event that writes `k` of a cell, or of several.
pub(super) async fn set(
    bus: &Arc<dyn Bus>,
    deliveries: &mut Box<dyn Deliveries>,
    cells: &[&str],
    to: &str,
) -> Delivery {
    let delivery = event(bus, deliveries).await;
    let base = fresh(bus, &delivery, &Point::Record).await;
    let mut others = Vec::new();
    for name in cells {
        others.push(writing(other(bus, name).await, &[("k", to)]));
    }
    let change = Change { others, ..Change::default() };
    assert_eq!(commit(bus, &delivery, base, change).await, Ok(Committed::default()));
    delivery
}

fn points() -> [Point; 2] {
    [cell("own"), Point::Record]
}

fn own_write(point: &Point, value: &str) -> Vec<Write> {
    if *point == Point::Record { Vec::new() } else { vec![write("k", value)] }
}

async fn an_event_writes_other_cells_with_its_effects(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    for (n, point) in points().iter().enumerate() {
        let n = n.to_string();
        let delivery = event(&bus, &mut deliveries).await;
        let base = fresh(&bus, &delivery, point).await;
        let (b, c) = (other(&bus, "b").await, other(&bus, "c – ü").await);
        let change = Change {
            writes: own_write(point, &n),
            others: vec![writing(b, &[("k", &n), (&n, "x")]), writing(c, &[("k", &n)])],
            ..effects(&[("out.a", &n)])
        };
        assert_eq!(commit(&bus, &delivery, base, change).await, Ok(Committed::default()), "{point:?}");
        assert_eq!(held_by(&bus, "b").await.as_ref(), Some(&n));
        assert_eq!(held_by(&bus, "c – ü").await.as_ref(), Some(&n));
    }
    assert_eq!(held_by(&bus, "own").await.as_deref(), Some("0"));
    assert_eq!(other(&bus, "b").await.state.entries.len(), 3, "what an earlier event wrote is still there");
    assert_eq!(data(&out(&bus).await), ["0", "1"]);
    // The same name in another space is another cell.
    assert!(bus.cell("test2", "b").await.unwrap().state.entries.is_empty());
}

async fn a_cell_that_was_only_read_stays_as_it_is(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    set(&bus, &mut deliveries, &["b"], "1").await;
    for point in points() {
        let before = other(&bus, "b").await;
        let delivery = event(&bus, &mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        let change = Change {
            writes: own_write(&point, "x"),
            others: vec![before.clone(), other(&bus, "never written").await],
            ..effects(&[("out.a", "read")])
        };
        assert_eq!(commit(&bus, &delivery, base, change).await, Ok(Committed::default()), "{point:?}");
        assert_eq!(other(&bus, "b").await, before, "its revision among the rest");
    }
    assert_eq!(data(&out(&bus).await), ["read", "read"]);
}

async fn a_cell_that_moved_since_it_was_read_is_a_conflict_and_nothing_happens(world: World) {
    let bus = world.bus().await;
    let elsewhere = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    set(&bus, &mut deliveries, &["b", "c", "own"], "old").await;
    let mut done = 0;
    for point in points() {
        for only_read in [true, false] {
            let what = format!("{point:?}, only read: {only_read}");
            let delivery = event(&bus, &mut deliveries).await;
            let base = fresh(&bus, &delivery, &point).await;
            let (b, c) = (other(&bus, "b").await, other(&bus, "c").await);
            set(&elsewhere, &mut deliveries, &["b"], "moved").await;
            let others = |b: OtherCell, c: OtherCell| {
                let b = if only_read { b } else { writing(b, &[("k", "new")]) };
                vec![writing(c, &[("k", "new")]), b]
            };
            let change = |others| Change {
                writes: own_write(&point, "new"),
                others,
                ..effects(&[("out.a", if only_read { "read" } else { "written" })])
            };
            let refused = commit(&bus, &delivery, base, change(others(b, c))).await;
            assert_eq!(refused, Err(CommitError::Conflict), "{what}");
            assert_eq!(held_by(&bus, "own").await.as_deref(), Some("old"), "{what}");
            assert_eq!(held_by(&bus, "c").await.as_deref(), Some("old"), "{what}");
            assert_eq!(held_by(&bus, "b").await.as_deref(), Some("moved"), "{what}");
            assert_eq!(out(&bus).await.len(), done, "{what}");

            let base = fresh(&bus, &delivery, &point).await;
            let (b, c) = (other(&bus, "b").await, other(&bus, "c").await);
            let again = commit(&bus, &delivery, base, change(others(b, c))).await;
            assert_eq!(again, Ok(Committed::default()), "{what}");
            assert_eq!(held_by(&bus, "c").await.as_deref(), Some("new"), "{what}");
            done += 1;
            assert_eq!(out(&bus).await.len(), done, "{what}");
            // As it was, for the next.
            set(&bus, &mut deliveries, &["b", "c", "own"], "old").await;
        }
    }
}

async fn a_cell_that_was_not_there_and_is_now_is_a_conflict(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    for (n, point) in points().iter().enumerate() {
        let new = format!("new {n}");
        let delivery = event(&bus, &mut deliveries).await;
        let base = fresh(&bus, &delivery, point).await;
        let read = other(&bus, &new).await;
        set(&bus, &mut deliveries, &[&new], "first").await;
        for others in [vec![read.clone()], vec![writing(read, &[("k", "second")])]] {
            let change = Change { others, ..effects(&[("out.a", "never")]) };
            assert_eq!(commit(&bus, &delivery, base.clone(), change).await, Err(CommitError::Conflict));
        }
        assert_eq!(held_by(&bus, &new).await.as_deref(), Some("first"));
    }
    assert_eq!(out(&bus).await, []);
}

async fn of_two_events_that_read_each_others_cells_one_sees_the_other(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    let (_, mut deliveries) = plant(&one).await;
    for round in 0..10 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let (first, second) = (event(&one, &mut deliveries).await, event(&one, &mut deliveries).await);
        let run = async |bus: &Arc<dyn Bus>, delivery: &Delivery, own: &str, read: &str| {
            let base = fresh(bus, delivery, &cell(own)).await;
            let other = other(bus, read).await;
            (base, Change { writes: vec![write("k", "taken")], others: vec![other], ..Change::default() })
        };
        let (base1, change1) = run(&one, &first, &a, &b).await;
        let (base2, change2) = run(&two, &second, &b, &a).await;
        let (done1, done2) =
            tokio::join!(commit(&one, &first, base1, change1), commit(&two, &second, base2, change2));
        let done = [done1.is_ok(), done2.is_ok()];
        assert!(done != [true, true], "neither saw the other");
        let conflicts = [&done1, &done2].map(|d| *d == Err(CommitError::Conflict));
        // Which of them, if any, is left open; but never something else than a conflict.
        assert_eq!(done.map(|d| !d), conflicts, "{done1:?} {done2:?}");
        let taken = [held_by(&one, &a).await.is_some(), held_by(&one, &b).await.is_some()];
        assert_eq!(taken, done);
    }
}

async fn events_that_only_read_the_same_cell_do_not_disturb_each_other(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    set(&bus, &mut deliveries, &["b"], "1").await;
    let read = other(&bus, "b").await;
    let mut events = Vec::new();
    for n in 0..20 {
        let delivery = event(&bus, &mut deliveries).await;
        let point = if n % 2 == 0 { cell(&format!("own {n}")) } else { Point::Record };
        let base = fresh(&bus, &delivery, &point).await;
        events.push((delivery, base));
    }
    let commits = events.into_iter().map(|(delivery, base)| {
        let (bus, others) = (bus.clone(), vec![read.clone()]);
        async move { commit(&bus, &delivery, base, Change { others, ..effects(&[("out.a", "x")]) }).await }
    });
    for committed in futures_util::future::join_all(commits).await {
        assert_eq!(committed, Ok(Committed::default()));
    }
    assert_eq!(out(&bus).await.len(), 20);
}

async fn an_event_that_only_reads_is_settled_all_the_same(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    for point in points() {
        let delivery = event(&bus, &mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        let stale = other(&bus, "b").await;
        set(&bus, &mut deliveries, &["b"], "1").await;
        let reads = |others| Change { others: vec![others], ..Change::default() };
        // It decided to do nothing on what is no more.
        assert_eq!(commit(&bus, &delivery, base.clone(), reads(stale)).await, Err(CommitError::Conflict));
        let now = reads(other(&bus, "b").await);
        assert_eq!(commit(&bus, &delivery, base.clone(), now).await, Ok(Committed::default()));
        let again = reads(other(&bus, "b").await);
        assert_eq!(commit(&bus, &delivery, base, again).await, Err(CommitError::Settled), "{point:?}");
    }
}

async fn a_second_run_of_a_settled_event_writes_no_other_cell(world: World) {
    let (one, two) = (world.bus().await, world.bus().await);
    let (_, mut deliveries) = plant(&one).await;
    for point in points() {
        let delivery = event(&one, &mut deliveries).await;
        let bases = [fresh(&one, &delivery, &point).await, fresh(&two, &delivery, &point).await];
        let [base1, base2] = bases;
        let change = async |bus: &Arc<dyn Bus>, value: &str| Change {
            others: vec![writing(other(bus, "b").await, &[("k", value)])],
            ..effects(&[("out.a", value)])
        };
        let (change1, change2) = (change(&one, "first").await, change(&two, "second").await);
        assert_eq!(commit(&one, &delivery, base1, change1).await, Ok(Committed::default()));
        assert_eq!(commit(&two, &delivery, base2.clone(), change2).await, Err(CommitError::Settled));
        // Not even on the cell as it is now.
        let change2 = change(&two, "second").await;
        assert_eq!(commit(&two, &delivery, base2, change2).await, Err(CommitError::Settled));
        assert_eq!(held_by(&one, "b").await.as_deref(), Some("first"), "{point:?}");
    }
    assert_eq!(data(&out(&one).await), ["first", "first"]);
}

async fn what_cant_be_stored_leaves_all_cells_as_they_were(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    set(&bus, &mut deliveries, &["b", "c"], "old").await;
    let large = "x".repeat(bus.max_commit());
    let delivery = event(&bus, &mut deliveries).await;
    for point in points() {
        let base = fresh(&bus, &delivery, &point).await;
        let b = writing(other(&bus, "b").await, &[("k", "new")]);
        let c = other(&bus, "c").await;
        for (others, effect, why) in [
            (vec![b.clone(), writing(c.clone(), &[("k", &large)])], "out.a", "over the limit"),
            (vec![b.clone(), c.clone()], "nowhere.a", "no stream"),
            (vec![b.clone(), b.clone()], "out.a", "twice"),
            (vec![b.clone(), writing(c, &[("", "x")])], "out.a", "1 to"),
        ] {
            let change = Change { others, ..effects(&[(effect, "never")]) };
            match commit(&bus, &delivery, base.clone(), change).await {
                Err(CommitError::Unfit(reason)) => assert!(reason.contains(why), "{why}: {reason}"),
                other => panic!("{why}: {other:?}"),
            }
        }
    }
    let own = Change { others: vec![other(&bus, "own").await], ..Change::default() };
    let base = fresh(&bus, &delivery, &cell("own")).await;
    assert!(matches!(commit(&bus, &delivery, base, own).await, Err(CommitError::Unfit(_))));
    for name in ["", "\u{0}".repeat(1025).as_str()] {
        assert!(bus.cell("test", name).await.is_err());
    }
    assert!(bus.cell("no space", "b").await.is_err());
    assert_eq!(held_by(&bus, "b").await.as_deref(), Some("old"));
    assert_eq!(held_by(&bus, "c").await.as_deref(), Some("old"));
    assert_eq!(out(&bus).await, []);
}

async fn a_run_on_cells_that_have_changed_since_is_stale(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let delivery = event(&bus, &mut deliveries).await;
    for point in points() {
        let base = fresh(&bus, &delivery, &point).await;
        let others = [other(&bus, "b").await, other(&bus, "never written").await];
        assert!(!bus.is_stale(&delivery, &base, &others).await.unwrap(), "{point:?}");
        set(&bus, &mut deliveries, &["b"], "x").await;
        assert!(bus.is_stale(&delivery, &base, &others).await.unwrap(), "{point:?}");
        assert!(!bus.is_stale(&delivery, &base, &others[1..]).await.unwrap(), "{point:?}");
    }
    let base = fresh(&bus, &delivery, &cell("own")).await;
    set(&bus, &mut deliveries, &["own"], "x").await;
    assert!(bus.is_stale(&delivery, &base, &[]).await.unwrap());
}

async fn a_cells_own_events_go_on_after_it_was_written_by_others(world: World) {
    let bus = world.bus().await;
    let (_, mut deliveries) = plant(&bus).await;
    let first = event(&bus, &mut deliveries).await;
    let base = fresh(&bus, &first, &cell("own")).await;
    let change = Change { writes: vec![write("k", "1")], ..effects(&[("out.a", "1")]) };
    commit(&bus, &first, base.clone(), change.clone()).await.unwrap();
    set(&bus, &mut deliveries, &["own"], "2").await;
    // It is still known there.
    assert_eq!(commit(&bus, &first, base, change).await, Err(CommitError::Settled));
    let second = event(&bus, &mut deliveries).await;
    let base = fresh(&bus, &second, &cell("own")).await;
    assert_eq!(value(&base, "k"), Some("2"));
    let change = Change { writes: vec![write("k", "3")], ..effects(&[("out.a", "3")]) };
    assert_eq!(commit(&bus, &second, base, change).await, Ok(Committed::default()));
    assert_eq!(held_by(&bus, "own").await.as_deref(), Some("3"));
    assert_eq!(data(&out(&bus).await), ["1", "3"]);
}

const ACCOUNTS: usize = 5;
const START: i64 = 100;

fn amount(state: &cofferdam_bus::CellState) -> i64 {
    state.entries.get("k").map_or(START, |v| std::str::from_utf8(v).unwrap().parse().unwrap())
}

/// Moves an amount from one account to another, on fresh state until it has committed; gives how many runs that took.
pub(super) async fn transfer(bus: &Arc<dyn Bus>, delivery: &Delivery, seed: usize) -> usize {
    let (from, to) = (seed % ACCOUNTS, (seed + 1 + seed / ACCOUNTS % (ACCOUNTS - 1)) % ACCOUNTS);
    let (from, to) = (from.to_string(), to.to_string());
    let moved = (seed % 7) as i64 + 1;
    let by_record = seed.is_multiple_of(3);
    for run in 1.. {
        let point = if by_record { Point::Record } else { cell(&from) };
        let Opened::Fresh(base) = soon("an open", bus.open(delivery, &point)).await.unwrap() else {
            return run;
        };
        let receiver = other(bus, &to).await;
        let more = (amount(&receiver.state) + moved).to_string();
        let mut change = effects(&[("out.a", &seed.to_string())]);
        if by_record {
            let sender = other(bus, &from).await;
            let less = (amount(&sender.state) - moved).to_string();
            change.others.push(writing(sender, &[("k", &less)]));
        } else {
            change.writes.push(write("k", &(amount(&base.state) - moved).to_string()));
        }
        change.others.push(writing(receiver, &[("k", &more)]));
        match commit(bus, delivery, base, change).await {
            Ok(_) | Err(CommitError::Settled) => return run,
            Err(CommitError::Conflict) => {}
            Err(e) => panic!("{e:?}"),
        }
    }
    unreachable!()
}

/// Nothing was lost, whoever moved it.
pub(super) async fn assert_sum(bus: &Arc<dyn Bus>) {
    let mut sum = 0;
    for n in 0..ACCOUNTS {
        sum += amount(&other(bus, &n.to_string()).await.state);
    }
    assert_eq!(sum, START * ACCOUNTS as i64);
}

async fn amounts_that_are_moved_at_once_are_neither_lost_nor_doubled(world: World) {
    const EVENTS: usize = 80;
    let (one, two) = (world.bus().await, world.bus().await);
    let (_, mut deliveries) = plant(&one).await;
    let mut running = tokio::task::JoinSet::new();
    for seed in 0..EVENTS {
        let delivery = event(&one, &mut deliveries).await;
        let bus = if seed % 2 == 0 { one.clone() } else { two.clone() };
        running.spawn(async move { transfer(&bus, &delivery, seed).await });
    }
    let runs: usize = soon("all transfers", running.join_all()).await.iter().sum();
    assert!(runs > EVENTS, "none of them met another");
    assert_sum(&one).await;
    let mut found: Vec<usize> = data(&out(&one).await).iter().map(|n| n.parse().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, (0..EVENTS).collect::<Vec<_>>());
}
