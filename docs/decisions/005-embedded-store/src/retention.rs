//! A stream held at its limit while ten times as much passes through: what the disk holds, and what its head costs.

use std::{fs, path::Path, time::Instant};

use crate::{
    child::{self, Appender, Process, STREAM},
    load::MESSAGE,
    machine,
    store::{Result, Store, Variant},
};

const LIMIT: u64 = 100_000;
const MESSAGES: u64 = 1_000_000;
const ROUNDS: usize = 2;
const LOOK_EVERY: u64 = 200;
const HEAD_READS: usize = 5;

/// Microseconds of finding the oldest message.
fn head_micros(store: &dyn Store) -> Result<f64> {
    let mut micros = Vec::new();
    for _ in 0..HEAD_READS {
        let start = Instant::now();
        store.head(STREAM)?.ok_or("the stream is empty")?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(machine::median(&micros))
}

pub fn child(variant: Variant, dir: &Path) -> Result<()> {
    let store = variant.open(dir)?;
    let mut appender = Appender::new(store.as_ref(), Some(LIMIT), MESSAGE);
    let (mut most, mut groups, mut heads) = (0, 0_u64, Vec::new());
    let mut busy = 0.0;
    while appender.next <= MESSAGES {
        let start = Instant::now();
        appender.group()?;
        busy += start.elapsed().as_secs_f64();
        groups += 1;
        if groups.is_multiple_of(LOOK_EVERY) {
            most = most.max(machine::disk_bytes(dir));
            heads.push(head_micros(store.as_ref())?);
        }
    }
    let end = machine::disk_bytes(dir);
    let rss = machine::peak_rss_bytes();
    let worst = heads.iter().copied().fold(0.0, f64::max);
    child::say(&[busy, end as f64, most.max(end) as f64, rss as f64, machine::median(&heads), worst])
}

pub fn run(dir: &Path) -> Result<()> {
    let mut all = [Variant::Redb, Variant::Fjall].map(|variant| (variant, Vec::new()));
    for _ in 0..ROUNDS {
        for (variant, rounds) in &mut all {
            let dir = dir.join(variant.name());
            let mut process = Process::start("retention", *variant, &dir)?;
            rounds.push(process.numbers()?);
            process.wait()?;
            fs::remove_dir_all(dir)?;
        }
    }
    println!("\n## A stream held at {LIMIT} messages while {MESSAGES} pass, median of {ROUNDS} rounds\n");
    println!(
        "| setting | messages/s | MiB at the end | MiB at most | peak MiB | us to the oldest message | worst |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (variant, rounds) in &all {
        let column = |index: usize| rounds.iter().map(|round: &Vec<f64>| round[index]).collect::<Vec<_>>();
        let mib = |index| machine::median(&column(index)) / f64::from(1 << 20);
        let rate: Vec<_> = column(0).iter().map(|seconds| MESSAGES as f64 / seconds).collect();
        println!(
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            variant.name(),
            machine::spread(&rate, |n| format!("{n:.0}")),
            mib(1),
            mib(2),
            mib(3),
            machine::median(&column(4)),
            machine::median(&column(5)),
        );
    }
    Ok(())
}
