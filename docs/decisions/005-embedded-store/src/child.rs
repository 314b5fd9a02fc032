//! The long runs, each in a process of its own, so that its peak memory is its own and it can be killed.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use crate::{
    load::{self, Rng},
    machine,
    store::{Op, Result, Store, Variant},
};

pub const STREAM: u32 = 7;
pub const GROUP: u64 = 64;

/// What a child prints: numbers on one line.
pub fn say(numbers: &[f64]) -> Result<()> {
    let line: Vec<_> = numbers.iter().map(f64::to_string).collect();
    println!("{}", line.join(" "));
    Ok(std::io::stdout().flush()?)
}

/// Starts this binary again; `numbers` reads its next line.
pub struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Process {
    pub fn start(what: &str, variant: Variant, dir: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([what, variant.name()])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("a child has no output")?).lines();
        Ok(Self { child, lines })
    }

    pub fn numbers(&mut self) -> Result<Vec<f64>> {
        let line = self.lines.next().ok_or("a child ended without its figures")??;
        line.split(' ').map(|number| Ok(number.parse()?)).collect()
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub fn wait(mut self) -> Result<()> {
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a child ended with {status}").into()) }
    }
}

/// Appends groups of messages of `bytes`, from the first on, expiring what lies `limit` behind.
pub struct Appender<'s> {
    store: &'s dyn Store,
    limit: Option<u64>,
    bytes: usize,
    rng: Rng,
    pub next: u64,
    group: Vec<Op>,
}

impl<'s> Appender<'s> {
    pub fn new(store: &'s dyn Store, limit: Option<u64>, bytes: usize) -> Self {
        Self { store, limit, bytes, rng: Rng::new(1), next: 1, group: Vec::new() }
    }

    pub fn group(&mut self) -> Result<()> {
        self.group.clear();
        for seq in self.next..self.next + GROUP {
            load::append(STREAM, seq, self.bytes, &mut self.rng, &mut self.group);
            if let Some(limit) = self.limit
                && seq > limit
            {
                load::expire(STREAM, seq - limit, &mut self.group);
            }
        }
        self.store.apply(&self.group, true)?;
        self.next += GROUP;
        Ok(())
    }
}

/// Opens a store and reads its bounds: seconds, first, last, peak memory.
pub fn reopen(variant: Variant, dir: &Path) -> Result<()> {
    let start = Instant::now();
    let store = variant.open(dir)?;
    let bounds = store.bounds(STREAM)?;
    let seconds = start.elapsed().as_secs_f64();
    let (first, last) = bounds.ok_or("the stream is empty")?;
    say(&[seconds, first as f64, last as f64, machine::peak_rss_bytes() as f64])
}
