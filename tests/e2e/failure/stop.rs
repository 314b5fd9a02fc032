//! Stopping a host in the middle: once politely, twice at once; what ran comes again, as after a crash.

use harness::planning::Planning;
use serde_json::json;

use super::{Ground, SOON, call, caller};
use crate::both::on_both_buses;

on_both_buses! {
    a_second_signal_leaves_at_once,
    a_drain_that_ends_in_time_is_no_attempt,
}

async fn a_second_signal_leaves_at_once(ground: Ground) {
    let planning = Planning::held().await;
    // Longer than a test may take.
    let ground = ground.planning(&planning).with("dispatch.drain", "1h");
    let mut stage =
        ground.plugin(caller(&format!("max-attempts = 1\n{SOON}")).limit("wall", "1h")).start().await;
    stage.ask(call("k")).await;
    planning.wait_calls(1).await;
    stage.daemon.terminate();
    stage.daemon.says("draining").await;
    stage.daemon.terminate();
    assert_eq!(stage.daemon.end().await.code(), Some(130));
    planning.release();
    stage.again().await;
    stage.told(1).await;
    assert_eq!((planning.calls().len(), stage.daemon.stored("cofferdam.dead.p").await.len()), (2, 0));
}

async fn a_drain_that_ends_in_time_is_no_attempt(ground: Ground) {
    let planning = Planning::held().await;
    let ground = ground.planning(&planning).with("dispatch.drain", "300ms");
    let mut stage = ground.plugin(caller(&format!("max-attempts = 1\n{SOON}"))).start().await;
    stage.ask(call("k")).await;
    for calls in 1..=3 {
        planning.wait_calls(calls).await;
        stage.daemon.stop().await;
        stage.again().await;
    }
    planning.release();
    stage.told(1).await;
    let done = stage.daemon.logged("the end", |line| harness::daemon::message(line) == "done").await;
    assert_eq!(done["attempt"], json!(1));
}
