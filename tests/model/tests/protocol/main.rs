//! Checks of the model: the rules hold, and each rule that is left out is found.

mod calls;
mod cells;
mod inbox;
mod order;
mod records;
mod timers;

use std::{fmt::Debug, hash::Hash, io::Write, time::Instant};

use delivery_model::paths::{Fault, every_path_ends};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Past the test harness, which swallows what tests print.
fn tell(line: &str) {
    assert!(writeln!(std::io::stderr(), "{line}").is_ok());
}

/// Whether a model must come into each state that its "sometimes" name, or its faults are too few for that.
#[derive(Clone, Copy, PartialEq)]
enum Dangers {
    All,
    Some,
}

/// All properties hold in every state, and every path ends well.
fn holds<M>(name: &str, model: M, at_rest: impl Fn(&M, &M::State) -> bool, dangers: Dangers)
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Fault + Clone + Debug + PartialEq,
{
    let begun = Instant::now();
    let checker = model.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let safe = begun.elapsed();
    for property in model.properties() {
        match property.expectation {
            Expectation::Sometimes if dangers == Dangers::Some => {}
            Expectation::Sometimes => drop(checker.assert_any_discovery(property.name)),
            _ => checker.assert_no_discovery(property.name),
        }
    }
    let paths = every_path_ends(&model, |state| at_rest(&model, state));
    assert!(paths.is_ok(), "{name}: a path ends badly: {paths:#?}");
    tell(&format!(
        "model: {name}: holds, {} states, depth {}, {:.1} s and {:.1} s for the paths",
        checker.unique_state_count(),
        checker.max_depth(),
        safe.as_secs_f32(),
        (begun.elapsed() - safe).as_secs_f32(),
    ));
}

/// The rules are broken, and the checker finds how.
fn finds<M>(name: &str, model: M, property: &'static str)
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let begun = Instant::now();
    let checker = model.checker().finish_when(HasDiscoveries::AllOf([property].into())).spawn_bfs().join();
    let actions = checker.assert_any_discovery(property).into_actions();
    tell(&format!(
        "model: {name}: found after {} states and {:.1} s, {} steps: {actions:?}",
        checker.unique_state_count(),
        begun.elapsed().as_secs_f32(),
        actions.len(),
    ));
}
