//! Each check by itself: a proposal that fails it, and thereby does not win.

use fleet_proto::orchestrator::v1::TaskConstraints;

use super::support::{checks, host, passed, request, score};

const GOOD: &str = "We add the login form, then the session.\n\n```sh\ncargo test\n```\n";

const AGAINST_POLICY: &str =
    "We add the login form, then the session.\n\n```sh\ngit push --force origin main\n```\n";
const AGAINST_LINT: &str = "We add the login form, then the session.\n\n```sh\ncargo test\n";
const AGAINST_DRYRUN: &str = "We add the login form, then the session.\n\n```sh\necho \"never closed\n```\n";

/// The place of the first of the best.
fn winner(contents: &[&str]) -> usize {
    let judged = score(&mut host(), &request(contents));
    let best = judged.iter().map(|judged| judged.score).fold(0.0, f64::max);
    judged.iter().position(|judged| judged.score == best).unwrap()
}

#[test]
fn contract_6_checks_a_proposal_that_fails_policy_loses_to_one_that_does_not() {
    assert_eq!(passed(&checks(AGAINST_POLICY)), [false, true, true]);
    assert_eq!((winner(&[GOOD, GOOD]), winner(&[AGAINST_POLICY, GOOD])), (0, 1));
}

#[test]
fn contract_6_checks_a_proposal_that_fails_lint_loses_to_one_that_does_not() {
    assert_eq!(passed(&checks(AGAINST_LINT)), [true, false, true]);
    assert_eq!((winner(&[GOOD, GOOD]), winner(&[AGAINST_LINT, GOOD])), (0, 1));
}

#[test]
fn contract_6_checks_a_proposal_that_fails_the_dry_run_loses_to_one_that_does_not() {
    assert_eq!(passed(&checks(AGAINST_DRYRUN)), [true, true, false]);
    assert_eq!((winner(&[GOOD, GOOD]), winner(&[AGAINST_DRYRUN, GOOD])), (0, 1));
}

#[test]
fn contract_6_checks_each_is_one_or_nothing_and_the_score_is_their_mean() {
    let both = "rm -rf / # TODO\n```\n";
    let request = request(&[GOOD, AGAINST_POLICY, both, "x"]);
    let judged = score(&mut host(), &request);
    let scores: Vec<f64> = judged.iter().map(|judged| (judged.score * 3.0).round()).collect();
    assert_eq!(scores, [3.0, 2.0, 1.0, 2.0]);
    assert!(judged[0].checks.as_ref().unwrap().all_passed && !judged[1].checks.as_ref().unwrap().all_passed);
}

#[test]
fn the_operator_says_which_checks_count() {
    let score_of = |checks: serde_json::Value| {
        let mut host = host().config("checks", checks);
        let judged = score(&mut host, &request(&[AGAINST_POLICY])).remove(0);
        (judged.score, judged.checks.unwrap())
    };
    let (without, checks) = score_of(serde_json::json!(["lint", "dryrun"]));
    assert_eq!((without, passed(&checks), checks.all_passed), (1.0, [true, true, true], true));
    assert_eq!(checks.policy.unwrap().message, "left out by the configuration");
    assert_eq!(score_of(serde_json::json!(["policy"])).0, 0.0);
    assert_eq!(score_of(serde_json::json!([])).0, 1.0);
}

#[test]
fn what_is_too_long_fails_every_check_unread() {
    let long = format!("{GOOD}{}", "a line of it\n".repeat(10_000));
    let checks = checks(&long);
    assert_eq!(passed(&checks), [false, false, false]);
    assert!(checks.policy.unwrap().message.contains("max_bytes"));
    let mut host = host().config("max_bytes", 262_144);
    assert_eq!(score(&mut host, &request(&[&long]))[0].score, 1.0);
}

#[test]
fn the_same_question_has_the_same_answer() {
    let request = fleet_proto::council::v1::ScoreRequest {
        constraints: Some(TaskConstraints {
            requirements: vec!["must mention: tests".into()],
            ..TaskConstraints::default()
        }),
        ..request(&[GOOD, AGAINST_LINT, AGAINST_POLICY])
    };
    assert_eq!(score(&mut host(), &request), score(&mut host(), &request));
}
