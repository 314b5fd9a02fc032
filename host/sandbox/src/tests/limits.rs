//! Every limit ends the run that exceeds it, and nothing else.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{load, run};
use crate::testing::{Recorder, event, guest_calling, guest_with};
use crate::{Call, Ending, Limits, Plugin};

const SPIN: &str = "(loop $forever (br $forever))";

async fn ending(guest: Vec<u8>, limits: Limits) -> Ending {
    run(&load(guest).await, &limits).await.ending
}

fn free_instances(plugin: &Plugin) -> usize {
    plugin.shared.pool.free_permits()
}

#[tokio::test]
async fn an_endless_loop_ends_by_its_cpu_time_and_starves_nobody() {
    let plugin = load(guest_with("", SPIN)).await;
    let limits = Limits { cpu: Duration::from_millis(100), ..Limits::default() };
    // On the one thread of this runtime the guest must give way again and again.
    let mut turns = 0;
    let spinning = run(&plugin, &limits);
    tokio::pin!(spinning);
    let run = loop {
        tokio::select! {
            biased;
            run = &mut spinning => break run,
            () = tokio::task::yield_now() => turns += 1,
        }
    };
    assert_eq!(run.ending, Ending::CpuLimit);
    assert!(turns >= 3, "the guest gave way {turns} times");
    assert!(run.usage.cpu >= Duration::from_millis(100), "{:?}", run.usage);
    assert!(run.usage.cpu < Duration::from_millis(500), "{:?}", run.usage);
    assert_eq!(free_instances(&plugin), 4);
}

#[tokio::test]
async fn an_endless_loop_ends_by_the_wall_clock_too() {
    let limits =
        Limits { cpu: Duration::from_secs(60), wall: Duration::from_millis(60), ..Limits::default() };
    assert_eq!(ending(guest_with("", SPIN), limits).await, Ending::WallLimit);
}

#[tokio::test]
async fn computing_while_the_module_starts_is_metered_too() {
    let starting = guest_with("(func $start (loop $forever (br $forever))) (start $start)", "");
    let limits = Limits { cpu: Duration::from_millis(30), ..Limits::default() };
    assert_eq!(ending(starting, limits).await, Ending::CpuLimit);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_host_counts_as_wall_time_and_not_as_cpu_time() {
    let plugin = load(guest_calling("(drop (call $attempt)) (call $report (i32.const 1))")).await;
    let limits = Limits { cpu: Duration::from_millis(500), ..Limits::default() };

    let host = Box::new(Recorder { wait: Duration::from_secs(59), ..Recorder::default() });
    let run = plugin.handle(host, event(), &limits).await;
    assert_eq!(run.ending, Ending::Ok);
    assert!(run.usage.wall >= Duration::from_secs(59));

    let host = Box::new(Recorder { wait: Duration::from_secs(61), ..Recorder::default() });
    let start = Instant::now();
    let run = plugin.handle(host, event(), &limits).await;
    assert_eq!(run.ending, Ending::WallLimit);
    assert_eq!(start.elapsed().as_secs(), 60);
    assert!(run.usage.cpu < Duration::from_millis(500));
    // Killed in the middle of a call, the host is whole.
    assert_eq!(run.into_host::<Recorder>().unwrap().calls, [Call::Attempt]);
    assert_eq!(free_instances(&plugin), 4);
}

#[tokio::test]
async fn a_dropped_future_stops_the_guest_and_frees_its_instance() {
    let plugin = load(guest_with("", SPIN)).await;
    let limits = Limits { cpu: Duration::from_secs(60), ..Limits::default() };
    for _ in 0..8 {
        assert!(timeout(Duration::from_millis(25), run(&plugin, &limits)).await.is_err());
        assert_eq!(free_instances(&plugin), 4);
    }
}

#[tokio::test]
async fn growing_memory_past_the_limit_and_breaking_off_is_the_memory_limit() {
    let growing = "(loop $more
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $more))";
    let limits = Limits { memory: 8 << 20, ..Limits::default() };
    let run = run(&load(guest_with("", growing)).await, &limits).await;
    assert_eq!(run.ending, Ending::MemoryLimit);
    assert!(run.usage.memory_peak <= 8 << 20 && run.usage.memory_peak > 6 << 20, "{:?}", run.usage);
    assert_eq!(run.ending.describe(&limits), "needs more than 8388608 bytes of memory (limit `memory`)");
}

#[tokio::test]
async fn a_guest_that_copes_with_the_refusal_is_fine() {
    let coping = "(drop (memory.grow (i32.const 60000)))";
    assert_eq!(ending(guest_with("", coping), Limits::default()).await, Ending::Ok);
}

#[tokio::test]
async fn a_memory_that_does_not_fit_at_the_start_is_the_memory_limit() {
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    assert_eq!(ending(guest_with("(memory $big 32)", ""), limits).await, Ending::MemoryLimit);
}

#[tokio::test]
async fn growing_a_table_past_the_limit_is_the_table_limit() {
    let growing = "(loop $more
        (if (i32.eq (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1)) (then unreachable))
        (br $more))";
    let guest = guest_with("(table $table 1 funcref)", growing);
    assert_eq!(ending(guest, Limits::default()).await, Ending::TableLimit);
}

#[tokio::test]
async fn endless_recursion_overflows_the_guests_own_stack() {
    let guest = guest_with(
        "(func $deeper (param i64) (call $deeper (local.get 0)) (call $deeper (local.get 0)))",
        "(call $deeper (i64.const 1))",
    );
    assert_eq!(ending(guest, Limits::default()).await, Ending::StackOverflow);
}

#[tokio::test]
async fn host_calls_past_the_limit_do_not_reach_the_host() {
    let calling = "(loop $more (drop (call $now)) (br $more))";
    let limits = Limits { host_calls: 100, ..Limits::default() };
    let run = run(&load(guest_calling(calling)).await, &limits).await;
    assert_eq!(run.ending, Ending::HostCallLimit);
    assert_eq!(run.usage.host_calls, 100);
    assert_eq!(run.into_host::<Recorder>().unwrap().calls.len(), 100);
}

#[tokio::test]
async fn a_plugin_in_an_endless_loop_leaves_others_running() {
    let sandbox = crate::Sandbox::new(crate::testing::small()).unwrap();
    let spinning = sandbox.load(guest_with("", SPIN).into()).await.unwrap();
    let honest = sandbox.load(guest_calling("(drop (call $now))").into()).await.unwrap();
    let limits = Limits { cpu: Duration::from_millis(200), ..Limits::default() };
    let (spun, served) = tokio::join!(run(&spinning, &limits), async {
        let mut endings = Vec::new();
        for _ in 0..5 {
            endings.push(run(&honest, &limits).await.ending);
        }
        endings
    });
    assert_eq!(spun.ending, Ending::CpuLimit);
    assert_eq!(served, vec![Ending::Ok; 5]);
}
