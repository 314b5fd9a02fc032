//! Workers that die, freeze and stop, and a durable that is made anew: each job ends once.

use super::*;

#[tokio::test]
async fn a_job_whose_worker_was_killed_is_anothers_after_the_lease() {
    let place = Place::new().await;
    let setup = place.worker(1).with("executor.lease", "2s");
    let mut first = setup.start_worker().await;
    let held = place.hold("0").await;
    let second = setup.start_worker().await;
    let before = second.scrape().await;
    wait_for("the first to say that it works it", async || {
        let reports = place.world.stored("cd.w.*").await;
        reports.iter().any(|report| report.json()["running"][0]["job"] == *held).then_some(())
    })
    .await;
    first.kill().await;
    place.endpoint.sees("that it is asked again", |seen| seen.requests == 2).await;
    place.endpoint.release().await;
    assert_eq!(place.record(&held).await["phase"], "done");
    place.ended_once(std::slice::from_ref(&held)).await;
    let moved = second.scrape().await.since(&before);
    assert_eq!(moved.counts("cofferdam_jobs_taken_over_total", &["model"]).get(MODEL), Some(&1));
}

#[tokio::test]
async fn a_job_is_not_anothers_while_its_worker_lives() {
    let place = Place::new().await;
    let setup = place.worker(1).with("executor.lease", "1s");
    let _first = setup.start_worker().await;
    let held = place.hold("0").await;
    let _second = setup.start_worker().await;
    let began = std::time::Instant::now();
    wait_for("three leases", async || (began.elapsed().as_secs() >= 3).then_some(())).await;
    assert_eq!(place.endpoint.seen().await.requests, 1);
    place.endpoint.release().await;
    place.ended_once(&[held]).await;
}

#[tokio::test]
async fn a_worker_that_was_frozen_has_nothing_to_say_any_more() {
    let place = Place::new().await;
    let setup = place.worker(1).with("executor.lease", "1s");
    let first = setup.start_worker().await;
    let held = place.hold("0").await;
    let second = setup.start_worker().await;
    first.pause();
    place.endpoint.sees("that it is asked again", |seen| seen.requests == 2).await;
    place.endpoint.release().await;
    assert_eq!(place.record(&held).await["phase"], "done");
    first.resume();
    let other = place.submit(&Queue::new("p", MODEL), &plain(4, "p")).await;
    place.ended_once(&[other, vec![held]].concat()).await;
    settled(first).await;
    settled(second).await;
}

#[tokio::test]
async fn a_worker_that_stops_hands_back_what_it_leaves() {
    let place = Place::new().await;
    let setup = place.worker(1).with("dispatch.drain", "500ms");
    let mut first = setup.start_worker().await;
    let held = place.hold("0").await;
    let _second = setup.start_worker().await;
    first.stop().await;
    // The lease is half a minute; it was not waited for.
    place.endpoint.sees("that it is asked again", |seen| seen.requests == 2).await;
    place.endpoint.release().await;
    place.ended_once(&[held]).await;
}

#[tokio::test]
async fn a_durable_that_is_made_anew_repeats_nothing() {
    let place = Place::new().await;
    let setup = place.worker(4);
    let first = setup.start_worker().await;
    let queue = Queue::new("p", MODEL);
    let mut ids = place.submit(&queue, &plain(10, "p")).await;
    place.ended_once(&ids).await;
    settled(first).await;
    let ours = place.world.jetstream.get_stream("COFFERDAM").await.expect("the host's stream");
    ours.delete_consumer(&queue.durable()).await.expect("a durable");

    let _worker = setup.start_worker().await;
    place.put(&queue, "last", &job("t", MODEL, "last")).await;
    ids.push(queue.id("last"));
    place.ended_once(&ids).await;
    assert_eq!(place.endpoint.seen().await.requests, 11);
}
