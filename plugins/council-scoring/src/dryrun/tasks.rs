//! Task blocks, read as the fleet reads them: whether they give tasks, not too many, each id once, and no circle.

use std::collections::HashMap;

use cofferdam_sdk::fleet::ParsedTask;
use fleet_tasks::{Settings, parse, titles};

use super::Report;
use crate::{findings::clip, lint};

pub(super) fn run(content: &str, max_tasks: usize, report: &mut Report) {
    if !lint::holds_tasks(content) {
        return;
    }
    let settings = Settings { min_tasks: 1, max_tasks, ..Settings::default() };
    match parse(content, &settings) {
        Ok(parsed) => {
            report.ran.push(format!("task blocks: {} tasks", parsed.tasks.len()));
            repeated(&parsed.tasks, report);
            if let Some(around) = circle(&parsed.tasks) {
                report
                    .faults
                    .add(|| format!("the tasks wait for each other: {}", clip(&around.join(", "), 200)));
            }
            for dropped in parsed.dropped {
                report.ran.push(format!("task blocks: {:?} is left out: {}", dropped.title, dropped.why));
            }
        }
        Err(rejection) => {
            report.ran.push("task blocks".into());
            report.faults.add(|| rejection.to_string());
        }
    }
}

/// An id that two tasks have means the first, whichever was meant.
fn repeated(tasks: &[ParsedTask], report: &mut Report) {
    let mut seen = HashMap::new();
    for task in tasks {
        if let Some(first) = seen.insert(task.reference.to_lowercase(), &task.title) {
            report
                .faults
                .add(|| format!("{} is the id of {first:?} and of {:?}", task.reference, task.title));
        }
    }
}

/// The tasks that none can begin of; what is no task of the batch is no obstacle.
fn circle(tasks: &[ParsedTask]) -> Option<Vec<&str>> {
    let mut places = HashMap::new();
    for (place, task) in tasks.iter().enumerate().rev() {
        places.insert(titles::key(&task.title), place);
        places.insert(task.reference.to_lowercase(), place);
    }
    let find =
        |name: &String| places.get(&name.to_lowercase()).or_else(|| places.get(&titles::key(name))).copied();
    let needs: Vec<Vec<usize>> = tasks
        .iter()
        .enumerate()
        .map(|(place, task)| {
            let named = task.depends_on.iter().flatten().filter_map(find);
            named.filter(|other| *other != place).collect()
        })
        .collect();
    // Few tasks: `parse` has seen to it.
    let mut done = vec![false; tasks.len()];
    loop {
        let next: Vec<usize> = (0..tasks.len())
            .filter(|place| !done[*place] && needs[*place].iter().all(|need| done[*need]))
            .collect();
        if next.is_empty() {
            break;
        }
        next.into_iter().for_each(|place| done[place] = true);
    }
    let around: Vec<&str> = tasks
        .iter()
        .zip(&done)
        .filter(|(_, done)| !**done)
        .map(|(task, _)| task.reference.as_str())
        .collect();
    (!around.is_empty()).then_some(around)
}
