//! The bundled plugins of task derivation together, on one record, under any order and repetition of triggers, answers and
//! time-outs, with a Planning that fails now and then: each derivation that was opened ends by exactly one event.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use cofferdam_sdk::{
    Event, Failure,
    rpc::{Code, Status},
    testing::{EPOCH, Host, Scheduled},
};
use fleet_proto::{
    context::v1::{GetContextRequest, GetContextResponse},
    task_derivation::v1::{
        CreateTasksRequest, CreateTasksResponse, GetPlanContextRequest, GetPlanContextResponse,
        ListStoryTasksRequest, ListStoryTasksResponse, PlanContext, SaveTaskDependenciesRequest,
        SaveTaskDependenciesResponse, TaskSummary,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

const PLANNING: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService";
const CELL: &str = "derivation/p";
const SECOND: u64 = 1_000_000_000;
const MAX_ATTEMPTS: u32 = 3;
const TERMINAL: [&str; 2] = ["task.derivation.completed", "task.derivation.failed"];
const ANSWERS: [&str; 4] = [
    "TITLE: One\nKEYWORDS: one\n\nTITLE: After one\n\nTITLE: Three\n",
    "no idea",
    "TASK_ID: TASK-1\nTITLE: A\nDEPENDS_ON: TASK-2\n\nTASK_ID: TASK-2\nTITLE: B\nDEPENDS_ON: TASK-1\n",
    "TITLE: Another\n\nTITLE: one.\n",
];
const PLANS: [&str; 3] = [
    "- TASK-1: One\n- TASK-2: Two\n",
    "prose",
    "- TASK-1: One\n  - Depends on: TASK-2\n- TASK-2: Two\n  - Depends on: TASK-1\n",
];

type Handler = fn(Event) -> Result<(), Failure>;

struct Plugin {
    handler: Handler,
    host: Host,
    subjects: Vec<String>,
}

/// What a run begins with.
#[derive(Debug, Clone)]
struct Setup {
    asks_a_model: bool,
    max_retries: u32,
    pause: u32,
    rate_limit: u32,
    plan: usize,
}

#[derive(Debug, Clone)]
enum Step {
    /// Lets time pass, in seconds.
    Wait(u64),
    /// A trigger of either kind.
    Trigger(bool),
    /// One of the messages that wait is handled by one of its plugins.
    Handle(usize),
    /// One of the timers fires, when it is due.
    Fire(usize),
    /// One of the jobs is answered, in one of several shapes; once more, if it was before.
    Answer { job: usize, text: usize, shape: usize },
    /// Any message that ever was is published again.
    Repeat(usize),
    /// The next calls to Planning fail.
    Down(u32),
}

struct World {
    plugins: Vec<Plugin>,
    down: Rc<Cell<u32>>,
    titles: Rc<RefCell<Vec<String>>>,
    now: u64,
    events: u64,
    /// An event, the plugin that it waits for, and which attempt that would be.
    waiting: Vec<(Event, usize, u32)>,
    timers: Vec<Scheduled>,
    /// Metadata of each job.
    jobs: Vec<BTreeMap<String, String>>,
    told: Vec<(String, Value)>,
    ends: BTreeMap<u64, usize>,
}

impl World {
    fn new(setup: &Setup) -> Self {
        let (down, titles) = (Rc::<Cell<u32>>::default(), Rc::<RefCell<Vec<String>>>::default());
        let first = if setup.asks_a_model {
            plugin(prompt_builder::handle, include_str!("../../prompt-builder/plugin.toml"), |host| {
                host.config("max_retries", setup.max_retries)
                    .config("backoff_seconds", setup.pause)
                    .config("rate_limit", setup.rate_limit)
            })
        } else {
            plugin(plan_reader::handle, include_str!("../../plan-reader/plugin.toml"), |host| host)
        };
        let cells = first.host.cells();
        let shared = |host: Host| host.sharing(cells.clone());
        let last = plugin(
            dependency_analyzer::handle,
            include_str!("../../dependency-analyzer/plugin.toml"),
            shared,
        );
        let mut plugins = vec![first, last];
        if setup.asks_a_model {
            let parser =
                plugin(output_parser::handle, include_str!("../../output-parser/plugin.toml"), shared);
            plugins.push(parser);
        }
        for plugin in &mut plugins {
            let host = std::mem::take(&mut plugin.host);
            plugin.host = with_planning(host, PLANS[setup.plan], &down, &titles);
        }
        Self {
            plugins,
            down,
            titles,
            now: EPOCH,
            events: 0,
            waiting: Vec::new(),
            timers: Vec::new(),
            jobs: Vec::new(),
            told: Vec::new(),
            ends: BTreeMap::new(),
        }
    }

    fn publish(&mut self, subject: &str, body: Value) {
        self.events += 1;
        self.now += 1_000_000;
        let event = Event {
            id: format!("o.{}", self.events),
            subject: subject.into(),
            headers: Vec::new(),
            data: body.to_string().into_bytes(),
            timestamp: self.now,
        };
        for (at, plugin) in self.plugins.iter().enumerate() {
            if plugin.subjects.iter().any(|own| own == subject) {
                self.waiting.push((event.clone(), at, 1));
            }
        }
        self.told.push((subject.into(), body));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Wait(seconds) => self.now += seconds * SECOND,
            Step::Trigger(approved) => {
                let subject = if *approved { "planning.plan.approved" } else { "task.derivation.requested" };
                self.publish(subject, json!({"plan_id": "p", "n": self.events}));
            }
            Step::Handle(at) => self.handle(*at),
            Step::Fire(at) => self.fire(*at),
            Step::Answer { job, text, shape } => self.answer(*job, *text, *shape),
            Step::Repeat(at) => {
                if let Some((subject, body)) = pick(&self.told, *at).cloned() {
                    self.publish(&subject, body);
                }
            }
            Step::Down(calls) => self.down.set(*calls),
        }
    }

    fn handle(&mut self, at: usize) {
        if self.waiting.is_empty() {
            return;
        }
        let (event, to, attempt) = self.waiting.remove(at % self.waiting.len());
        let plugin = &mut self.plugins[to];
        plugin.host = std::mem::take(&mut plugin.host).attempt(attempt, attempt == MAX_ATTEMPTS);
        let run = plugin.host.run(plugin.handler, event.clone());
        match &run.result {
            Ok(()) => {}
            Err(Failure::Retry { .. }) if attempt < MAX_ATTEMPTS => {
                self.waiting.push((event, to, attempt + 1));
                return;
            }
            Err(failure) => panic!("{} became a dead letter: {failure}", event.subject),
        }
        self.timers.retain(|timer| !run.cancelled.contains(&timer.id));
        self.timers.extend(run.timers.iter().cloned());
        self.jobs.extend(run.jobs.iter().map(|job| job.job.metadata.iter().cloned().collect()));
        let ends =
            run.published.iter().filter(|message| TERMINAL.contains(&message.subject.as_str())).count();
        *self.ends.entry(self.run()).or_default() += ends;
        assert!(self.ends.values().all(|ends| *ends <= 1), "ends by run: {:?}", self.ends);
        for message in &run.published {
            self.publish(&message.subject, message.json());
        }
    }

    fn fire(&mut self, at: usize) {
        if self.timers.is_empty() {
            return;
        }
        let timer = self.timers.remove(at % self.timers.len());
        self.now = self.now.max(timer.at);
        self.publish(&timer.subject, timer.json());
    }

    fn answer(&mut self, job: usize, text: usize, shape: usize) {
        let (completed, failed) = ("agent.response.completed", "agent.response.failed");
        let text = ANSWERS[text % ANSWERS.len()];
        let Some(metadata) = pick(&self.jobs, job).cloned() else { return };
        let (subject, body) = match shape % 4 {
            0 => (
                completed,
                json!({"task_id": "derive-p", "proposal": text, "constraints": {"metadata": metadata}}),
            ),
            1 => (completed, json!({"plan_id": "p", "story_id": "s", "result": {"proposal": text}})),
            2 => (completed, json!({"task_id": "derive-p", "output": text, "n": self.events})),
            _ => (failed, json!({"task_id": "derive-p", "error": "oom", "metadata": metadata})),
        };
        self.publish(subject, body);
    }

    fn record(&self) -> Value {
        self.plugins[0].host.value(CELL, "record").unwrap_or(Value::Null)
    }

    fn run(&self) -> u64 {
        self.record()["run"].as_u64().unwrap_or_default()
    }

    /// Nothing comes from outside any more, and Planning is up.
    fn settle(&mut self) {
        self.down.set(0);
        for _ in 0..2_000 {
            if !self.waiting.is_empty() {
                self.handle(0);
            } else if !self.timers.is_empty() {
                let next = (0..self.timers.len()).min_by_key(|at| self.timers[*at].at).unwrap();
                self.fire(next);
            } else {
                return;
            }
        }
        panic!("it goes on for ever: {:#}", self.record());
    }
}

fn pick<T>(all: &[T], at: usize) -> Option<&T> {
    all.get(at % all.len().max(1))
}

fn plugin(handler: Handler, manifest: &str, set: impl FnOnce(Host) -> Host) -> Plugin {
    let subjects = manifest.lines().filter_map(|line| line.strip_prefix("subject = \""));
    let subjects = subjects.map(|rest| rest.trim_end_matches('"').to_owned()).collect();
    Plugin { handler, host: set(Host::from_manifest(manifest)), subjects }
}

fn with_planning(
    host: Host,
    description: &'static str,
    down: &Rc<Cell<u32>>,
    titles: &Rc<RefCell<Vec<String>>>,
) -> Host {
    let method = |name: &str| format!("{PLANNING}/{name}");
    let up = |down: &Rc<Cell<u32>>| {
        let down = down.clone();
        move || match down.get() {
            0 => Ok(()),
            left => {
                down.set(left - 1);
                Err(Status::new(Code::Unavailable, "as scripted"))
            }
        }
    };
    let (plan_up, list_up, create_up, save_up) = (up(down), up(down), up(down), up(down));
    let (listed, created) = (titles.clone(), titles.clone());
    host.answers("planning", &method("GetPlanContext"), move |request: GetPlanContextRequest| {
        plan_up()?;
        let plan = PlanContext {
            plan_id: request.plan_id,
            story_id: "s".into(),
            description: description.into(),
            ..PlanContext::default()
        };
        Ok(GetPlanContextResponse { plan_context: Some(plan) })
    })
    .answers("planning", &method("ListStoryTasks"), move |_: ListStoryTasksRequest| {
        list_up()?;
        let listed = listed.borrow();
        let task = |(at, title): (usize, &String)| TaskSummary {
            task_id: format!("t-{at}"),
            title: title.clone(),
            ..TaskSummary::default()
        };
        Ok(ListStoryTasksResponse { tasks: listed.iter().enumerate().map(task).collect() })
    })
    .answers("planning", &method("CreateTasks"), move |request: CreateTasksRequest| {
        let mut created = created.borrow_mut();
        let from = created.len();
        created.extend(request.commands.into_iter().map(|command| command.title));
        // Done, and the answer lost.
        create_up()?;
        Ok(CreateTasksResponse { task_ids: (from..created.len()).map(|at| format!("t-{at}")).collect() })
    })
    .answers("planning", &method("SaveTaskDependencies"), move |_: SaveTaskDependenciesRequest| {
        save_up()?;
        Ok(SaveTaskDependenciesResponse { success: true })
    })
    .answers("context", "fleet.context.v1.ContextService/GetContext", |_: GetContextRequest| {
        Ok(GetContextResponse::default())
    })
}

fn setups() -> impl Strategy<Value = Setup> {
    let numbers =
        (0..=2_u32, prop::sample::select(vec![0, 5]), prop::sample::select(vec![0, 1]), 0..PLANS.len());
    (prop::bool::weighted(0.8), numbers).prop_map(|(asks_a_model, (max_retries, pause, rate_limit, plan))| {
        Setup { asks_a_model, max_retries, pause, rate_limit, plan }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pick = 0..1_usize << 16;
    let step = prop_oneof![
        1 => (0..200_u64).prop_map(Step::Wait),
        2 => any::<bool>().prop_map(Step::Trigger),
        8 => pick.clone().prop_map(Step::Handle),
        2 => pick.clone().prop_map(Step::Fire),
        4 => (pick.clone(), pick.clone(), pick.clone())
            .prop_map(|(job, text, shape)| Step::Answer { job, text, shape }),
        1 => pick.prop_map(Step::Repeat),
        1 => (1..6_u32).prop_map(Step::Down),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contract_9_every_derivation_ends_by_exactly_one_event(setup in setups(), steps in steps()) {
        let mut world = World::new(&setup);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        let runs = world.run();
        for run in 1..=runs {
            prop_assert_eq!(world.ends.get(&run), Some(&1), "run {} of {}: {:#}", run, runs, world.record());
        }
        prop_assert!(runs == 0 || world.record()["status"] != "open");
        let mut keys: Vec<String> = world.titles.borrow().iter().map(|title| fleet_tasks::titles::key(title)).collect();
        let all = keys.len();
        keys.sort();
        keys.dedup();
        prop_assert_eq!(keys.len(), all, "a task was created twice: {:?}", world.titles.borrow());
    }
}
