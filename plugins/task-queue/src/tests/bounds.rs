//! What is large, and what is many.

use std::collections::{BTreeSet, VecDeque};

use cofferdam_sdk::{
    Failure,
    log::Level,
    publish::EmitError,
    testing::{Host, Run, Scheduled},
};
use serde_json::{Value, json};

use super::support::*;

/// As Planning names tasks.
fn id(number: usize) -> String {
    format!("task-{number:08}-89ab-4cde-8f01-23456789abcd")
}

/// All that happens is brought to the plugin, timers only when nothing else is left.
struct Flow {
    host: Host,
    waiting: VecDeque<(String, Value)>,
    timers: VecDeque<Scheduled>,
    dispatched: BTreeSet<String>,
    blocked: usize,
    turned_away: usize,
    largest: usize,
}

impl Flow {
    fn new(host: Host) -> Self {
        let (waiting, timers) = (VecDeque::new(), VecDeque::new());
        Self { host, waiting, timers, dispatched: BTreeSet::new(), blocked: 0, turned_away: 0, largest: 0 }
    }

    fn happens(&mut self, subject: &str, message: Value) {
        self.waiting.push_back((subject.to_owned(), message));
        while let Some((subject, message)) = self.waiting.pop_front() {
            let run = run(&mut self.host, &subject, &message);
            assert_eq!(run.result, Ok(()), "{subject} {message}");
            self.take(run);
        }
    }

    fn take(&mut self, run: Run) {
        let messages = run.published.iter().map(|message| message.data.len() + 200).sum::<usize>();
        let cell = self.host.cells().get("queue/main", "queue").map_or(0, |cell| cell.len());
        self.largest = self.largest.max(cell);
        assert!(messages + cell < 900 << 10, "one commit of {messages} and {cell} bytes");
        self.turned_away += run.timers.iter().filter(|timer| timer.subject == CHANGED).count();
        self.timers.extend(run.timers);
        for message in run.published {
            match message.subject.as_str() {
                CHANGED | GO => self.waiting.push_back((message.subject.clone(), message.json())),
                DISPATCHED => {
                    let task = message.json()["task_id"].as_str().unwrap().to_owned();
                    assert!(self.dispatched.insert(task), "once");
                }
                BLOCKED => self.blocked += 1,
                _ => {}
            }
        }
    }

    /// Whoever was turned away asks again.
    fn ask_again(&mut self) {
        for timer in std::mem::take(&mut self.timers) {
            if timer.subject == CHANGED {
                self.happens(CHANGED, timer.json());
            }
        }
    }
}

/// A queue with so many tasks that wait for what never comes.
fn crowded(host: &mut Host, tasks: usize) {
    let rows: serde_json::Map<String, Value> =
        (0..tasks).map(|n| (id(n), json!(["S", 6, [1, n], 1, 0, [id(99_999)], [0, 0]]))).collect();
    host.set_value("queue/main", "queue", &json!({"schema": 1, "rows": rows}));
}

#[test]
fn a_full_queue_turns_tasks_away_which_ask_again_and_none_is_lost() {
    const TASKS: usize = 40;
    let mut host = one_by_one();
    crowded(&mut host, 2_010);
    let mut flow = Flow::new(host);
    // All wait for one that comes when there is no room left.
    let later: Vec<String> = (0..TASKS).map(|n| id(50_000 + n)).collect();
    for task in &later {
        flow.happens(CREATED, depending(task, &["last"]));
    }
    let outside = queue(&flow.host)["outside"].as_u64().unwrap() as usize;
    let rows = list(&mut flow.host, "").len();
    assert!(outside > 0 && outside < TASKS && flow.turned_away == outside, "{outside} of {TASKS}, {rows} in");
    assert_eq!(rows + outside, 2_010 + TASKS);
    flow.ask_again();
    assert_eq!(flow.turned_away, 2 * outside, "there is still no room");
    flow.happens(CREATED, created("last"));
    assert_eq!(flow.dispatched.len(), 1, "there is room for one that is ready");
    flow.happens(ANSWERED, answer("last"));
    flow.ask_again();
    while flow.dispatched.len() <= TASKS {
        let going = list(&mut flow.host, "").into_iter().find(|task| task.status == "IN_PROGRESS");
        flow.happens(ANSWERED, answer(&going.expect("one that goes").task_id));
    }
    assert!(flow.largest < 500 << 10, "{}", flow.largest);
    assert_eq!(queue(&flow.host)["outside"], 0);
}

#[test]
fn whoever_is_turned_away_says_so_and_counts_as_queued() {
    let mut host = one_by_one();
    crowded(&mut host, 2_100);
    let created = run(&mut host, CREATED, depending("T", &["D"]));
    let changed = run(&mut host, CHANGED, created.on(CHANGED)[0].clone());
    let warned = changed.logged(Level::Warn);
    assert_eq!(warned, ["the queue is full, so the task waits outside and asks again in 30 s"]);
    assert_eq!(changed.gauge("queue_depth", &[("status", "QUEUED")]), Some(2_101.0));
    assert_eq!(status(&mut host, "T"), "QUEUED");
    let again = run(&mut host, CHANGED, changed.timers[0].json());
    assert_eq!(again.timers[0].json()["payload"]["turned_away"], 2);
    assert_eq!(queue(&host)["outside"], 1);
}

#[test]
fn one_event_lets_no_more_go_and_tells_of_no_more_than_it_may() {
    const TASKS: usize = 250;
    let mut flow = Flow::new(direct());
    for number in 0..TASKS {
        flow.happens(CREATED, depending(&id(number), &["A"]));
    }
    flow.happens(CREATED, created("A"));
    flow.happens(AGENT_FAILED, failure("A"));
    assert_eq!(flow.blocked, TASKS);
    flow.dispatched.clear();
    flow.happens(CREATED, prior("A", 1));
    flow.happens(ANSWERED, answer("A"));
    assert_eq!(flow.dispatched.len(), TASKS + 1);
}

#[test]
fn long_texts_are_cut_so_that_a_task_fits_its_cell_and_its_messages() {
    let mut host = host();
    let worst = "\u{1}".repeat(100_000);
    let mut message = created("T");
    (message["title"], message["description"]) = (json!(worst), json!(worst));
    message["constraints"] = json!({
        "rubric": worst, "requirements": ["keep", worst], "metadata": {"long": worst, "short": "s"},
    });
    let on: Vec<String> = (0..60).map(|n| format!("{n:0>256}")).collect();
    let on: Vec<&str> = on.iter().map(String::as_str).collect();
    message["depends_on"] = depending("T", &on)["depends_on"].clone();
    let run = run(&mut host, CREATED, message);
    assert_eq!(run.logged(Level::Warn).len(), 2);
    follow(&mut host, run);
    let kept = stored(&host, "T");
    // Sixty-four cells are read together, of 4 MiB at most.
    assert!(kept.to_string().len() < 64 << 10, "{}", kept.to_string().len());
    assert_eq!(kept["constraints"]["requirements"], json!(["keep"]));
    assert_eq!(kept["constraints"]["metadata"], json!({"short": "s"}));
    assert!(kept["title"].as_str().unwrap().ends_with('…'));
    for task in on {
        settle(&mut host, CREATED, created(task));
        settle(&mut host, DELIBERATED, deliberated(task, 1));
        settle(&mut host, ANSWERED, answer(task));
    }
    let mut proposal = deliberated("T", 1);
    proposal["proposal"] = json!(worst);
    let told = settle(&mut host, DELIBERATED, proposal);
    let bytes = told.published.iter().map(|message| message.data.len()).sum::<usize>();
    assert!(bytes + (64 << 10) < 900 << 10, "{bytes}");
    let mut failure = failure("T");
    failure["error"] = json!(worst);
    settle(&mut host, AGENT_FAILED, failure);
    assert!(status(&mut host, "T").len() < 1_100);
}

#[test]
fn what_the_bus_does_not_take_now_is_tried_again() {
    for subject in [CHANGED, GO, READY] {
        let mut host = host().refuses_publish(subject, EmitError::Unavailable("no bus".into()));
        let created = run(&mut host, CREATED, created("T"));
        let mut last = created.clone();
        for own in [CHANGED, GO] {
            if last.result.is_ok() {
                last = run(&mut host, own, last.on(own)[0].clone());
            }
        }
        assert!(matches!(last.result, Err(Failure::Retry { .. })), "{subject}: {:?}", last.result);
    }
}

#[test]
fn what_a_newer_version_wrote_is_handed_back() {
    let mut host = direct();
    settle(&mut host, CREATED, created("T"));
    let (mut task, mut queue) = (stored(&host, "T"), queue(&host));
    (task["schema"], queue["schema"]) = (json!(2), json!(2));
    host.set_value("task/T", "task", &task);
    let retried = |run: &Run| matches!(run.result, Err(Failure::Retry { .. }));
    assert!(retried(&run(&mut host, ANSWERED, answer("T"))));
    assert!(retried(&run(&mut host, CHANGED, json!({"queue": "main", "task_id": "T"}))), "at a glance");
    host.set_value("queue/main", "queue", &queue);
    assert!(retried(&run(&mut host, CHANGED, json!({"queue": "main", "task_id": "other"}))));
}
