//! What a call does, and what its client and the plugin see of it.

use std::time::Duration;

use fleet_proto::fixtures::v1::{AddRequest, GetRequest, Place, TellRequest};
use harness::{
    counting::{Reply, SERVICE},
    plugin::{LEDGER, Plugin},
    wait::wait_for,
    way_in::{body, header},
};
use tonic::{Code, Request};

use super::{ADDED, Ground, Ledger, add, added, ledger};
use crate::both::on_both_buses;

on_both_buses!(
    what_a_call_writes_commits_with_its_answer_and_a_read_sees_it,
    a_plugin_sees_the_call_as_it_came,
    effects_of_a_read_are_denied,
    other_cells_and_timers_commit_with_a_call,
    a_call_without_a_key_has_no_cell,
);

async fn what_a_call_writes_commits_with_its_answer_and_a_read_sees_it(ground: Ground) {
    let daemon = ground.start().await;
    let before = daemon.scrape().await;
    let client = Ledger::of(&daemon);
    let absent = client.get(GetRequest { account: "a".into(), ..GetRequest::default() }).await.unwrap_err();
    assert_eq!((absent.code(), absent.message()), (Code::NotFound, "no account \"a\""));
    let answer = client.add(AddRequest { messages: 2, ..add("a", 5) }).await.unwrap();
    assert_eq!(answer.sum, 5);
    assert_eq!(client.sum("a").await, 5);
    assert_eq!(client.add(add("a", 2)).await.unwrap().sum, 7);

    // An event of the same cell adds to the same account.
    daemon.publish(super::ADD, r#"{"account": "a", "amount": 3}"#).await;
    let stored = daemon.wait_stored(ADDED, 4).await;
    assert_eq!(client.sum("a").await, 10);
    assert_eq!(body(&stored[0])["by"], answer.call_id.as_str());
    assert_eq!(header(&stored[0], "Cofferdam-Cause"), Some(answer.call_id.as_str()));
    assert_eq!(added(&daemon).await[..2], [answer.call_id.clone(), answer.call_id.clone()]);

    let moved = daemon.scrape().await.since(&before);
    let served = moved.counts("cofferdam_served_calls_total", &["plugin", "method", "code"]);
    let of = |method: &str, code: u8| served.get(&format!("ledger {LEDGER}/{method} {code}")).copied();
    assert_eq!((of("Get", 5), of("Get", 0), of("Add", 0)), (Some(1), Some(2), Some(2)), "{served:?}");
    assert_eq!(moved.sum("cofferdam_dead_letters_total", &[]), 0.0);
    assert_eq!(moved.sum("cofferdam_served_seconds_count", &[]), 5.0);
    let line = daemon.says("a call was answered").await;
    assert_eq!((line["plugin"].as_str(), line["level"].as_str()), (Some("ledger"), Some("INFO")), "{line}");
}

async fn a_plugin_sees_the_call_as_it_came(ground: Ground) {
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let mut request = Request::new(TellRequest { number: 7, place: Some(Place { name: " here ".into() }) });
    for (name, value) in [
        ("x-b", "2"),
        ("x-a", "1"),
        ("x-b", "1"),
        ("authorization", "Bearer hunter2"),
        ("idempotency-key", "k"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        request.metadata_mut().append(name, value.parse().unwrap());
    }
    request.metadata_mut().insert_bin("x-c-bin", tonic::metadata::MetadataValue::from_bytes(b"\0"));
    request.set_timeout(Duration::from_secs(30));
    let told = client.tell(request).await.unwrap();
    assert_eq!(told.method, format!("{LEDGER}/Tell"));
    let metadata: Vec<(&str, &str)> =
        told.metadata.iter().map(|pair| (pair.name.as_str(), pair.value.as_str())).collect();
    let expected = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-a", "1"),
        ("x-b", "2"),
        ("x-b", "1"),
    ];
    assert_eq!(metadata, expected);
    assert_eq!((told.order_key.as_str(), told.attempt, told.last_attempt), ("here", 1, true));
    assert!(told.deadline_ms > 0 && told.timestamp > 1_700_000_000_000_000_000 && told.now >= told.timestamp);
    let again = client.tell(TellRequest::default()).await.unwrap();
    assert_ne!(again.id, told.id);
    assert_eq!(again.order_key, "");
}

async fn effects_of_a_read_are_denied(ground: Ground) {
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    client.add(add("a", 5)).await.unwrap();
    let refused =
        client.get(GetRequest { account: "a".into(), reaches: true, fate: None }).await.unwrap().refused;
    assert_eq!(refused.len(), 10, "{refused:#?}");
    for refused in &refused {
        let (what, why) = refused.split_once(": ").unwrap();
        assert!(
            why.contains("denied: ")
                && why.contains(&format!("{LEDGER}/Get is a method of kind \"read\", which has no effects")),
            "{what}: {why}"
        );
    }
    assert_eq!(client.sum("a").await, 5);
    assert_eq!(added(&daemon).await.len(), 1);
}

async fn other_cells_and_timers_commit_with_a_call(ground: Ground) {
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    client.add(add("a", 10)).await.unwrap();
    let moved = AddRequest { from: "a".into(), later_ms: 300, ..add("b", 4) };
    let answer = client.add(moved).await.unwrap();
    assert_eq!((client.sum("a").await, client.sum("b").await), (6, 4));
    let later = wait_for("what was to come later", async || {
        let stored = daemon.stored(ADDED).await;
        stored.iter().map(body).find(|message| message["later"].is_string())
    })
    .await;
    assert_eq!(later["later"], answer.call_id.as_str());
}

async fn a_call_without_a_key_has_no_cell(ground: Ground) {
    let plugin: Plugin = ledger().method("Tell", "kind = \"read\"");
    let ground = ground.with(plugin);
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let told = client.tell(TellRequest { number: 1, place: Some(Place { name: "x".into() }) }).await.unwrap();
    assert_eq!(told.order_key, "", "the manifest names no key");
    let refused = client.add(add("", 1)).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "account is empty"));
}

#[tokio::test]
async fn what_a_method_may_call_once_is_denied_to_a_read() {
    crate::both::on_local(async |mut ground: Ground| {
        ground.setup.set("upstreams.counting.once", vec![format!("{SERVICE}/Once")]);
        ground.upstream.next("Once", [Reply::Answer]);
        let daemon = ground.start().await;
        let client = Ledger::of(&daemon);
        client.add(super::add_calling("a", "Once")).await.unwrap();
        assert_eq!(ground.upstream.calls("Once").len(), 1);
        let fate = super::add_calling("a", "Once").fate;
        client.get(GetRequest { account: "a".into(), fate, ..GetRequest::default() }).await.unwrap();
        daemon.says("is called once, which is one").await;
        assert_eq!(ground.upstream.calls("Once").len(), 1, "not called by the read");
    })
    .await;
}
