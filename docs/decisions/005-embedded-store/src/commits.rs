//! Commits per second: clients that each wait for their commit, and one writer that takes what waits as a group.

use std::{
    path::Path,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    load::{self, Rng},
    machine,
    store::{Op, Result, Store, Variant},
};

/// Each client has a stream of its own that is held at this many messages.
const STREAM: u32 = 1;
const LIMIT: u64 = 20_000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(700);
const GROUP_MAX: usize = 64;
/// Without sync, how much a power failure may take.
const SYNC_EVERY: Duration = Duration::from_millis(100);

struct Waiting {
    ops: Vec<Op>,
    done: SyncSender<()>,
}

#[derive(Default)]
struct Figures {
    rate: Vec<f64>,
    group: Vec<f64>,
    written: Vec<f64>,
}

struct Bench {
    label: String,
    store: Box<dyn Store>,
    sync: bool,
    next: AtomicU64,
    one: Figures,
    many: Figures,
}

fn writer(store: &dyn Store, sync: bool, inbox: &Receiver<Waiting>) -> Result<u64> {
    let mut groups = 0;
    let mut synced = Instant::now();
    while let Ok(first) = inbox.recv() {
        let mut ops = first.ops;
        let mut waiting = vec![first.done];
        while waiting.len() < GROUP_MAX
            && let Ok(mut next) = inbox.try_recv()
        {
            ops.append(&mut next.ops);
            waiting.push(next.done);
        }
        let sync = sync || synced.elapsed() >= SYNC_EVERY;
        store.apply(&ops, sync)?;
        if sync {
            synced = Instant::now();
        }
        groups += 1;
        for done in waiting {
            // A client that has gone needs no answer.
            done.send(()).ok();
        }
    }
    Ok(groups)
}

fn client(number: u64, next: &AtomicU64, inbox: &Sender<Waiting>, stop: &AtomicBool) -> u64 {
    let mut rng = Rng::new(next.load(Ordering::Relaxed) ^ (number << 40));
    let (done, confirmed) = sync_channel(1);
    let mut commits = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut ops = Vec::with_capacity(8);
        load::commit(STREAM, next.fetch_add(2, Ordering::Relaxed), LIMIT, number, &mut rng, &mut ops);
        if inbox.send(Waiting { ops, done: done.clone() }).is_err() || confirmed.recv().is_err() {
            break;
        }
        commits += 1;
    }
    commits
}

fn round(bench: &mut Bench, clients: u64) -> Result<()> {
    let stop = AtomicBool::new(false);
    let (store, sync, next) = (bench.store.as_ref(), bench.sync, &bench.next);
    let (inbox, waiting) = channel();
    let before = machine::written_bytes();
    let start = Instant::now();
    let (commits, groups) = thread::scope(|scope| -> Result<(u64, u64)> {
        let writer = scope.spawn(move || writer(store, sync, &waiting));
        let clients: Vec<_> = (0..clients)
            .map(|number| {
                let inbox = inbox.clone();
                let stop = &stop;
                scope.spawn(move || client(number, next, &inbox, stop))
            })
            .collect();
        drop(inbox);
        thread::sleep(ROUND);
        stop.store(true, Ordering::Relaxed);
        let commits = clients.into_iter().map(|client| client.join().unwrap_or_default()).sum();
        let groups = writer.join().map_err(|_| "the writer panicked")??;
        Ok((commits, groups))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    bench.store.settle();
    let written = machine::written_bytes() - before;
    let figures = if clients == 1 { &mut bench.one } else { &mut bench.many };
    figures.rate.push(commits as f64 / seconds);
    figures.group.push(commits as f64 / groups as f64);
    figures.written.push(written as f64 / commits as f64);
    Ok(())
}

pub fn run(dir: &Path) -> Result<()> {
    let settings = [
        (Variant::Redb, true),
        (Variant::RedbTwoPhase, true),
        (Variant::RedbQuickRepair, true),
        (Variant::Fjall, true),
        (Variant::Redb, false),
        (Variant::Fjall, false),
    ];
    let mut benches = Vec::new();
    for (variant, sync) in settings {
        let label = format!("{}, {}", variant.name(), if sync { "synced" } else { "not synced" });
        let store = variant.open(&dir.join(&label))?;
        store.apply(&load::fill(STREAM, LIMIT, &mut Rng::new(1)), true)?;
        let next = AtomicU64::new(LIMIT + 1);
        benches.push(Bench { label, store, sync, next, one: Figures::default(), many: Figures::default() });
    }
    for _ in 0..ROUNDS {
        for clients in [1, 64] {
            for bench in &mut benches {
                round(bench, clients)?;
            }
        }
    }
    println!("\n## Commits per second, median of {ROUNDS} rounds (lowest-highest)\n");
    println!(
        "| setting | 1 in flight | KiB written | 64 in flight | group | KiB written |\n|---|---|---|---|---|---|"
    );
    for Bench { label, one, many, .. } in &benches {
        println!(
            "| {label} | {} | {:.1} | {} | {:.0} | {:.1} |",
            machine::spread(&one.rate, |n| format!("{n:.0}")),
            machine::median(&one.written) / 1024.0,
            machine::spread(&many.rate, |n| format!("{n:.0}")),
            machine::median(&many.group),
            machine::median(&many.written) / 1024.0,
        );
    }
    Ok(())
}
