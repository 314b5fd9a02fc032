//! From the tasks of one message to what is stored: which tasks, in which order, who waits for whom. A pure function.

use std::fmt;

use cofferdam_sdk::fleet::{ParsedTask, Rejection as Kind};

use crate::{
    batch::Batch,
    graph::{Edge, Graph},
    infer::infer,
};

/// What the operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// More tasks are rejected.
    pub max_tasks: usize,
    /// Longer estimates are cut to this.
    pub max_hours: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_tasks: 8, max_hours: 40 }
    }
}

/// A task as it will be stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    pub reference: String,
    pub title: String,
    /// What its title is compared by.
    pub key: String,
    pub description: String,
    /// As CreateTasks names it.
    pub role: String,
    pub estimated_hours: i32,
    /// 1 (highest) to 10.
    pub priority: i32,
    pub keywords: Vec<String>,
}

#[derive(Debug)]
pub struct Analysis {
    /// Prerequisites first; in the order of the message wherever that is open.
    pub tasks: Vec<Task>,
    /// Between places in `tasks`.
    pub edges: Vec<Edge>,
    pub warnings: Vec<String>,
}

/// Why the tasks can't be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub kind: Kind,
    pub detail: String,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

/// Each title once; the declared dependencies if there are any, else those that keywords suggest; prerequisites first.
/// `roles` are the requested ones: the first stands in where a task has none.
pub fn analyze(parsed: &[ParsedTask], roles: &[String], settings: &Settings) -> Result<Analysis, Rejection> {
    let mut warnings = Vec::new();
    let batch = Batch::new(parsed, roles, settings, &mut warnings)?;
    let is_declared = batch.declared.iter().any(|names| !names.is_empty());
    let graph = if is_declared { declared(&batch, &mut warnings) } else { infer(&batch.tasks) };
    let order = graph.order(batch.tasks.len()).map_err(|cycle| circular(&batch.tasks, &cycle))?;
    let mut place = vec![0; order.len()];
    for (at, task) in order.iter().enumerate() {
        place[*task] = at;
    }
    let edges = graph.into_edges().into_iter().map(|edge| Edge {
        dependent: place[edge.dependent],
        prerequisite: place[edge.prerequisite],
        reason: edge.reason,
    });
    Ok(Analysis {
        edges: edges.collect(),
        tasks: order.iter().map(|task| batch.tasks[*task].clone()).collect(),
        warnings,
    })
}

fn declared(batch: &Batch, warnings: &mut Vec<String>) -> Graph {
    let mut graph = Graph::default();
    for (task, names) in batch.declared.iter().enumerate() {
        let reference = &batch.tasks[task].reference;
        for name in names {
            match batch.names.find(name) {
                Some(other) if other == task => {
                    warnings.push(format!("{reference} says it depends on itself; ignored"));
                }
                Some(other) => graph.add(task, other, "declared".into()),
                None => warnings
                    .push(format!("{reference} depends on {name:?}, which is none of the tasks; ignored")),
            }
        }
    }
    graph
}

fn circular(tasks: &[Task], cycle: &[usize]) -> Rejection {
    let names = cycle.iter().chain(cycle.first()).map(|task| tasks[*task].reference.as_str());
    let path = names.collect::<Vec<_>>().join(" -> ");
    Rejection { kind: Kind::CircularDependency, detail: format!("tasks wait for each other: {path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(reference: &str, title: &str, keywords: &[&str], depends_on: &[&str]) -> ParsedTask {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        ParsedTask {
            reference: reference.into(),
            title: title.into(),
            keywords: owned(keywords),
            depends_on: Some(owned(depends_on)),
            ..ParsedTask::default()
        }
    }

    /// The references in order, and the edges as `dependent>prerequisite`.
    fn check(tasks: &[ParsedTask], order: &str, edges: &[&str], warnings: usize) {
        let analysis = analyze(tasks, &[], &Settings::default()).unwrap();
        let name = |at: usize| analysis.tasks[at].reference.clone();
        let found: Vec<String> = (0..analysis.tasks.len()).map(name).collect();
        assert_eq!(found.join(" "), order);
        let found: Vec<String> = analysis
            .edges
            .iter()
            .map(|e| format!("{}>{}", name(e.dependent), name(e.prerequisite)))
            .collect();
        assert_eq!(found, edges);
        assert_eq!(analysis.warnings.len(), warnings, "{:?}", analysis.warnings);
    }

    #[test]
    fn contract_4_batch_d_declared_dependencies_are_the_only_ones() {
        check(
            &[
                task("T1", "Use api", &["db"], &["t3"]),
                task("T2", "Test db", &[], &[]),
                task("T3", "Build", &["api"], &["none"]),
            ],
            "T2 T3 T1",
            &["T1>T3"],
            0,
        );
    }

    #[test]
    fn contract_4_batch_d_references_may_be_titles_and_unknown_ones_are_ignored() {
        check(
            &[task("T1", "Build it", &[], &["T1", "T9"]), task("T2", "Test it", &[], &["build IT.", "T1"])],
            "T1 T2",
            &["T2>T1"],
            2,
        );
    }

    #[test]
    fn nothing_but_unknown_references_still_means_declared() {
        check(
            &[task("T1", "Build api", &["api"], &[]), task("T2", "Test api", &[], &["T9"])],
            "T1 T2",
            &[],
            1,
        );
    }

    #[test]
    fn contract_4_batch_c_equal_references_mean_the_first() {
        check(
            &[task("T1", "A", &[], &[]), task("T1", "B", &[], &[]), task("T2", "C", &[], &["T1"])],
            "T1 T1 T2",
            &["T2>T1"],
            0,
        );
    }

    #[test]
    fn contract_4_batch_a_a_reference_to_a_repeat_means_the_first_of_its_title() {
        check(
            &[task("T1", "A", &[], &[]), task("T2", "a.", &[], &["T3"]), task("T3", "B", &[], &["T2"])],
            "T1 T3",
            &["T3>T1"],
            1,
        );
    }

    #[test]
    fn contract_4_batch_e_without_declarations_keywords_decide() {
        let mut tasks = [task("T1", "Test the api", &[], &[]), task("T2", "Build", &["api"], &["none"])];
        check(&tasks, "T2 T1", &["T1>T2"], 0);
        tasks[0].depends_on = None;
        tasks[1].depends_on = None;
        check(&tasks, "T2 T1", &["T1>T2"], 0);
    }

    #[test]
    fn contract_4_batch_d_declared_cycles_are_rejected_by_name() {
        let tasks =
            [task("T1", "A", &[], &["T2"]), task("T2", "B", &[], &["T3"]), task("T3", "C", &[], &["T1"])];
        let rejection = analyze(&tasks, &[], &Settings::default()).unwrap_err();
        assert_eq!(
            rejection.to_string(),
            "circular_dependency: tasks wait for each other: T1 -> T2 -> T3 -> T1"
        );
    }
}
