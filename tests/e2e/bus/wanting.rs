//! A taker says how many deliveries it has use for: it gets no more, and holds no more.

use std::time::Duration;

use super::*;

conformance![
    no_more_comes_than_is_wanted,
    what_is_wanted_later_comes_later,
    what_was_fetched_and_is_not_wanted_any_more_goes_to_others,
    who_wants_nothing_any_more_is_passed_over,
    the_number_that_was_said_last_counts,
    an_ordered_durable_gives_all_to_whoever_has_the_turn,
    a_delivery_tells_how_many_are_behind_it,
];

async fn filled(bus: &Arc<dyn Bus>, count: u64) -> Arc<Origin> {
    stream(bus, "S", &["s"]).await;
    for n in 1..=count {
        put(bus, "s", n.to_string()).await;
    }
    bus.ensure_consumer(&consumer_spec("S", "d", "s")).await.unwrap()
}

/// One that wants nothing yet.
async fn taker(bus: &Arc<dyn Bus>, origin: &Arc<Origin>) -> Box<dyn Deliveries> {
    bus.deliveries(origin, 0).await.unwrap()
}

async fn texts(deliveries: &mut Box<dyn Deliveries>, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let delivery = next(deliveries).await;
        texts.push(text(&delivery).to_owned());
        delivery.ack().await.unwrap();
    }
    texts.sort();
    texts
}

async fn no_more_comes_than_is_wanted(world: World) {
    let bus = world.bus().await;
    let origin = filled(&bus, 5).await;
    let mut one = taker(&bus, &origin).await;
    one.want(2).await;
    assert_eq!(texts(&mut one, 2).await, ["1", "2"]);
    nothing_for(&mut one, Duration::from_millis(300)).await;
    // None of them waits in somebody's buffer.
    let bus = world.bus().await;
    let mut other = bus.deliveries(&origin, 16).await.unwrap();
    assert_eq!(texts(&mut other, 3).await, ["3", "4", "5"]);
}

async fn what_is_wanted_later_comes_later(world: World) {
    let bus = world.bus().await;
    let origin = filled(&bus, 3).await;
    let mut deliveries = taker(&bus, &origin).await;
    nothing_for(&mut deliveries, Duration::from_millis(300)).await;
    for n in ["1", "2"] {
        deliveries.want(1).await;
        assert_eq!(texts(&mut deliveries, 1).await, [n]);
        nothing_for(&mut deliveries, Duration::from_millis(100)).await;
    }
    deliveries.want(4).await;
    assert_eq!(texts(&mut deliveries, 1).await, ["3"]);
    put(&bus, "s", "4").await;
    put(&bus, "s", "5").await;
    assert_eq!(texts(&mut deliveries, 2).await, ["4", "5"]);
}

async fn what_was_fetched_and_is_not_wanted_any_more_goes_to_others(world: World) {
    let bus = world.bus().await;
    let origin = filled(&bus, 5).await;
    // Without a word from it, it fetches all.
    let mut one = bus.deliveries(&origin, 16).await.unwrap();
    assert_eq!(texts(&mut one, 1).await, ["1"]);
    one.want(1).await;
    let bus = world.bus().await;
    let mut other = taker(&bus, &origin).await;
    other.want(3).await;
    let mut all = texts(&mut other, 3).await;
    all.extend(texts(&mut one, 1).await);
    all.sort();
    assert_eq!(all, ["2", "3", "4", "5"]);
}

async fn who_wants_nothing_any_more_is_passed_over(world: World) {
    let bus = world.bus().await;
    let origin = filled(&bus, 1).await;
    let mut one = taker(&bus, &origin).await;
    one.want(8).await;
    assert_eq!(texts(&mut one, 1).await, ["1"]);
    let others = world.bus().await;
    let mut other = taker(&others, &origin).await;
    for n in 2..=6 {
        one.want(8).await;
        one.want(0).await;
        put(&bus, "s", n.to_string()).await;
        other.want(1).await;
        assert_eq!(texts(&mut other, 1).await, [n.to_string()]);
    }
}

async fn the_number_that_was_said_last_counts(world: World) {
    let bus = world.bus().await;
    let origin = filled(&bus, 6).await;
    let mut one = taker(&bus, &origin).await;
    for count in [5, 1, 4, 2] {
        one.want(count).await;
    }
    assert_eq!(texts(&mut one, 2).await.len(), 2);
    nothing_for(&mut one, Duration::from_millis(300)).await;
    let mut other = bus.deliveries(&origin, 16).await.unwrap();
    assert_eq!(texts(&mut other, 4).await.len(), 4);
}

async fn a_delivery_tells_how_many_are_behind_it(world: World) {
    let bus = world.bus().await;
    let origin = filled(&bus, 3).await;
    let mut deliveries = taker(&bus, &origin).await;
    for behind in [2, 1, 0] {
        deliveries.want(1).await;
        assert_eq!(next(&mut deliveries).await.behind, behind);
    }
}

async fn an_ordered_durable_gives_all_to_whoever_has_the_turn(world: World) {
    let bus = world.bus().await;
    filled(&bus, 3).await;
    let spec = ConsumerSpec { ordered: true, ..consumer_spec("S", "o", "s") };
    let (_, mut deliveries) = follow(&bus, &spec).await;
    deliveries.want(1).await;
    assert_eq!(texts(&mut deliveries, 3).await, ["1", "2", "3"]);
}
