//! Any order and repetition of the messages of a set of tasks: what may go, goes once for each attempt, in no other order than its
//! dependencies have it, no more at a time than may; and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_sdk::{
    Event,
    testing::{Host, Run, Scheduled, event},
};
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

use super::support::*;

const TASKS: [&str; 5] = ["A", "B", "C", "D", "E"];

/// One thing that happens.
#[derive(Debug, Clone)]
enum Act {
    /// Planning tells of a task that depends on these, perhaps not for the first time.
    Created {
        task: usize,
        on: u8,
        priority: i64,
    },
    Assigned {
        task: usize,
        label: usize,
    },
    /// A council answers what it was asked, perhaps long ago.
    Council {
        asked: Index,
        fails: bool,
    },
    /// An agent answers for a task, whether asked or not; one of so many.
    Answer {
        task: usize,
        fails: bool,
        agents: u32,
    },
    /// One of the plugin's own events arrives.
    Own(Index),
    /// One that had arrived before comes again.
    OwnAgain(Index),
    /// A message that was delivered comes again.
    Again(Index),
    /// One that was stored before all others comes only now.
    Old {
        task: usize,
        fails: bool,
    },
    /// A timer fires, late or not.
    Timer(Index),
    /// One that was taken back had fired before.
    Cancelled(Index),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let task = 0..TASKS.len();
    let index = any::<Index>;
    let often = prop::bool::weighted(0.2);
    let act = prop_oneof![
        // Few have dependencies on themselves or each other, so that most can go.
        6 => (task.clone(), prop_oneof![3 => Just(0_u8), 3 => any::<u8>(), 2 => (0_u32..5).prop_map(|bit| 1 << bit)], 0_i64..12)
            .prop_map(|(task, on, priority)| Act::Created { task, on, priority }),
        2 => (task.clone(), 0_usize..4).prop_map(|(task, label)| Act::Assigned { task, label }),
        8 => (index(), often).prop_map(|(asked, fails)| Act::Council { asked, fails }),
        8 => (task.clone(), often, prop_oneof![4 => Just(1_u32), 1 => Just(2)])
            .prop_map(|(task, fails, agents)| Act::Answer { task, fails, agents }),
        24 => index().prop_map(Act::Own),
        3 => index().prop_map(Act::OwnAgain),
        3 => index().prop_map(Act::Again),
        1 => (task, often).prop_map(|(task, fails)| Act::Old { task, fails }),
        2 => index().prop_map(Act::Timer),
        2 => index().prop_map(Act::Cancelled),
    ];
    prop::collection::vec(act, 1..160)
}

struct World {
    host: Host,
    most: usize,
    /// What the plugin told itself, and did not hear yet.
    waiting: Vec<(String, String)>,
    heard: Vec<(String, String)>,
    delivered: Vec<(&'static str, String)>,
    asked: Vec<Value>,
    timers: BTreeMap<String, Scheduled>,
    cancelled: Vec<Scheduled>,
    number: u64,
    keys: BTreeSet<String>,
    /// Task and attempt.
    dispatched: BTreeSet<(String, u64)>,
    /// How each attempt of a task ended.
    ended: BTreeMap<(String, u64), String>,
    blocked: BTreeSet<String>,
}

impl World {
    fn new(most: usize, council: bool) -> Self {
        Self {
            host: host().config("max_in_progress", most).config("requires_pre_deliberation", council),
            most,
            waiting: Vec::new(),
            heard: Vec::new(),
            delivered: Vec::new(),
            asked: Vec::new(),
            timers: BTreeMap::new(),
            cancelled: Vec::new(),
            number: 0,
            keys: BTreeSet::new(),
            dispatched: BTreeSet::new(),
            ended: BTreeMap::new(),
            blocked: BTreeSet::new(),
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Created { task, on, priority } => {
                let on: Vec<&str> =
                    TASKS.iter().enumerate().filter(|(n, _)| on & (1 << n) != 0).map(|(_, id)| *id).collect();
                let mut created = depending(TASKS[*task], &on);
                created["priority"] = json!(priority);
                self.deliver(CREATED, created);
            }
            Act::Assigned { task, label } => {
                let mut assigned = assigned(TASKS[*task]);
                let labels = ["IMPLEMENT_FEATURE", "IMPLEMENT_FEATURE", "REVISE_CODE", "REVIEW_DESIGN"];
                assigned["required_action"] = json!(labels[*label]);
                self.deliver(ASSIGNED, assigned);
            }
            Act::Council { asked, fails } if !self.asked.is_empty() => {
                let asked = asked.get(&self.asked).clone();
                self.council(&asked, *fails);
            }
            Act::Answer { task, fails, agents } => self.answer(TASKS[*task], *fails, *agents),
            Act::Own(index) if !self.waiting.is_empty() => {
                let (subject, data) = self.waiting.remove(index.index(self.waiting.len()));
                self.own(subject, data);
            }
            Act::OwnAgain(index) if !self.heard.is_empty() => {
                let (subject, data) = index.get(&self.heard).clone();
                self.own(subject, data);
            }
            Act::Again(index) if !self.delivered.is_empty() => {
                let (subject, data) = index.get(&self.delivered).clone();
                let before = self.statuses();
                let run = self.run(event(subject, data));
                assert!(run.published.is_empty() && run.timers.is_empty(), "{subject} {:?}", run.published);
                assert_eq!(self.statuses(), before);
            }
            Act::Old { task, fails } => {
                let (subject, message) = self.words(TASKS[*task], *fails, 1);
                let mut event = event(subject, message);
                event.timestamp = cofferdam_sdk::testing::EPOCH;
                let run = self.run(event);
                assert!(run.published.is_empty(), "it answers nothing that was asked");
            }
            Act::Timer(index) if !self.timers.is_empty() => {
                let id = self.timers.keys().nth(index.index(self.timers.len())).unwrap().clone();
                let timer = self.timers.remove(&id).unwrap();
                self.own(timer.subject.clone(), timer.json().to_string());
            }
            Act::Cancelled(index) if !self.cancelled.is_empty() => {
                let timer = self.cancelled.remove(index.index(self.cancelled.len()));
                self.own(timer.subject.clone(), timer.json().to_string());
            }
            Act::Council { .. }
            | Act::Own(_)
            | Act::OwnAgain(_)
            | Act::Again(_)
            | Act::Timer(_)
            | Act::Cancelled(_) => {}
        }
    }

    fn council(&mut self, asked: &Value, fails: bool) {
        let mut told = deliberated(
            asked["task_id"].as_str().unwrap(),
            u32::try_from(asked["attempt"].as_u64().unwrap()).unwrap(),
        );
        if fails {
            told["error"] = json!("all agents failed");
        }
        self.deliver(DELIBERATED, told);
    }

    fn words(&self, task: &str, fails: bool, agents: u32) -> (&'static str, Value) {
        let (subject, mut message) =
            if fails { (AGENT_FAILED, failure(task)) } else { (ANSWERED, answer(task)) };
        message["num_agents"] = json!(agents);
        (subject, message)
    }

    fn answer(&mut self, task: &str, fails: bool, agents: u32) {
        let (subject, message) = self.words(task, fails, agents);
        self.deliver(subject, message);
    }

    /// Each is a message of its own.
    fn deliver(&mut self, subject: &'static str, message: Value) {
        self.number += 1;
        let enveloped = json!({
            "event_type": subject, "idempotency_key": self.number.to_string(), "producer": "x", "payload": message,
        });
        let data = enveloped.to_string();
        self.run(event(subject, &data));
        // What is said of a task that nobody knows is not remembered.
        if !stored(&self.host, message["task_id"].as_str().unwrap()).is_null() {
            self.delivered.push((subject, data));
        }
    }

    fn own(&mut self, subject: String, data: String) {
        self.run(event(&subject, &data));
        self.heard.push((subject, data));
    }

    fn run(&mut self, event: Event) -> Run {
        let run = self.host.run(crate::handle, event);
        assert_eq!(run.result, Ok(()));
        for id in &run.cancelled {
            let timer = self.timers.remove(id);
            self.cancelled.extend(timer);
        }
        self.timers.extend(run.timers.iter().map(|timer| (timer.id.clone(), timer.clone())));
        for message in &run.published {
            self.hear(&message.subject, &message.json());
        }
        let going = self.statuses().values().filter(|status| *status == "IN_PROGRESS").count();
        assert!(self.most == 0 || going <= self.most, "{going} at a time");
        run
    }

    fn hear(&mut self, subject: &str, message: &Value) {
        let key = format!("{subject} {}", message["idempotency_key"]);
        assert!(self.keys.insert(key), "told twice: {subject} {message}");
        let payload = &message["payload"];
        let task = payload["task_id"].as_str().unwrap().to_owned();
        let attempt = stored(&self.host, &task)["attempt"].as_u64().unwrap_or_default();
        match subject {
            CHANGED | GO => self.waiting.push((subject.into(), message.to_string())),
            READY => self.asked.push(payload.clone()),
            DISPATCHED => {
                assert_eq!(payload["attempt"], attempt);
                assert!(self.dispatched.insert((task.clone(), attempt)), "{task} again: {attempt}");
                for on in stored(&self.host, &task)["depends_on"].as_array().unwrap() {
                    let on = stored(&self.host, on.as_str().unwrap());
                    assert_eq!(on["status"], "COMPLETED", "{task} goes before {on}");
                }
            }
            COMPLETED | FAILED => {
                let before = self.ended.insert((task.clone(), attempt), subject.into());
                assert_eq!(before, None, "{task} ends twice: {attempt}");
                assert_eq!(subject == FAILED, stored(&self.host, &task)["status"] != "COMPLETED");
            }
            BLOCKED => {
                self.blocked.insert(task);
            }
            other => panic!("{other} is not told"),
        }
    }

    fn statuses(&self) -> BTreeMap<&'static str, String> {
        let of = |task: &'static str| {
            let status = stored(&self.host, task)["status"].as_str()?.to_owned();
            Some((task, status))
        };
        TASKS.into_iter().filter_map(of).collect()
    }

    /// Everybody answers what they were asked, until nothing happens any more.
    fn settle(&mut self) {
        loop {
            while !self.waiting.is_empty() {
                let (subject, data) = self.waiting.remove(0);
                self.own(subject, data);
            }
            let unexplained = |timer: &&Scheduled| timer.subject == UNEXPLAINED;
            if let Some(timer) = self.timers.values().find(unexplained).cloned() {
                self.timers.remove(&timer.id);
                self.own(timer.subject.clone(), timer.json().to_string());
                continue;
            }
            let Some((task, _)) = self.statuses().into_iter().find(|(_, status)| status == "IN_PROGRESS")
            else {
                break;
            };
            let kept = stored(&self.host, task);
            if kept["agent_id"].is_null() {
                let asked = self.asked.iter().rfind(|asked| asked["task_id"] == task).unwrap().clone();
                assert_eq!(asked["attempt"], kept["attempt"], "a council was asked");
                self.council(&asked, false);
            } else {
                let attempt = kept["attempt"].as_u64().unwrap();
                assert!(self.dispatched.contains(&(task.to_owned(), attempt)));
                self.answer(task, false, 1);
            }
        }
        self.is_as_it_should_be();
    }

    fn is_as_it_should_be(&mut self) {
        let statuses = self.statuses();
        let mut waits: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (task, status) in &statuses {
            match status.as_str() {
                "QUEUED" => {
                    let on = stored(&self.host, task)["depends_on"].as_array().unwrap().clone();
                    let on = on.iter().map(|on| on.as_str().unwrap().to_owned());
                    let open: Vec<String> = on
                        .filter(|on| statuses.get(on.as_str()).is_none_or(|status| status != "COMPLETED"))
                        .collect();
                    assert!(!open.is_empty(), "{task} is ready and does not go");
                    waits.insert(task, open);
                }
                "COMPLETED" => {}
                status => assert!(status.starts_with("FAILED:"), "{task} {status}"),
            }
        }
        let listed = list(&mut self.host, "");
        let rows: BTreeMap<&str, Vec<String>> =
            listed.iter().map(|row| (row.task_id.as_str(), row.waits_for.clone())).collect();
        assert_eq!(rows, waits, "the queue has all that wait, and nobody else");
        for row in &listed {
            let on = &waits[row.task_id.as_str()];
            let fails = |on: &String| {
                statuses.get(on.as_str()).is_some_and(|status| status.starts_with("FAILED"))
                    || is_blocked(on, &waits, &statuses)
            };
            let blocking: Vec<String> = on.iter().filter(|on| fails(on)).cloned().collect();
            assert_eq!(row.blocked_by, blocking, "{}", row.task_id);
            assert!(blocking.is_empty() || self.blocked.contains(&row.task_id), "{} was told", row.task_id);
        }
        assert_eq!(queue(&self.host)["outside"].as_u64().unwrap_or_default(), 0);
    }
}

/// Whether every way from a task leads nowhere else than to its own or another's failure, or round in a circle: by brute force.
fn is_blocked(
    task: &str,
    waits: &BTreeMap<&str, Vec<String>>,
    statuses: &BTreeMap<&'static str, String>,
) -> bool {
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut ahead = waits.get(task).cloned().unwrap_or_default();
    while let Some(on) = ahead.pop() {
        if statuses.get(on.as_str()).is_some_and(|status| status.starts_with("FAILED")) {
            return true;
        }
        if reached.insert(on.clone()) {
            ahead.extend(waits.get(on.as_str()).cloned().unwrap_or_default());
        }
    }
    // In a circle, or behind one.
    let circle = |from: &String| {
        let (mut reached, mut ahead) =
            (BTreeSet::new(), waits.get(from.as_str()).cloned().unwrap_or_default());
        while let Some(on) = ahead.pop() {
            if reached.insert(on.clone()) {
                ahead.extend(waits.get(on.as_str()).cloned().unwrap_or_default());
            }
        }
        reached.contains(from)
    };
    reached.iter().any(circle)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contract_6_queue_any_order_and_repetition_keeps_dependencies_and_places_and_loses_nothing(
        acts in acts(),
        most in 0_usize..3,
        council in any::<bool>(),
    ) {
        let mut world = World::new(most, council);
        for act in &acts {
            world.act(act);
        }
        world.settle();
    }
}
