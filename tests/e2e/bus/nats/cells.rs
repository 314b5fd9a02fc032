//! What a cell looks like inside NATS, where that matters: it forgets what the ack floor covers, and waits rather than
//! grow without end.

use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};

use super::super::*;

/// The fields of a stored cell that these tests look at; the rest is kept as it is.
#[derive(Clone, PartialEq, prost::Message)]
struct Cell {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    settled: Vec<Settled>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Settled {
    #[prost(string, tag = "1")]
    origin: String,
    #[prost(uint64, tag = "2")]
    floor: u64,
    #[prost(uint64, repeated, tag = "3")]
    above: Vec<u64>,
}

/// The one cell there is, with its subject, as the plain client sees it.
async fn the_cell(server: &Server) -> (String, Cell) {
    let client = server.client().await;
    let query = json!({ "last_by_subj": "cd.s.>" }).to_string();
    let got = client.request("$JS.API.STREAM.MSG.GET.COFFERDAM", query.into()).await.unwrap();
    let got: Value = serde_json::from_slice(&got.payload).unwrap();
    let subject = got["message"]["subject"].as_str().unwrap().to_owned();
    // By our own read, which saves decoding Base64.
    let bus = bus_at(&server.url()).await;
    let stored = bus.last(&subject).await.unwrap().unwrap();
    (subject, Cell::decode(stored.message.data).unwrap())
}

fn one_write(n: u64) -> Change {
    Change { writes: vec![write("n", &n.to_string())], ..Change::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_forgets_what_the_ack_floor_covers() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    stream(&bus, "IN", &["in"]).await;
    let (origin, mut deliveries) = follow(&bus, &consumer_spec("IN", "d", "in")).await;
    soon("a raised floor", async {
        for n in 1.. {
            put(&bus, "in", "x").await;
            let delivery = next(&mut deliveries).await;
            let base = fresh(&bus, &delivery, &cell("c")).await;
            bus.commit(&delivery, base, one_write(n)).await.unwrap();
            let (_, cell) = Box::pin(the_cell(&server)).await;
            let of = &cell.settled[0];
            assert_eq!((cell.settled.len(), &of.origin), (1, &origin.id));
            assert_eq!(of.floor + of.above.iter().sum::<u64>(), n, "all up to this one have settled");
            if n > 20 && of.above.len() < 5 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_that_remembers_4096_events_waits_for_the_ack_floor() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    stream(&bus, "IN", &["in"]).await;
    let spec = ConsumerSpec { max_ack_pending: 10_000, ..consumer_spec("IN", "d", "in") };
    let (_, mut deliveries) = follow(&bus, &spec).await;
    put(&bus, "in", "held").await;
    let held = next(&mut deliveries).await;
    put(&bus, "in", "x").await;
    let second = next(&mut deliveries).await;
    let base = fresh(&bus, &second, &cell("c")).await;
    bus.commit(&second, base, one_write(2)).await.unwrap();

    // As if 4,095 more had committed since, while the first is still being run.
    let (subject, mut full) = Box::pin(the_cell(&server)).await;
    full.settled[0].above.extend(std::iter::repeat_n(1, 4095));
    let full = Bytes::from(full.encode_to_vec());
    server.client().await.request(subject, full).await.unwrap();
    for n in 0..41 {
        futures_util::future::join_all((0..100).map(|k| put(&bus, "in", format!("{n}.{k}")))).await;
    }
    for _ in 0..4095 {
        next(&mut deliveries).await.ack().await.unwrap();
    }
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.stored.sequence, 4098);
    let base = fresh(&bus, &delivery, &cell("c")).await;
    let commit = tokio::spawn({
        let bus = bus.clone();
        async move { bus.commit(&delivery, base, one_write(4098)).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!commit.is_finished());
    held.ack().await.unwrap();
    soon("the commit", commit).await.unwrap().unwrap();
    let (_, after) = Box::pin(the_cell(&server)).await;
    assert_eq!((after.settled[0].floor, after.settled[0].above.as_slice()), (4097, &[1][..]));
}
