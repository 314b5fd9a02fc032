//! Whose job comes next.

use super::*;

#[tokio::test]
async fn three_times_the_weight_is_three_times_the_work() {
    let place = Place::new().await;
    let _worker = place.worker(1).with("executor.plugins.b.weight", 3).start_worker().await;
    let held = place.hold("0").await;
    let (a, b) = (Queue::new("a", MODEL), Queue::new("b", MODEL));
    let mut ids = place.submit(&a, &plain(30, "a")).await;
    ids.extend(place.submit(&b, &plain(30, "b")).await);
    place.endpoint.release().await;

    ids.push(held);
    place.ended_once(&ids).await;
    let order = place.answered(ids.len()).await;
    let first: Vec<&str> = order.iter().map(|id| plugin(id)).filter(|plugin| *plugin != "holder").collect();
    // While both have jobs waiting: until b, with three of four, has none.
    let ours = first[..32].iter().filter(|plugin| **plugin == "b").count();
    assert!((22..=26).contains(&ours), "{ours} of 32: {first:?}");
    // And each in its own order.
    for name in ["a_", "b_"] {
        let own: Vec<&String> = order.iter().filter(|id| id.starts_with(name)).collect();
        assert!(own.is_sorted(), "{own:?}");
    }
}

#[tokio::test]
async fn weights_hold_where_several_places_become_free_together() {
    let place = Place::new().await;
    let _worker = place.worker(4).with("executor.plugins.b.weight", 3).start_worker().await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(place.hold(&n.to_string()).await);
    }
    let (a, b) = (Queue::new("a", MODEL), Queue::new("b", MODEL));
    ids.extend(place.submit(&a, &plain(60, "a")).await);
    ids.extend(place.submit(&b, &plain(60, "b")).await);
    place.endpoint.release().await;
    place.ended_once(&ids).await;
    let order = place.answered(ids.len()).await;
    let first: Vec<&str> = order.iter().map(|id| plugin(id)).filter(|plugin| *plugin != "holder").collect();
    // Once it is known what a job takes; half of them would be no weight at all.
    let ours = first[16..80].iter().filter(|plugin| **plugin == "b").count();
    assert!((38..=56).contains(&ours), "{ours} of 64: {first:?}");
}

#[tokio::test]
async fn within_a_plugin_the_urgent_come_first() {
    let place = Place::new().await;
    let _worker = place.worker(1).start_worker().await;
    let held = place.hold("0").await;
    let mut ids = vec![held];
    for priority in ["low", "normal", "high"] {
        let queue = Queue { priority, ..Queue::new("p", MODEL) };
        ids.extend(place.submit(&queue, &plain(3, priority)).await);
    }
    place.endpoint.release().await;
    place.ended_once(&ids).await;
    let order = place.answered(ids.len()).await;
    let urgency: Vec<&str> = order[1..].iter().map(|id| id.split('_').nth(1).expect("a priority")).collect();
    let [low, normal, high] = ["low", "normal", "high"].map(|urgency| [urgency; 3]);
    assert_eq!(urgency, [high, normal, low].concat());
}

#[tokio::test]
async fn a_worker_holds_no_job_that_another_could_begin() {
    let place = Place::new().await;
    let busy = place.worker(1).start_worker().await;
    let held = place.hold("0").await;
    let mut ids = vec![held.clone()];
    // Long since it has been full, and wants nothing.
    let other = place.worker(4).start_worker().await;
    ids.extend(place.submit(&Queue::new("p", MODEL), &plain(20, "p")).await);
    let answered = place.answered(20).await;
    assert!(!answered.contains(&held));
    place.endpoint.release().await;
    place.ended_once(&ids).await;
    settled(busy).await;
    settled(other).await;
}
