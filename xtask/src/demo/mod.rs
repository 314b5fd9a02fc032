//! `cargo xtask demo`: the whole fleet as separate processes, one plan through it, and what became of it. The steps
//! are told here; each lives in a module of its own.

mod config;
mod follow;
mod full;
mod keep;
mod message;
mod plan;
mod planning;
mod processes;
mod report;
mod start;
mod tail;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use self::follow::{Follow, State};
use self::planning::Planning;
use self::processes::Processes;
use self::report::Report;
use self::start::{Addresses, Cast, Ready};
use crate::cli::Demo;
use crate::guests::{self, Selection};
use crate::interrupt;
use crate::repo::Repo;
use crate::steps::{Step, Steps, seconds};
use crate::{binaries, terminal, tools};

/// The plugins that take a plan to its assigned tasks.
const PLUGINS: [&str; 4] = ["prompt-builder", "output-parser", "dependency-analyzer", "workflow-router"];
/// Those that take it to the end.
const FULL: [&str; 9] = [
    "prompt-builder",
    "output-parser",
    "dependency-analyzer",
    "workflow-router",
    "story-lifecycle",
    "council",
    "council-scoring",
    "task-queue",
    "context-updater",
];
/// The sample plan.
const SAMPLE: &str = "examples/fleet/plans/checkout.toml";
/// How often the files that the processes write are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What may still be on its way once the last task is assigned: the word that its event is done.
const LATE: Duration = Duration::from_secs(2);
/// Everything of the fleet; not the streams' inner traffic.
const WATCHED: [&str; 6] =
    ["planning.>", "task.derivation.>", "agent.>", "cofferdam.>", "workflow.>", ADVISORIES];
const ADVISORIES: &str = "cofferdam-advisory.>";

/// The processes' names.
const DAEMON: &str = "cofferdam";
const WORKER: &str = "worker";
const AGENTS: &str = "agents";
/// Shows us what passes.
const WATCH: &str = "watch";
/// Shows us what is stored.
const TRAIL: &str = "trail";

/// A run, as far as it is the same in all of them.
struct Scene<'a> {
    plan: &'a Path,
    binaries: &'a binaries::Demo,
    at: &'a Addresses,
}

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
    let plugins: &[&str] = if args.full { &FULL } else { &PLUGINS };
    let names: Vec<String> = plugins.iter().map(|name| (*name).to_owned()).collect();
    guests::build(repo, steps, &wasm, Selection { names: &names, fixtures: false })?;
    let binaries = binaries::demo(repo, steps)?;
    let folder = fresh_folder(repo)?;
    terminal::err(&format!("data and logs: {}", repo.short(&folder)));

    let mut processes = Processes::new(&folder, args.keep);
    let nats = nats.as_ref().map(|nats| nats.path.as_path());
    let cast = Cast { plugins, nats, full: args.full, kills: args.kill.unwrap_or_default() };
    let ran = start::start(repo, steps, &cast, &binaries, &mut processes).and_then(|at| {
        let scene = Scene { plan: &plan, binaries: &binaries, at: &at };
        let report = steps.run("plan", |step| match args.full {
            true => full::through(step, args, &scene, &mut processes),
            false => through(step, args, &scene, &mut processes),
        })?;
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

impl Scene<'_> {
    fn planning(&self, processes: &Processes) -> Planning<'_> {
        let log = processes.folder().join("plan.log");
        Planning { fleet: &self.binaries.fleet, log, address: &self.at.planning }
    }

    /// Begins to show us what passes on these subjects; what passes while the daemon is away is missed.
    fn watch(&self, step: &Step, subjects: &[&str], processes: &mut Processes) -> Result<()> {
        processes.start(WATCH, &self.binaries.fleet, |command| {
            command.args(["watch", "--json"]).args(self.at.flags());
            for subject in subjects {
                command.args(["--subject", subject]);
            }
        })?;
        processes.ready::<Ready>(step, WATCH)?;
        Ok(())
    }
}

/// Adds the plan, approves it, and follows it until its tasks are assigned.
fn through(step: &Step, args: &Demo, scene: &Scene<'_>, processes: &mut Processes) -> Result<Report> {
    scene.watch(step, &WATCHED, processes)?;
    let planning = scene.planning(processes);
    let added = planning.add(step, scene.plan)?;

    let begun = Instant::now();
    let mut follow = Follow::new(&added.plan_id, now_ms());
    planning.approve(step, &added.plan_id)?;
    let deadline = begun + args.limit();
    let mut late = None;
    loop {
        for line in processes.lines(WATCH)? {
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
    let shown = planning.show(step, &added.plan_id)?;
    step.note(format!("{} tasks", shown.tasks.len()));
    Ok(Report {
        plan_id: added.plan_id,
        story_id: added.story_id,
        title: shown.title,
        bus: scene.at.bus.clone(),
        tasks: shown.tasks,
        elapsed_ms: follow.elapsed_ms(),
        events: follow.into_events(),
        full: None,
    })
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
