//! A disk whose writes, growth, syncs or reads fail for a while.

use std::time::Duration;

use cofferdam_bus::{CommitError, Connection, Error, local::open_on};
use harness::{
    churn::Churn,
    dice::Dice,
    disk::{Disk, Failing},
    ledger::Ledger,
};
use tokio::sync::mpsc;

use super::super::*;

const FULL: Failing = Failing { reads: false, writes: true, growth: true, syncs: false, error: libc::ENOSPC };
const NO_SYNC: Failing =
    Failing { reads: false, writes: false, growth: false, syncs: true, error: libc::EIO };
const DEAD: Failing = Failing { reads: true, writes: true, growth: true, syncs: true, error: libc::EIO };
const WELL: Failing = Failing { reads: false, writes: false, growth: false, syncs: false, error: 0 };

async fn becomes(bus: &Arc<dyn Bus>, up: bool) -> Connection {
    let mut connection = bus.connection();
    let changed = soon("a change", connection.wait_for(|c| (*c == Connection::Up) == up)).await;
    changed.unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_a_clear_error_and_the_bus_goes_on_when_there_is_room() {
    let disk = Disk::new(Dice::of(1));
    let bus = open_on(disk.storage()).await.unwrap();
    stream(&bus, "S", &["s.>"]).await;
    for (failing, why) in [(FULL, "No space left"), (NO_SYNC, "Input/output"), (DEAD, "Input/output")] {
        let kv = bus.bucket("b").await.unwrap();
        let before = put(&bus, "s.1", "before").await;
        disk.fail(failing);
        for _ in 0..3 {
            match soon("an answer", bus.publish(message("s.1", "lost?"), Publish::default())).await {
                Err(Error::Unavailable(e)) => assert!(e.contains(why) || e.contains("out of reach"), "{e}"),
                other => panic!("{why}: {other:?}"),
            }
            let put = soon("an answer", kv.put("k", Bytes::from("v"), None)).await;
            assert!(matches!(put, Err(Error::Unavailable(_))), "{put:?}");
        }
        match becomes(&bus, false).await {
            Connection::Down { reason } => {
                assert!(reason.contains(why) && reason.contains("the test's disk"), "{reason}");
            }
            Connection::Up => unreachable!("waited for"),
        }
        disk.fail(WELL);
        becomes(&bus, true).await;
        let after = put(&bus, "s.1", "after").await;
        let found = held(&bus, "S", "s.>").await;
        let at = |sequence| found.iter().find(|s| s.sequence == sequence).map(|s| s.message.data.as_ref());
        assert_eq!((at(before), at(after)), (Some(&b"before"[..]), Some(&b"after"[..])), "{why}");
        kv.put("k", Bytes::from("v"), None).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_and_commits_wait_for_a_disk_that_fails_and_go_on() {
    let disk = Disk::new(Dice::of(2));
    let bus = open_on(disk.storage()).await.unwrap();
    for failing in [FULL, NO_SYNC, DEAD] {
        for point in [cell("c"), Point::Record, Point::Publish] {
            let (_, mut deliveries) = super::super::commits::plant(&bus).await;
            let mut watch = bus.bucket("b").await.unwrap().watch().await.unwrap();
            put(&bus, "in.1", "event").await;
            let delivery = next(&mut deliveries).await;
            let base = fresh(&bus, &delivery, &point).await;
            disk.fail(failing);
            let commit = tokio::spawn({
                let bus = bus.clone();
                async move { bus.commit(&delivery, base, effects(&[("out.a", "x")])).await }
            });
            becomes(&bus, false).await;
            nothing_for(&mut deliveries, Duration::from_millis(20)).await;
            assert!(!commit.is_finished(), "{point:?}");
            disk.fail(WELL);
            // A sync that failed leaves open whether it had written: then it finds itself.
            let outcome = soon("the commit", commit).await.unwrap();
            assert!(matches!(outcome, Ok(_) | Err(CommitError::Settled)), "{point:?}: {outcome:?}");
            put(&bus, "in.1", "later").await;
            let later = next(&mut deliveries).await;
            assert_eq!(text(&later), "later", "what was committed does not come again");
            later.ack().await.unwrap();
            bus.flush().await;
            bus.bucket("b").await.unwrap().put("k", Bytes::from("v"), None).await.unwrap();
            soon("an entry", watch.next()).await.unwrap();
        }
    }
    assert_eq!(super::super::commits::out(&bus).await.len(), 9, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_on_and_off_under_load_loses_and_repeats_nothing() {
    let mut dice = Dice::new();
    let disk = Disk::new(Dice::of(dice.draw()));
    let bus = open_on(disk.storage()).await.unwrap();
    let mut ledger = Ledger::default();
    let (tell, mut told) = mpsc::unbounded_channel();
    let tell = Arc::new(move |t| drop(tell.send(t)));
    let churn = Churn { bus: bus.clone(), name: "load".into(), seed: dice.draw(), patient: true, tell };
    let load = tokio::spawn(churn.run());
    // What it does first, it does once.
    ledger.hear(soon("the load", told.recv()).await.unwrap());
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(dice.below(150))).await;
        disk.fail(dice.pick(&[FULL, NO_SYNC, DEAD]));
        tokio::time::sleep(Duration::from_millis(dice.below(100))).await;
        disk.fail(WELL);
        becomes(&bus, true).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!load.is_finished(), "COFFERDAM_SEED={}: {:?}", dice.seed(), load.await);
    load.abort();
    assert!(load.await.is_err());
    while let Some(told) = soon("the end of the load", told.recv()).await {
        ledger.hear(told);
    }
    let shown = |e| panic!("COFFERDAM_SEED={}: {e:#}", dice.seed());
    ledger.check(&bus).await.unwrap_or_else(shown);
    drop(bus);
    disk.pull();
    disk.on();
    let bus = open_on(disk.storage()).await.unwrap();
    ledger.finish(&bus).await.unwrap_or_else(shown);
    assert!(ledger.confirmed() > 100, "only {} confirmations: this tested nothing", ledger.confirmed());
}
