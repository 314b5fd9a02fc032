//! The main job on the embedded bus, without any server: an approved plan becomes tasks once and their assignments go out
//! once, whoever is killed in the middle.

use std::{collections::BTreeSet, time::Duration};

use fleet_proto::{bus::v1::StoredMessage, standin::v1::Task};
use harness::{
    daemon::Daemon,
    dice::Dice,
    fleet::{Fleet, free_address},
    pipeline::local_pipeline,
    setup::Setup,
    way_in::body,
};

const ASSIGNED: &str = "workflow.task.assigned";

/// A fleet and the setup of the daemon that it is to use, which does not run yet.
struct Local {
    fleet: Fleet,
    setup: Setup,
}

impl Local {
    async fn new() -> Local {
        let admin = free_address();
        let fleet = Fleet::start_on(&admin).await;
        let setup = local_pipeline(&admin, &fleet);
        Local { fleet, setup }
    }

    /// Waits until these plans are through, then stops the daemon and starts it again, so that whatever was not settled
    /// comes once more; sends another plan after it; and looks that everything is there once.
    async fn everything_once(&self, mut daemon: Daemon, plans: &[String]) {
        let mut tasks = self.tasks(plans).await;
        daemon.wait_stored(ASSIGNED, tasks.len()).await;
        daemon.stop().await;
        let mut daemon = self.setup.start().await;
        let last = self.fleet.plan("The last").await;
        self.fleet.approve(&last).await;
        tasks.extend(self.fleet.planned(&last).await);
        daemon.wait_stored(ASSIGNED, tasks.len()).await;

        let ids = |field: &str, messages: &[StoredMessage]| {
            let mut ids: Vec<String> = messages.iter().map(|message| text(message, field)).collect();
            ids.sort();
            ids
        };
        let mut expected: Vec<String> = tasks.iter().map(|task| task.task_id.clone()).collect();
        expected.sort();
        assert_eq!(ids("task_id", &daemon.stored("planning.task.created").await), expected);
        assert_eq!(ids("task_id", &daemon.stored(ASSIGNED).await), expected);
        // An approval after the end of a derivation is another one, which finds its tasks made.
        let plans: BTreeSet<String> = plans.iter().cloned().chain([last]).collect();
        let derived = ids("plan_id", &daemon.stored("task.derivation.completed").await);
        assert_eq!(derived.into_iter().collect::<BTreeSet<_>>(), plans);
        assert_eq!(daemon.stored("task.derivation.failed").await.len(), 0);
        assert_eq!(daemon.stored("cofferdam.dead.>").await.len(), 0);
        // Titles tell of a second derivation whatever its ids are.
        for plan_id in &plans {
            let tasks = self.fleet.show(plan_id).await.tasks;
            let titles: BTreeSet<&str> = tasks.iter().map(|task| task.title.as_str()).collect();
            assert_eq!(titles.len(), tasks.len(), "{tasks:#?}");
        }
        daemon.stop().await;
    }

    async fn tasks(&self, plans: &[String]) -> Vec<Task> {
        let mut tasks = Vec::new();
        for plan_id in plans {
            tasks.extend(self.fleet.planned(plan_id).await);
        }
        tasks
    }
}

/// A string of the message's payload.
fn text(message: &StoredMessage, field: &str) -> String {
    let data = body(message);
    data["payload"][field].as_str().unwrap_or_else(|| panic!("no {field} in {data}")).to_owned()
}

/// Lets a random time pass, so that what follows hits work in progress at any place.
async fn at_a_random_moment(dice: &mut Dice) {
    tokio::time::sleep(Duration::from_millis(dice.below(250))).await;
}

#[tokio::test]
async fn a_plan_approved_twice_gets_its_tasks_once_on_the_embedded_bus() {
    let local = Local::new().await;
    let daemon = local.setup.start().await;
    let before = daemon.scrape().await;
    let plan_id = local.fleet.plan("Checkout").await;
    // At once, so that the second meets an open derivation, and once more after its end.
    local.fleet.approve(&plan_id).await;
    local.fleet.approve(&plan_id).await;
    let tasks = local.fleet.planned(&plan_id).await;
    assert!(tasks.len() >= 3 && tasks.iter().any(|task| !task.depends_on.is_empty()), "{tasks:#?}");
    local.fleet.approve(&plan_id).await;
    let received = "task_derivation_requests_received";
    daemon.moved("three requests", &before, |m| m.sum(received, &[]) == 3.0).await;
    local.everything_once(daemon, &[plan_id]).await;
}

#[tokio::test]
async fn a_fleet_that_starts_before_its_daemon_waits_with_one_warning_and_then_sends_what_it_owes() {
    let local = Local::new().await;
    let plan_id = local.fleet.plan("Checkout").await;
    local.fleet.says("not listening; trying again until it works").await;
    local.fleet.approve(&plan_id).await;
    local.fleet.says("not published yet; trying again until it is").await;
    let daemon = local.setup.start().await;
    local.fleet.planned(&plan_id).await;
    let log = local.fleet.log().lines();
    for told in ["not listening", "not published yet"] {
        assert_eq!(log.iter().filter(|line| line.contains(told)).count(), 1, "{told}: {log:#?}");
    }
    local.everything_once(daemon, &[plan_id]).await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_again_and_again_does_each_plan_once() {
    let mut dice = Dice::new();
    let local = Local::new().await;
    let mut daemon = local.setup.start().await;
    let mut plans = Vec::new();
    for n in 0..8 {
        let plan_id = local.fleet.plan(&format!("Plan {n}")).await;
        local.fleet.approve(&plan_id).await;
        local.fleet.approve(&plan_id).await;
        plans.push(plan_id);
        at_a_random_moment(&mut dice).await;
        daemon.kill().await;
        daemon = local.setup.start().await;
    }
    local.everything_once(daemon, &plans).await;
}

#[tokio::test]
async fn a_fleet_that_is_killed_again_and_again_loses_and_repeats_nothing() {
    let mut dice = Dice::new();
    let mut local = Local::new().await;
    let daemon = local.setup.start().await;
    let mut plans = Vec::new();
    for n in 0..8 {
        let plan_id = local.fleet.plan(&format!("Plan {n}")).await;
        local.fleet.approve(&plan_id).await;
        plans.push(plan_id);
        at_a_random_moment(&mut dice).await;
        local.fleet.kill().await;
        local.fleet.up().await;
    }
    local.everything_once(daemon, &plans).await;
}
