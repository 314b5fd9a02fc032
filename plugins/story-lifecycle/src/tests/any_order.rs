//! Any order and repetition of messages and calls.

use cofferdam_sdk::{
    Event,
    testing::{Host, Run, event},
};
use proptest::prelude::*;
use serde_json::json;

use super::support::*;
use crate::machine::Machine;

/// One thing that happens to the story.
#[derive(Debug, Clone)]
enum Act {
    Created(Option<usize>),
    /// Another service's word.
    Told(usize),
    Derived(u32),
    Task(&'static str),
    Through(u32),
    Call(usize),
    /// Something that was delivered comes again.
    Again(prop::sample::Index),
    /// A step of our own comes back.
    Echo(prop::sample::Index),
    /// The next message is older than this one by so many seconds.
    Late(u64),
}

fn acts(with_others: bool) -> impl Strategy<Value = Vec<Act>> {
    let state = 0..STATES.len();
    let own = prop_oneof![
        prop::option::of(state.clone()).prop_map(Act::Created),
        (0_u32..3).prop_map(Act::Derived),
        prop::sample::select(vec!["implementing", "todo", "done"]).prop_map(Act::Task),
        (0_u32..3).prop_map(Act::Through),
        state.clone().prop_map(Act::Call),
        // Where a machine goes by itself is not all there is.
        (0..9_usize).prop_map(Act::Call),
        any::<prop::sample::Index>().prop_map(Act::Again),
        any::<prop::sample::Index>().prop_map(Act::Echo),
        (0_u64..20).prop_map(Act::Late),
    ];
    let act =
        if with_others { prop_oneof![4 => own, 1 => state.prop_map(Act::Told)].boxed() } else { own.boxed() };
    prop::collection::vec(act, 1..60)
}

/// A story, and all that was said of it.
struct Story {
    host: Host,
    machine: Machine,
    delivered: Vec<Event>,
    echoes: Vec<String>,
    keys: Vec<String>,
    late: u64,
    /// Where it was left, as far as outsiders can tell.
    chain: Option<String>,
}

impl Story {
    fn new() -> Self {
        Self {
            host: host(),
            machine: Machine::standard().unwrap(),
            delivered: Vec::new(),
            echoes: Vec::new(),
            keys: Vec::new(),
            late: 0,
            chain: None,
        }
    }

    /// Runs an act; what it told is legal, goes on from where the story was, and was not told before.
    fn act(&mut self, act: &Act) {
        let mut before = state(&self.host);
        let run = match act {
            Act::Created(at) => {
                self.event(CREATED, json!({"story_id": "S", "state": at.map(|at| STATES[at])}))
            }
            Act::Told(to) => self.event(TRANSITIONED, json!({"story_id": "S", "to_state": STATES[*to]})),
            Act::Derived(plan) => {
                self.event(DERIVED, json!({"story_id": "S", "plan_id": plan, "task_count": 1}))
            }
            Act::Task(to) => self.event(CHANGED, task_in(to)),
            Act::Through(count) => self.event(THROUGH, json!({"story_id": "S", "task_count": count})),
            Act::Call(to) => match ask(&mut self.host, "S", STATES[*to]) {
                served if served.answer.is_ok() => (*served).clone(),
                _ => return assert_eq!(before, "", "a story that is there can be asked for"),
            },
            Act::Again(index) if !self.delivered.is_empty() => {
                let event = index.get(&self.delivered).clone();
                let run = take(&mut self.host, event);
                assert!(run.published.is_empty(), "{act:?} {:?}", run.published);
                run
            }
            Act::Echo(index) if !self.echoes.is_empty() => {
                let run = run(&mut self.host, TRANSITIONED, index.get(&self.echoes));
                assert!(run.acked_without_effect(), "{:?}", run.published);
                run
            }
            Act::Late(seconds) => return self.late = *seconds,
            Act::Again(_) | Act::Echo(_) => return,
        };
        let steps = steps(&run);
        // What it was brought to first, without being told.
        if matches!(act, Act::Told(_) | Act::Created(_)) || before.is_empty() {
            before = steps.first().map_or_else(|| state(&self.host), |(from, _)| from.clone());
        }
        for (from, to) in &steps {
            assert_eq!(*from, before);
            assert!(self.machine.may_go(from, to), "{from} -> {to}");
            before.clone_from(to);
        }
        assert_eq!(state(&self.host), before, "{act:?}");
        assert!(before.is_empty() || STATES.contains(&before.as_str()));
        if let (Some(chain), Some((from, _))) = (&self.chain, steps.first()) {
            assert_eq!(chain, from, "nothing is told that nobody can follow");
        }
        self.chain = steps.last().map(|(_, to)| to.clone()).or(self.chain.take());
        self.told(&run);
    }

    fn event(&mut self, subject: &str, data: serde_json::Value) -> Run {
        let mut event = event(subject, data);
        event.timestamp -= std::mem::take(&mut self.late) * 1_000_000_000;
        self.delivered.push(event.clone());
        take(&mut self.host, event)
    }

    fn told(&mut self, run: &Run) {
        assert_eq!(run.result, Ok(()));
        for step in run.on(TRANSITIONED) {
            let key = step["idempotency_key"].to_string();
            assert!(!self.keys.contains(&key), "told twice: {step}");
            self.keys.push(key);
            self.echoes.push(step.to_string());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The steps that are told make one chain, each from where the last one led.
    #[test]
    fn contract_5_6_any_order_of_triggers_and_calls_leaves_a_legal_state_and_nothing_is_told_twice(acts in acts(false)) {
        let mut story = Story::new();
        for act in &acts {
            story.act(act);
        }
    }

    /// Another service's word in between breaks the chain that we tell, for its own message tells where the story went.
    #[test]
    fn contract_5_6_so_it_is_with_another_service_that_moves_stories(acts in acts(true)) {
        let mut story = Story::new();
        for act in &acts {
            if matches!(act, Act::Told(_)) {
                story.chain = None;
            }
            story.act(act);
            if matches!(act, Act::Told(_) | Act::Again(_)) {
                story.chain = None;
            }
        }
    }
}
