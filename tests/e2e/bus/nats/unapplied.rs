//! What an earlier run or a newer version left in NATS: commits whose effects can't be stored any more, cells that can't
//! be read, and what is found in a cell when its event has long been acked.

use std::time::Duration;

use cofferdam_bus::{Error, StreamSpec};
use harness::proxy::{Act, Proxy};
use tokio::time::Instant;

use super::super::{
    cells::other,
    commits::{commit, out, plant},
    *,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_version_wrote_is_an_error_and_stays() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &cell("c")).await;
    commit(&bus, &delivery, base, Change { writes: vec![write("k", "v")], ..Change::default() })
        .await
        .unwrap();
    // Field 1, the format, is 1 in what we write.
    let client = server.client().await;
    let got = client
        .request("$JS.API.STREAM.MSG.GET.COFFERDAM", r#"{"last_by_subj":"cd.s.>"}"#.into())
        .await
        .unwrap();
    let got: serde_json::Value = serde_json::from_slice(&got.payload).unwrap();
    let subject = got["message"]["subject"].as_str().unwrap().to_owned();
    for damaged in [&b"\x08\x02\x12\x01c"[..], b"\xff\xff\xff"] {
        let ack = client.request(subject.clone(), Bytes::copy_from_slice(damaged)).await.unwrap();
        let ack: serde_json::Value = serde_json::from_slice(&ack.payload).unwrap();
        put(&bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        match bus.open(&delivery, &cell("c")).await {
            Err(Error::Unreadable { subject: at, .. }) => assert_eq!(at, subject),
            other => panic!("{other:?}"),
        }
        let kept = client
            .request("$JS.API.STREAM.MSG.GET.COFFERDAM", format!(r#"{{"last_by_subj":"{subject}"}}"#).into())
            .await
            .unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&kept.payload).unwrap();
        assert_eq!(kept["message"]["seq"], ack["seq"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_whose_stream_is_gone_becomes_a_dead_letter() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    let (_, mut deliveries) = plant(&bus).await;
    stream(&bus, "BRIEF", &["brief.>"]).await;
    for point in [cell("c"), Point::Record] {
        put(&bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        // The check still sees it: what is known of a stream holds for some seconds.
        stream(&bus, "BRIEF", &["brief.>"]).await;
        assert!(bus.covering("brief.x").await.unwrap().is_some());
        let client = server.client().await;
        client.request("$JS.API.STREAM.DELETE.BRIEF", "".into()).await.unwrap();
        let change = effects(&[("out.a", "1"), ("brief.x", "lost"), ("out.b", "2")]);
        let committed = commit(&bus, &delivery, base, change).await.unwrap();
        let refused: Vec<_> = committed.refused.iter().map(|r| (r.ordinal, r.subject.as_str())).collect();
        assert_eq!(refused, [(1, "brief.x")]);
        assert!(committed.refused[0].reason.contains("no stream stores"), "{committed:?}");
        let letter = bus.last("dead.brief.x").await.unwrap().unwrap().message;
        assert_eq!(letter.data, "lost");
        assert!(letter.headers.contains(&("Nats-Msg-Id".into(), format!("{}.1.dead", delivery.id()))));
        assert!(letter.headers.contains(&("Cofferdam-Cause".into(), delivery.id().to_owned())));
    }
    assert_eq!(data(&out(&bus).await), ["1", "2", "1", "2"]);
    assert_eq!(stored(&bus, "DEAD", "dead.>").await.len(), 2);
}

/// Of targets: soon no id tells anything.
const WINDOW: Duration = Duration::from_secs(1);

/// With a target that soon forgets ids, and one whose messages may go by themselves.
async fn plant_forgetful(
    server: &Server,
    bus: &Arc<dyn Bus>,
) -> (Arc<Origin>, Box<dyn Deliveries>, async_nats::Client) {
    bus.ensure_stream(&StreamSpec { duplicate_window: Some(WINDOW), ..stream_spec("OUT", &["out.>"]) })
        .await
        .unwrap();
    let client = server.client().await;
    let brief =
        r#"{"name":"BRIEF","subjects":["brief.>"],"allow_msg_ttl":true,"duplicate_window":1000000000}"#;
    let made = client.request("$JS.API.STREAM.CREATE.BRIEF", brief.into()).await.unwrap();
    assert!(!String::from_utf8_lossy(&made.payload).contains("\"error\""), "{made:?}");
    let (origin, deliveries) = plant(bus).await;
    // So that both reach back.
    put(bus, "out.first", "first").await;
    put(bus, "brief.first", "first").await;
    (origin, deliveries, client)
}

/// An event commits in the cell, is applied and acked.
async fn commit_in_cell(bus: &Arc<dyn Bus>, deliveries: &mut Box<dyn Deliveries>, change: Change) -> u64 {
    put(bus, "in.1", "event").await;
    let delivery = next(deliveries).await;
    let base = fresh(bus, &delivery, &cell("c")).await;
    commit(bus, &delivery, base, change).await.unwrap();
    delivery.stored.sequence
}

/// The durable has acked so far.
async fn floor_of(client: &async_nats::Client, sequence: u64) {
    wait_for("the ack floor", async || {
        let info = client.request("$JS.API.CONSUMER.INFO.IN.d", "".into()).await.unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
        (info["ack_floor"]["stream_seq"].as_u64() >= Some(sequence)).then_some(())
    })
    .await;
}

async fn pass(since: Instant, time: Duration) {
    tokio::time::sleep_until(since + time).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acked_and_then_deleted_is_not_stored_again_by_a_host_that_comes_later() {
    let server = Server::start().await;
    let timing = Timing { lease: Duration::from_millis(300), ..Timing::default() };
    let bus = hurried_at(&server.url(), timing).await;
    let (origin, mut deliveries, client) = plant_forgetful(&server, &bus).await;
    let began = Instant::now();
    let sequence = commit_in_cell(&bus, &mut deliveries, effects(&[("out.a", "dealt with")])).await;
    floor_of(&client, sequence).await;
    let effect = bus.last("out.a").await.unwrap().unwrap();
    assert!(bus.delete_message("OUT", effect.sequence).await.unwrap());
    // A host that does not follow the durable finds its floor there.
    let floor = format!("cd.f.{}", origin.id);
    wait_for("a persisted floor", async || bus.last(&floor).await.unwrap()).await;
    pass(began, WINDOW * 2).await;

    let stranger = bus_at(&server.url()).await;
    other(&stranger, "c").await;
    assert_eq!(data(&out(&bus).await), ["first"]);
    let host = bus_at(&server.url()).await;
    let (_, mut its) = follow(&host, &consumer_spec("IN", "d", "in.>")).await;
    drop(deliveries);
    put(&bus, "in.1", "event").await;
    fresh(&host, &next(&mut its).await, &cell("c")).await;
    assert_eq!(data(&out(&bus).await), ["first"]);
    assert_eq!(stored(&bus, "DEAD", "dead.>").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_and_not_applied_is_applied_though_its_stream_has_discarded_the_event() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    let (_, deliveries, client) = plant_forgetful(&server, &bus).await;
    drop(deliveries);
    let began = Instant::now();
    let mut proxy = Proxy::before(server.port()).await;
    let host = bus_at(&proxy.url()).await;
    let (_, mut its) = follow(&host, &consumer_spec("IN", "d", "in.>")).await;
    let sequence = put(&bus, "in.1", "event").await;
    let delivery = next(&mut its).await;
    let base = fresh(&host, &delivery, &cell("c")).await;
    proxy.once("out.", 0, Act::Hold);
    let stuck =
        tokio::spawn(async move { host.commit(&delivery, base, effects(&[("out.a", "committed")])).await });
    soon("the first effect", proxy.acted(1)).await;
    stuck.abort();
    assert!(bus.delete_message("IN", sequence).await.unwrap());
    floor_of(&client, sequence).await;
    pass(began, WINDOW * 2).await;

    let (stranger, follower) = (bus_at(&server.url()).await, bus_at(&server.url()).await);
    follow(&follower, &consumer_spec("IN", "d", "in.>")).await;
    other(&follower, "c").await;
    other(&stranger, "c").await;
    assert_eq!(data(&out(&bus).await), ["first", "committed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_has_expired_is_not_stored_again() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    let (_, mut deliveries, client) = plant_forgetful(&server, &bus).await;
    let mut brief = message("brief.a", "for a while");
    brief.headers.push(("Nats-TTL".into(), "3s".into()));
    let change = Change { effects: vec![brief], ..Change::default() };
    let sequence = commit_in_cell(&bus, &mut deliveries, change).await;
    floor_of(&client, sequence).await;
    // Nor does the event tell any more.
    assert!(bus.delete_message("IN", sequence).await.unwrap());
    put(&bus, "brief.b", "later").await;
    ended(&bus, "brief.a").await;
    // One that has not asked for the floor yet, and one that does not follow the durable.
    let (host, stranger) = (bus_at(&server.url()).await, bus_at(&server.url()).await);
    follow(&host, &consumer_spec("IN", "d", "in.>")).await;
    other(&host, "c").await;
    other(&stranger, "c").await;
    assert_eq!(data(&stored(&bus, "BRIEF", "brief.>").await), ["first", "later"]);
    assert_eq!(stored(&bus, "DEAD", "dead.>").await, []);
}
