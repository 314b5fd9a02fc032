//! A guest that serves calls, by the SDK: what it is asked reaches it whole, and what it answers comes back with its effects.

use std::collections::BTreeMap;

use bytes::Bytes;
use cofferdam_sandbox::{Ending, Limits, Plugin, Request, Sandbox, ServeError};
use fleet_proto::fixtures::v1::{
    AddRequest, AddResponse, End, Fate, GetRequest, GetResponse, Metadata, Place, TellRequest, TellResponse,
};
use prost::Message;
use serde_json::{Value, json};

use super::{TARGET, event, fixture, host::Host, limits, run};

const SERVICE: &str = "cofferdam.fixtures.v1.LedgerService";

struct Served {
    ending: Ending,
    answer: Option<Bytes>,
    host: Host,
}

impl Served {
    fn read<M: Message + Default>(&self) -> M {
        assert_eq!(self.ending, Ending::Ok);
        M::decode(self.answer.clone().expect("an answer")).expect("a message of this type")
    }

    fn refused(&self) -> &ServeError {
        assert_eq!(self.answer, None);
        let Ending::Refused(status) = &self.ending else { panic!("{:?}", self.ending) };
        status
    }
}

/// An account that holds this much, and a place to publish to.
fn host(sum: Option<i64>) -> Host {
    let cell = sum.map(|sum| ("sum".to_owned(), Bytes::from(sum.to_string())));
    let config = [("to".to_owned(), format!("{TARGET:?}"))];
    Host { cell: Some(cell.into_iter().collect()), config: config.into(), ..Host::default() }
}

fn request(method: &str, message: &impl Message) -> Request {
    Request {
        id: "call.1".to_owned(),
        method: format!("{SERVICE}/{method}"),
        metadata: Vec::new(),
        request: message.encode_to_vec().into(),
        timestamp: 1_700_000_000_000_000_000,
    }
}

async fn serve(plugin: &Plugin, host: Host, request: Request, limits: &Limits) -> Served {
    let run = plugin.serve(Box::new(host), request, limits).await;
    let (ending, answer) = (run.ending.clone(), run.answer.clone());
    let host = *run.into_host::<Host>().expect("the host that was given");
    Served { ending, answer, host }
}

async fn ledger() -> Plugin {
    fixture("ledger-service").await
}

fn fated(fate: Fate) -> AddRequest {
    AddRequest { account: "a".to_owned(), amount: 1, fate: Some(fate), ..AddRequest::default() }
}

#[tokio::test]
async fn a_guest_says_that_it_serves() {
    let shape = |name| Sandbox::inspect(&std::fs::read(harness::guests::fixture(name)).unwrap()).unwrap();
    assert!(shape("ledger-service").serves);
    assert!(!shape("echo").serves);
    assert!(shape("ledger-service").wasi.is_empty());
}

#[tokio::test]
async fn a_call_passes_through_whole() {
    let metadata = [("x-a", "1"), ("x-b", "2"), ("x-b", "3")];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let told = TellRequest { number: 7, place: Some(Place { name: "here".to_owned() }) };
    let call = Request { metadata, ..request("Tell", &told) };
    let served = serve(&ledger().await, Host { attempt: 1, ..host(None) }, call, &limits()).await;
    let metadatum = |name: &str, value: &str| Metadata { name: name.to_owned(), value: value.to_owned() };
    assert_eq!(
        served.read::<TellResponse>(),
        TellResponse {
            id: "call.1".to_owned(),
            method: format!("{SERVICE}/Tell"),
            metadata: vec![metadatum("x-a", "1"), metadatum("x-b", "2"), metadatum("x-b", "3")],
            timestamp: 1_700_000_000_000_000_000,
            order_key: "key".to_owned(),
            attempt: 1,
            last_attempt: false,
            deadline_ms: 1_000,
            now: 1,
            random: "07070707".to_owned(),
        }
    );
}

#[tokio::test]
async fn an_answer_comes_with_its_effects() {
    let plugin = ledger().await;
    let add = AddRequest {
        account: "a".to_owned(),
        amount: 5,
        messages: 2,
        later_ms: 10,
        ..fated(Fate::default())
    };
    let served = serve(&plugin, host(Some(1)), request("Add", &add), &limits()).await;
    let answer = served.read::<AddResponse>();
    assert_eq!((answer.sum, answer.call_id.as_str()), (6, "call.1"));
    let published = served.host.published.iter().map(|(_, _, data)| serde_json::from_slice(data).unwrap());
    let added = json!({ "account": "a", "amount": 5, "sum": 6, "by": "call.1" });
    assert_eq!(published.collect::<Vec<Value>>(), [added.clone(), added, json!({ "later": "call.1" })]);

    let get = GetRequest { account: "a".to_owned(), ..GetRequest::default() };
    let served = serve(&plugin, served.host, request("Get", &get), &limits()).await;
    assert_eq!(served.read::<GetResponse>(), GetResponse { sum: 6, refused: Vec::new() });
}

#[tokio::test]
async fn a_guest_that_serves_handles_events_on_the_same_state() {
    let plugin = ledger().await;
    let seen = run(&plugin, host(Some(1)), event(r#"{"account": "a", "amount": 4}"#), &limits()).await;
    assert_eq!(seen.report(), json!({ "account": "a", "amount": 4, "sum": 5, "by": "0123.7" }));
    let served = serve(&plugin, seen.host, request("Add", &fated(Fate::default())), &limits()).await;
    assert_eq!(served.read::<AddResponse>().sum, 6);
}

#[tokio::test]
async fn every_status_reaches_the_host_as_the_guest_gave_it() {
    let plugin = ledger().await;
    for code in 0..=16_u8 {
        let message = format!("status {code}");
        let fate =
            Fate { end: End::Status.into(), code: code.into(), message: message.clone(), ..Fate::default() };
        let served = serve(&plugin, host(None), request("Add", &fated(fate)), &limits()).await;
        // OK is no error.
        let code = if code == 0 { 2 } else { code };
        assert_eq!(served.refused(), &ServeError { code, message });
        assert_eq!(served.host.published.len(), 1, "there for the caller to drop");
    }
    let status = async |request| {
        let served = serve(&plugin, host(None), request, &limits()).await;
        let ServeError { code, message } = served.refused().clone();
        (code, message)
    };
    let (code, message) = status(request("Nothing", &())).await;
    assert!(code == 12 && message.contains("LedgerService/Nothing"), "{code} {message}");
    let garbage = Request { request: Bytes::from_static(&[0xff; 3]), ..request("Get", &()) };
    let (code, message) = status(garbage).await;
    assert!(code == 3 && message.contains("LedgerService/Get"), "{code} {message}");
    assert_eq!(status(request("Get", &GetRequest::default())).await.0, 5);
    // What the host refuses is one without a word of the guest's.
    let served = serve(
        &plugin,
        Host { config: BTreeMap::new(), ..host(None) },
        request("Add", &fated(Fate::default())),
        &limits(),
    )
    .await;
    let status = served.refused();
    assert!(status.code == 9 && status.message.contains("no config value `to`"), "{status}");
}

#[tokio::test]
async fn a_call_that_breaks_off_is_what_an_event_would_be() {
    let plugin = ledger().await;
    let limits = Limits { host_calls: 500, ..limits() };
    let ending = async |end: End| {
        let fate = Fate { end: end.into(), message: "no way".to_owned(), ..Fate::default() };
        let limits = &limits;
        serve(&plugin, host(None), request("Add", &fated(fate)), limits).await.ending
    };
    assert_eq!(ending(End::Spin).await, Ending::CpuLimit);
    assert_eq!(ending(End::Grow).await, Ending::MemoryLimit);
    assert_eq!(ending(End::HostCalls).await, Ending::HostCallLimit);
    let Ending::Trap { message } = ending(End::Trap).await else { panic!("no trap") };
    assert!(
        message.contains("as told: no way") && message.contains("examples/ledger-service.rs:"),
        "{message}"
    );
}

#[tokio::test]
async fn a_long_answer_passes() {
    let add = AddRequest { padding: 3 << 20, ..fated(Fate::default()) };
    let served = serve(&ledger().await, host(None), request("Add", &add), &limits()).await;
    assert_eq!(served.read::<AddResponse>().padding.len(), 3 << 20);
}
