//! Jobs that end without an answer: cancelled, too late, without tokens, for a model that nobody serves.

use super::*;

#[tokio::test]
async fn a_job_that_waits_is_cancelled_and_costs_nothing() {
    let place = Place::new().await;
    let _worker = place.worker(1).start_worker().await;
    let held = place.hold("0").await;
    let mut ids = place.submit(&Queue::new("p", MODEL), &plain(2, "p")).await;
    place.cancel(&ids[0]).await;
    place.endpoint.release().await;

    let record = place.record(&ids[0]).await;
    assert_eq!((&record["phase"], &record["kind"]), (&"cancelled".into(), &"cancelled".into()));
    let [failed] = place.world.wait_stored("agent.response.failed", 1).await.try_into().expect("one");
    assert_eq!(failed.payload()["error_type"], "cancelled");
    assert_eq!(deliberation(&failed), ids[0]);
    assert_eq!(place.record(&ids[1]).await["phase"], "done");
    ids.push(held);
    place.ended_once(&ids).await;
    assert_eq!(place.endpoint.seen().await.requests, 2, "the cancelled one never asked");
}

#[tokio::test]
async fn a_job_that_is_worked_is_cancelled_and_its_request_dropped() {
    let place = Place::new().await;
    let _worker = place.worker(1).start_worker().await;
    let held = place.hold("0").await;
    place.cancel(&held).await;
    place.endpoint.sees("a client that went", |seen| seen.gone == 1).await;
    let record = place.record(&held).await;
    assert_eq!(record["phase"], "cancelled");
    place.ended_once(std::slice::from_ref(&held)).await;
    // What comes after the end changes nothing.
    let done = place.submit(&Queue::new("p", MODEL), &plain(1, "p")).await;
    assert_eq!(place.record(&done[0]).await["phase"], "done");
    place.cancel(&done[0]).await;
    place.ended_once(&[held, done[0].clone()]).await;
    assert_eq!(place.record(&done[0]).await["phase"], "done");
}

#[tokio::test]
async fn a_wish_that_came_while_no_worker_was_there_counts() {
    let place = Place::new().await;
    // Somebody makes the host's stream.
    settled(place.worker(1).start_worker().await).await;
    let ids = place.submit(&Queue::new("p", MODEL), &plain(1, "p")).await;
    place.cancel(&ids[0]).await;
    let _worker = place.worker(1).start_worker().await;
    assert_eq!(place.record(&ids[0]).await["phase"], "cancelled");
    place.ended_once(&ids).await;
    assert_eq!(place.endpoint.seen().await.requests, 0);
}

#[tokio::test]
async fn a_deadline_that_passed_in_the_queue_is_told_and_nothing_is_asked() {
    let place = Place::new().await;
    settled(place.worker(1).start_worker().await).await;
    let queue = Queue::new("p", MODEL);
    queue.open(&place.world.jetstream).await;
    let mut hurried = job("t-1", MODEL, "hurry");
    hurried["timeout_seconds"] = 1.into();
    place.put(&queue, "late", &hurried).await;
    let submitted = std::time::Instant::now();
    wait_for("the job's time to pass", async || (submitted.elapsed().as_millis() > 1100).then_some(())).await;
    let _worker = place.worker(1).start_worker().await;

    let record = place.record(&queue.id("late")).await;
    assert_eq!((&record["phase"], &record["kind"]), (&"failed".into(), &"timeout".into()));
    let error = record["error"].as_str().expect("an error");
    assert!(error.contains("time of 1 s from its submission is over"), "{error}");
    place.ended_once(&[queue.id("late")]).await;
    assert_eq!(place.endpoint.seen().await.requests, 0);
}

#[tokio::test]
async fn a_deadline_that_passes_while_it_is_worked_ends_the_request() {
    let place = Place::new().await;
    let _worker = place.worker(1).start_worker().await;
    let queue = Queue::new("p", MODEL);
    queue.open(&place.world.jetstream).await;
    let mut hurried = job("t-1", MODEL, "!hold it");
    hurried["timeout_seconds"] = 2.into();
    place.put(&queue, "late", &hurried).await;
    assert_eq!(place.record(&queue.id("late")).await["kind"], "timeout");
    place.endpoint.sees("a client that went", |seen| seen.gone == 1).await;
    place.ended_once(&[queue.id("late")]).await;
}

#[tokio::test]
async fn a_budget_that_is_used_up_fails_what_can_not_wait() {
    let place = Place::new().await;
    let worker = place.worker(1).with("executor.plugins.p.tokens-per-hour", 1);
    let _worker = worker.start_worker().await;
    let queue = Queue::new("p", MODEL);
    queue.open(&place.world.jetstream).await;
    for own in ["a", "b"] {
        let mut hurried = job(own, MODEL, "p");
        hurried["timeout_seconds"] = 5.into();
        place.put(&queue, own, &hurried).await;
    }
    assert_eq!(place.record(&queue.id("a")).await["phase"], "done");
    let record = place.record(&queue.id("b")).await;
    assert_eq!((&record["phase"], &record["kind"]), (&"failed".into(), &"budget_exhausted".into()));
    // Others have tokens.
    let others = place.submit(&Queue::new("q", MODEL), &plain(1, "q")).await;
    assert_eq!(place.record(&others[0]).await["phase"], "done");
    place.ended_once(&[queue.id("a"), queue.id("b"), others[0].clone()]).await;
    // Another worker knows what was used here.
    let _other = worker.start_worker().await;
    let mut hurried = job("c", MODEL, "p");
    hurried["timeout_seconds"] = 5.into();
    place.put(&queue, "c", &hurried).await;
    assert_eq!(place.record(&queue.id("c")).await["kind"], "budget_exhausted");
}

#[tokio::test]
async fn a_model_that_nobody_serves_is_told_with_those_that_are() {
    let place = Place::new().await;
    let _worker = place.worker(1).start_worker().await;
    let lost = place.submit(&Queue::new("p", "no-such-model"), &plain(2, "p")).await;
    let fine = place.submit(&Queue::new("p", MODEL), &plain(1, "p")).await;
    assert_eq!(place.record(&fine[0]).await["phase"], "done");
    for id in &lost {
        let record = place.record(id).await;
        assert_eq!(record["kind"], "unknown_model", "{record}");
        let error = record["error"].as_str().expect("an error");
        assert!(error.contains("\"no-such-model\"") && error.contains("served are: plain"), "{error}");
    }
    place.ended_once(&[lost, fine].concat()).await;
}

#[tokio::test]
async fn a_deadline_is_kept_though_all_places_are_taken() {
    let place = Place::new().await;
    let _worker = place.worker(1).start_worker().await;
    let held = place.hold("0").await;
    let queue = Queue::new("p", MODEL);
    queue.open(&place.world.jetstream).await;
    for own in ["a", "b"] {
        let mut hurried = job(own, MODEL, "hurry");
        hurried["timeout_seconds"] = 1.into();
        place.put(&queue, own, &hurried).await;
        assert_eq!(place.record(&queue.id(own)).await["kind"], "timeout");
    }
    assert_eq!(place.world.count(&format!("cd.e.{held}")).await, 0);
    place.endpoint.release().await;
    place.ended_once(&[held, queue.id("a"), queue.id("b")]).await;
    assert_eq!(place.endpoint.seen().await.requests, 1);
}
