//! The stand-ins on the admin port of a daemon: what they send is there once, what they hear is taken in, whoever of
//! the two goes and comes back.

use std::{net::SocketAddr, sync::Arc};

use fleet_proto::bus::v1::Header;
use futures_util::StreamExt as _;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::fake::{self, TOKEN, until};
use crate::{
    bus::{self, OnBus},
    completions,
    events::Style,
    lifecycle::Manner,
    outbox,
    store::{Error, Store, marks, outbox as owed, plans},
};

const COMPLETED: &str = completions::SUBJECT;
const MANNER: Manner = Manner { envelope: Style::Mirror, moves_stories: true };

async fn at(address: SocketAddr) -> Arc<dyn bus::Bus> {
    connect(address, None).await
}

async fn connect(address: SocketAddr, token: Option<&str>) -> Arc<dyn bus::Bus> {
    let on =
        OnBus { cofferdam: Some(address.to_string()), token: token.map(str::to_owned), ..OnBus::default() };
    bus::connect(&on, "test").await.unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

async fn add_plan(store: &Store, plan_id: &str) {
    let plan = plans::NewPlan {
        plan_id: plan_id.to_owned(),
        story_id: format!("story-of-{plan_id}"),
        title: "T".to_owned(),
        ..Default::default()
    };
    store.change(move |transaction| plans::add(transaction, plan)).await.unwrap();
}

async fn owe(store: &Store, subject: &'static str) {
    let done = store.change(move |transaction| owed::put(transaction, subject, &json!({}))).await;
    let done: Result<(), Error> = done;
    done.unwrap();
}

async fn is_paid(store: &Store) -> bool {
    store.read(|transaction| owed::owed(transaction, 10)).await.unwrap().is_empty()
}

fn listen(store: &Store, bus: Arc<dyn bus::Bus>) -> DropGuard {
    let shutdown = CancellationToken::new();
    tokio::spawn(completions::run(store.clone(), bus, MANNER, shutdown.clone()));
    shutdown.drop_guard()
}

fn send(store: &Store, bus: Arc<dyn bus::Bus>) -> DropGuard {
    let shutdown = CancellationToken::new();
    tokio::spawn(outbox::run(store.clone(), bus, shutdown.clone()));
    shutdown.drop_guard()
}

/// The sequence of the last event that was taken in; 0 before the first.
async fn heard(store: &Store) -> u64 {
    let mark = store.read(|transaction| marks::get(transaction, COMPLETED)).await.unwrap();
    mark.map_or(0, |mark| mark.place.sequence)
}

async fn state(store: &Store, plan_id: &str) -> String {
    let story_id = format!("story-of-{plan_id}");
    let story = store.read(move |transaction| plans::story(transaction, &story_id)).await;
    story.unwrap().state
}

fn complete(bus: &fake::Bus, plan_id: &str) -> u64 {
    bus.put(COMPLETED, Vec::new(), &json!({"plan_id": plan_id}).to_string())
}

/// An address that nobody has.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn an_event_whose_answer_was_lost_is_found_and_not_sent_again() {
    let fake = fake::Bus::new();
    let running = fake.serve(None).await;
    let (_folder, store) = store();
    owe(&store, "planning.plan.approved").await;
    fake.lose(1);
    let _sending = send(&store, at(running.address).await);
    until("the outbox to be empty", async || is_paid(&store).await).await;
    assert_eq!(fake.subjects(), ["planning.plan.approved"]);
}

#[tokio::test]
async fn what_is_owed_waits_for_a_stream_and_leaves_in_order() {
    let fake = fake::Bus::new();
    let running = fake.serve(None).await;
    let (_folder, store) = store();
    fake.streamless(true);
    owe(&store, "planning.a").await;
    owe(&store, "planning.b").await;
    let _sending = send(&store, at(running.address).await);
    until("an attempt", async || {
        let owed = store.read(|transaction| owed::owed(transaction, 10)).await.unwrap();
        owed[0].first_sent_at.is_some()
    })
    .await;
    fake.streamless(false);
    until("the outbox to be empty", async || is_paid(&store).await).await;
    assert_eq!(fake.subjects(), ["planning.a", "planning.b"]);
}

#[tokio::test]
async fn a_daemon_that_comes_late_is_waited_for() {
    let address = nobody();
    let (_folder, store) = store();
    add_plan(&store, "p").await;
    owe(&store, "planning.plan.approved").await;
    let bus = at(address).await;
    bus.prepare(&["planning.plan.approved"], &[COMPLETED]).await.unwrap();
    let _sending = send(&store, bus.clone());
    let _listening = listen(&store, bus);
    let fake = fake::Bus::new();
    complete(&fake, "p");
    let _running = fake.serve(Some(address)).await;
    until("the plan to be planned", async || state(&store, "p").await == "PLANNED").await;
    until("the outbox to be empty", async || is_paid(&store).await).await;
}

#[tokio::test]
async fn hearing_goes_on_where_it_was_after_a_restart_of_either_side() {
    let fake = fake::Bus::new();
    let running = fake.serve(None).await;
    let address = running.address;
    let (_folder, store) = store();
    for plan_id in ["a", "b", "c"] {
        add_plan(&store, plan_id).await;
    }
    let listening = listen(&store, at(address).await);
    complete(&fake, "a");
    until("the first event", async || heard(&store).await == 1).await;
    drop(running);
    complete(&fake, "b");
    let _running = fake.serve(Some(address)).await;
    until("the second event", async || heard(&store).await == 2).await;
    drop(listening);
    complete(&fake, "c");
    let _listening = listen(&store, at(address).await);
    until("the third event", async || heard(&store).await == 3).await;
    for plan_id in ["a", "b", "c"] {
        assert_eq!(state(&store, plan_id).await, "PLANNED");
    }
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_heard_from_its_beginning() {
    let fake = fake::Bus::new();
    let running = fake.serve(None).await;
    let address = running.address;
    let (_folder, store) = store();
    for plan_id in ["a", "b", "c", "d", "e"] {
        add_plan(&store, plan_id).await;
    }
    let _listening = listen(&store, at(address).await);
    for plan_id in ["a", "b"] {
        complete(&fake, plan_id);
    }
    until("both events", async || heard(&store).await == 2).await;
    drop(running);
    // It has grown past the mark by the time that we are back.
    let anew = fake::Bus::new();
    for plan_id in ["c", "d", "e"] {
        complete(&anew, plan_id);
    }
    let running = anew.serve(Some(address)).await;
    until("three events", async || heard(&store).await == 3).await;
    for plan_id in ["c", "d", "e"] {
        assert_eq!(state(&store, plan_id).await, "PLANNED");
    }
    drop(running);
    // And it is shorter than the mark.
    let anew = fake::Bus::new();
    let _running = anew.serve(Some(address)).await;
    add_plan(&store, "f").await;
    complete(&anew, "f");
    until("one event", async || heard(&store).await == 1).await;
    assert_eq!(state(&store, "f").await, "PLANNED");
}

#[tokio::test]
async fn an_event_that_can_never_be_taken_in_is_passed_over() {
    let fake = fake::Bus::new();
    let running = fake.serve(None).await;
    let (_folder, store) = store();
    add_plan(&store, "p").await;
    for data in ["no JSON", "{}", r#"{"plan_id": "unknown"}"#] {
        fake.put(COMPLETED, Vec::new(), data);
    }
    complete(&fake, "p");
    let _listening = listen(&store, at(running.address).await);
    until("all four events", async || heard(&store).await == 4).await;
    assert_eq!(state(&store, "p").await, "PLANNED");
}

#[tokio::test]
async fn what_passes_is_seen_with_its_headers() {
    let fake = fake::Bus::new();
    let running = fake.serve(None).await;
    let mut messages = at(running.address).await.watch(&[">".to_owned()]).await.unwrap();
    let headers = [("A", "1"), ("A", "2")];
    let headers = headers.map(|(name, value)| Header { name: name.to_owned(), value: value.to_owned() });
    fake.put("planning.x", headers.to_vec(), "data");
    let message = messages.next().await.unwrap().unwrap();
    assert_eq!((message.subject.as_str(), &message.data[..]), ("planning.x", &b"data"[..]));
    assert_eq!(message.headers["A"], "2");
    drop(running);
    assert!(messages.next().await.unwrap().is_err(), "the end is told");
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let watched = async |bus: Arc<dyn bus::Bus>| {
        bus.watch(&[">".to_owned()]).await.map(drop).map_err(|error| format!("{error:#}"))
    };
    let guarded = fake::Bus::guarded().serve(None).await;
    let told = watched(at(guarded.address).await).await.unwrap_err();
    assert!(told.contains("--token or COFFERDAM_TOKEN"), "{told}");
    watched(connect(guarded.address, Some(TOKEN)).await).await.unwrap();

    let told = watched(at(nobody()).await).await.unwrap_err();
    assert!(told.contains("start it with `cofferdam run`") && told.contains("refused"), "{told}");

    let on = OnBus { cofferdam: Some("http://".to_owned()), ..OnBus::default() };
    let told = format!("{:#}", bus::connect(&on, "test").await.err().unwrap());
    assert!(told.contains("--cofferdam or COFFERDAM_ADMIN"), "{told}");
}
