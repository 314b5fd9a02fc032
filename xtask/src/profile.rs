//! `cargo xtask profile`: runs a benchmark under `perf`, and writes down in which functions the daemon spent its time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cli::Profile;
use crate::guests::{self, Selection};
use crate::repo::Repo;
use crate::steps::{Step, Steps};
use crate::tool::{self, Tool};
use crate::{bench, terminal, tools};

/// Samples a second, on each core: no divisor of what the daemon does by the second.
const FREQUENCY: &str = "997";
/// Functions that are printed; the file has more.
const SHOWN: usize = 25;
/// Functions below this share, in percent, are not worth a line.
const LEAST: &str = "0.1";

pub(crate) fn run(repo: &Repo, steps: &Steps, args: &Profile) -> Result<()> {
    let perf = perf()?;
    let tools = tools::setup(repo, steps, None)?;
    guests::build(repo, steps, &tools.wasm, Selection { names: &[], fixtures: true })?;
    let bench = steps.run("release build", |step| bench::build(repo, step))?;
    let folder = repo.target().join("profile");
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let file = folder.join(args.name.replace('/', "-"));
    let (samples, report) = (file.with_extension("perf"), file.with_extension("txt"));
    let again = format!("cargo xtask profile {}", args.name);
    let perf = Perf { perf, log: repo.log("profile"), samples, again };
    steps.run("benchmark under perf", |step| {
        perf.tool("record")
            .args(["--freq", FREQUENCY, "--output"])
            .arg(&perf.samples)
            .arg("--")
            .arg(&bench)
            .args([args.name.as_str(), "--rounds", "3"])
            .env("NATS_SERVER", &tools.nats.path)
            .without_fleet_settings()
            .run(step)
    })?;
    let lines = steps.run("report", |step| perf.report(step, whose(&args.name)))?;
    std::fs::write(&report, lines.join("\n") + "\n")
        .with_context(|| format!("can't write {}", report.display()))?;
    for line in lines.iter().filter(|line| is_function(line)).take(SHOWN) {
        terminal::out(line.trim_end());
    }
    terminal::out(&format!("all: {}; samples: {}", repo.short(&report), repo.short(&perf.samples)));
    Ok(())
}

/// The sandbox is measured in the benchmark's own process; elsewhere that is the feeder and the bare loop.
fn whose(name: &str) -> &'static str {
    if name.starts_with("sandbox") || name.starts_with("instructions") { "bench" } else { "cofferdam" }
}

fn perf() -> Result<PathBuf> {
    let Some(perf) = tool::on_path("perf") else {
        bail!("no perf on PATH: install it (Debian: `apt-get install linux-perf`) and run this again")
    };
    Ok(perf)
}

struct Perf {
    perf: PathBuf,
    log: PathBuf,
    samples: PathBuf,
    again: String,
}

impl Perf {
    fn tool(&self, command: &str) -> Tool {
        Tool::new(&self.perf, &self.log, &self.again).arg(command)
    }

    fn reading(&self, sort: &str) -> Tool {
        let words = ["--stdio", "--no-children", "--percent-limit", LEAST, "--sort", sort, "--input"];
        self.tool("report").args(words).arg(&self.samples)
    }

    /// Of the threads that run this program, by function, the kernel's among them.
    fn report(&self, step: &Step, program: &str) -> Result<Vec<String>> {
        let threads = threads(&self.reading("pid,dso").run(step)?, program);
        if threads.is_empty() {
            bail!(
                "no sample lies in `{program}`; `perf report --input {}` shows where they lie",
                shown(&self.samples)
            )
        }
        let threads = threads.into_iter().collect::<Vec<_>>().join(",");
        self.reading("dso,symbol").args(["--percentage", "relative", "--tid", &threads]).run(step)
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// `12.34%  4711:tokio-rt-worker  cofferdam`: the threads with samples in the program's own code. What perf calls a pid here
/// is a thread's.
fn threads(lines: &[String], program: &str) -> BTreeSet<String> {
    let thread = |line: &String| {
        let mut words = line.split_whitespace();
        words.next().filter(|share| share.ends_with('%'))?;
        let (thread, _) = words.next()?.split_once(':')?;
        words.any(|word| word == program).then(|| thread.to_owned())
    };
    lines.iter().filter_map(thread).collect()
}

fn is_function(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(|word| word.ends_with('%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_known_by_the_code_that_it_runs() {
        let lines = [
            "# Overhead      Pid:Command          Shared Object",
            "    31.02%     4711:tokio-rt-worker  cofferdam",
            "     9.40%     4711:tokio-rt-worker  [kernel.kallsyms]",
            "     8.11%     4700:bench            bench",
            "     0.71%     4812:cofferdam        cofferdam",
            "",
        ]
        .map(str::to_owned);
        assert_eq!(threads(&lines, "cofferdam"), ["4711", "4812"].map(str::to_owned).into());
        assert_eq!(lines.iter().filter(|line| is_function(line)).count(), 4);
    }
}
