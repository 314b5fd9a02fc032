//! Daemons that stop and die with calls on their way: whoever repeats a call gets its one answer, and what it does is done once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleet_proto::fixtures::v1::AddResponse;
use harness::{counting::Reply, daemon::Daemon, dice::Dice, wait::wait_for};
use tonic::{Code, Request, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{Ground, Ledger, add, add_calling, added, keyed};
use crate::both::{on_both_buses, on_local, on_nats};

on_both_buses!(
    a_stop_finishes_what_runs_and_takes_no_more,
    a_daemon_killed_in_the_midst_of_a_call_answers_its_repeat_and_does_it_once,
    a_daemon_killed_between_a_key_and_its_call_leaves_both_to_the_repeat,
);

async fn a_stop_finishes_what_runs_and_takes_no_more(ground: Ground) {
    ground.upstream.next("Hold", [Reply::Hold]);
    let mut daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let held = tokio::spawn({
        let client = client.clone();
        async move { client.add(add_calling("a", "Hold")).await }
    });
    ground.upstream.wait_calls("Hold", 1).await;
    assert_eq!(health(&daemon).await, 1);
    daemon.terminate();
    daemon.says("draining").await;
    let refused = client.add(add("b", 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("the host stops"), "{refused}");
    wait_for("health to say so", async || (health(&daemon).await == 2).then_some(())).await;
    ground.upstream.release();
    assert_eq!(held.await.unwrap().unwrap().sum, 1);
    assert!(daemon.end().await.success());
    let daemon = ground.start().await;
    assert_eq!(Ledger::of(&daemon).sum("a").await, 1);
    assert_eq!(added(&daemon).await.len(), 1);
}

/// 1: serving, 2: not.
async fn health(daemon: &Daemon) -> i32 {
    let endpoint = Endpoint::from_shared(format!("http://{}", daemon.grpc())).unwrap();
    let mut client = HealthClient::new(endpoint.connect_lazy());
    let request = HealthCheckRequest { service: harness::plugin::LEDGER.to_owned() };
    client.check(Request::new(request)).await.unwrap().into_inner().status
}

async fn a_daemon_killed_in_the_midst_of_a_call_answers_its_repeat_and_does_it_once(ground: Ground) {
    ground.upstream.next("Hold", [Reply::Hold]);
    let mut daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let cut = tokio::spawn({
        let client = client.clone();
        async move { client.add(keyed("k", add_calling("a", "Hold"))).await }
    });
    ground.upstream.wait_calls("Hold", 1).await;
    daemon.kill().await;
    cut.await.unwrap().unwrap_err();
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let answer = client.add(keyed("k", add_calling("a", "Hold"))).await.unwrap();
    assert_eq!((answer.sum, client.sum("a").await), (1, 1));
    assert_eq!(added(&daemon).await, [answer.call_id]);
    let calls = ground.upstream.calls("Hold");
    assert!(calls.iter().all(|call| call.key == calls[0].key), "one call, whoever makes it: {calls:?}");
}

/// Calls of several clients at a time, spread over the daemons, and kills of one after the other at random moments; whoever was
/// cut off repeats its call until it is answered, at another daemon if there is one.
async fn storm(ground: &Ground, mut daemons: Vec<Daemon>, kills: usize, mut dice: Dice) {
    const ACCOUNTS: usize = 3;
    const CALLS: usize = 12;
    let request = |kill: usize, n: usize| {
        (format!("{kill}-{n}"), move || keyed(&format!("{kill}-{n}"), add(&format!("a{}", n % ACCOUNTS), 1)))
    };
    let mut answers: BTreeMap<String, AddResponse> = BTreeMap::new();
    let mut before: BTreeMap<String, AddResponse> = BTreeMap::new();
    for kill in 0..kills {
        let clients: Vec<Ledger> = daemons.iter().map(Ledger::of).collect();
        let calls: Vec<_> = (0..CALLS)
            .map(|n| {
                let ((key, request), client) = (request(kill, n), clients[n % clients.len()].clone());
                tokio::spawn(async move { (key, client.add(request()).await) })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(dice.below(150))).await;
        let (died, count) = (kill % daemons.len(), daemons.len());
        daemons[died].kill().await;
        if count == 1 {
            daemons[died] = ground.start().await;
        }
        let repeats = Ledger::of(&daemons[(died + 1) % count]);
        for call in calls {
            let (key, answer) = call.await.unwrap();
            before.extend(answer.ok().map(|answer| (key, answer)));
        }
        for n in 0..CALLS {
            let (key, request) = request(kill, n);
            let answer = repeats.add(request()).await.unwrap_or_else(|e| panic!("{key}: {e}"));
            answers.insert(key, answer);
        }
        if count > 1 {
            daemons[died] = ground.start().await;
        }
    }
    for (key, answer) in &before {
        assert_eq!(answers[key], *answer, "{key} was answered before a daemon died");
    }
    let client = Ledger::of(&daemons[0]);
    let mut sum = 0;
    for account in 0..ACCOUNTS {
        sum += client.sum(&format!("a{account}")).await;
    }
    assert_eq!(sum, i64::try_from(kills * CALLS).unwrap(), "each call counts once");
    let published = added(&daemons[0]).await;
    assert_eq!(published.len(), kills * CALLS, "each call publishes once");
    let calls: BTreeSet<&str> = answers.values().map(|answer| answer.call_id.as_str()).collect();
    assert_eq!(calls, published.iter().map(String::as_str).collect(), "by the run that was answered for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_a_daemon_is_killed_each_call_is_done_once_on_the_embedded_bus() {
    on_local(async |ground: Ground| {
        let daemon = ground.start().await;
        storm(&ground, vec![daemon], 6, Dice::new()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_a_daemon_is_killed_each_call_is_done_once_on_nats() {
    on_nats(async |ground: Ground| {
        let daemon = ground.start().await;
        storm(&ground, vec![daemon], 2, Dice::new()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_of_two_daemons_is_killed_each_call_is_done_once() {
    on_nats(async |ground: Ground| {
        let (one, two) = tokio::join!(ground.start(), ground.start());
        storm(&ground, vec![one, two], 4, Dice::new()).await;
    })
    .await;
}

/// Whoever takes a call may die when its key is written and the call is not stored.
async fn a_daemon_killed_between_a_key_and_its_call_leaves_both_to_the_repeat(mut ground: Ground) {
    let halting = ground.setup.env("COFFERDAM_HALT", "key");
    let mut daemon = halting.start().await;
    let client = Ledger::of(&daemon);
    let cut = tokio::spawn(async move { client.add(keyed("k", add("a", 5))).await });
    daemon.says("halted between a key and its call").await;
    let key = daemon.stored("cd.k.ledger.*").await;
    assert_eq!((key.len(), daemon.stored("cd.in.ledger.>").await.len()), (1, 0));
    daemon.kill().await;
    cut.await.unwrap().unwrap_err();
    ground.setup = halting.env("COFFERDAM_HALT", "");
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    let answer = client.add(keyed("k", add("a", 5))).await.unwrap();
    assert_eq!(client.add(keyed("k", add("a", 5))).await.unwrap(), answer);
    assert_eq!(added(&daemon).await, [answer.call_id]);
}

#[tokio::test]
async fn a_call_that_kills_its_host_is_given_up_and_stays_so() {
    on_local(async |mut ground: Ground| {
        let deadly = format!("die-on:{}/Add", harness::plugin::LEDGER);
        ground.setup = ground.setup.with("dispatch.max-deliveries", 2).env("COFFERDAM_BROKEN", &deadly);
        let call = || keyed("k", add("a", 1));
        let status = wait_for("the call to be given up", async || {
            let daemon = ground.setup.start_perhaps().await?;
            let status = Ledger::of(&daemon).add(call()).await.unwrap_err();
            (status.code() == Code::FailedPrecondition).then_some((status, daemon))
        });
        let (status, daemon) = status.await;
        assert!(status.message().contains("the host died each time"), "{status}");
        let again = Ledger::of(&daemon).add(call()).await.unwrap_err();
        assert_eq!(again.code(), Code::FailedPrecondition, "{again}");
        assert_eq!(daemon.stored("cofferdam.dead.>").await.len(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_answered_by_the_host_that_was_asked_though_the_one_that_ran_it_died() {
    on_nats(async |ground: Ground| {
        // The first has the turn.
        let mut one = ground.start().await;
        let two = ground.start().await;
        ground.upstream.next("Hold", [Reply::Hold]);
        let client = Ledger::of(&two);
        let held = tokio::spawn({
            let client = client.clone();
            async move { client.add(add_calling("a", "Hold")).await }
        });
        ground.upstream.wait_calls("Hold", 1).await;
        one.kill().await;
        let answer = held.await.unwrap().unwrap();
        assert_eq!(answer.sum, 1);
        assert_eq!(added(&two).await, [answer.call_id]);
        assert_eq!(ground.upstream.calls("Hold").len(), 2, "it ran again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_stops_hands_over_what_waits_and_hears_the_answer() {
    on_nats(async |ground: Ground| {
        ground.upstream.next("Hold", [Reply::Hold]);
        let mut one = ground.start().await;
        let two = ground.start().await;
        let client = Ledger::of(&one);
        let call = |request| {
            let client = client.clone();
            tokio::spawn(async move { client.add(request).await })
        };
        let held = call(keyed("k", add_calling("a", "Hold")));
        ground.upstream.wait_calls("Hold", 1).await;
        // Behind it, in the same cell.
        let parked = call(keyed("l", add("a", 5)));
        wait_for("both calls to be stored", async || {
            (one.stored("cd.in.ledger.>").await.len() == 2).then_some(())
        })
        .await;
        one.terminate();
        one.says("draining").await;
        ground.upstream.release();
        assert_eq!(held.await.unwrap().unwrap().sum, 1);
        // Run by the other, and mostly heard here; where that takes long, its client is told to ask again.
        let parked = match parked.await.unwrap() {
            Err(status) if status.code() == Code::Unavailable => {
                Ledger::of(&two).add(keyed("l", add("a", 5))).await.unwrap()
            }
            answer => answer.unwrap(),
        };
        assert_eq!(parked.sum, 6);
        assert!(one.end().await.success());
        assert_eq!(added(&two).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn what_waits_on_a_host_alone_is_told_that_it_is_stored() {
    on_local(async |ground: Ground| {
        ground.upstream.next("Hold", [Reply::Hold]);
        let mut daemon = ground.start().await;
        let client = Ledger::of(&daemon);
        let call = |request| {
            let client = client.clone();
            tokio::spawn(async move { client.add(request).await })
        };
        let held = call(keyed("k", add_calling("a", "Hold")));
        ground.upstream.wait_calls("Hold", 1).await;
        let parked = call(keyed("l", add("a", 5)));
        wait_for("both calls to be stored", async || {
            (daemon.stored("cd.in.ledger.>").await.len() == 2).then_some(())
        })
        .await;
        daemon.terminate();
        daemon.says("draining").await;
        ground.upstream.release();
        assert_eq!(held.await.unwrap().unwrap().sum, 1);
        let status = parked.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("repeat it with its idempotency key"), "{status}");
        assert!(daemon.end().await.success());
        let daemon = ground.start().await;
        assert_eq!(Ledger::of(&daemon).add(keyed("l", add("a", 5))).await.unwrap().sum, 6);
        assert_eq!(added(&daemon).await.len(), 2);
    })
    .await;
}
