//! The two methods of the scoring stage.

use cofferdam_sdk::{
    metrics,
    service::{self, Call, Status},
};
use fleet_proto::{
    council::v1::{Judged, ScoreRequest, ScoreResponse, SelectRequest, SelectResponse},
    orchestrator::v1::{CheckSuite, DeliberationResult, DryRunResult, LintResult, PolicyResult, Proposal},
};

use crate::{
    dryrun, lint, policy,
    settings::{Check, Settings},
};

/// A council has 16 agents at most; somebody else's may have more.
const MOST_PROPOSALS: usize = 64;
const LEFT_OUT: &str = "left out by the configuration";

pub(crate) fn serve(call: Call) -> Result<Vec<u8>, Status> {
    match call.name() {
        "Score" => service::answer(&score(&call.read()?)?),
        "Select" => service::answer(&select(&call.read()?)?),
        _ => Err(Status::unimplemented(&call)),
    }
}

fn score(request: &ScoreRequest) -> Result<ScoreResponse, Status> {
    let count = request.proposals.len();
    if count == 0 || count > MOST_PROPOSALS {
        return Err(Status::invalid_argument(format!(
            "proposals: {count} of them; from 1 to {MOST_PROPOSALS} are judged at a time"
        )));
    }
    let settings = Settings::load()?;
    let judged: Vec<Judged> =
        request.proposals.iter().map(|proposal| judge(request, proposal, &settings)).collect();
    let mut failures = [(Check::Policy, 0), (Check::Lint, 0), (Check::Dryrun, 0)];
    for checks in judged.iter().filter_map(|judged| judged.checks.as_ref()) {
        for (check, failed) in &mut failures {
            *failed += u64::from(!passed(checks, *check));
        }
    }
    for (check, failed) in failures.iter().filter(|(_, failed)| *failed > 0) {
        metrics::add("council_checks_failed", &[("check", check.name())], *failed)?;
    }
    Ok(ScoreResponse { judged })
}

/// The mean of the checks that count, each 1 or 0; without any, all are alike.
fn judge(request: &ScoreRequest, proposal: &Proposal, settings: &Settings) -> Judged {
    let checks = checks(request, proposal, settings);
    let passing = settings.checks.iter().filter(|check| passed(&checks, **check)).count();
    let score = match settings.checks.len() {
        0 => 1.0,
        all => passing as f64 / all as f64,
    };
    Judged { checks: Some(checks), score }
}

fn checks(request: &ScoreRequest, proposal: &Proposal, settings: &Settings) -> CheckSuite {
    let content = proposal.content.as_str();
    let constraints = request.constraints.as_ref();
    let mut suite = if content.len() > settings.max_bytes {
        unread(content.len(), settings.max_bytes)
    } else {
        let of = |check| settings.counts(check);
        CheckSuite {
            policy: of(Check::Policy)
                .then(|| policy::check(content, &request.role, constraints, &settings.rules)),
            lint: of(Check::Lint).then(|| lint::check(content, settings.min_chars)),
            dryrun: of(Check::Dryrun).then(|| dryrun::check(content, constraints, settings.max_tasks)),
            ..CheckSuite::default()
        }
    };
    leave_out(&mut suite, settings);
    suite.all_passed = [Check::Policy, Check::Lint, Check::Dryrun].iter().all(|check| passed(&suite, *check));
    suite
}

/// What does not count passes, and says why: readers of results look at all three.
fn leave_out(suite: &mut CheckSuite, settings: &Settings) {
    if !settings.counts(Check::Policy) {
        suite.policy =
            Some(PolicyResult { passed: true, message: LEFT_OUT.into(), ..PolicyResult::default() });
    }
    if !settings.counts(Check::Lint) {
        suite.lint = Some(LintResult { passed: true, ..LintResult::default() });
    }
    if !settings.counts(Check::Dryrun) {
        suite.dryrun =
            Some(DryRunResult { passed: true, message: LEFT_OUT.into(), ..DryRunResult::default() });
    }
}

/// What is too long is not read at all: a fault behind the part that was read would go unseen.
fn unread(bytes: usize, most: usize) -> CheckSuite {
    let why = format!("the proposal has {bytes} bytes and is not read; at most {most} are (max_bytes)");
    CheckSuite {
        policy: Some(PolicyResult { passed: false, violations: vec![why.clone()], message: why.clone() }),
        lint: Some(LintResult { passed: false, error_count: 1, warning_count: 0, errors: vec![why.clone()] }),
        dryrun: Some(DryRunResult { passed: false, output: String::new(), exit_code: 1, message: why }),
        ..CheckSuite::default()
    }
}

fn passed(checks: &CheckSuite, check: Check) -> bool {
    match check {
        Check::Policy => checks.policy.as_ref().is_some_and(|policy| policy.passed),
        Check::Lint => checks.lint.as_ref().is_some_and(|lint| lint.passed),
        Check::Dryrun => checks.dryrun.as_ref().is_some_and(|dryrun| dryrun.passed),
    }
}

/// The architect's choice: the first whose dry run and lint pass, else the first.
fn select(request: &SelectRequest) -> Result<SelectResponse, Status> {
    if request.results.is_empty() {
        return Err(Status::invalid_argument("results is empty; there is nothing to select from"));
    }
    let fits = |result: &DeliberationResult| {
        let checks = result.checks.as_ref();
        checks.is_some_and(|checks| passed(checks, Check::Dryrun) && passed(checks, Check::Lint))
    };
    let all = request.results.len();
    let (index, why) = match request.results.iter().position(fits) {
        Some(0) => (0, "is the best, and its dry run and lint pass".to_owned()),
        Some(place) => (place, "is the first whose dry run and lint pass".to_owned()),
        None => (0, "is the best, for dry run and lint of none of them pass".to_owned()),
    };
    let author = request.results[index].proposal.as_ref().map_or("", |proposal| proposal.author_id.as_str());
    let reason = format!("number {} of {all}, by {author:?}, {why}", index + 1);
    Ok(SelectResponse { index: u32::try_from(index).unwrap_or_default(), reason })
}
