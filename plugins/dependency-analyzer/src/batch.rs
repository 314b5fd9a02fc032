//! The tasks of one message made fit to be stored: normalised, each title once, no more than allowed. output-parser
//! has done so already; another producer may not have.

use std::collections::{HashMap, HashSet};

use cofferdam_sdk::fleet::{ParsedTask, Rejection as Kind, Role, requested_roles};

use fleet_tasks::{DEFAULT_ROLE, titles};

use crate::analysis::{Rejection, Settings, Task};

const TOP_PRIORITY: i32 = 1;
const LAST_PRIORITY: i32 = 10;
/// Other ways to name no task at all.
const NOTHING: [&str; 4] = ["none", "n/a", "null", "-"];

/// The tasks that count, in output order, and what their references mean.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) tasks: Vec<Task>,
    /// What each task says it depends on.
    pub(crate) declared: Vec<Vec<String>>,
    pub(crate) names: Names,
}

impl Batch {
    pub(crate) fn new(
        parsed: &[ParsedTask],
        roles: &[String],
        settings: &Settings,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Rejection> {
        let (roles, _) = requested_roles(roles);
        let role = roles.first().map_or(DEFAULT_ROLE, String::as_str);
        let mut batch = Self { tasks: Vec::new(), declared: Vec::new(), names: Names::default() };
        for raw in parsed {
            let full = titles::collapse(&raw.title);
            let title = titles::cut(&full).to_owned();
            let key = titles::key(&title);
            if title.is_empty() {
                continue;
            }
            if let Some(first) = batch.names.titles.get(&key).copied() {
                warnings.push(format!("{title:?} repeats the title of an earlier task and is dropped"));
                batch.names.add(raw, first);
                continue;
            }
            let index = batch.tasks.len();
            batch.names.add(raw, index);
            batch.names.titles.entry(key.clone()).or_insert(index);
            batch.declared.push(declared(raw));
            batch.tasks.push(Task {
                reference: if raw.reference.is_empty() { title.clone() } else { raw.reference.clone() },
                role: Role::parse(&raw.role).and_then(Role::task).unwrap_or(role).to_owned(),
                estimated_hours: raw.estimated_hours.clamp(0, settings.max_hours.max(0)),
                priority: raw.priority.clamp(TOP_PRIORITY, LAST_PRIORITY),
                keywords: keywords(&raw.keywords),
                description: titles::described(&full, &raw.description),
                title,
                key,
            });
        }
        match batch.tasks.len() {
            0 => Err(Rejection {
                kind: Kind::NoTasks,
                detail: "the message holds no task with a title".into(),
            }),
            count if count > settings.max_tasks => Err(Rejection {
                kind: Kind::TooManyTasks,
                detail: format!("{count} tasks, max_tasks is {}", settings.max_tasks),
            }),
            _ => Ok(batch),
        }
    }
}

/// Which task a reference or a title means: the first that has it, repeats included.
#[derive(Debug, Default)]
pub(crate) struct Names {
    references: HashMap<String, usize>,
    titles: HashMap<String, usize>,
}

impl Names {
    fn add(&mut self, raw: &ParsedTask, index: usize) {
        let reference = reference_key(&raw.reference);
        if !reference.is_empty() {
            self.references.entry(reference).or_insert(index);
        }
        // In full as well, where it is cut.
        self.titles.entry(titles::key(&raw.title)).or_insert(index);
    }

    /// The task that the whole text names; if none, the one whose reference it begins with.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let by_reference = self.references.get(&reference_key(name));
        let whole = by_reference.or_else(|| self.titles.get(&titles::key(name)));
        whole.or_else(|| self.references.get(&leading_label(&reference_key(name))?)).copied()
    }
}

/// The label in `TASK-001 (schema)`, `TASK-001: Add login`, `TASK-001 Add login` or `TASK-001.`; nothing for a text
/// that names more than one task.
fn leading_label(name: &str) -> Option<String> {
    let mut ids = name
        .match_indices("task-")
        .filter(|(at, id)| name[at + id.len()..].starts_with(|c: char| c.is_ascii_digit()));
    if ids.nth(1).is_some() {
        return None;
    }
    let id = task_id(name).or_else(|| Some(&name[..name.find(['(', ':'])?]));
    let label = id.unwrap_or(name).trim().trim_end_matches('.');
    (!label.is_empty()).then(|| label.to_owned())
}

/// `task-001` at the beginning of a text in lower case.
fn task_id(name: &str) -> Option<&str> {
    let number = name.strip_prefix("task-")?;
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = number[digits..].chars();
    let goes_on = |c: char| c.is_alphanumeric() || c == '_';
    let is_whole = match rest.next() {
        Some('-' | '.') => !rest.next().is_some_and(goes_on),
        next => !next.is_some_and(goes_on),
    };
    (digits > 0 && is_whole).then(|| &name[..name.len() - number.len() + digits])
}

fn reference_key(reference: &str) -> String {
    reference.trim().to_lowercase()
}

fn declared(raw: &ParsedTask) -> Vec<String> {
    let names = raw.depends_on.iter().flatten();
    let names = names.filter(|name| !NOTHING.contains(&name.trim().to_lowercase().as_str()));
    names.filter(|name| !name.trim().is_empty()).cloned().collect()
}

fn keywords(raw: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let lowered = raw.iter().map(|keyword| titles::collapse(keyword).to_lowercase());
    lowered.filter(|keyword| !keyword.is_empty() && seen.insert(keyword.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(reference: &str, title: &str) -> ParsedTask {
        ParsedTask { reference: reference.into(), title: title.into(), ..ParsedTask::default() }
    }

    fn batch(tasks: &[ParsedTask]) -> Result<Batch, Rejection> {
        Batch::new(tasks, &["system".into(), "tester".into()], &Settings::default(), &mut Vec::new())
    }

    #[test]
    fn the_values_of_another_producer_are_brought_into_range() {
        let wild = ParsedTask {
            role: "wizard".into(),
            estimated_hours: 99,
            priority: 0,
            keywords: vec![" JWT ".into(), "jwt".into(), String::new()],
            ..task("", "  Add   it ")
        };
        let tame = ParsedTask { role: "dev".into(), estimated_hours: -3, priority: 11, ..task("T2", "B") };
        let tasks = batch(&[wild, tame]).unwrap().tasks;
        let first = &tasks[0];
        assert_eq!(
            (first.reference.as_str(), first.title.as_str(), first.role.as_str()),
            ("Add it", "Add it", "QA")
        );
        assert_eq!((first.estimated_hours, first.priority, first.description.as_str()), (40, 1, "Add it"));
        assert_eq!(first.keywords, ["jwt"]);
        let second = &tasks[1];
        assert_eq!((second.role.as_str(), second.estimated_hours, second.priority), ("DEVELOPER", 0, 10));
    }

    #[test]
    fn contract_4_batch_a_repeats_drop_to_the_first_and_references_follow() {
        let batch =
            batch(&[task("T1", "Add it"), task("T2", "ADD  it."), task("T2", "B"), task("T3", "C")]).unwrap();
        let titles: Vec<&str> = batch.tasks.iter().map(|task| task.title.as_str()).collect();
        assert_eq!(titles, ["Add it", "B", "C"]);
        let check = |name: &str, expect: Option<usize>| assert_eq!(batch.names.find(name), expect, "{name}");
        check("t1 ", Some(0));
        check("T2", Some(0));
        check("add it!", Some(0));
        check("b", Some(1));
        check("T3", Some(2));
        check("T9", None);
        check("", None);
    }

    #[test]
    fn a_reference_may_have_more_behind_it() {
        let batch = batch(&[
            task("TASK-001", "Add login"),
            task("TASK-0011", "B"),
            task("T3", "C: more"),
            task("Add: it", "D"),
        ])
        .unwrap();
        let check = |name: &str, expect: Option<usize>| assert_eq!(batch.names.find(name), expect, "{name}");
        check("TASK-001 (schema)", Some(0));
        check("task-001: Add login", Some(0));
        check("TASK-001 - Add login", Some(0));
        check("TASK-001 Add login", Some(0));
        check("TASK-001: Add task-runner", Some(0));
        check("TASK-001.", Some(0));
        check("TASK-0011 (b)", Some(1));
        check("T3 (c)", Some(2));
        check("T3: é", Some(2));
        check("T3.", Some(2));
        check("C: more", Some(2));
        check("Add: it", Some(3));
        check("TASK-001 and TASK-0011", None);
        check("TASK-001-b", None);
        check("TASK-001.2", None);
        check("TASK-00", None);
        check("TASK- (x)", None);
        check("(x)", None);
        check(": x", None);
        check("é", None);
    }

    #[test]
    fn contract_4_batch_b_a_batch_out_of_bounds_is_rejected() {
        let check = |count: usize, expect: Option<Kind>| {
            let tasks: Vec<ParsedTask> = (0..count).map(|n| task("", &format!("task no {n}"))).collect();
            assert_eq!(batch(&tasks).err().map(|rejection| rejection.kind), expect, "{count} tasks");
        };
        check(0, Some(Kind::NoTasks));
        check(1, None);
        check(8, None);
        check(9, Some(Kind::TooManyTasks));
        let same = vec![task("", "A"); 20];
        assert_eq!(batch(&same).unwrap().tasks.len(), 1);
    }
}
