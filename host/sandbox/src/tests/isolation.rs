//! Instances that serve batches: what survives from one event to the next, what never does, and what ends a batch.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{load, run};
use crate::testing::{Recorder, event, guest_calling, small};
use crate::{Ending, Event, Failure, Isolation, Limits, LogLevel, Plugin, Sandbox, SandboxConfig};

/// Counts its events at 384, reports the count, then does what the length of the event's id says.
fn moody() -> Vec<u8> {
    guest_calling(
        "
        (i32.store (i32.const 384) (i32.add (i32.load (i32.const 384)) (i32.const 1)))
        (call $report (i32.load (i32.const 384)))
        (if (i32.eq (local.get $id-len) (i32.const 1)) (then unreachable))
        (if (i32.eq (local.get $id-len) (i32.const 2)) (then (loop $forever (br $forever))))
        (if (i32.eq (local.get $id-len) (i32.const 4)) (then (drop (call $attempt))))
        (if (i32.eq (local.get $id-len) (i32.const 5)) (then (call $complain)))
        (if (i32.eq (local.get $id-len) (i32.const 6)) (then (drop (memory.grow (i32.const 16)))))
        (if (i32.eq (local.get $id-len) (i32.const 7)) (then (drop (memory.grow (i32.const 65)))))
        (if (i32.eq (local.get $id-len) (i32.const 8)) (then (drop (memory.grow (i32.const 60000)))))
        (if (i32.ge_u (local.get $id-len) (i32.const 9)) (then
          (i32.store (i32.const 64) (i32.const 1))
          (i32.store (i32.const 72) (i32.eq (local.get $id-len) (i32.const 9)))
          (i32.store (i32.const 80) (local.get $id)) (i32.store (i32.const 84) (local.get $id-len))
          (return (i32.const 64))))",
    )
}

const FINE: &str = "s.1";
const TRAPS: &str = "1";
const SPINS: &str = "12";
const WAITS: &str = "1234";
const COMPLAINS: &str = "12345";
const GROWS: &str = "123456";
const SWELLS: &str = "1234567";
const REFUSED: &str = "12345678";
const REJECTS: &str = "123456789";
const RETRIES: &str = "1234567890";

fn of(id: &str) -> Event {
    Event { id: id.to_owned(), ..event() }
}

const BATCH: Isolation = Isolation::Batch { events: 100 };

async fn batch() -> Plugin {
    load(moody()).await.isolated(BATCH)
}

/// The ending, and what the guest counted.
async fn told(plugin: &Plugin, id: &str, limits: &Limits) -> (Ending, u32) {
    let run = plugin.handle(Box::<Recorder>::default(), of(id), limits).await;
    let ending = run.ending.clone();
    let reports = run.into_host::<Recorder>().unwrap().reports();
    assert_eq!(reports.len(), 1, "each host hears of its own event alone: {reports:?}");
    (ending, reports[0])
}

async fn count(plugin: &Plugin) -> u32 {
    let (ending, count) = told(plugin, FINE, &Limits::default()).await;
    assert_eq!(ending, Ending::Ok);
    count
}

fn live(plugin: &Plugin) -> u32 {
    plugin.shared.pool.live()
}

#[tokio::test]
async fn what_a_guest_keeps_lasts_for_as_many_events_as_a_batch_has() {
    let plugin = load(moody()).await.isolated(Isolation::Batch { events: 3 });
    for expected in [1, 2, 3, 1, 2, 3, 1] {
        assert_eq!(count(&plugin).await, expected);
        assert_eq!(live(&plugin), u32::from(expected < 3));
    }
}

#[tokio::test]
async fn a_batch_of_one_is_a_fresh_instance_each() {
    let plugin = load(moody()).await.isolated(Isolation::Batch { events: 1 });
    assert_eq!((count(&plugin).await, count(&plugin).await, live(&plugin)), (1, 1, 0));
    let plugin = batch().await;
    assert_eq!((count(&plugin).await, count(&plugin).await, live(&plugin)), (1, 2, 1));
    let plugin = plugin.isolated(Isolation::Event);
    assert_eq!((count(&plugin).await, count(&plugin).await, live(&plugin)), (1, 1, 0));
}

#[tokio::test]
async fn what_is_not_ok_ends_the_batch() {
    let plugin = batch().await;
    let limits = Limits { cpu: Duration::from_millis(30), ..Limits::default() };
    let rejected = Ending::Failed(Failure::Reject(REJECTS.to_owned()));
    let retried = Ending::Failed(Failure::Retry { reason: RETRIES.to_owned(), after_ms: None });
    for (id, expected) in [(REJECTS, rejected), (RETRIES, retried), (SPINS, Ending::CpuLimit)] {
        assert_eq!(count(&plugin).await, 1);
        assert_eq!(told(&plugin, id, &limits).await, (expected, 2));
        assert_eq!(live(&plugin), 0);
    }
    assert_eq!(count(&plugin).await, 1);
    let (ending, _) = told(&plugin, TRAPS, &limits).await;
    assert!(matches!(ending, Ending::Trap { .. }), "{ending:?}");
    assert_eq!((live(&plugin), count(&plugin).await), (0, 1));
    // A limit that the guest copes with is one all the same.
    assert_eq!(told(&plugin, REFUSED, &limits).await, (Ending::Ok, 2));
    assert_eq!((live(&plugin), count(&plugin).await), (0, 1));
    let one_call = Limits { host_calls: 0, ..limits };
    let run = run(&plugin, &one_call).await;
    assert_eq!((run.ending, live(&plugin)), (Ending::HostCallLimit, 0));
    assert_eq!(count(&plugin).await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_wall_limit_ends_the_batch_and_begins_anew_with_each_event() {
    let plugin = batch().await;
    let waiting = async |seconds: u64| {
        let host = Box::new(Recorder { wait: Duration::from_secs(seconds), ..Recorder::default() });
        let run = plugin.handle(host, of(WAITS), &Limits::default()).await;
        let ending = run.ending.clone();
        (ending, run.into_host::<Recorder>().unwrap().reports())
    };
    assert_eq!(waiting(40).await, (Ending::Ok, vec![1]));
    assert_eq!(waiting(40).await, (Ending::Ok, vec![2]));
    assert_eq!(waiting(61).await, (Ending::WallLimit, vec![3]));
    assert_eq!((live(&plugin), count(&plugin).await), (0, 1));
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_any_more_takes_its_instance_with_it() {
    let plugin = batch().await;
    let limits = Limits { cpu: Duration::from_secs(60), ..Limits::default() };
    for id in [SPINS, WAITS] {
        assert_eq!(count(&plugin).await, 1);
        let host = Box::new(Recorder { wait: Duration::from_secs(600), ..Recorder::default() });
        let handling = plugin.handle(host, of(id), &limits);
        assert!(timeout(Duration::from_millis(25), handling).await.is_err());
        assert_eq!((live(&plugin), plugin.shared.pool.free_permits()), (0, 4));
    }
    assert_eq!(count(&plugin).await, 1);
}

#[tokio::test]
async fn limits_of_a_run_begin_anew_with_each_event() {
    let plugin = batch().await;
    // One for the report, one for the complaint.
    let limits = Limits { host_calls: 2, ..Limits::default() };
    for expected in 1..=5 {
        let run = plugin.handle(Box::<Recorder>::default(), of(COMPLAINS), &limits).await;
        assert_eq!((run.ending.clone(), run.usage.host_calls), (Ending::Ok, 2));
        let host = run.into_host::<Recorder>().unwrap();
        assert_eq!((host.reports(), host.logs()), (vec![expected], vec![(LogLevel::Error, "oh no")]));
    }
    // The words were of other events.
    let (Ending::Trap { message }, 6) = told(&plugin, TRAPS, &limits).await else {
        panic!("a sixth, and a trap")
    };
    assert!(!message.contains("oh no"), "{message}");
}

#[tokio::test]
async fn memory_stays_counted_and_an_instance_that_swells_is_let_go() {
    const PAGE: usize = 65_536;
    let plugin = batch().await;
    let peak = async |id: &str, limits: &Limits| {
        let run = plugin.handle(Box::<Recorder>::default(), of(id), limits).await;
        (run.ending, run.usage.memory_peak / PAGE)
    };
    let limits = Limits { memory: 16 << 20, ..Limits::default() };
    assert_eq!(peak(FINE, &limits).await, (Ending::Ok, 1));
    for pages in [17, 33, 49, 65] {
        assert_eq!(peak(GROWS, &limits).await, (Ending::Ok, pages));
        assert_eq!(peak(FINE, &limits).await, (Ending::Ok, pages));
    }
    assert_eq!(live(&plugin), 1);
    assert_eq!(peak(GROWS, &limits).await, (Ending::Ok, 81));
    assert_eq!(live(&plugin), 0, "more than 4 MiB");
    assert_eq!(peak(SWELLS, &limits).await, (Ending::Ok, 66));
    assert_eq!(live(&plugin), 0, "at once");
    let tight = Limits { memory: 31 * PAGE, ..Limits::default() };
    assert_eq!(peak(GROWS, &tight).await, (Ending::Ok, 17));
    assert_eq!(live(&plugin), 0, "it would leave the next event less than half of what one may have");
    // One that holds more than another run may have is not for that run.
    assert_eq!(peak(GROWS, &limits).await, (Ending::Ok, 17));
    assert_eq!(peak(FINE, &Limits { memory: PAGE, ..limits }).await, (Ending::Ok, 1));
}

#[tokio::test]
async fn runs_at_once_have_an_instance_each_and_keep_it() {
    let plugin = batch().await;
    let mut runs = JoinSet::new();
    for _ in 0..40 {
        let plugin = plugin.clone();
        let host = Box::new(Recorder { wait: Duration::from_millis(2), ..Recorder::default() });
        runs.spawn(async move {
            let run = plugin.handle(host, of(WAITS), &Limits::default()).await;
            assert_eq!(run.ending, Ending::Ok);
            run.into_host::<Recorder>().unwrap().reports()[0]
        });
    }
    let counts = runs.join_all().await;
    assert_eq!(live(&plugin), 4);
    assert_eq!(
        counts.iter().filter(|count| **count == 1).count(),
        4,
        "those who waited had used ones: {counts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_instances_give_way_to_other_plugins() {
    let sandbox = Sandbox::new(SandboxConfig { max_instances: 2, ..small() }).unwrap();
    let load = async || sandbox.load(moody().into()).await.unwrap();
    let (one, two, fresh) = (load().await.isolated(BATCH), load().await.isolated(BATCH), load().await);
    for expected in 1..=3 {
        assert_eq!((count(&one).await, count(&two).await), (expected, expected));
        assert_eq!(live(&one), 2);
    }
    assert_eq!(count(&fresh).await, 1);
    assert_eq!((count(&two).await, count(&one).await), (4, 1), "the one that was idle for longest went");

    let mut runs = JoinSet::new();
    for plugin in [one, two, fresh].iter().cycle().take(120) {
        let plugin = plugin.clone();
        runs.spawn(async move { count(&plugin).await });
    }
    assert_eq!(timeout(Duration::from_secs(60), runs.join_all()).await.unwrap().len(), 120);
}

#[tokio::test]
async fn an_instance_that_waits_for_too_long_is_dropped() {
    let config = SandboxConfig { idle: Duration::from_millis(20), ..small() };
    let plugin = Sandbox::new(config).unwrap().load(moody().into()).await.unwrap().isolated(BATCH);
    assert_eq!(count(&plugin).await, 1);
    let gone = async {
        while live(&plugin) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(30), gone).await.unwrap();
    assert_eq!(count(&plugin).await, 1);
}

#[tokio::test]
async fn instances_go_with_their_plugin() {
    let sandbox = Sandbox::new(small()).unwrap();
    let plugin = sandbox.load(moody().into()).await.unwrap().isolated(BATCH);
    let clone = plugin.clone();
    assert_eq!((count(&plugin).await, count(&clone).await), (1, 2));
    drop(plugin);
    assert_eq!(sandbox.shared.pool.live(), 1);
    drop(clone);
    assert_eq!(sandbox.shared.pool.live(), 0);
}
