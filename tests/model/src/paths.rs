//! What the checker's own `eventually` cannot tell (it looks at no cycles and takes joined paths for one): that every path
//! ends, and where.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
};

use stateright::Model;

/// What is wrong with a path, with the actions that lead there.
#[derive(Debug)]
pub enum Wrong<A> {
    /// It comes back to where it was, and may go on for ever.
    Circle(Vec<A>),
    /// It ends where it should not.
    Stuck(Vec<A>),
}

/// An action that need not happen.
pub trait Fault {
    fn is_fault(&self) -> bool;
}

/// Goes every path to its end, an end being where nothing but faults could happen. Faults come from budgets, so if there
/// are no circles, "eventually, when faults stop" is "at every end". Gives the number of states.
pub fn every_path_ends<M>(model: &M, good: impl Fn(&M::State) -> bool) -> Result<usize, Wrong<M::Action>>
where
    M: Model,
    M::Action: Fault,
    M::State: Hash,
    M::Action: Clone,
{
    struct Step<S, A> {
        key: u64,
        by: Option<A>,
        next: Vec<(A, S)>,
    }
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    // Whether a state's paths are all known to end; false while they are being gone.
    let mut known: HashMap<u64, bool> = HashMap::new();
    let mut stack: Vec<Step<M::State, M::Action>> = Vec::new();
    let trace = |stack: &[Step<M::State, M::Action>], last: Option<M::Action>| {
        stack.iter().filter_map(|s| s.by.clone()).chain(last).collect::<Vec<_>>()
    };
    for init in model.init_states() {
        let mut todo = Some((None, init));
        loop {
            if let Some((by, state)) = todo.take() {
                let key = hasher.hash_one(&state);
                match known.get(&key) {
                    Some(true) => {}
                    Some(false) => return Err(Wrong::Circle(trace(&stack, by))),
                    None => {
                        let next = model.next_steps(&state);
                        if next.iter().all(|(action, _)| action.is_fault()) && !good(&state) {
                            return Err(Wrong::Stuck(trace(&stack, by)));
                        }
                        known.insert(key, false);
                        stack.push(Step { key, by, next });
                    }
                }
            }
            let Some(top) = stack.last_mut() else { break };
            match top.next.pop() {
                Some((action, state)) => todo = Some((Some(action), state)),
                None => {
                    known.insert(top.key, true);
                    stack.pop();
                }
            }
        }
    }
    Ok(known.len())
}
