//! `cargo xtask demo`: the whole fleet as separate processes, one plan through it, and what became of it. The steps
//! are told here; each lives in a module of its own.

mod config;
mod follow;
mod keep;
mod plan;
mod processes;
mod report;
mod start;
mod tail;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use self::follow::{Follow, State};
use self::processes::Processes;
use self::report::{Report, Task};
use self::start::{Addresses, READY, first_line};
use crate::cli::Demo;
use crate::guests::{self, Selection};
use crate::interrupt;
use crate::repo::Repo;
use crate::steps::{Step, Steps, seconds};
use crate::tool::Tool;
use crate::{binaries, terminal, tools};

/// The plugins that take a plan to its assigned tasks.
const PLUGINS: [&str; 4] = ["prompt-builder", "output-parser", "dependency-analyzer", "workflow-router"];
/// The sample plan.
const SAMPLE: &str = "examples/fleet/plans/checkout.toml";
/// How often the files that the processes write are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What may still be on its way once the last task is assigned: the word that its event is done.
const LATE: Duration = Duration::from_secs(2);
/// Everything of the fleet; not the streams' inner traffic.
const WATCHED: [&str; 6] =
    ["planning.>", "task.derivation.>", "agent.>", "cofferdam.>", "workflow.>", "cofferdam-advisory.>"];

pub(crate) fn run(repo: &Repo, steps: &Steps, args: &Demo) -> Result<()> {
    if let Some(folder) = &args.stop {
        return keep::stop(repo, folder);
    }
    let plan = match &args.plan {
        Some(file) => plan::check(file)?,
        None => repo.root().join(SAMPLE),
    };
    let wasm = tools::wasm(repo, steps, None)?;
    let nats = args.nats.then(|| tools::nats(repo, steps)).transpose()?;
    let names = PLUGINS.map(str::to_owned);
    guests::build(repo, steps, &wasm, Selection { names: &names, fixtures: false })?;
    let binaries = binaries::demo(repo, steps)?;
    let folder = fresh_folder(repo)?;
    terminal::err(&format!("data and logs: {}", repo.short(&folder)));

    let mut processes = Processes::new(&folder, args.keep);
    let nats = nats.as_ref().map(|nats| nats.path.as_path());
    let ran = start::start(repo, steps, nats, &binaries, &mut processes).and_then(|at| {
        let report = steps.run("plan", |step| through(step, args, &plan, &binaries, &mut processes, &at))?;
        Ok((report, at))
    });
    let (report, addresses) = match ran {
        Ok(ran) => ran,
        Err(error) if error.is::<interrupt::Interrupted>() => {
            processes.stop();
            return Err(error);
        }
        Err(error) => {
            let said = processes.last_words(repo);
            processes.stop();
            bail!("{error:#}\n{said}");
        }
    };
    if args.json {
        terminal::out(&serde_json::to_string_pretty(&report)?);
    } else {
        terminal::out(&report.text(&steps.phases()));
    }
    if args.keep {
        let kept = processes.leave()?;
        terminal::err(&kept.text(repo, &binaries, &addresses, &report.plan_id));
    } else {
        processes.stop();
    }
    Ok(())
}

/// Adds the plan, approves it, and follows it until its tasks are assigned.
fn through(
    step: &Step,
    args: &Demo,
    plan: &Path,
    binaries: &binaries::Demo,
    processes: &mut Processes,
    at: &Addresses,
) -> Result<Report> {
    let mut watch = processes.start("watch", &binaries.fleet, |command| {
        command.args(["watch", "--json"]).args(at.flags());
        for subject in WATCHED {
            command.args(["--subject", subject]);
        }
    })?;
    processes.wait(step, "watch", READY, || first_line::<WatchReady>(&mut watch))?;
    let log = processes.folder().join("plan.log");
    let fleet = |words: &[&str]| {
        let tool = Tool::new(&binaries.fleet, &log, "cargo xtask demo").arg("plan").args(words);
        tool.without_fleet_settings().args(["--planning", &at.planning, "--json"])
    };
    let path = plan.to_str().context("the plan's path is no UTF-8")?;
    let added: Added = json(&fleet(&["add", path]).run(step)?)?;

    let begun = Instant::now();
    let mut follow = Follow::new(&added.plan_id, now_ms());
    fleet(&["approve", &added.plan_id]).run(step)?;
    let deadline = begun + Duration::from_secs(args.timeout);
    let mut late = None;
    loop {
        for line in watch.lines()? {
            if let Some(said) = follow.take(&line) {
                step.say(&said);
            }
        }
        match follow.state() {
            State::Failed(reason) => bail!("the plan failed: {reason}"),
            State::Done => break,
            State::Assigned if *late.get_or_insert(Instant::now() + LATE) < Instant::now() => break,
            State::Assigned | State::Waiting(_) => {}
        }
        if let State::Waiting(what) = follow.state()
            && Instant::now() > deadline
        {
            bail!("the plan is not through after {}: still waiting for {what}", seconds(begun.elapsed()));
        }
        processes.check()?;
        interrupt::check()?;
        step.at(&follow.state().to_string());
        interrupt::pause(LOOK);
    }
    let shown: Shown = json(&fleet(&["show", &added.plan_id]).run(step)?)?;
    step.note(format!("{} tasks", shown.tasks.len()));
    Ok(Report {
        plan_id: added.plan_id,
        story_id: added.story_id,
        title: shown.title,
        bus: at.bus.clone(),
        tasks: shown.tasks,
        elapsed_ms: follow.elapsed_ms(),
        events: follow.into_events(),
    })
}

#[derive(Debug, Deserialize)]
struct WatchReady {
    #[serde(rename = "ready")]
    _ready: bool,
}

#[derive(Debug, Deserialize)]
struct Added {
    plan_id: String,
    story_id: String,
}

#[derive(Debug, Deserialize)]
struct Shown {
    title: String,
    tasks: Vec<Task>,
}

fn json<T: serde::de::DeserializeOwned>(lines: &[String]) -> Result<T> {
    let text = lines.join("\n");
    serde_json::from_str(&text).with_context(|| format!("fleet printed {text:?}"))
}

/// Every run has a folder of its own.
fn fresh_folder(repo: &Repo) -> Result<PathBuf> {
    let folder = repo.demos().join(format!("{}-{}", now_ms() / 1000, std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    Ok(folder)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
