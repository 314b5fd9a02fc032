//! `cargo xtask test`: everything the tests need, then the tests, then where the time went and how many passed.

use std::num::NonZero;

use anyhow::{Result, bail};

use crate::guests::{self, Selection};
use crate::repo::Repo;
use crate::steps::{Phase, Step, Steps, seconds};
use crate::tool::Tool;
use crate::tools::{Tools, llm, llm::Server};
use crate::{Told, binaries, cargo, terminal, tools};

/// What the test binaries told, in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Count {
    passed: u64,
    failed: u64,
    /// The names of those that failed.
    names: Vec<String>,
    /// Cases of the bus's conformance suite that ran, in the order of [`BUSES`].
    cases: [u64; 2],
}

impl Count {
    fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.names.extend(other.names);
        self.cases.iter_mut().zip(other.cases).for_each(|(cases, more)| *cases += more);
    }
}

/// The modules whose tests need a model's server.
const REAL: &str = "real::";
/// The buses, and the modules that hold the suite's tests on each: `tests/e2e/bus/mod.rs` makes them.
const BUSES: [(&str, &str); 2] = [("nats", "::on_nats::"), ("local", "::on_local::")];

pub(crate) fn run(repo: &Repo, steps: &Steps, filter: &[String], with_llm: bool) -> Result<()> {
    report(steps, all(repo, steps, filter, with_llm))
}

/// Where the time went, what failed, and as the very last line the sum, for whoever reads only that.
pub(crate) fn report(steps: &Steps, ran: Result<Count>) -> Result<()> {
    terminal::out(&table(&steps.phases()));
    let count = ran?;
    for name in &count.names {
        terminal::out(&format!("failed: {name}"));
    }
    if count.failed > 0 {
        let real = count.names.iter().any(|name| name.starts_with(REAL));
        let again = if real { "cargo xtask test --with-llm NAME" } else { "cargo xtask test NAME" };
        terminal::err(&format!("error: `{again}` runs one of the failed tests again"));
    }
    if let Some(cases) = conformance(&count.cases) {
        terminal::out(&cases);
    }
    terminal::out(&format!("{} passed, {} failed", count.passed, count.failed));
    if count.failed > 0 { Err(Told.into()) } else { Ok(()) }
}

pub(crate) fn all(repo: &Repo, steps: &Steps, filter: &[String], with_llm: bool) -> Result<Count> {
    let tools = tools::setup(repo, steps, None)?;
    tools::python(repo, steps)?;
    let llm = with_llm.then(|| tools::llm(repo, steps)).transpose()?;
    guests::build(repo, steps, &tools.wasm, Selection { names: &[], fixtures: true })?;
    steps.run("build programs and tests", |step| {
        binaries::require_disk(repo)?;
        // Together, so that features unify once: the tests then find every program fresh.
        let build = cargo::command(repo, "build-tests", "cargo build --workspace --all-targets");
        build.args(["build", "--workspace", "--all-targets"]).run(step).map(drop)
    })?;
    let mut count = steps.run("tests", |step| test(repo, step, &tools, filter))?;
    if filter.is_empty() && count.failed == 0 && count.cases[0] != count.cases[1] {
        let [nats, local] = count.cases;
        bail!("the buses ran different numbers of conformance cases: nats {nats}, local {local}")
    }
    if let Some(llm) = llm {
        count.add(steps.run("tests against a model's server", |step| {
            let server = llm.serve(repo, step)?;
            test_with(repo, step, &tools, &server, filter)
        })?);
    }
    if count.passed + count.failed == 0 {
        bail!("no test matches `{}`", filter.join(" "));
    }
    Ok(count)
}

fn test(repo: &Repo, step: &Step, tools: &Tools, filter: &[String]) -> Result<Count> {
    let again = format!("cargo test --workspace --no-fail-fast -- {}", filter.join(" "));
    let cargo = cargo::command(repo, "tests", again.trim_end_matches([' ', '-']))
        .env("RUST_TEST_THREADS", threads())
        .args(["test", "--workspace", "--no-fail-fast", "--"])
        .args(filter);
    run_and_count(step, tools, cargo)
}

/// Those that are ignored elsewhere.
fn test_with(repo: &Repo, step: &Step, tools: &Tools, server: &Server, filter: &[String]) -> Result<Count> {
    let real = [REAL.to_owned()];
    let filter = if filter.is_empty() { &real } else { filter };
    // Four threads: a server has so many slots, and their patience is for that.
    let cargo = cargo::command(repo, "tests", "cargo xtask test --with-llm real::")
        .env(llm::VARIABLE, &server.url)
        .env("RUST_TEST_THREADS", "4")
        .args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast", "--", "--ignored"])
        .args(filter);
    run_and_count(step, tools, cargo)
}

fn run_and_count(step: &Step, tools: &Tools, cargo: Tool) -> Result<Count> {
    let (lines, status) = cargo.env("NATS_SERVER", &tools.nats.path).echo().run_to_status(step)?;
    let count = count(&lines);
    step.note(format!("{} passed, {} failed", count.passed, count.failed));
    match status {
        // The counted failures say it all; anything else (a crash, a build) does not show in them.
        Err(error) if count.failed == 0 => Err(error),
        _ => Ok(count),
    }
}

/// Most tests wait for servers and for time to pass more than they work.
fn threads() -> String {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::env::var("RUST_TEST_THREADS").unwrap_or_else(|_| (3 * cores).to_string())
}

/// `test result: ok. 5 passed; 0 failed; ..`, once for each binary.
fn count(lines: &[String]) -> Count {
    let mut count = Count::default();
    for line in lines {
        if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            count.names.push(name.to_owned());
        }
        // One that runs for long is told twice: it `has been running for over 60 seconds`.
        if let Some((name, _)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            for (cases, (_, module)) in count.cases.iter_mut().zip(BUSES) {
                *cases += u64::from(name.contains(module));
            }
        }
        if !line.starts_with("test result: ") {
            continue;
        }
        let words = line.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect::<Vec<_>>();
        for pair in words.windows(2) {
            match (pair[0].parse::<u64>(), pair[1]) {
                (Ok(number), "passed") => count.passed += number,
                (Ok(number), "failed") => count.failed += number,
                _ => {}
            }
        }
    }
    count
}

/// None if the suite was filtered out.
fn conformance(cases: &[u64; 2]) -> Option<String> {
    let told = cases.iter().zip(BUSES).map(|(cases, (bus, _))| format!("{bus} {cases} cases"));
    cases
        .iter()
        .any(|cases| *cases > 0)
        .then(|| format!("conformance: {}", told.collect::<Vec<_>>().join(", ")))
}

fn table(phases: &[Phase]) -> String {
    let width = phases.iter().map(|phase| phase.name.chars().count()).max().unwrap_or_default();
    let row = |phase: &Phase| {
        let note = if phase.ok { phase.note.as_str() } else { "failed" };
        format!("{:<width$}  {:>12}  {note}", phase.name, seconds(phase.took)).trim_end().to_owned()
    };
    let all = seconds(phases.iter().map(|phase| phase.took).sum());
    let rows = phases.iter().map(row).chain([format!("{:<width$}  {all:>12}", "in all")]);
    format!("\n{}\n", rows.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_binaries_are_summed() {
        let lines = [
            "running 2 tests",
            "test dispatch::a_trap_does_not_ack ... FAILED",
            "test dispatch::an_answer ... ok",
            "test bus::kv::on_nats::a_key_is_kept ... ok",
            "test bus::kv::on_nats::a_key_is_kept has been running for over 60 seconds",
            "test bus::kv::on_nats::a_key_goes ... ok",
            "test bus::kv::on_local::a_key_is_kept ... ok",
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.25s",
        ]
        .map(str::to_owned);
        let names = vec!["dispatch::a_trap_does_not_ack".to_owned()];
        assert_eq!(count(&lines), Count { passed: 8, failed: 2, names, cases: [2, 1] });
    }

    #[test]
    fn the_cases_of_each_bus_are_told_if_any_ran() {
        assert_eq!(conformance(&[119, 119]).unwrap(), "conformance: nats 119 cases, local 119 cases");
        assert_eq!(conformance(&[0, 0]), None);
    }
}
