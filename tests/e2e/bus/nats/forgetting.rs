//! What is forgotten: records whose events are long acked, what is left of durables that are no more, old messages of
//! inboxes. And that whoever comes after that does nothing twice.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use cofferdam_bus::{CommitError, Committed};
use futures_util::future::join_all;
use harness::proxy::{Act, Proxy};

use super::super::{
    commits::{commit, out, plant},
    *,
};

/// A hundredth of what it is in earnest.
const LEASE: Duration = Duration::from_millis(300);
/// Records of so many events in a row go together.
const BUCKET: u64 = 4096;

fn short() -> Timing {
    Timing { lease: LEASE, ..Timing::default() }
}

async fn feed(bus: &Arc<dyn Bus>, count: u64) {
    for chunk in (0..count).collect::<Vec<_>>().chunks(500) {
        join_all(chunk.iter().map(|n| put(bus, "in.1", n.to_string()))).await;
    }
}

/// Commits by record what comes, until so much is done by all who are at it; some have an effect.
async fn work_until(
    bus: &Arc<dyn Bus>,
    deliveries: &mut Box<dyn Deliveries>,
    done: &Arc<AtomicU64>,
    count: u64,
) {
    let mut runs = tokio::task::JoinSet::new();
    while done.load(Ordering::Relaxed) < count {
        let taken = tokio::time::timeout(Duration::from_millis(20), deliveries.next()).await;
        let Ok(delivery) = taken else { continue };
        let (bus, done, delivery) = (bus.clone(), done.clone(), delivery.unwrap());
        runs.spawn(async move {
            let base = fresh(&bus, &delivery, &Point::Record).await;
            let change = match delivery.stored.sequence % 100 {
                0 => effects(&[("out.n", text(&delivery))]),
                _ => Change::default(),
            };
            assert_eq!(commit(&bus, &delivery, base, change).await, Ok(Committed::default()));
            done.fetch_add(1, Ordering::Relaxed);
        });
        while runs.len() >= 128 {
            runs.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(run) = runs.join_next().await {
        run.unwrap();
    }
}

async fn work(bus: &Arc<dyn Bus>, deliveries: &mut Box<dyn Deliveries>, count: u64) {
    work_until(bus, deliveries, &Arc::default(), count).await;
}

async fn count(client: &async_nats::Client, filter: &str) -> u64 {
    let body = format!(r#"{{"subjects_filter":"{filter}"}}"#);
    let info = client.request("$JS.API.STREAM.INFO.COFFERDAM", body.into()).await.unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    info["state"]["subjects"].as_object().map_or(0, |s| s.len() as u64)
}

async fn becomes(client: &async_nats::Client, filter: &str, fits: impl Fn(u64) -> bool) -> u64 {
    wait_for(&format!("the right number of {filter}"), async || {
        Some(count(client, filter).await).filter(|count| fits(*count))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_go_and_our_stream_stays_small_over_20_000_events() {
    const EVENTS: u64 = 20_000;
    let server = Server::start().await;
    let (one, two) = (hurried_at(&server.url(), short()).await, hurried_at(&server.url(), short()).await);
    let (_, mut first) = plant(&one).await;
    let (_, mut second) = follow(&two, &consumer_spec("IN", "d", "in.>")).await;
    let done = Arc::default();
    let client = server.client().await;
    let fed = tokio::spawn({
        let one = one.clone();
        async move { feed(&one, EVENTS).await }
    });
    // Both forget while both commit; they know nothing of each other.
    let mut most = 0;
    for round in 1..=10 {
        let until = EVENTS / 10 * round;
        tokio::join!(work_until(&one, &mut first, &done, until), work_until(&two, &mut second, &done, until));
        most = most.max(count(&client, "cd.c.>").await);
    }
    fed.await.unwrap();
    // The last bucket is not over.
    let left = becomes(&client, "cd.c.>", |n| n == EVENTS % BUCKET + 1).await;
    assert!(most < EVENTS, "{most}");
    assert_eq!(left, EVENTS % BUCKET + 1);
    let mut found: Vec<u64> = out(&one).await.iter().map(|(_, n)| n.parse().unwrap()).collect();
    let whole = found.len();
    found.sort_unstable();
    found.dedup();
    assert_eq!((found.len(), whole), (EVENTS as usize / 100, EVENTS as usize / 100), "each once");
}

/// With a target that soon forgets ids: they are not to help.
async fn plant_forgetful(bus: &Arc<dyn Bus>) -> (Arc<Origin>, Box<dyn Deliveries>) {
    let window = Some(Duration::from_secs(1));
    bus.ensure_stream(&StreamSpec { duplicate_window: window, ..stream_spec("OUT", &["out.>"]) })
        .await
        .unwrap();
    plant(bus).await
}

/// One event that is taken twice, the second time by whoever comes late, with its snapshot.
async fn twice(bus: &Arc<dyn Bus>, deliveries: &mut Box<dyn Deliveries>) -> (Delivery, Delivery) {
    put(bus, "in.1", "event").await;
    let first = next(deliveries).await;
    first.nak(None).await.unwrap();
    (first, next(deliveries).await)
}

/// The event commits, and enough others that its record goes.
async fn commit_and_forget(
    bus: &Arc<dyn Bus>,
    deliveries: &mut Box<dyn Deliveries>,
    delivery: &Delivery,
    client: &async_nats::Client,
) {
    let base = fresh(bus, delivery, &Point::Record).await;
    commit(bus, delivery, base, effects(&[("out.a", "first")])).await.unwrap();
    tokio::join!(feed(bus, BUCKET), work(bus, deliveries, BUCKET));
    let record = format!("cd.c.{}.0.>", delivery.origin.id);
    becomes(client, &record, |n| n == 0).await;
}

async fn alone(bus: &Arc<dyn Bus>) {
    assert_eq!(data(&stored(bus, "OUT", "out.a").await), ["first"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_rested_between_run_and_commit_until_the_record_was_purged_does_nothing_twice() {
    let server = Server::start().await;
    let bus = hurried_at(&server.url(), short()).await;
    let (_, mut deliveries) = plant_forgetful(&bus).await;
    let (first, late) = twice(&bus, &mut deliveries).await;
    let host = hurried_at(&server.url(), short()).await;
    let base = fresh(&host, &late, &Point::Record).await;
    commit_and_forget(&bus, &mut deliveries, &first, &server.client().await).await;
    assert_eq!(commit(&host, &late, base, effects(&[("out.a", "late")])).await, Err(CommitError::Settled));
    // Nor one that has not begun, on a host that knows nothing.
    let stranger = hurried_at(&server.url(), short()).await;
    assert!(settled(&host, &late, &Point::Record).await);
    let base = unknowing(&stranger, &late).await;
    assert_eq!(
        commit(&stranger, &late, base, effects(&[("out.a", "late")])).await,
        Err(CommitError::Settled)
    );
    alone(&bus).await;
}

/// As of a run that began before anything was known of the event.
async fn unknowing(bus: &Arc<dyn Bus>, delivery: &Delivery) -> Snapshot {
    let mut base = fresh(bus, delivery, &Point::Publish).await;
    base.point = Point::Record;
    base
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_rested_between_write_and_repeat_until_the_record_was_purged_does_nothing_twice() {
    let server = Server::start().await;
    let bus = hurried_at(&server.url(), short()).await;
    let (_, mut deliveries) = plant_forgetful(&bus).await;
    let (first, late) = twice(&bus, &mut deliveries).await;
    let mut proxy = Proxy::before(server.port()).await;
    let host = hurried_at(&proxy.url(), short()).await;
    let base = fresh(&host, &late, &Point::Record).await;
    // Its write never arrives, and it hears nothing until its connection is taken for dead.
    proxy.once("cd.c.", 0, Act::Hold);
    let commit = tokio::spawn(async move { host.commit(&late, base, effects(&[("out.a", "late")])).await });
    soon("the write", proxy.acted(1)).await;
    commit_and_forget(&bus, &mut deliveries, &first, &server.client().await).await;
    assert_eq!(soon("the end of the commit", commit).await.unwrap(), Err(CommitError::Settled));
    alone(&bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_arrives_after_the_record_was_purged_is_not_applied() {
    let server = Server::start().await;
    let bus = hurried_at(&server.url(), short()).await;
    let (_, mut deliveries) = plant_forgetful(&bus).await;
    let (first, late) = twice(&bus, &mut deliveries).await;
    let client = server.client().await;
    let base = fresh(&bus, &first, &Point::Record).await;
    commit(&bus, &first, base, effects(&[("out.a", "first")])).await.unwrap();
    let subject = format!("cd.c.{}.0.{}", first.origin.id, first.stored.sequence);
    let record = bus.last(&subject).await.unwrap().unwrap();
    tokio::join!(feed(&bus, BUCKET), work(&bus, &mut deliveries, BUCKET));
    becomes(&client, &subject, |n| n == 0).await;
    // As one does that lay in a buffer of a dead connection; with another run's effects.
    let mut other = record.message.data.to_vec();
    let at = other.windows(5).position(|w| w == b"first").expect("its effect");
    other[at..at + 5].copy_from_slice(b"other");
    client.request(subject.clone(), other.into()).await.unwrap();
    let host = hurried_at(&server.url(), short()).await;
    assert!(settled(&host, &late, &Point::Record).await);
    alone(&bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floors_are_persisted_and_never_fall() {
    let server = Server::start().await;
    let bus = hurried_at(&server.url(), short()).await;
    let (origin, mut deliveries) = plant(&bus).await;
    feed(&bus, 10).await;
    work(&bus, &mut deliveries, 10).await;
    let floor = format!("cd.f.{}", origin.id);
    let client = server.client().await;
    let revision = wait_for("a floor of 10", async || {
        let stored = bus.last(&floor).await.unwrap();
        // Field 2 of what is stored.
        stored.filter(|s| s.message.data.starts_with(&[8, 1, 16, 10])).map(|s| s.sequence)
    })
    .await;
    // Nothing moves: nothing is written, by one host or by another.
    let other = hurried_at(&server.url(), short()).await;
    let mut idle = other
        .deliveries(&other.ensure_consumer(&consumer_spec("IN", "d", "in.>")).await.unwrap(), 1)
        .await
        .unwrap();
    nothing_for(&mut idle, LEASE).await;
    assert_eq!(bus.last(&floor).await.unwrap().unwrap().sequence, revision);
    assert_eq!(count(&client, "cd.f.*").await, 2, "and that of the timers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_durable_that_is_no_more_goes_too() {
    let server = Server::start().await;
    let bus = hurried_at(&server.url(), short()).await;
    let (origin, mut deliveries) = plant(&bus).await;
    feed(&bus, 20).await;
    work(&bus, &mut deliveries, 20).await;
    let client = server.client().await;
    assert_eq!(count(&client, &format!("cd.c.{}.>", origin.id)).await, 20);
    drop(deliveries);
    bus.delete_durable("IN", "d").await.unwrap();
    let (anew, mut deliveries) = follow(&bus, &consumer_spec("IN", "d", "in.>")).await;
    work(&bus, &mut deliveries, 20).await;
    // By a host that never knew the old one as well.
    drop(bus);
    let bus = hurried_at(&server.url(), short()).await;
    becomes(&client, &format!("cd.c.{}.>", origin.id), |n| n == 0).await;
    becomes(&client, &format!("cd.f.{}", origin.id), |n| n == 0).await;
    assert_eq!(count(&client, &format!("cd.c.{}.>", anew.id)).await, 20, "the new one's stay");
    assert_eq!(count(&client, &format!("cd.f.{}", anew.id)).await, 1);
    drop(bus);
}

const INBOX: Duration = Duration::from_secs(5);

async fn inbox(bus: &Arc<dyn Bus>) -> (Arc<Origin>, Box<dyn Deliveries>) {
    follow(bus, &consumer_spec("COFFERDAM", "cofferdam-inbox-p", "cd.in.p.>")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_an_inbox_go_once_they_are_acked_and_old() {
    let server = Server::start().await;
    // Looked for every second.
    let timing = Timing { lease: Duration::from_millis(50), inbox: Duration::from_secs(2) };
    let bus = hurried_at(&server.url(), timing).await;
    let (_, mut deliveries) = inbox(&bus).await;
    put(&bus, "cd.in.q.o.1", "another's").await;
    let began = tokio::time::Instant::now();
    for n in 1..=4 {
        put(&bus, &format!("cd.in.p.o.{n}"), "x").await;
    }
    let client = server.client().await;
    for n in 1..=4 {
        let delivery = next(&mut deliveries).await;
        // The third is not done, and what comes after it waits with it.
        if n != 3 {
            delivery.ack().await.unwrap();
        }
    }
    becomes(&client, "cd.in.p.>", |n| n == 2).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "after {:?}", began.elapsed());
    nothing_for(&mut deliveries, Duration::from_millis(1500)).await;
    assert_eq!(count(&client, "cd.in.p.>").await, 2);
    assert_eq!(count(&client, "cd.in.q.>").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_an_inbox_does_not_hold_a_message_is_believed_only_while_it_would_be_there() {
    let server = Server::start().await;
    let bus = hurried_at(&server.url(), Timing { inbox: INBOX, ..Timing::default() }).await;
    let (_, mut deliveries) = plant(&bus).await;
    let mut late = Vec::new();
    for n in 0..2 {
        let (first, again) = twice(&bus, &mut deliveries).await;
        let base = fresh(&bus, &first, &Point::Record).await;
        commit(&bus, &first, base, effects(&[(&format!("cd.in.p.o.{n}"), "x")])).await.unwrap();
        late.push(again);
    }
    // One is gone, as one is that was worked off and purged.
    let gone = bus.last("cd.in.p.o.1").await.unwrap().unwrap().sequence;
    assert!(bus.delete_message("COFFERDAM", gone).await.unwrap());
    tokio::time::sleep(INBOX).await;
    let client = server.client().await;
    // Our own stream remembers ids for two minutes; the search comes in after one, so it is shortened here.
    shorten(&client).await;
    let host = hurried_at(&server.url(), Timing { inbox: INBOX, ..Timing::default() }).await;
    for delivery in &late {
        assert!(settled(&host, delivery, &Point::Record).await);
    }
    assert_eq!(count(&client, "cd.in.p.>").await, 1, "not stored again");
    let dead: Vec<String> = stored(&bus, "DEAD", "dead.>").await.into_iter().map(|(s, _)| s).collect();
    assert_eq!(dead, ["dead.cd.in.p.o.1"]);
}

/// Our stream with a duplicate window of a second.
async fn shorten(client: &async_nats::Client) {
    let info = client.request("$JS.API.STREAM.INFO.COFFERDAM", "".into()).await.unwrap();
    let mut info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    info["config"]["duplicate_window"] = 1_000_000_000u64.into();
    let config = info["config"].to_string();
    let answer = client.request("$JS.API.STREAM.UPDATE.COFFERDAM", config.into()).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
}
