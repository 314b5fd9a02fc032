//! What an earlier run or a newer version left in NATS: commits whose effects can't be stored any more, cells that can't
//! be read.

use cofferdam_bus::Error;

use super::super::{
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
        assert!(letter.headers.contains(&("Cofferdam-Cause".into(), delivery.id())));
    }
    assert_eq!(data(&out(&bus).await), ["1", "2", "1", "2"]);
    assert_eq!(stored(&bus, "DEAD", "dead.>").await.len(), 2);
}
