//! `demo --full`: a plan all the way to a story in TESTING, while the daemon and the worker of its jobs are killed, if that
//! is asked for.

mod kills;
mod report;
mod stored;
mod timeline;
mod trail;

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::Value;

use self::kills::Schedule;
pub(super) use self::report::Full;
use self::stored::Stored;
use self::trail::Trail;
use super::follow::{Follow, State};
use super::processes::Processes;
use super::report::Report;
use super::{ADVISORIES, LOOK, Scene, WATCH, now_ms};
use crate::cli::Demo;
use crate::interrupt;
use crate::steps::{Step, seconds};

/// Seeds that nobody named are below: a person may have to type one.
const SEEDS: u64 = 1_000_000;

/// Adds the plan, approves it, and follows it to its end.
pub(super) fn through(
    step: &Step,
    args: &Demo,
    scene: &Scene<'_>,
    processes: &mut Processes,
) -> Result<Report> {
    let seed = args.seed.unwrap_or_else(|| now_ms() % SEEDS);
    let mut schedule = Schedule::new(seed, args.kill.unwrap_or_default(), scene.at.nats.is_some());
    let mut stored = Stored::start(&scene.binaries.cofferdam, &scene.at.admin, processes)?;
    // Which events were handled, and how long that took, is told once and kept nowhere.
    scene.watch(step, &[ADVISORIES], processes)?;
    let planning = scene.planning(processes);
    let added = planning.add(step, scene.plan)?;

    let mut trail = Trail::new(&added.plan_id, &added.story_id, now_ms());
    // What happens before the approval is told, and its time is none of the plan's.
    let mut early = Vec::new();
    processes.wait(step, "the product owner, who makes the story ready for planning,", |processes| {
        for message in stored.read(processes)? {
            if let Some(said) = trail.take(&message) {
                step.say(&said);
            }
            early.push(message);
        }
        Ok(trail.is_ready_for_planning().then_some(()))
    })?;

    let (begun, begun_ms) = (Instant::now(), now_ms());
    trail.approved(begun_ms);
    let mut follow = Follow::new(&added.plan_id, begun_ms);
    for message in &early {
        follow.take_message(message);
    }
    planning.approve(step, &added.plan_id)?;
    let deadline = begun + args.limit();
    loop {
        for message in stored.read(processes)? {
            follow.take_message(&message);
            if let Some(said) = trail.take(&message) {
                step.say(&said);
            }
        }
        for line in processes.lines(WATCH)? {
            follow.take(&line);
        }
        match trail.state() {
            State::Failed(reason) => bail!("the plan failed: {reason}{}", of_kills(&schedule, seed)),
            State::Waiting(what) if Instant::now() > deadline => bail!(
                "the plan is not through after {}: still waiting for {what}{}",
                seconds(begun.elapsed()),
                of_kills(&schedule, seed)
            ),
            State::Waiting(_) | State::Assigned => {}
            State::Done => break,
        }
        processes.check()?;
        interrupt::check()?;
        if let Some(who) = schedule.due(trail.progress(), Instant::now()) {
            step.say(&format!("{:>7} ms        {who:<20} killed", now_ms().saturating_sub(begun_ms)));
            processes.kill_and_restart(who)?;
            processes.ready::<Value>(step, who)?;
        }
        step.at(&trail.state().to_string());
        interrupt::pause(LOOK);
    }
    if schedule.left() > 0 {
        // The document says how many there were.
        step.say(&format!("        the plan was through before the last {} kills", schedule.left()));
    }
    let shown = planning.show(step, &added.plan_id)?;
    step.note(format!("{} tasks, story in {}", shown.tasks.len(), trail.story_state()));
    let mut tasks = shown.tasks;
    for task in &mut tasks {
        task.state = trail.task_state(&task.id);
    }
    Ok(Report {
        plan_id: added.plan_id,
        story_id: added.story_id,
        title: shown.title,
        bus: scene.at.bus.clone(),
        elapsed_ms: trail.elapsed_ms(),
        events: follow.into_events(),
        full: Some(Full::new(trail, &tasks, schedule.done, seed)),
        tasks,
    })
}

/// How to have the same again.
fn of_kills(schedule: &Schedule, seed: u64) -> String {
    let kills = schedule.done;
    match kills.daemon + kills.worker {
        0 => String::new(),
        _ => format!(
            " ({} kills of the daemon and {} of the worker so far, seed {seed})",
            kills.daemon, kills.worker
        ),
    }
}
