//! Any order and repetition of messages and calls leaves every task in a legal state, tells nothing twice, and leaves the story and
//! the boards with what the tasks are.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_sdk::{
    Failure,
    testing::{Host, Run},
};
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

use super::support::*;
use crate::board::{BOARDS, number};

const TASKS: [&str; 4] = ["A", "B", "C", "D"];
const ROLES: [&str; 5] = ["developer", "architect", "qa", "po", "system"];
const INITIAL: &str = "todo";

/// One thing that happens.
#[derive(Debug, Clone)]
enum Act {
    Created(usize),
    /// The story is ready with so many of the tasks, from this one on; or it does not say with which.
    Ready(Option<(usize, usize)>),
    Derived(u32),
    /// Whoever is in charge does what is due, by a message or a call; or rejects it.
    Due {
        task: usize,
        by_call: bool,
        rejects: bool,
    },
    /// Somebody does something.
    Any {
        task: usize,
        action: Index,
        role: Index,
        by_call: bool,
    },
    Claim {
        task: usize,
        agent: u8,
        role: Index,
    },
    /// One of the plugin's own events arrives.
    Own(Index),
    /// One that had arrived before comes again.
    OwnAgain(Index),
    /// A message that was delivered comes again.
    Again(Index),
    /// The next message of an agent is older than it comes.
    Late(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let task = 0..TASKS.len();
    let index = any::<Index>;
    let act = prop_oneof![
        2 => task.clone().prop_map(Act::Created),
        2 => prop::option::weighted(0.8, (task.clone(), 0..=TASKS.len())).prop_map(Act::Ready),
        1 => (0_u32..6).prop_map(Act::Derived),
        16 => (task.clone(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(task, by_call, rejects)| Act::Due { task, by_call, rejects }),
        4 => (task.clone(), index(), index(), any::<bool>())
            .prop_map(|(task, action, role, by_call)| Act::Any { task, action, role, by_call }),
        3 => (task, 0_u8..2, index()).prop_map(|(task, agent, role)| Act::Claim { task, agent, role }),
        16 => index().prop_map(Act::Own),
        2 => index().prop_map(Act::OwnAgain),
        3 => index().prop_map(Act::Again),
        1 => (0_u64..20).prop_map(Act::Late),
    ];
    prop::collection::vec(act, 1..120)
}

/// The table, as rows of from, action, role and to; and its actions.
struct Table {
    rows: BTreeSet<[String; 4]>,
    actions: Vec<String>,
    over: BTreeSet<String>,
}

impl Table {
    fn new() -> Self {
        let table: Value = serde_json::from_str(include_str!("../machine/standard.json")).unwrap();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let states = list(&table["states"]);
        let ends = |state: &&Value| state.get("ends").is_some();
        let over: BTreeSet<String> = states.iter().filter(ends).map(|state| text(&state["name"])).collect();
        let (mut rows, mut actions) = (BTreeSet::new(), Vec::new());
        for row in list(&table["moves"]) {
            actions.push(text(&row["action"]));
            for state in states.iter().map(|state| text(&state["name"])) {
                let from = list(&row["from"]).iter().map(text).any(|from| from == state || from == "*");
                for role in list(&row["by"]).iter().map(text).filter(|_| from && !over.contains(&state)) {
                    rows.insert([state.clone(), text(&row["action"]), role, text(&row["to"])]);
                }
            }
        }
        Self { rows, actions, over }
    }
}

/// A story with its tasks, and all that was said.
struct World {
    table: Table,
    host: Host,
    /// What the plugin told itself, and did not hear yet.
    waiting: Vec<(String, String)>,
    heard: Vec<(String, String)>,
    delivered: Vec<(&'static str, String)>,
    number: u64,
    late: u64,
    /// The hops of each task, as they were told.
    told: BTreeMap<String, Vec<Value>>,
    keys: BTreeSet<String>,
    ends: BTreeMap<String, String>,
    /// How many tasks it had whenever the story was told to be through.
    through: Vec<u64>,
    /// The alerts that will come, by timer.
    alerts: BTreeMap<String, Value>,
}

impl World {
    fn new(policy: &str) -> Self {
        Self {
            table: Table::new(),
            host: host_storing(&["B", "D"]).config("assign_policy", policy),
            waiting: Vec::new(),
            heard: Vec::new(),
            delivered: Vec::new(),
            number: 0,
            late: 0,
            told: BTreeMap::new(),
            keys: BTreeSet::new(),
            ends: BTreeMap::new(),
            through: Vec::new(),
            alerts: BTreeMap::new(),
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Created(task) => {
                self.deliver(CREATED, json!({"task_id": TASKS[*task], "story_id": "S", "title": "x"}));
            }
            Act::Ready(which) => {
                let tasks = which.map(|(from, count)| {
                    (0..count).map(|n| TASKS[(from + n) % TASKS.len()]).collect::<Vec<_>>()
                });
                let mut ready = json!({"story_id": "S", "to_state": "READY_FOR_EXECUTION", "tasks": tasks});
                ready["timestamp"] = json!(self.number);
                self.deliver(TRANSITIONED, ready);
            }
            Act::Derived(count) => {
                let message = json!({"plan_id": "P", "story_id": "S", "task_count": count, "n": self.number});
                self.deliver(DERIVED, message);
            }
            Act::Due { task, by_call, rejects } => {
                let state = state(&self.host, TASKS[*task]);
                let (role, action) = due(state.as_str().unwrap_or_default(), *rejects);
                self.work(TASKS[*task], action, role, *by_call);
            }
            Act::Any { task, action, role, by_call } => {
                let action = action.get(&self.table.actions).clone();
                self.work(TASKS[*task], &action, ROLES[role.index(ROLES.len())], *by_call);
            }
            Act::Claim { task, agent, role } => {
                let served = try_claim(
                    &mut self.host,
                    TASKS[*task],
                    &format!("agent-{agent}"),
                    ROLES[role.index(ROLES.len())],
                );
                self.take(&served);
            }
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
                let run = run(&mut self.host, subject, data);
                self.take(&run);
            }
            Act::Own(_) | Act::OwnAgain(_) | Act::Again(_) => {}
            Act::Late(seconds) => self.late = *seconds,
        }
    }

    fn work(&mut self, task: &str, action: &str, role: &str, by_call: bool) {
        if by_call {
            let served = validate(&mut self.host, task, role, action);
            self.take(&served);
            return;
        }
        let mut message = act(action, role);
        message["task_id"] = json!(task);
        message["n"] = json!(self.number);
        if self.late > 0 {
            let at = cofferdam_sdk::testing::EPOCH / 1_000_000_000 + self.number;
            message["timestamp"] = json!(at - self.late);
            self.late = 0;
        }
        self.deliver(WORK, message);
    }

    fn deliver(&mut self, subject: &'static str, message: Value) {
        self.number += 1;
        let data = message.to_string();
        let run = run(&mut self.host, subject, &data);
        self.delivered.push((subject, data));
        self.take(&run);
    }

    /// The plugin's own events are always understood.
    fn own(&mut self, subject: String, data: String) {
        let run = run(&mut self.host, &subject, &data);
        assert_eq!(run.result, Ok(()), "{subject} {data}");
        self.heard.push((subject, data));
        self.take(&run);
    }

    /// What a run told is legal, goes on from where the task was, and was not told before.
    fn take(&mut self, run: &Run) {
        let Err(Failure::Reject(_)) = run.result else {
            run.published.iter().for_each(|message| self.hear(&message.subject, message.json()));
            run.cancelled.iter().for_each(|timer| assert!(self.alerts.remove(timer).is_some(), "{timer}"));
            let alerts = run.timers.iter().map(|timer| (timer.id.clone(), timer.json()["payload"].clone()));
            self.alerts.extend(alerts);
            return;
        };
        // A claim without a name, a task that is not there: a status is no effect.
        assert!(run.published.is_empty() && run.timers.is_empty() && !run.wrote);
    }

    fn hear(&mut self, subject: &str, message: Value) {
        if OWN.contains(&subject) {
            self.waiting.push((subject.to_owned(), message.to_string()));
            return;
        }
        let key = format!("{subject} {}", message["idempotency_key"]);
        assert!(self.keys.insert(key), "told twice: {message}");
        let payload = message["payload"].clone();
        let text = |key: &str| payload[key].as_str().unwrap_or_default().to_owned();
        match subject {
            CHANGED => {
                let row = ["from_state", "action", "actor_role", "to_state"].map(text);
                assert!(self.table.rows.contains(&row), "not in the table: {row:?}");
                let before = self.told.entry(text("task_id")).or_default();
                let at = before.last().map_or(INITIAL, |hop| hop["to_state"].as_str().unwrap());
                assert_eq!(at, row[0], "it goes on where it was");
                before.push(payload);
            }
            COMPLETED => {
                assert_eq!(self.ends.insert(text("task_id"), text("final_state")), None, "it ends once");
            }
            STORY_COMPLETED => {
                let count = payload["task_count"].as_u64().unwrap();
                assert!(self.through.last().is_none_or(|last| *last < count), "once for each set");
                self.through.push(count);
            }
            ASSIGNED | VALIDATION => {}
            other => panic!("{other} is not for others"),
        }
    }

    /// Brings the plugin all of its own events, and holds the story and the boards to the tasks.
    fn settle(&mut self) {
        while !self.waiting.is_empty() {
            let (subject, data) = self.waiting.remove(0);
            self.own(subject, data);
        }
        let tasks: BTreeMap<&str, Value> = TASKS
            .into_iter()
            .map(|task| (task, stored(&self.host, task)))
            .filter(|(_, stored)| !stored.is_null())
            .collect();
        for (name, task) in &tasks {
            self.is_as_told(name, task);
        }
        self.boards_know(&tasks);
        self.story_knows(&tasks);
    }

    fn is_as_told(&self, name: &str, task: &Value) {
        let told = self.told.get(name).cloned().unwrap_or_default();
        let history = task["history"].as_array().unwrap();
        assert_eq!(history.len(), told.len());
        for (hop, told) in history.iter().zip(&told) {
            assert_eq!((&hop["from"], &hop["to"]), (&told["from_state"], &told["to_state"]));
        }
        let state = task["state"].as_str().unwrap();
        assert_eq!(told.last().map_or(INITIAL, |hop| hop["to_state"].as_str().unwrap()), state);
        let end = self.ends.get(name).map(String::as_str);
        assert_eq!(end, self.table.over.contains(state).then_some(state));
        let alerts: Vec<&Value> =
            self.alerts.values().filter(|waiting| waiting["task_id"] == *name).collect();
        let waits = ["pending_arch_review", "pending_qa", "pending_po_approval"].contains(&state);
        assert_eq!(alerts.len(), usize::from(waits), "{state}: {alerts:?}");
        assert!(alerts.iter().all(|waiting| waiting["state"] == state));
    }

    fn boards_know(&mut self, tasks: &BTreeMap<&str, Value>) {
        let mut states: BTreeMap<String, i32> = BTreeMap::new();
        for (name, task) in tasks {
            let state = task["state"].as_str().unwrap().to_owned();
            let board: Value = self.host.value(&format!("board/{}", number(name)), "board").unwrap();
            let row = &board["rows"][name];
            if self.table.over.contains(&state) {
                assert!(row.is_null(), "{name} is over");
            } else {
                assert_eq!((&row[1], &row[6]), (&task["state"], &task["version"]), "{name}");
                assert_eq!(row[4], !task["claimed_by"].is_null(), "{name}");
            }
            *states.entry(state).or_default() += 1;
        }
        let cells = self.host.cells().names();
        assert!(cells.iter().filter(|cell| cell.starts_with("board/")).count() <= BOARDS as usize);
        let all = stats(&mut self.host, "", "");
        assert_eq!(all.tasks_by_state.into_iter().collect::<BTreeMap<_, _>>(), states);
        let story = stats(&mut self.host, "S", "");
        assert_eq!(story.tasks_by_state.into_iter().collect::<BTreeMap<_, _>>(), states);
        for role in ROLES {
            let theirs = |task: &&Value| {
                in_charge(task["state"].as_str().unwrap()) == Some(role) && task["claimed_by"].is_null()
            };
            let expected = tasks.values().filter(theirs).count();
            let listed = pending(&mut self.host, role);
            assert_eq!((listed.tasks.len(), listed.total_count), (expected, expected as i32), "{role}");
        }
    }

    fn story_knows(&self, tasks: &BTreeMap<&str, Value>) {
        let Some(story) = self.host.value::<Value>("story/S", "story") else {
            assert!(tasks.is_empty());
            return;
        };
        let names = |key: &str| -> BTreeSet<&str> {
            story[key].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
        };
        assert_eq!(names("tasks"), tasks.keys().copied().collect());
        let is = |name: &str, states: &[&str]| {
            tasks.get(name).is_some_and(|task| states.iter().any(|state| task["state"] == *state))
        };
        let over = |name: &str| is(name, &["done", "cancelled"]);
        let ended = tasks.keys().filter(|name| over(name)).count();
        let expected: u64 =
            story["expected"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        let complete = tasks.keys().all(|name| over(name))
            && tasks.keys().any(|name| is(name, &["done"]))
            && names("planned").into_iter().all(over)
            && (story["listed"] == true || ended as u64 >= expected);
        assert!(!complete || self.through.last() == Some(&(ended as u64)), "{story} {:?}", self.through);
        // Whoever waits for a turn waits for somebody.
        let planned = names("planned");
        let waits = planned.iter().any(|name| is(name, &[INITIAL]));
        let left = names("left");
        let works = planned.iter().any(|name| !is(name, &[INITIAL]) && !left.contains(name));
        assert!(!waits || works, "{story}");
    }
}

fn in_charge(state: &str) -> Option<&'static str> {
    let nobody = state == INITIAL || ["done", "cancelled"].contains(&state);
    (!nobody).then(|| due(state, false).0)
}

/// Who is to do what in a state.
fn due(state: &str, rejects: bool) -> (&'static str, &'static str) {
    match (state, rejects) {
        ("implementing" | "arch_rejected" | "qa_failed", false) => ("developer", "commit_code"),
        ("pending_arch_review" | "arch_reviewing", false) => ("architect", "approve_design"),
        ("pending_qa" | "qa_testing", false) => ("qa", "approve_tests"),
        ("pending_po_approval", false) => ("po", "approve_story"),
        ("pending_arch_review" | "arch_reviewing", true) => ("architect", "reject_design"),
        ("pending_qa" | "qa_testing", true) => ("qa", "reject_tests"),
        ("pending_po_approval", true) => ("po", "reject_story"),
        (_, true) => ("system", "retry"),
        (_, false) => ("developer", "claim_task"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn contract_5_any_order_and_repetition_leaves_legal_states_and_tells_nothing_twice(
        acts in acts(),
        all in any::<bool>(),
    ) {
        let mut world = World::new(if all { "all" } else { "first" });
        for act in &acts {
            world.act(act);
        }
        world.settle();
    }
}
