//! How calls end that do not end well: each has its status, and leaves nothing behind.

use std::time::Duration;

use fleet_proto::fixtures::v1::{AddRequest, End, GetRequest};
use harness::{counting::Reply, plugin::LEDGER};
use tonic::{Code, Request, Status};

use super::{Ground, Ledger, add, add_calling, added, fate, keyed, ledger};
use crate::both::on_both_buses;

on_both_buses!(
    each_ending_has_its_status_and_leaves_nothing,
    an_answer_that_does_not_fit_is_told_and_leaves_nothing,
    a_client_waits_no_longer_than_it_says_and_the_call_goes_on,
);

async fn each_ending_has_its_status_and_leaves_nothing(ground: Ground) {
    let ground =
        ground.with(ledger().limit("cpu", "300ms").limit("host-calls", 1000).limit("memory", "16MiB"));
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    client.add(add("a", 1)).await.unwrap();
    for (end, code, says) in [
        (End::Status, Code::FailedPrecondition, "as told"),
        (End::Trap, Code::Internal, "the plugin trapped: "),
        (End::Spin, Code::DeadlineExceeded, "(limit `cpu`)"),
        (End::Grow, Code::ResourceExhausted, "(limit `memory`)"),
        (End::HostCalls, Code::ResourceExhausted, "(limit `host_calls`)"),
    ] {
        let check = |what: &str, status: Status| {
            assert_eq!(status.code(), code, "{what} {end:?}: {status}");
            assert!(status.message().contains(says), "{what} {end:?}: {status}");
        };
        let number = Code::FailedPrecondition as i32;
        let written = AddRequest { fate: fate(end, number), ..add("a", 100) };
        check("write", client.add(written).await.unwrap_err());
        let read = GetRequest { account: "a".into(), fate: fate(end, number), ..GetRequest::default() };
        check("read", client.get(read).await.unwrap_err());
    }
    assert_eq!(client.sum("a").await, 1);
    assert_eq!(added(&daemon).await.len(), 1);
    assert_eq!(daemon.stored("cofferdam.dead.>").await.len(), 0, "a call has no dead letter");
    daemon.logged("a trap", |line| line["outcome"] == "trapped" && line["level"] == "ERROR").await;
    let refused = daemon.logged("a status", |line| line["outcome"] == "status").await;
    assert_eq!((refused["level"].as_str(), refused["code"].as_u64()), (Some("INFO"), Some(9)), "{refused}");
}

async fn an_answer_that_does_not_fit_is_told_and_leaves_nothing(ground: Ground) {
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let most = AddRequest { padding: 900 << 10, ..add("a", 1) };
    assert_eq!(client.add(most).await.unwrap().padding.len(), 900 << 10);
    let more = AddRequest { padding: 1100 << 10, ..add("a", 1) };
    let status = client.add(more).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    assert!(status.message().contains("can't be stored"), "{status}");
    assert_eq!(client.sum("a").await, 1);
}

async fn a_client_waits_no_longer_than_it_says_and_the_call_goes_on(mut ground: Ground) {
    ground.upstream.next("Hold", [Reply::Hold]);
    // What it says by saying nothing; a client that says so itself may be the first to know.
    ground.setup.set("grpc.timeout", "2s");
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let held = || keyed("k", add_calling("a", "Hold"));
    let status = client.add(held()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("it still runs: repeat it with its idempotency key"), "{status}");
    ground.upstream.wait_calls("Hold", 1).await;
    let mut impatient = held();
    impatient.set_timeout(Duration::from_millis(500));
    let status = client.add(impatient).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    ground.upstream.release();
    let mut patient = held();
    patient.set_timeout(Duration::from_secs(80));
    assert_eq!(client.add(patient).await.unwrap().sum, 1);
    assert_eq!(client.sum("a").await, 1);
    assert_eq!(ground.upstream.calls("Hold").len(), 1);
}

#[tokio::test]
async fn a_method_has_its_own_time_for_clients_that_set_none() {
    crate::both::on_local(async |mut ground: Ground| {
        ground.upstream.next("Hold", [Reply::Hold]);
        ground.setup.set("grpc.timeout", "1s");
        let write = "kind = \"write\"\nkey = \"account\"\ncell = \"account/{key}\"";
        let slow = ledger().method("Add", &format!("{write}\ntimeout = \"10m\""));
        let ground = ground.with(slow);
        let daemon = ground.start().await;
        let client = Ledger::of(&daemon);
        let held = tokio::spawn({
            let client = client.clone();
            async move { client.add(keyed("k", add_calling("a", "Hold"))).await }
        });
        ground.upstream.wait_calls("Hold", 1).await;
        // What a client says itself counts all the same.
        let mut impatient = keyed("k", add_calling("a", "Hold"));
        impatient.set_timeout(Duration::from_millis(1500));
        let status = client.add(impatient).await.unwrap_err();
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
        assert!(!held.is_finished(), "it waits for longer than the host's own second");
        ground.upstream.release();
        assert_eq!(held.await.unwrap().unwrap().sum, 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_over_the_limit_and_one_that_is_none_are_refused() {
    crate::both::on_local(async |mut ground: Ground| {
        ground.setup.set("grpc.max-request", "64KiB");
        let daemon = ground.start().await;
        let client = Ledger::of(&daemon);
        let large = AddRequest { account: "a".repeat(70_000), ..AddRequest::default() };
        let status = client.add(large).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(
            status.message().contains("more than 65536 bytes") && status.message().contains("max-request")
        );
        let most = AddRequest { account: "a".repeat(60_000), amount: 1, ..AddRequest::default() };
        assert_eq!(client.add(most).await.unwrap().sum, 1);
        for (method, bytes) in [("Add", &[0xff, 0xff][..]), ("Get", &[10, 200, 1]), ("Add", &[10, 1, 0xff])] {
            let status = raw(&daemon, &format!("{LEDGER}/{method}"), bytes).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(status.message().contains("the request is no cofferdam.fixtures.v1."), "{status}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_served_is_unimplemented_and_told_with_what_is() {
    crate::both::on_local(async |ground: Ground| {
        let ground = ground.with(ledger().granted("serve", &[&format!("{LEDGER}/Get")]));
        let daemon = ground.start().await;
        for (method, says) in [
            (
                "a.v1.B/C",
                format!("\"a.v1.B\" is not served here; what is: {LEDGER}, health and server reflection"),
            ),
            (
                &format!("{LEDGER}/Take"),
                format!("\"{LEDGER}/Take\" is not served here; of this service these are: Get"),
            ),
            // Listed in the manifest, and not granted.
            (&format!("{LEDGER}/Add"), "of this service these are: Get".to_owned()),
        ] {
            let status = raw(&daemon, method, &[]).await.unwrap_err();
            assert_eq!(status.code(), Code::Unimplemented, "{status}");
            assert!(status.message().contains(&says), "{status}");
        }
        let absent = raw(&daemon, &format!("{LEDGER}/Get"), &[]).await.unwrap_err();
        assert_eq!(absent.code(), Code::FailedPrecondition, "no account, so no cell: {absent}");
    })
    .await;
}

#[tokio::test]
async fn more_calls_than_the_host_has_room_for_are_turned_away() {
    crate::both::on_local(async |mut ground: Ground| {
        ground.setup.set("grpc.max-calls", 1);
        ground.upstream.next("Hold", [Reply::Hold]);
        let daemon = ground.start().await;
        let client = Ledger::of(&daemon);
        let held = tokio::spawn({
            let client = client.clone();
            async move { client.add(add_calling("a", "Hold")).await }
        });
        ground.upstream.wait_calls("Hold", 1).await;
        let status = client.add(add("b", 1)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("max-calls"), "{status}");
        ground.upstream.release();
        assert_eq!(held.await.unwrap().unwrap().sum, 1);
        assert_eq!(client.add(add("b", 1)).await.unwrap().sum, 1);
    })
    .await;
}

/// A call of bytes.
async fn raw(
    daemon: &harness::daemon::Daemon,
    method: &str,
    bytes: &'static [u8],
) -> Result<bytes::Bytes, Status> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", daemon.grpc())).unwrap();
    let mut client = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    client.ready().await.unwrap();
    let path = format!("/{method}").parse().unwrap();
    let request = Request::new(bytes::Bytes::from_static(bytes));
    client.unary(request, path, harness::codec::Plain).await.map(tonic::Response::into_inner)
}
