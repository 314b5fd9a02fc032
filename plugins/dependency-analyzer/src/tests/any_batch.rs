//! What holds of any batch of tasks, by rules that are written down here a second time.

use std::collections::BTreeSet;

use cofferdam_sdk::fleet::{ParsedTask, Rejection as Kind};
use proptest::prelude::*;

use crate::{Analysis, Settings, Task, analyze, infer::infer};

const WORDS: [&str; 10] = ["api", "db", "ui", "é", "c++", "log in", "API2", "x_api", "", "none"];

fn words(most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(&WORDS[..]).prop_map(str::to_owned), 0..most)
}

/// Tasks that declare nothing, or whatever comes.
fn tasks(declares: bool) -> impl Strategy<Value = Vec<ParsedTask>> {
    let references =
        prop::collection::vec((0..9).prop_map(|n| format!("T{n}")), 0..if declares { 3 } else { 1 });
    let task = (words(5), words(4), references).prop_map(|(title, keywords, depends_on)| ParsedTask {
        title: title.join(" "),
        keywords,
        depends_on: Some(depends_on),
        ..ParsedTask::default()
    });
    prop::collection::vec(task, 0..8).prop_map(|mut tasks| {
        for (at, task) in tasks.iter_mut().enumerate() {
            task.reference = format!("T{at}");
        }
        tasks
    })
}

/// The order that takes, again and again, the first task whose prerequisites are through.
fn first_ready(tasks: usize, edges: &BTreeSet<(usize, usize)>) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    while let Some(next) = (0..tasks).find(|task| {
        !order.contains(task) && edges.iter().all(|(from, to)| from != task || order.contains(to))
    }) {
        order.push(next);
    }
    order
}

/// Where each task of the result stood in the message.
fn places(analysis: &Analysis) -> Vec<usize> {
    analysis.tasks.iter().map(|task| task.reference[1..].parse().unwrap()).collect()
}

fn stands_alone(text: &str, word: &str) -> bool {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let free = |c: Option<&char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
    !word.is_empty()
        && (0..=text.len().saturating_sub(word.len())).any(|at| {
            text[at..].starts_with(&word)
                && free(at.checked_sub(1).and_then(|before| text.get(before)))
                && free(text.get(at + word.len()))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contract_4_batch_f_any_batch_is_ordered_or_named_as_wrong(tasks in tasks(true)) {
        match analyze(&tasks, &[], &Settings::default()) {
            Ok(analysis) => {
                let places = places(&analysis);
                let mut sorted = places.clone();
                sorted.sort_unstable();
                let rank = |place: usize| sorted.iter().position(|known| *known == places[place]).unwrap();
                let edges = analysis.edges.iter().map(|e| (rank(e.dependent), rank(e.prerequisite))).collect();
                let order: Vec<usize> = (0..places.len()).map(rank).collect();
                prop_assert_eq!(order, first_ready(places.len(), &edges));
                prop_assert!(analysis.edges.iter().all(|edge| edge.prerequisite < edge.dependent));
            }
            Err(rejection) => {
                let declares = tasks.iter().any(|task| task.depends_on.as_ref().is_some_and(|d| !d.is_empty()));
                let titled = tasks.iter().any(|task| !task.title.trim().is_empty());
                let right = if titled { declares && rejection.kind == Kind::CircularDependency } else { rejection.kind == Kind::NoTasks };
                prop_assert!(right, "{}", rejection);
            }
        }
    }

    #[test]
    fn contract_4_batch_e_inference_never_fails_a_batch(tasks in tasks(false)) {
        let outcome = analyze(&tasks, &[], &Settings::default());
        let titled = tasks.iter().any(|task| !task.title.trim().is_empty());
        prop_assert_eq!(outcome.is_ok(), titled);
    }

    #[test]
    fn contract_4_batch_e_inference_follows_its_rule(tasks in tasks(false)) {
        let tasks: Vec<Task> = tasks
            .into_iter()
            .map(|task| Task { title: task.title, keywords: task.keywords, ..Task::default() })
            .collect();
        let edges: BTreeSet<(usize, usize)> =
            infer(&tasks).into_edges().iter().map(|edge| (edge.dependent, edge.prerequisite)).collect();
        prop_assert_eq!(first_ready(tasks.len(), &edges).len(), tasks.len(), "a cycle");
        let speaks_of = |task: usize, keyword: &str| stands_alone(&tasks[task].title, keyword);
        for i in 0..tasks.len() {
            for j in i + 1..tasks.len() {
                let forward = tasks[i].keywords.iter().any(|keyword| speaks_of(j, keyword));
                prop_assert_eq!(edges.contains(&(j, i)), forward, "{} after {}", j, i);
                let shared = |keyword: &String| {
                    tasks[i].keywords.iter().any(|other| other.to_lowercase() == keyword.to_lowercase())
                };
                let backward = tasks[j].keywords.iter().any(|keyword| !shared(keyword) && speaks_of(i, keyword));
                match edges.contains(&(i, j)) {
                    true => prop_assert!(backward && !forward, "{} after {}", i, j),
                    false if backward && !forward => {
                        let mut closed = edges.clone();
                        closed.insert((i, j));
                        prop_assert!(first_ready(tasks.len(), &closed).len() < tasks.len(), "{} could wait for {}", i, j);
                    }
                    false => {}
                }
            }
        }
    }
}
