//! Ordered durables, as far as every bus has them: stream order, over hand-backs and restarts too.

use std::time::Duration;

use cofferdam_bus::Error;

use super::*;

conformance![
    an_ordered_durable_delivers_in_stream_order_and_each_as_it_was_stored,
    what_an_ordered_durable_handed_back_comes_first_and_in_order,
    what_was_out_when_the_bus_stopped_comes_first_and_in_order,
    whether_a_durable_is_ordered_is_one_of_its_settings,
];

fn spec(durable: &str) -> ConsumerSpec {
    ConsumerSpec { ordered: true, ..consumer_spec("S", durable, "s.>") }
}

async fn fill(bus: &Arc<dyn Bus>, numbers: std::ops::RangeInclusive<u32>) {
    for n in numbers {
        put(bus, "s.1", n.to_string()).await;
    }
}

/// The next so many, acked.
async fn take(deliveries: &mut Box<dyn Deliveries>, many: usize) -> Vec<u64> {
    let mut sequences = Vec::new();
    for _ in 0..many {
        let delivery = next(deliveries).await;
        delivery.ack().await.unwrap();
        sequences.push(delivery.stored.sequence);
    }
    sequences
}

async fn an_ordered_durable_delivers_in_stream_order_and_each_as_it_was_stored(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    fill(&bus, 1..=60).await;
    let (_, mut deliveries) = follow(&bus, &spec("d")).await;
    for sequence in 1..=60 {
        let delivery = next(&mut deliveries).await;
        assert_eq!((delivery.stored.sequence, delivery.count), (sequence, 1));
        assert_eq!(delivery.stored.message, message("s.1", sequence.to_string()), "with nothing added");
        delivery.ack().await.unwrap();
    }
    nothing_for(&mut deliveries, Duration::from_millis(50)).await;
}

async fn what_an_ordered_durable_handed_back_comes_first_and_in_order(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    fill(&bus, 1..=30).await;
    let (_, mut deliveries) = follow(&bus, &spec("d")).await;
    assert_eq!(take(&mut deliveries, 3).await, [1, 2, 3]);
    // The rest of its buffer is handed back.
    deliveries.close().await;
    fill(&bus, 31..=60).await;
    let (_, mut deliveries) = follow(&world.bus().await, &spec("d")).await;
    assert_eq!(take(&mut deliveries, 57).await, (4..=60).collect::<Vec<u64>>());
}

async fn what_was_out_when_the_bus_stopped_comes_first_and_in_order(mut world: World) {
    let short = ConsumerSpec { ack_wait: Duration::from_secs(2), ..spec("d") };
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    fill(&bus, 1..=40).await;
    let (_, mut deliveries) = follow(&bus, &short).await;
    let mut held = Vec::new();
    for sequence in 1..=8 {
        let delivery = next(&mut deliveries).await;
        // Every second one is done.
        match sequence % 2 {
            0 => delivery.ack().await.unwrap(),
            _ => held.push(delivery),
        }
    }
    bus.flush().await;
    drop((deliveries, held, bus));
    world.restart().await;
    let bus = world.bus().await;
    fill(&bus, 41..=60).await;
    let (_, mut deliveries) = follow(&bus, &short).await;
    let expected: Vec<u64> = [1, 3, 5, 7].into_iter().chain(9..=60).collect();
    assert_eq!(take(&mut deliveries, expected.len()).await, expected);
}

async fn whether_a_durable_is_ordered_is_one_of_its_settings(world: World) {
    let bus = world.bus().await;
    stream(&bus, "S", &["s.>"]).await;
    for made in [false, true] {
        let name = format!("d{made}");
        let its = ConsumerSpec { ordered: made, ..spec(&name) };
        let origin = bus.ensure_consumer(&its).await.expect("a durable");
        assert_eq!(origin.ordered, made);
        assert_eq!(bus.ensure_consumer(&its).await.as_deref(), Ok(&*origin), "the same again");
        let ours = ConsumerSpec { ordered: !made, ..its };
        let Err(Error::Differs { name, difference, .. }) = bus.ensure_consumer(&ours).await else {
            panic!("{made}: no error")
        };
        assert_eq!(name, format!("S/d{made}"));
        let (unordered, ordered) = match bus.kind() {
            "nats" => ("none", "pinned_client"),
            _ => ("false", "true"),
        };
        let (its, ours) = if made { (ordered, unordered) } else { (unordered, ordered) };
        assert!(difference.contains(&format!("is {its}, ours is to be {ours}")), "{difference}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_out_when_the_process_of_an_embedded_bus_was_killed_comes_first_and_in_order() {
    let World::Local(local) = World::local().await else { unreachable!() };
    let bus = local.bus.clone().unwrap();
    stream(&bus, "S", &["s.>"]).await;
    fill(&bus, 1..=40).await;
    let (_, mut deliveries) = follow(&bus, &spec("d")).await;
    let mut held = Vec::new();
    for sequence in 1..=8 {
        let delivery = next(&mut deliveries).await;
        match sequence % 2 {
            0 => delivery.ack().await.unwrap(),
            _ => held.push(delivery),
        }
    }
    // An answer to a publish says that what came before is on disk, acks too.
    fill(&bus, 41..=60).await;
    // What a kill leaves is what the files say at that moment.
    let left = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(local.directory.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), left.path().join(file.file_name())).unwrap();
    }
    let bus = open(&left).await;
    let (_, mut deliveries) = follow(&bus, &spec("d")).await;
    let expected: Vec<u64> = [1, 3, 5, 7].into_iter().chain(9..=60).collect();
    assert_eq!(take(&mut deliveries, expected.len()).await, expected);
}
