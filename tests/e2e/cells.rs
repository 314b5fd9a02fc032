//! Events that move what is in one cell into another: whoever runs them, and whoever is killed, nothing is lost on the way, and
//! nobody acts on a sum that never was.

use harness::{daemon::Daemon, metrics::counts, plugin::Plugin, setup::Setup, world::World};
use serde_json::{Value, json};

const ACCOUNTS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// What all begin with, together.
const SUM: i64 = 500;

/// Moves by an order key (`test.keyed`) and without (`test.plain`), and adds up (`test.count`).
fn accounts() -> Plugin {
    const SOON: &str = "ack-wait = \"2s\"\nbackoff = \"50ms\"";
    Plugin::fixture("accounts")
        .named("accounts")
        .on("test.keyed", &format!("order-key = [\"/from\"]\n{SOON}"))
        .on("test.plain", SOON)
        .on("test.count", SOON)
        .state("accounts")
        .reports_to("test.seen")
}

fn transfer(n: usize) -> Value {
    let (from, to) = (n % 5, (n + 1 + n / 5 % 4) % 5);
    json!({ "from": ACCOUNTS[from], "to": ACCOUNTS[to], "amount": n % 7 + 1 })
}

async fn publish(world: &World, transfers: std::ops::Range<usize>) {
    for n in transfers {
        let subject = if n % 2 == 0 { "test.keyed" } else { "test.plain" };
        world.publish(subject, transfer(n)).await;
        if n % 4 == 0 {
            world.publish("test.count", json!({ "count": ACCOUNTS, "sum": SUM })).await;
        }
    }
}

/// Each transfer was reported once, every sum was right, and so it is now.
async fn check(world: &World, transfers: usize) {
    world.quiet().await;
    let seen: Vec<Value> = world.stored("test.seen").await.iter().map(|m| m.json()).collect();
    let mut moved: Vec<&str> = seen.iter().filter_map(|m| m["event"].as_str()).collect();
    moved.sort_unstable();
    moved.dedup();
    assert_eq!(moved.len(), transfers, "each event of its own");
    let sums: Vec<i64> = seen.iter().filter_map(|m| m["sum"].as_i64()).collect();
    assert_eq!(sums, vec![SUM; transfers.div_ceil(4)]);
    assert_eq!(moved.len() + sums.len(), seen.len(), "nothing twice");
    assert_eq!(world.count("cofferdam.dead.>").await, 0);
}

async fn two(setup: &Setup) -> [Daemon; 2] {
    let (one, two) = tokio::join!(setup.start(), setup.start());
    [one, two]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_move_amounts_between_cells_and_the_sum_never_changes() {
    const TRANSFERS: usize = 120;
    let world = World::start().await;
    let setup = world.setup().plugin(accounts());
    let _daemons = two(&setup).await;
    publish(&world, 0..TRANSFERS).await;
    check(&world, TRANSFERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_when_daemons_are_killed_in_the_midst_of_it() {
    const TRANSFERS: usize = 120;
    let world = World::start().await;
    let setup = world.setup().plugin(accounts());
    let mut daemons = two(&setup).await;
    for round in 0..4 {
        let so_far = world.count("test.seen").await;
        publish(&world, round * TRANSFERS / 4..(round + 1) * TRANSFERS / 4).await;
        world.wait_stored("test.seen", so_far + 5).await;
        let daemon = &mut daemons[round % 2];
        daemon.kill().await;
        *daemon = setup.start().await;
    }
    check(&world, TRANSFERS).await;
}

#[tokio::test]
async fn a_failed_event_leaves_every_cell_as_it_was() {
    let world = World::start().await;
    let daemon = world.setup().plugin(accounts()).start().await;
    let before = daemon.scrape().await;
    for subject in ["test.keyed", "test.plain"] {
        world.publish(subject, json!({ "from": "a", "to": "b", "amount": 9, "fail": 1 })).await;
    }
    world.quiet().await;
    daemon.events(&before, [("accounts retry guest", 2), ("accounts done -", 2)]).await;
    for (account, amount) in [("a", 82), ("b", 118)] {
        world.publish("test.count", json!({ "count": [account], "sum": amount })).await;
    }
    world.quiet().await;
    let moved = daemon.scrape().await.since(&before);
    assert_eq!(moved.sum("cofferdam_dead_letters_total", &[]), 0.0);
    // Four writes of state by the two that succeeded.
    let effects = moved.counts("cofferdam_effects_total", &["plugin", "kind"]);
    assert_eq!(effects, counts([("accounts publish", 4), ("accounts state", 4)]));
}

#[tokio::test]
async fn cells_need_the_grant_and_a_commit_that_takes_them() {
    let world = World::start().await;
    let guest = |name: &str, settings: &str| {
        Plugin::fixture("accounts")
            .named(name)
            .on(&format!("test.{name}"), &format!("max-attempts = 1\n{settings}"))
            .wants_state("shared")
            .reports_to("test.seen")
    };
    let _daemon = world
        .setup()
        .plugin(guest("ungranted", "").granted("state", &["other"]))
        .plugin(guest("published", "commit = \"publish\"").granted("state", &["shared"]))
        .start()
        .await;
    for (name, why) in [("ungranted", "denied: "), ("published", "no cell: ")] {
        world.publish(&format!("test.{name}"), json!({ "count": ["a"] })).await;
        let letter = world.dead_letters(name, 1).await.remove(0);
        let reason = letter["reason"].as_str().unwrap();
        assert!(reason.contains(why), "{name}: {reason}");
    }
    world.quiet().await;
    assert_eq!(world.count("test.seen").await, 0);
}

#[tokio::test]
async fn an_event_whose_cell_cant_be_read_is_handed_back_whatever_it_says() {
    let world = World::start().await;
    let plugin = accounts().every_subscription("backoff = \"50ms\"");
    let daemon = world.setup().plugin(plugin).start().await;
    world.publish("test.plain", transfer(0)).await;
    world.wait_stored("test.seen", 1).await;
    // As a newer version would write it.
    let cells = world.stored("cd.s.accounts.>").await;
    assert_eq!(cells.len(), 2);
    let damaged = &cells[0];
    world.publish_bytes(&damaged.subject, &[], bytes::Bytes::from_static(b"\x08\x02\x12\x01a")).await;
    world.publish("test.count", json!({ "count": ACCOUNTS, "end": "ok" })).await;
    daemon.says("can't be read").await;
    world.publish_bytes(&damaged.subject, &[], damaged.data.clone()).await;
    let seen = world.wait_stored("test.seen", 2).await;
    assert_eq!(seen[1].json()["sum"], SUM, "it ran again, and to its end");
}
