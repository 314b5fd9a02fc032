//! Looking for effects in a target that is busy and has forgotten their ids: each is found or stored, once, and it is read
//! once for all of them.

use std::{collections::BTreeMap, time::Duration};

use cofferdam_bus::StreamSpec;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::super::{
    commits::{commit, plant},
    *,
};

const EVENTS: u64 = 150;
const OTHERS: usize = 50_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_effects_are_looked_for_on_a_busy_subject_in_reasonable_time() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    let window = Some(Duration::from_secs(1));
    bus.ensure_stream(&StreamSpec { duplicate_window: window, ..stream_spec("OUT", &["out.>"]) })
        .await
        .unwrap();
    put(&bus, "out.first", "so that the stream reaches back").await;
    let (_, mut deliveries) = plant(&bus).await;
    let mut late = Vec::new();
    for n in 0..EVENTS {
        put(&bus, "in.1", n.to_string()).await;
        let first = next(&mut deliveries).await;
        first.nak(None).await.unwrap();
        let again = next(&mut deliveries).await;
        let base = fresh(&bus, &first, &Point::Record).await;
        let change = effects(&[
            ("out.a", &format!("{n} 1")),
            ("out.b", &format!("{n} 2")),
            ("out.a", &format!("{n} 3")),
        ]);
        commit(&bus, &first, base, change).await.unwrap();
        late.push(again);
    }
    // Of every third event one effect is missing, as if its host had died before it.
    for lost in
        held(&bus, "OUT", "out.a").await.into_iter().filter(|s| s.message.data.ends_with(b"3")).step_by(3)
    {
        assert!(bus.delete_message("OUT", lost.sequence).await.unwrap());
    }
    let client = server.client().await;
    let js = async_nats::jetstream::new(client);
    for chunk in (0..OTHERS).collect::<Vec<_>>().chunks(2000) {
        let sends = chunk.iter().map(|n| {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", format!("another {n}"));
            js.publish_with_headers("out.a", headers, "x".repeat(300).into())
        });
        for ack in join_all(sends).await {
            ack.unwrap().await.unwrap();
        }
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;

    let host = bus_at(&server.url()).await;
    let began = Instant::now();
    let opened = late.iter().map(|delivery| settled(&host, delivery, &Point::Record));
    assert!(join_all(opened).await.into_iter().all(|settled| settled));
    let took = began.elapsed();
    // One read of the subject takes a second or two; one for each of the 450 would take minutes.
    assert!(took < Duration::from_secs(40), "{took:?}");

    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    for (_, text) in stored(&bus, "OUT", "out.>").await {
        if text.contains(' ') && !text.starts_with("so ") {
            *found.entry(text).or_default() += 1;
        }
    }
    assert_eq!(found.len() as u64, EVENTS * 3);
    assert!(found.values().all(|n| *n == 1), "{found:?}");
    assert_eq!(stored(&bus, "DEAD", "dead.>").await, []);
}
