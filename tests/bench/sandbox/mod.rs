//! What the sandbox costs around a guest: the crate `cofferdam-sandbox` beside wasmtime alone, the same component, the
//! same event, in turns. No bus, no daemon.

mod bare;
mod ours;

use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cofferdam_sandbox::{Event, Isolation, Limits, Plugin};
use harness::guests;
use tokio::runtime::{self, Runtime};

use crate::{
    outcome::{Goal, Outcome, median, spread},
    report::say,
    rig::Rig,
    work::{Work, event, output},
};

/// Slots of either pool.
const INSTANCES: u32 = 8;
/// What `emit` answers: as long as the daemon's own ids.
const EFFECT: &str = "3f9ac4d1.128.0";
const OUT: &str = "bench.out";
const BATCH: Isolation = Isolation::Batch { events: Isolation::BATCH_EVENTS };
/// Of a component, in a round.
const COMPILES: u32 = 3;
const LOADS: u32 = 100;

/// What a round does.
#[derive(Clone, Copy)]
struct Load {
    /// Of the payload.
    bytes: u64,
    /// On each thread.
    events: u32,
    threads: usize,
}

const SMALL: Load = Load { bytes: 160, events: 10_000, threads: 1 };
const LARGE: Load = Load { bytes: 1_000_000, events: 50, threads: 1 };
const WARM: Load = Load { events: 40_000, ..SMALL };

/// What a host got from its guests, so that no side can save itself the work.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    effects: u64,
    bytes: u64,
}

impl Tally {
    fn take(&mut self, bytes: usize) {
        self.effects += 1;
        self.bytes += bytes as u64;
    }

    fn add(&mut self, other: Tally) {
        self.effects += other.effects;
        self.bytes += other.bytes;
    }
}

pub(crate) async fn run(rig: &Rig) -> Vec<Outcome> {
    let wanted = [
        "fresh-overhead",
        "fresh-overhead-2t",
        "fresh-1mb",
        "fresh-1mb-2t",
        "warm",
        "batch",
        "compile",
        "load",
    ]
    .map(|name| format!("sandbox/{name}"))
    .into_iter()
    .filter(|name| rig.wants(name))
    .collect::<Vec<_>>();
    let rounds = rig.options.rounds;
    // Its runtimes are its own, on threads of its own.
    let all = tokio::task::spawn_blocking(move || {
        let sides = Sides::new();
        wanted.iter().map(|name| sides.outcome(name, rounds)).collect()
    });
    all.await.expect("the benchmark of the sandbox")
}

/// Both, with the component compiled.
struct Sides {
    bytes: Bytes,
    bare: bare::Bare,
    plugin: Plugin,
}

impl Sides {
    fn new() -> Sides {
        let bytes = component();
        let bare = bare::Bare::compile(&bare::engine(), &bytes);
        let plugin = runtime().block_on(ours::load(&ours::sandbox(None), &bytes, false));
        Sides { bytes, bare, plugin }
    }

    fn outcome(&self, name: &str, rounds: u64) -> Outcome {
        let goal = Some(Goal::AtMost(1.5));
        let fresh =
            |load, goal| compare(name, rounds, goal, || self.fresh_bare(load), || self.fresh_ours(load));
        match name {
            "sandbox/fresh-overhead" => fresh(SMALL, goal),
            "sandbox/fresh-overhead-2t" => fresh(Load { threads: 2, ..SMALL }, goal),
            "sandbox/fresh-1mb" => fresh(LARGE, None),
            "sandbox/fresh-1mb-2t" => fresh(Load { threads: 2, ..LARGE }, None),
            // Both are wasmtime alone, so there is nothing to compare.
            "sandbox/warm" => Outcome {
                ratio: None,
                spread: None,
                baseline: None,
                ..compare(name, rounds, None, || self.fresh_bare(SMALL), || self.warm_bare())
            },
            "sandbox/batch" => compare(name, rounds, None, || self.warm_bare(), || self.batch_ours()),
            "sandbox/compile" => self.compile(name, rounds),
            "sandbox/load" => self.load(name, rounds),
            other => unreachable!("{other} is none of the sandbox's"),
        }
    }

    /// Instantiate, call, drop.
    fn fresh_bare(&self, load: Load) -> Duration {
        let event = bare::event(sandbox_event(load.bytes));
        on_threads(load, |barrier| {
            barrier.wait();
            let (began, mut tally) = (Instant::now(), Tally::default());
            for _ in 0..load.events {
                tally.add(self.bare.fresh(event));
            }
            (began.elapsed(), tally)
        })
    }

    fn fresh_ours(&self, load: Load) -> Duration {
        Sides::ours(&self.plugin, load)
    }

    /// Instances that serve many events each.
    fn batch_ours(&self) -> Duration {
        Sides::ours(&self.plugin.clone().isolated(BATCH), WARM)
    }

    fn ours(plugin: &Plugin, load: Load) -> Duration {
        let (event, limits) = (sandbox_event(load.bytes), Limits::default());
        on_threads(load, |barrier| {
            runtime().block_on(async {
                barrier.wait();
                let (began, mut tally) = (Instant::now(), Tally::default());
                for _ in 0..load.events {
                    tally.add(ours::handle(plugin, event.clone(), &limits).await);
                }
                (began.elapsed(), tally)
            })
        })
    }

    /// An instance that is called again and again.
    fn warm_bare(&self) -> Duration {
        let event = bare::event(sandbox_event(WARM.bytes));
        on_threads(WARM, |_| {
            let mut warm = self.bare.warm();
            let began = Instant::now();
            for _ in 0..WARM.events {
                warm.call(event);
            }
            (began.elapsed(), warm.tally())
        })
    }

    /// From a component's bytes to what instances are made of.
    fn compile(&self, name: &str, rounds: u64) -> Outcome {
        let (engine, sandbox, runtime) = (bare::engine(), ours::sandbox(None), runtime());
        let bare = || timed(COMPILES, || drop(bare::Bare::compile(&engine, &self.bytes)));
        let ours = || timed(COMPILES, || drop(runtime.block_on(ours::load(&sandbox, &self.bytes, false))));
        compare(name, rounds, None, bare, ours)
    }

    /// The same from compiled code on disk, which the sandbox verifies before it is used.
    fn load(&self, name: &str, rounds: u64) -> Outcome {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (engine, runtime) = (bare::engine(), runtime());
        let file = folder.path().join("bare");
        std::fs::write(&file, bare::compiled(&engine, &self.bytes)).expect("a file");
        let sandbox = ours::sandbox(Some(&folder.path().join("cache")));
        runtime.block_on(ours::load(&sandbox, &self.bytes, false));
        let bare = || timed(LOADS, || drop(bare::Bare::load(&engine, &file)));
        let ours = || timed(LOADS, || drop(runtime.block_on(ours::load(&sandbox, &self.bytes, true))));
        compare(name, rounds, None, bare, ours)
    }
}

/// The three ways of an event whose instructions are counted.
#[derive(Clone, Copy)]
pub(crate) enum Counted {
    /// Through the sandbox, in a fresh instance, and in one that serves many.
    Event,
    Batch,
    /// In a fresh instance of wasmtime alone.
    Bare,
}

impl Counted {
    pub(crate) const ALL: [Counted; 3] = [Counted::Event, Counted::Batch, Counted::Bare];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Counted::Event => "event",
            Counted::Batch => "batch",
            Counted::Bare => "bare",
        }
    }
}

/// A few events on the thread that asks, with everything made that outlives an event.
pub(crate) struct Hot {
    bare: bare::Bare,
    event: Plugin,
    batch: Plugin,
    events: u32,
}

impl Hot {
    pub(crate) async fn new(events: u32) -> Hot {
        let bytes = component();
        let bare = bare::Bare::compile(&bare::engine(), &bytes);
        let event = ours::load(&ours::without_ticks(), &bytes, false).await;
        let batch = event.clone().isolated(BATCH);
        Hot { bare, event, batch, events }
    }

    pub(crate) async fn run(&mut self, counted: Counted) {
        let (event, limits) = (sandbox_event(SMALL.bytes), ours::no_hurry());
        let lowered = bare::event(event.clone());
        let mut tally = Tally::default();
        for _ in 0..self.events {
            tally.add(match counted {
                Counted::Event => ours::handle(&self.event, event.clone(), &limits).await,
                Counted::Batch => ours::handle(&self.batch, event.clone(), &limits).await,
                Counted::Bare => self.bare.fresh(lowered),
            });
        }
        assert_eq!(tally, expected(Load { events: self.events, ..SMALL }));
    }
}

fn component() -> Bytes {
    let file = guests::fixture("bench");
    std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).into()
}

/// As the daemon makes it of a message.
fn sandbox_event(bytes: u64) -> Event {
    Event {
        id: "3f9ac4d1.128".to_owned(),
        subject: "bench.in".to_owned(),
        headers: vec![("Nats-Msg-Id".to_owned(), "f128".to_owned())],
        data: event(128, Work::Publish, OUT, bytes),
        timestamp: 1_767_225_600_000_000_000,
    }
}

fn runtime() -> Runtime {
    runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The time of one event on its thread, if every one was published as it should.
fn on_threads(load: Load, one: impl Fn(&Barrier) -> (Duration, Tally) + Sync) -> Duration {
    let barrier = Barrier::new(load.threads);
    let ended = std::thread::scope(|scope| {
        let started: Vec<_> = (0..load.threads).map(|_| scope.spawn(|| one(&barrier))).collect();
        started.into_iter().map(|thread| thread.join().expect("a thread of the bench")).collect::<Vec<_>>()
    });
    for (_, tally) in &ended {
        assert_eq!(*tally, expected(load), "what the guest published is not what it was to publish");
    }
    ended.iter().map(|(took, _)| *took).max().unwrap_or_default() / load.events
}

/// On each thread.
fn expected(load: Load) -> Tally {
    let told = serde_json::from_slice(&event(128, Work::Publish, OUT, load.bytes)).expect("JSON");
    let effects = u64::from(load.events);
    Tally { effects, bytes: effects * output(&told, 0, 0).len() as u64 }
}

fn timed(times: u32, work: impl Fn()) -> Duration {
    let began = Instant::now();
    for _ in 0..times {
        work();
    }
    began.elapsed() / times
}

/// Times, in turns; the first round warms up.
fn compare(
    name: &str,
    rounds: u64,
    goal: Option<Goal>,
    bare: impl Fn() -> Duration,
    ours: impl Fn() -> Duration,
) -> Outcome {
    let micros = |took: Duration| took.as_secs_f64() * 1e6;
    let pairs: Vec<(f64, f64)> = (0..=rounds).map(|_| (micros(bare()), micros(ours()))).skip(1).collect();
    let ratios: Vec<f64> = pairs.iter().map(|(bare, ours)| ours / bare).collect();
    let baseline = median(&pairs.iter().map(|(bare, _)| *bare).collect::<Vec<_>>());
    let value = median(&pairs.iter().map(|(_, ours)| *ours).collect::<Vec<_>>());
    say(&format!("{name}: {value:.2} us against {baseline:.2}: {:.2}", median(&ratios)));
    Outcome {
        name: name.to_owned(),
        ratio: Some(median(&ratios)),
        value: Some(value),
        unit: Some("us"),
        baseline: Some(baseline),
        spread: spread(&ratios),
        goal,
        void: None,
    }
}
