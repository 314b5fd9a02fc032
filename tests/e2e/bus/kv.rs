//! Buckets: revisions, compare-and-set, deletion, watching.

use std::sync::Arc;

use cofferdam_bus::{Bucket, Entry, Error, Watch};

use super::*;

conformance![
    a_value_comes_back_with_its_revision,
    the_expected_revision_decides,
    a_deleted_key_is_an_entry_without_value,
    keys_are_listed_without_the_deleted,
    malformed_keys_and_names_are_refused,
    a_watch_gives_what_is_there_and_then_each_change,
    one_of_many_hosts_wins_a_key,
];

pub(super) async fn bucket(bus: &Arc<dyn Bus>) -> Arc<dyn Bucket> {
    bus.bucket("config").await.expect("a bucket")
}

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

pub(super) fn entry(key: &str, value: Option<&str>, revision: u64) -> Entry {
    Entry { key: key.into(), value: value.map(bytes), revision }
}

async fn a_value_comes_back_with_its_revision(world: World) {
    let bus = world.bus().await;
    let kv = bucket(&bus).await;
    assert_eq!(kv.get("a").await, Ok(None));
    assert_eq!(kv.put("a", bytes("1"), None).await, Ok(1));
    assert_eq!(kv.put("b.c/d=e_f-g", bytes(""), None).await, Ok(2));
    assert_eq!(kv.put("a", bytes("2"), None).await, Ok(3));
    assert_eq!(kv.get("a").await, Ok(Some(entry("a", Some("2"), 3))));
    let other = bucket(&world.bus().await).await;
    assert_eq!(other.get("b.c/d=e_f-g").await, Ok(Some(entry("b.c/d=e_f-g", Some(""), 2))));
}

async fn the_expected_revision_decides(world: World) {
    let kv = bucket(&world.bus().await).await;
    let lost = |r: &Result<u64, Error>| matches!(r, Err(Error::WrongLastSequence { .. }));
    assert!(lost(&kv.put("a", bytes("0"), Some(4)).await));
    assert_eq!(kv.put("a", bytes("1"), Some(0)).await, Ok(1));
    assert!(lost(&kv.put("a", bytes("2"), Some(0)).await));
    assert_eq!(kv.put("a", bytes("3"), Some(1)).await, Ok(2));
    assert!(lost(&kv.put("a", bytes("4"), Some(1)).await));
    assert!(matches!(kv.delete("a", Some(1)).await, Err(Error::WrongLastSequence { .. })));
    assert_eq!(kv.get("a").await, Ok(Some(entry("a", Some("3"), 2))));
}

async fn a_deleted_key_is_an_entry_without_value(world: World) {
    let kv = bucket(&world.bus().await).await;
    kv.put("a", bytes("1"), None).await.unwrap();
    kv.delete("a", Some(1)).await.unwrap();
    assert_eq!(kv.get("a").await, Ok(Some(entry("a", None, 2))));
    assert_eq!(kv.put("a", bytes("2"), Some(0)).await, Ok(3), "a deleted key counts as never set");
    kv.delete("a", None).await.unwrap();
    assert_eq!(kv.put("a", bytes("3"), Some(4)).await, Ok(5), "or has its revision");
}

async fn keys_are_listed_without_the_deleted(world: World) {
    let kv = bucket(&world.bus().await).await;
    assert_eq!(kv.keys().await, Ok(Vec::new()));
    for key in ["b", "a", "c.d", "e"] {
        kv.put(key, bytes("1"), None).await.unwrap();
    }
    kv.delete("a", None).await.unwrap();
    kv.put("b", bytes("2"), None).await.unwrap();
    assert_eq!(kv.keys().await, Ok(vec!["b".into(), "c.d".into(), "e".into()]));
}

async fn malformed_keys_and_names_are_refused(world: World) {
    let bus = world.bus().await;
    let kv = bucket(&bus).await;
    for bad in ["", ".a", "a.", "a..b", "a b", "a*", ">", "ä"] {
        assert_eq!(kv.put(bad, bytes("1"), None).await, Err(Error::InvalidSubject(bad.to_owned())));
        assert!(kv.get(bad).await.is_err() && kv.delete(bad, None).await.is_err());
    }
    for bad in ["", "a.b", "a b"] {
        assert!(matches!(bus.bucket(bad).await, Err(Error::Refused(_))), "{bad:?}");
    }
}

pub(super) async fn seen(watch: &mut Box<dyn Watch>) -> Entry {
    soon("an entry", watch.next()).await.expect("an entry")
}

async fn a_watch_gives_what_is_there_and_then_each_change(world: World) {
    let bus = world.bus().await;
    let kv = bucket(&bus).await;
    let mut from_empty = kv.watch().await.unwrap();
    kv.put("a", bytes("1"), None).await.unwrap();
    kv.put("b", bytes("2"), None).await.unwrap();
    kv.put("a", bytes("3"), None).await.unwrap();
    let mut later = kv.watch().await.unwrap();
    assert_eq!(seen(&mut later).await, entry("b", Some("2"), 2));
    assert_eq!(seen(&mut later).await, entry("a", Some("3"), 3));
    kv.delete("b", None).await.unwrap();
    assert_eq!(seen(&mut later).await, entry("b", None, 4));
    // Older values may be skipped by one that was there all along, order may not change.
    let mut revisions = Vec::new();
    while revisions.last() != Some(&4) {
        revisions.push(seen(&mut from_empty).await.revision);
    }
    assert!(revisions.is_sorted(), "{revisions:?}");
}

async fn one_of_many_hosts_wins_a_key(world: World) {
    let mut hosts = Vec::new();
    for _ in 0..4 {
        hosts.push(bucket(&world.bus().await).await);
    }
    for round in 0..5 {
        let key = format!("lease.{round}");
        let tries = hosts.iter().map(|kv| kv.put(&key, bytes("me"), Some(0)));
        let won = futures_util::future::join_all(tries).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(won, 1);
    }
}
