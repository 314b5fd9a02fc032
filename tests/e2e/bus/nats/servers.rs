//! Nats-server as it really is: absent, unfit, stopped, killed, frozen. What only NATS can do to us.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use cofferdam_bus::{CommitError, Connection, Error};
use tokio::time::Instant;

use super::super::{
    kv::{bucket, bytes, entry, seen},
    *,
};

async fn connect_error(config: NatsConfig) -> Error {
    match connect(config, undeliverable()).await {
        Ok(_) => panic!("connected"),
        Err(e) => e,
    }
}

#[tokio::test]
async fn a_server_out_of_reach_is_an_error_with_url_and_remedy() {
    let mut server = Server::start().await;
    server.stop().await;
    let began = Instant::now();
    let e = connect_error(NatsConfig::new(server.url())).await;
    assert!(matches!(e, Error::Unavailable(_)), "{e:?}");
    let e = e.to_string();
    assert!(e.contains(&server.url()) && e.contains("start nats-server"), "{e}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_an_error_after_the_time_out() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", silent.local_addr().unwrap());
    let config = NatsConfig { connect_timeout: Duration::from_millis(300), ..NatsConfig::new(&url) };
    let e = connect_error(config).await.to_string();
    assert!(e.contains(&url), "{e}");
}

#[tokio::test]
async fn a_server_without_jetstream_is_an_error_with_the_remedy() {
    let server = Server::start_bare("").await;
    let e = connect_error(NatsConfig::new(server.url())).await;
    assert!(matches!(e, Error::Unusable(_)), "{e:?}");
    assert!(e.to_string().contains("JetStream is not enabled") && e.to_string().contains("-js"), "{e}");
}

#[tokio::test]
async fn wrong_credentials_are_an_error_that_shows_no_password() {
    let server = Server::start_with("authorization { user: me, password: right }").await;
    let url = server.url().replace("nats://", "nats://me:wrong@");
    let e = connect_error(NatsConfig::new(url)).await.to_string();
    assert!(e.contains("authorization") && !e.contains("wrong"), "{e}");
    let url = server.url().replace("nats://", "nats://me:right@");
    connect(NatsConfig::new(url), undeliverable()).await.unwrap();
    let missing =
        NatsConfig { credentials: Some("/nowhere/x.creds".into()), ..NatsConfig::new(server.url()) };
    assert!(connect_error(missing).await.to_string().contains("/nowhere/x.creds"));
}

#[tokio::test]
async fn our_own_stream_with_other_settings_is_an_error_that_shows_both_sides() {
    let server = Server::start().await;
    let client = server.client().await;
    let create = r#"{"name":"COFFERDAM","subjects":["cd.>"],"storage":"file","max_msgs_per_subject":5}"#;
    client.request("$JS.API.STREAM.CREATE.COFFERDAM", create.into()).await.unwrap();
    let e = connect_error(NatsConfig::new(server.url())).await;
    assert!(matches!(e, Error::Differs { .. }), "{e:?}");
    assert!(e.to_string().contains("its max_msgs_per_subject is 5, ours is to be 1"), "{e}");
    client.request("$JS.API.STREAM.DELETE.COFFERDAM", "".into()).await.unwrap();
    let create = r#"{"name":"OTHER","subjects":["cd.x"],"storage":"file"}"#;
    client.request("$JS.API.STREAM.CREATE.OTHER", create.into()).await.unwrap();
    let e = connect_error(NatsConfig::new(server.url())).await.to_string();
    assert!(e.contains("\"OTHER\"") && e.contains("\"cd.\""), "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_stream_deleted_under_us_is_created_anew_and_commits_go_on() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    stream(&bus, "IN", &["in"]).await;
    stream(&bus, "OUT", &["out"]).await;
    let (_, mut deliveries) = follow(&bus, &consumer_spec("IN", "d", "in")).await;
    for point in [cell("c"), Point::Record, cell("c")] {
        put(&bus, "in", "x").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        server.client().await.request("$JS.API.STREAM.DELETE.COFFERDAM", "".into()).await.unwrap();
        soon("a commit", bus.commit(&delivery, base, effects(&[("out", "x")]))).await.unwrap();
    }
    assert_eq!(data(&stored(&bus, "OUT", "out").await), ["x", "x", "x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_limit_of_the_server_or_a_stream_holds_for_commits() {
    let server = Server::start_with("max_payload: 200KB").await;
    let bus = bus_at(&server.url()).await;
    stream(&bus, "IN", &["in"]).await;
    stream(&bus, "OUT", &["out"]).await;
    let create = r#"{"name":"SMALL","subjects":["small"],"storage":"file","max_msg_size":1000}"#;
    server.client().await.request("$JS.API.STREAM.CREATE.SMALL", create.into()).await.unwrap();
    assert_eq!(bus.covering("small").await.unwrap().unwrap().max_message_size, Some(1000));
    let (_, mut deliveries) = follow(&bus, &consumer_spec("IN", "d", "in")).await;
    put(&bus, "in", "x").await;
    let delivery = next(&mut deliveries).await;
    // 1,000 bytes with headers; 200 KB less 64 KiB for a whole commit.
    for (subject, size, fits) in [("small", 999, false), ("out", 150_000, false), ("small", 500, true)] {
        let base = fresh(&bus, &delivery, &Point::Record).await;
        let outcome = bus.commit(&delivery, base, effects(&[(subject, &"x".repeat(size))])).await;
        match fits {
            true => assert!(outcome.is_ok(), "{subject} {size}: {outcome:?}"),
            false => assert!(matches!(&outcome, Err(CommitError::Unfit(_))), "{subject} {size}: {outcome:?}"),
        }
    }
    match bus.publish(message("small", "x".repeat(1001)), Publish::default()).await {
        Err(Error::TooLarge { max: 1000, .. }) => {}
        other => panic!("{other:?}"),
    }
}

async fn becomes(bus: &Arc<dyn Bus>, up: bool) {
    let mut connection = bus.connection();
    soon("a change of the connection", connection.wait_for(|c| (*c == Connection::Up) == up)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_shows_down_and_up_and_calls_fail_clearly_meanwhile() {
    let mut server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    stream(&bus, "S", &["s"]).await;
    becomes(&bus, true).await;
    server.stop().await;
    becomes(&bus, false).await;
    match &*bus.connection().borrow() {
        Connection::Down { reason } => assert!(reason.contains(&server.url()), "{reason}"),
        Connection::Up => {}
    }
    let e = bus.publish(message("s", "x"), Publish::default()).await.unwrap_err();
    assert!(matches!(e, Error::Unavailable(_)), "{e:?}");
    server.up().await;
    becomes(&bus, true).await;
    put(&bus, "s", "x").await;
}

/// Deliveries and commits go on while `disturb` does its worst to the server; then everything has happened once.
async fn undisturbed(mut server: Server, rounds: usize, disturb: impl AsyncFn(&mut Server)) {
    let bus = bus_at(&server.url()).await;
    stream(&bus, "IN", &["in.>"]).await;
    stream(&bus, "OUT", &["out.>"]).await;
    stream(&bus, "DEAD", &["dead.>"]).await;
    let spec = ConsumerSpec { ack_wait: Duration::from_secs(2), ..consumer_spec("IN", "d", "in.>") };
    let (origin, mut deliveries) = follow(&bus, &spec).await;
    let stop = Arc::new(AtomicBool::new(false));
    let sums: Arc<std::sync::Mutex<BTreeMap<u64, u64>>> = Arc::default();

    let work = tokio::spawn({
        let (bus, stop, sums) = (bus.clone(), stop.clone(), sums.clone());
        async move {
            let mut runs = tokio::task::JoinSet::new();
            let mut quiet = 0;
            // Ends once told to, when nothing has come for longer than an ack wait.
            while quiet < 30 {
                // What is not taken yet is kept from redelivery; what is taken has to end within the ack wait.
                while runs.len() >= 12 {
                    runs.join_next().await.unwrap().unwrap();
                }
                match tokio::time::timeout(Duration::from_millis(100), deliveries.next()).await {
                    Err(_) => quiet += usize::from(stop.load(Ordering::Relaxed)),
                    Ok(delivery) => {
                        quiet = 0;
                        let (bus, sums) = (bus.clone(), sums.clone());
                        runs.spawn(async move { run(&bus, &delivery.unwrap(), &sums).await });
                    }
                }
            }
            while let Some(run) = runs.join_next().await {
                run.unwrap();
            }
            deliveries
        }
    });

    let feed = tokio::spawn({
        let (bus, stop) = (bus.clone(), stop.clone());
        async move {
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let how = Publish { message_id: Some(format!("feed {n}")), ..Publish::default() };
                match bus.publish(message(&format!("in.{}", n % 3), n.to_string()), how).await {
                    Ok(_) => n += 1,
                    Err(Error::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(e) => panic!("{e}"),
                }
            }
            n
        }
    });

    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(300)).await;
        disturb(&mut server).await;
        becomes(&bus, true).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let count = soon("the feed's end", feed).await.unwrap();
    let mut deliveries = soon("the end of the work", work).await.unwrap();
    deliveries.close().await;
    assert!(count > 0);

    let mut seen: Vec<u64> =
        stored(&bus, "OUT", "out.>").await.iter().map(|(_, n)| n.parse().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..count).collect::<Vec<_>>(), "each event had its effect once");
    assert_eq!(stored(&bus, "DEAD", "dead.>").await, []);
    put(&bus, "in.x", "probe").await;
    let mut deliveries = bus.deliveries(&origin, 1).await.unwrap();
    let probe = next(&mut deliveries).await;
    let mut sum = 0;
    for k in 0..3 {
        let base = fresh(&bus, &probe, &cell(&k.to_string())).await;
        sum += value(&base, "sum").map_or(0, |v| v.parse::<u64>().unwrap());
    }
    assert_eq!(sum, (0..count).filter(|n| n % 2 == 0).sum::<u64>(), "each was counted once");
}

async fn run(bus: &Arc<dyn Bus>, delivery: &Delivery, sums: &std::sync::Mutex<BTreeMap<u64, u64>>) {
    let n: u64 = text(delivery).parse().unwrap();
    *sums.lock().unwrap().entry(n).or_default() += 1;
    let point = if n.is_multiple_of(2) { cell(&(n % 3).to_string()) } else { Point::Record };
    loop {
        let Opened::Fresh(base) = bus.open(delivery, &point).await.unwrap() else { return };
        let mut change = effects(&[("out.x", text(delivery))]);
        if n.is_multiple_of(2) {
            let sum: u64 = value(&base, "sum").map_or(0, |v| v.parse().unwrap());
            change.writes.push(write("sum", &(sum + n).to_string()));
        }
        match bus.commit(delivery, base, change).await {
            Ok(committed) => return assert_eq!(committed.refused, []),
            Err(CommitError::Settled) => return,
            Err(CommitError::Conflict) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_the_server_lose_and_repeat_nothing() {
    undisturbed(Server::start().await, 4, async |server| {
        server.stop().await;
        server.up().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_the_server_lose_and_repeat_nothing() {
    undisturbed(Server::start().await, 4, async |server| {
        server.kill().await;
        server.up().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_loses_and_repeats_nothing() {
    undisturbed(Server::start().await, 1, async |server| {
        server.freeze().await;
        // Longer than an answer may take.
        tokio::time::sleep(Duration::from_secs(7)).await;
        server.thaw().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_a_server_that_is_down() {
    let mut server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    stream(&bus, "IN", &["in"]).await;
    stream(&bus, "OUT", &["out"]).await;
    let (_, mut deliveries) = follow(&bus, &consumer_spec("IN", "d", "in")).await;
    let mut bases = Vec::new();
    for point in [cell("c"), Point::Record, Point::Publish] {
        put(&bus, "in", "x").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &point).await;
        bases.push((delivery, base));
    }
    server.stop().await;
    becomes(&bus, false).await;
    let commits = bases.into_iter().map(|(delivery, base)| {
        let bus = bus.clone();
        tokio::spawn(async move { bus.commit(&delivery, base, effects(&[("out", "x")])).await })
    });
    let commits: Vec<_> = commits.collect();
    // Longer than an answer may take.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(commits.iter().all(|c| !c.is_finished()));
    server.up().await;
    for commit in commits {
        soon("the commit", commit).await.unwrap().unwrap();
    }
    assert_eq!(data(&stored(&bus, "OUT", "out").await), ["x", "x", "x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_over_a_restart_of_the_server() {
    let mut server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    let kv = bucket(&bus).await;
    kv.put("a", bytes("1"), None).await.unwrap();
    let mut watch = kv.watch().await.unwrap();
    assert_eq!(seen(&mut watch).await, entry("a", Some("1"), 1));
    for n in 2..5 {
        server.stop().await;
        server.up().await;
        let kv = bucket(&bus_at(&server.url()).await).await;
        kv.put("a", bytes(&n.to_string()), None).await.unwrap();
        assert_eq!(seen(&mut watch).await, entry("a", Some(&n.to_string()), n));
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), watch.next()).await.is_err(), "nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_that_was_not_found_and_is_there_after_all_can_be_followed_again() {
    let store = tempfile::tempdir().unwrap();
    let jetstream = format!("jetstream {{ store_dir: \"{}\" }}\n", store.path().display());
    let mut server = Server::start_bare(&jetstream).await;
    let bus = bus_at(&server.url()).await;
    let hurried =
        hurried_at(&server.url(), Timing { lease: Duration::from_millis(300), ..Timing::default() }).await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.1", "1").await;
    let spec = consumer_spec("S", "d", "s.>");
    let (origin, mut deliveries) = follow(&bus, &spec).await;
    next(&mut deliveries).await.ack().await.unwrap();
    bus.flush().await;
    let (_, mut others) = follow(&hurried, &spec).await;
    let place = store.path().join("jetstream/$G/streams/S/obs/d");
    let aside = store.path().join("aside");
    server.stop().await;
    std::fs::rename(&place, &aside).unwrap();
    server.up().await;
    for deliveries in [&mut deliveries, &mut others] {
        let ended = soon("an end", deliveries.next()).await;
        assert!(matches!(ended, Err(Error::Gone { .. })), "{ended:?}");
    }
    server.stop().await;
    std::fs::rename(&aside, &place).unwrap();
    server.up().await;
    drop((deliveries, others));
    for (bus, data) in [(&bus, "2"), (&hurried, "3")] {
        let mut again = bus.deliveries(&origin, 1).await.unwrap();
        put(bus, "s.1", data).await;
        let delivery = next(&mut again).await;
        assert_eq!(text(&delivery), data);
        delivery.ack().await.unwrap();
        again.close().await;
    }
}
