//! A host with the plugin's own manifest, and its two calls in short.

use cofferdam_sdk::testing::{Host, Served, call};
use fleet_proto::{
    council::v1::{Judged, ScoreRequest, ScoreResponse, SelectRequest, SelectResponse},
    orchestrator::v1::{CheckSuite, DeliberationResult, Proposal, TaskConstraints},
};

const SERVICE: &str = "cofferdam.council.v1.ScoringService";

pub(super) fn host() -> Host {
    Host::from_manifest(include_str!("../../plugin.toml"))
}

pub(super) fn request(contents: &[&str]) -> ScoreRequest {
    let proposal = |(number, content): (usize, &&str)| Proposal {
        author_id: format!("agent-{number}"),
        author_role: "DEV".into(),
        content: (*content).to_owned(),
        ..Proposal::default()
    };
    ScoreRequest {
        task_id: "T".into(),
        task_description: "Build the login.".into(),
        role: "DEV".into(),
        constraints: None,
        proposals: contents.iter().enumerate().map(proposal).collect(),
    }
}

pub(super) fn ask(host: &mut Host, request: &ScoreRequest) -> Served {
    host.serve(crate::serve, call(&format!("{SERVICE}/Score"), request))
}

pub(super) fn score(host: &mut Host, request: &ScoreRequest) -> Vec<Judged> {
    ask(host, request).read::<ScoreResponse>().judged
}

/// The checks of one proposal.
pub(super) fn checks_with(content: &str, constraints: Option<TaskConstraints>) -> CheckSuite {
    let request = ScoreRequest { constraints, ..request(&[content]) };
    score(&mut host(), &request).remove(0).checks.expect("it has checks")
}

pub(super) fn checks(content: &str) -> CheckSuite {
    checks_with(content, None)
}

pub(super) fn violations(content: &str) -> Vec<String> {
    checks(content).policy.unwrap_or_default().violations
}

pub(super) fn errors(content: &str) -> Vec<String> {
    checks(content).lint.unwrap_or_default().errors
}

/// Which of policy, lint and dryrun pass.
pub(super) fn passed(checks: &CheckSuite) -> [bool; 3] {
    [
        checks.policy.as_ref().is_some_and(|check| check.passed),
        checks.lint.as_ref().is_some_and(|check| check.passed),
        checks.dryrun.as_ref().is_some_and(|check| check.passed),
    ]
}

pub(super) fn select(results: Vec<DeliberationResult>) -> SelectResponse {
    let request = SelectRequest { task_id: "T".into(), results, ..SelectRequest::default() };
    host().serve(crate::serve, call(&format!("{SERVICE}/Select"), &request)).read()
}
