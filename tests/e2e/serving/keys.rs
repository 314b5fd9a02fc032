//! Idempotency keys: whoever repeats a call gets its one answer, wherever and whenever it is asked.

use fleet_proto::fixtures::v1::{AddRequest, End, TellRequest};
use harness::counting::Reply;
use tonic::Code;

use super::{Ground, Ledger, add, add_calling, added, fate, keyed, ledger};
use crate::both::{on_both_buses, on_nats};

on_both_buses!(
    a_repeat_gets_the_stored_answer_also_after_a_restart,
    a_key_is_for_one_request,
    two_calls_at_a_time_with_one_key_run_once,
    a_no_is_kept_and_what_a_client_repeats_is_run_anew,
    a_repeat_after_a_passing_failure_does_it_once,
);

async fn a_repeat_gets_the_stored_answer_also_after_a_restart(ground: Ground) {
    let mut daemon = ground.start().await;
    let first = Ledger::of(&daemon).add(keyed("k", add("a", 5))).await.unwrap();
    assert_eq!(Ledger::of(&daemon).add(keyed("k", add("a", 5))).await.unwrap(), first);
    // Without a key, and with another, it is another call.
    assert_eq!(Ledger::of(&daemon).add(add("a", 5)).await.unwrap().sum, 10);
    assert_eq!(Ledger::of(&daemon).add(keyed("l", add("a", 5))).await.unwrap().sum, 15);
    // The key is the method's own.
    Ledger::of(&daemon).tell(keyed("k", TellRequest::default())).await.unwrap();
    daemon.stop().await;
    let mut daemon = ground.start().await;
    assert_eq!(Ledger::of(&daemon).add(keyed("k", add("a", 5))).await.unwrap(), first);
    daemon.kill().await;
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    assert_eq!(client.add(keyed("k", add("a", 5))).await.unwrap(), first);
    assert_eq!(client.sum("a").await, 15);
    assert_eq!(added(&daemon).await.len(), 3);
}

async fn a_key_is_for_one_request(ground: Ground) {
    ground.upstream.next("Hold", [Reply::Hold]);
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let held = tokio::spawn({
        let client = client.clone();
        async move { client.add(keyed("k", add_calling("a", "Hold"))).await }
    });
    ground.upstream.wait_calls("Hold", 1).await;
    let another = |status: tonic::Status| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("was used for another request"), "{status}");
    };
    another(client.add(keyed("k", add("a", 5))).await.unwrap_err());
    ground.upstream.release();
    assert_eq!(held.await.unwrap().unwrap().sum, 1);
    another(client.add(keyed("k", add("a", 5))).await.unwrap_err());
    let empty = client.add(keyed(" ", add("a", 5))).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument, "{empty}");
    assert_eq!(client.sum("a").await, 1);
}

async fn two_calls_at_a_time_with_one_key_run_once(ground: Ground) {
    ground.upstream.next("Hold", [Reply::Hold]);
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.add(keyed("k", add_calling("a", "Hold"))).await })
        })
        .collect();
    ground.upstream.wait_calls("Hold", 1).await;
    ground.upstream.release();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap().unwrap());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(ground.upstream.calls("Hold").len(), 1);
    assert_eq!(added(&daemon).await, [answers[0].call_id.clone()]);
}

async fn a_no_is_kept_and_what_a_client_repeats_is_run_anew(ground: Ground) {
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    for (code, runs) in
        [(Code::NotFound, 1), (Code::Unavailable, 3), (Code::Aborted, 3), (Code::AlreadyExists, 1)]
    {
        let method = format!("{code:?}");
        let mut told = fate(End::Status, code as i32);
        told.get_or_insert_default().calls = add_calling("a", &method).fate.unwrap_or_default().calls;
        for _ in 0..3 {
            let request = AddRequest { fate: told.clone(), ..add("a", 1) };
            let status = client.add(keyed(&method, request)).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (code, "as told"));
        }
        let calls = ground.upstream.calls(&method);
        assert_eq!(calls.len(), runs, "{code:?}");
        assert!(calls.iter().all(|call| call.key == calls[0].key), "it is one call: {calls:?}");
    }
    assert_eq!(added(&daemon).await.len(), 0);
}

async fn a_repeat_after_a_passing_failure_does_it_once(ground: Ground) {
    ground.upstream.next("Hold", [Reply::Hold]);
    let ground = ground.with(ledger().limit("wall", "1s"));
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let request = || keyed("k", add_calling("a", "Hold"));
    let status = client.add(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("(limit `wall`)"), "{status}");
    ground.upstream.release();
    let answer = client.add(request()).await.unwrap();
    assert_eq!(client.add(request()).await.unwrap(), answer);
    assert_eq!(added(&daemon).await, [answer.call_id]);
    let calls = ground.upstream.calls("Hold");
    assert!(calls.len() == 2 && calls[0].key == calls[1].key, "{calls:?}");
}

#[tokio::test]
async fn a_repeat_through_another_daemon_gets_the_same_answer() {
    on_nats(async |ground: Ground| {
        ground.upstream.next("Hold", [Reply::Hold]);
        let (one, two) = tokio::join!(ground.start(), ground.start());
        let (first, second) = (Ledger::of(&one), Ledger::of(&two));
        let answer = first.add(keyed("k", add("a", 5))).await.unwrap();
        assert_eq!(second.add(keyed("k", add("a", 5))).await.unwrap(), answer);
        assert_eq!(second.sum("a").await, 5);
        // One is run by one of them and asked of both.
        let calls = [first.clone(), second.clone(), first, second].map(|client| {
            tokio::spawn(async move { client.add(keyed("l", add_calling("b", "Hold"))).await })
        });
        ground.upstream.wait_calls("Hold", 1).await;
        ground.upstream.release();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap().unwrap());
        }
        assert!(answers.iter().all(|other| *other == answers[0]), "{answers:?}");
        assert_eq!(ground.upstream.calls("Hold").len(), 1);
        assert_eq!(added(&one).await.len(), 2);
        assert!(ground.nats.is_some());
    })
    .await;
}
