//! What is asked and answered: scores, the architect's choice, and requests that are none.

use cofferdam_sdk::{
    Failure,
    rpc::Code,
    testing::{call, event},
};
use fleet_proto::{
    council::v1::SelectRequest,
    orchestrator::v1::{CheckSuite, DeliberationResult, DryRunResult, LintResult, Proposal},
};

use super::support::{ask, host, request, select};

fn result(author: &str, lint: bool, dryrun: bool) -> DeliberationResult {
    DeliberationResult {
        proposal: Some(Proposal { author_id: author.into(), ..Proposal::default() }),
        checks: Some(CheckSuite {
            lint: Some(LintResult { passed: lint, ..LintResult::default() }),
            dryrun: Some(DryRunResult { passed: dryrun, ..DryRunResult::default() }),
            ..CheckSuite::default()
        }),
        ..DeliberationResult::default()
    }
}

#[test]
fn contract_6_architect_takes_the_first_whose_dry_run_and_lint_pass() {
    let some = vec![
        result("a", true, false),
        result("b", false, true),
        result("c", true, true),
        result("d", true, true),
    ];
    let choice = select(some);
    assert_eq!(choice.index, 2);
    assert!(choice.reason.contains("number 3 of 4, by \"c\""), "{}", choice.reason);
    assert_eq!(select(vec![result("a", true, true), result("b", true, true)]).index, 0);
}

#[test]
fn contract_6_architect_takes_the_first_where_none_passes() {
    let choice =
        select(vec![result("a", true, false), result("b", false, true), DeliberationResult::default()]);
    assert_eq!(choice.index, 0);
    assert!(choice.reason.contains("by \"a\""), "{}", choice.reason);
}

#[test]
fn what_can_t_be_judged_is_refused() {
    let none = ask(&mut host(), &request(&[]));
    assert_eq!(none.status().code, Code::InvalidArgument);
    let many = ask(&mut host(), &request(&["a"; 65]));
    assert!(
        many.status().message.contains("65") && many.status().message.contains("64"),
        "{}",
        many.status()
    );
    let method = "cofferdam.council.v1.ScoringService/Select";
    let served = host().serve(crate::serve, call(method, &SelectRequest::default()));
    assert_eq!(served.status().code, Code::InvalidArgument);
}

#[test]
fn failed_checks_are_counted() {
    let served = ask(&mut host(), &request(&["rm -rf /", "x", "A proposal that is fine."]));
    let counted: Vec<(&str, f64)> =
        served.metrics.iter().map(|metric| (metric.labels[0].1.as_str(), metric.value)).collect();
    assert_eq!(counted, [("policy", 1.0), ("lint", 2.0)]);
}

#[test]
fn it_has_no_part_in_events() {
    let run = cofferdam_sdk::testing::Host::new().run(crate::handle, event("x", "{}"));
    assert!(matches!(run.result, Err(Failure::Reject(_))));
}
