//! A million messages appended in synced groups, then SIGKILL in mid-write and the way back.

use std::{fs, path::Path, time::Instant};

use crate::{
    child::{self, Appender, GROUP, Process},
    load::MESSAGE,
    machine,
    store::{Result, Variant},
};

const MESSAGES: u64 = 1_000_000;
const ROUNDS: usize = 3;
/// The settings that decide run in every round, the others in one.
const IN_EVERY_ROUND: [Variant; 3] = [Variant::Redb, Variant::RedbQuickRepair, Variant::Fjall];
/// Groups confirmed between the figures and the kill.
const GROUPS_BEFORE_KILL: u64 = 300;

/// The child: figures after a million, then a line for each group until it is killed.
pub fn child(variant: Variant, dir: &Path) -> Result<()> {
    let store = variant.open(dir)?;
    let mut appender = Appender::new(store.as_ref(), None, MESSAGE);
    let start = Instant::now();
    while appender.next <= MESSAGES {
        appender.group()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let written = machine::written_bytes() as f64;
    child::say(&[seconds, machine::disk_bytes(dir) as f64, machine::peak_rss_bytes() as f64, written])?;
    loop {
        appender.group()?;
        child::say(&[(appender.next - 1) as f64])?;
    }
}

#[derive(Default)]
struct Figures {
    rate: Vec<f64>,
    disk: Vec<f64>,
    rss: Vec<f64>,
    written: Vec<f64>,
    reopen: Vec<f64>,
    reopen_rss: Vec<f64>,
}

fn round(variant: Variant, dir: &Path, figures: &mut Figures) -> Result<()> {
    let mut process = Process::start("million", variant, dir)?;
    let [seconds, disk, rss, written] = process.numbers()?[..] else { return Err("not four figures".into()) };
    let mut confirmed = 0.0;
    for _ in 0..GROUPS_BEFORE_KILL {
        confirmed = process.numbers()?[0];
    }
    process.kill()?;
    let mut process = Process::start("reopen", variant, dir)?;
    let [reopen, first, last, reopen_rss] = process.numbers()?[..] else {
        return Err("not four figures".into());
    };
    process.wait()?;
    // The child may have confirmed more than was read of it, never less; and a group is there whole or not at all.
    if first != 1.0 || last < confirmed || last % GROUP as f64 != 0.0 {
        return Err(format!("{}: confirmed {confirmed}, found {first} to {last}", variant.name()).into());
    }
    figures.rate.push(MESSAGES as f64 / seconds);
    figures.disk.push(disk);
    figures.rss.push(rss);
    figures.written.push(written);
    figures.reopen.push(reopen);
    figures.reopen_rss.push(reopen_rss);
    fs::remove_dir_all(dir)?;
    Ok(())
}

pub fn run(dir: &Path) -> Result<()> {
    let mut all: Vec<_> = Variant::ALL.into_iter().map(|variant| (variant, Figures::default())).collect();
    for number in 0..ROUNDS {
        for (variant, figures) in &mut all {
            if number > 0 && !IN_EVERY_ROUND.contains(variant) {
                continue;
            }
            round(*variant, &dir.join(variant.name()), figures)?;
        }
    }
    let mib = |bytes: &[f64]| machine::median(bytes) / f64::from(1 << 20);
    println!(
        "\n## A million messages of 400 bytes in synced groups of {GROUP}, median of {ROUNDS} rounds (two-phase, defaults: one)\n"
    );
    println!(
        "| setting | messages/s | MiB on disk | MiB written | peak MiB | seconds to reopen after SIGKILL | peak MiB then |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (variant, figures) in &all {
        println!(
            "| {} | {} | {:.0} | {:.0} | {:.0} | {} | {:.0} |",
            variant.name(),
            machine::spread(&figures.rate, |n| format!("{n:.0}")),
            mib(&figures.disk),
            mib(&figures.written),
            mib(&figures.rss),
            machine::spread(&figures.reopen, |n| format!("{n:.3}")),
            mib(&figures.reopen_rss),
        );
    }
    Ok(())
}
