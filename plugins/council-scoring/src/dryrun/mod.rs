//! The check `dryrun`: what of a proposal can be run without a machine. Task blocks are read and ordered, diffs are applied to the
//! files that the proposal shows, JSON is held against the schema that the task gives, and the quoting of shell commands is
//! followed to its end. Nothing is executed.

mod patch;
mod schema;
mod shell;
mod tasks;

use fleet_proto::orchestrator::v1::{DryRunResult, TaskConstraints};

use crate::{findings::Findings, text::parts};

/// Of what is told.
const OUTPUT_CHARS: usize = 2_000;

/// What one kind of run comes to: what was run, and what went wrong.
#[derive(Debug, Default)]
struct Report {
    ran: Vec<String>,
    faults: Findings,
}

pub(crate) fn check(content: &str, constraints: Option<&TaskConstraints>, max_tasks: usize) -> DryRunResult {
    let parts = parts(content);
    let mut report = Report::default();
    tasks::run(content, max_tasks, &mut report);
    patch::run(&parts, &mut report);
    schema::run(content, &parts, constraints, &mut report);
    shell::run(&parts, &mut report);
    finish(report)
}

fn finish(report: Report) -> DryRunResult {
    let Report { ran, faults } = report;
    if ran.is_empty() && faults.is_empty() {
        let output = "nothing in it can be run dry".to_owned();
        return DryRunResult { passed: true, message: output.clone(), output, exit_code: 0 };
    }
    let passed = faults.is_empty();
    let message = if passed { "it runs".into() } else { faults.first() };
    let mut output = ran.join("\n");
    for fault in faults.finish() {
        output.push_str("\nfailed: ");
        output.push_str(&fault);
    }
    if let Some((end, _)) = output.char_indices().nth(OUTPUT_CHARS) {
        output.truncate(end);
        output.push('…');
    }
    DryRunResult { passed, output: output.trim_start().to_owned(), exit_code: i32::from(!passed), message }
}
