//! The client of the scoring stage, against stages of all kinds.

use cofferdam_sdk::{
    Event, Failure,
    log::Level,
    rpc::{Code, Status},
    testing::{Host, Run, event},
};
use fleet_proto::{
    council::v1::{Judged, ScoreRequest, ScoreResponse, SelectRequest, SelectResponse},
    orchestrator::v1::{
        CheckResult, CheckSuite, DeliberationResult, DryRunResult, LintResult, PolicyResult, Proposal,
    },
};

use super::{Choice, Subject, judge, select};

const SCORE: &str = "cofferdam.council.v1.ScoringService/Score";
const SELECT: &str = "cofferdam.council.v1.ScoringService/Select";

const SUBJECT: Subject<'static> =
    Subject { task_id: "T", task_description: "Build the login.", role: "DEV", constraints: None };

fn proposal(author: &str, content: &str) -> Proposal {
    Proposal { author_id: author.into(), content: content.into(), ..Proposal::default() }
}

fn abc() -> Vec<Proposal> {
    ["a", "b", "c"].iter().map(|author| proposal(author, "x")).collect()
}

/// A host whose stage gives these scores.
fn scores(scores: &[f64]) -> Host {
    let scores = scores.to_vec();
    Host::new().answers("scoring", SCORE, move |_: ScoreRequest| {
        let judged = scores.iter().map(|score| Judged { score: *score, checks: None });
        Ok::<_, Status>(ScoreResponse { judged: judged.collect() })
    })
}

/// What is made of the proposals, and the run that it was made in.
fn judged(mut host: Host, proposals: Vec<Proposal>) -> (Result<Vec<DeliberationResult>, Failure>, Run) {
    let mut outcome = Ok(Vec::new());
    let handler = |_: Event| {
        outcome = judge(&SUBJECT, proposals);
        Ok(())
    };
    let run = host.run(handler, event("x", "{}"));
    (outcome, run)
}

fn selected(mut host: Host, results: &[DeliberationResult]) -> Result<Choice, Failure> {
    let mut outcome = Err(Failure::reject("it did not run"));
    let handler = |_: Event| {
        outcome = select(&SUBJECT, results);
        Ok(())
    };
    host.run(handler, event("x", "{}"));
    outcome
}

fn order(results: &[DeliberationResult]) -> Vec<(&str, i32, f64)> {
    let told = results.iter().map(|result| {
        (result.proposal.as_ref().map_or("", |proposal| &proposal.author_id), result.rank, result.score)
    });
    told.collect()
}

#[track_caller]
fn fails(host: Host, again: bool, words: &str) {
    let failure = judged(host, abc()).0.unwrap_err();
    assert_eq!(matches!(failure, Failure::Retry { .. }), again, "{failure}");
    assert!(failure.to_string().contains(words), "{words:?} is not in {failure}");
}

#[test]
fn contract_6_scores_descend_ranks_count_from_1_and_equal_ones_keep_their_order() {
    let results = judged(scores(&[0.5, 1.0, 0.5]), abc()).0.unwrap();
    assert_eq!(order(&results), [("b", 1, 1.0), ("a", 2, 0.5), ("c", 3, 0.5)]);
}

#[test]
fn without_proposals_nobody_is_asked() {
    let (outcome, run) = judged(scores(&[]), Vec::new());
    assert!(outcome.unwrap().is_empty() && run.calls.is_empty());
    assert!(matches!(selected(Host::new(), &[]), Err(Failure::Reject(_))));
}

#[test]
fn scores_out_of_bounds_count_as_the_nearest() {
    let (outcome, run) = judged(scores(&[-3.0, 7.0, -0.0]), abc());
    assert_eq!(order(&outcome.unwrap()), [("b", 1, 1.0), ("a", 2, 0.0), ("c", 3, 0.0)]);
    assert_eq!(run.logged(Level::Warn).len(), 2);
}

#[test]
fn a_stage_that_talks_nonsense_is_asked_again() {
    fails(scores(&[1.0, 1.0]), true, "judged 2 of 3 proposals");
    fails(scores(&[1.0; 4]), true, "judged 4 of 3 proposals");
    fails(scores(&[1.0, f64::NAN, 1.0]), true, "scored the proposal of b with NaN");
    fails(scores(&[f64::INFINITY, 1.0, 1.0]), true, "with inf");
}

#[test]
fn a_stage_that_is_away_is_asked_again_and_one_that_refuses_is_not() {
    let status = |code| Host::new().fails("scoring", SCORE, code, "as the test has it");
    fails(status(Code::Unavailable), true, "UNAVAILABLE");
    fails(status(Code::Unimplemented), true, "UNIMPLEMENTED");
    fails(status(Code::InvalidArgument), false, "INVALID_ARGUMENT");
}

#[test]
fn a_stage_that_is_not_there_is_told_with_upstream_call_and_remedy() {
    let told = |code| {
        let host = Host::new().fails("scoring", SCORE, code, "as the test has it");
        judged(host, abc()).0.unwrap_err().to_string()
    };
    let remedy = "see to it that [upstreams.scoring] address leads to a gRPC server that serves \
                  cofferdam.council.v1.ScoringService, or is \"self\" and a plugin here serves it";
    for code in [Code::Unavailable, Code::Unimplemented, Code::Unknown, Code::Internal] {
        let told = told(code);
        let call = format!("upstream \"scoring\", {SCORE}: {code}: as the test has it; ");
        assert!(told.contains(&call) && told.contains(remedy), "{told}");
    }
    let refused = told(Code::InvalidArgument);
    assert!(refused.contains(SCORE) && !refused.contains("[upstreams"), "{refused}");
}

#[test]
fn earlier_texts_stay_behind_where_they_are_too_much_and_come_back() {
    let host = || {
        Host::new().answers("scoring", SCORE, |request: ScoreRequest| {
            let sent: usize = request.proposals.iter().map(prost::Message::encoded_len).sum();
            assert!(sent < 800 << 10, "{sent}");
            let judged = request.proposals.iter().map(|proposal| Judged {
                score: if proposal.revisions.is_empty() { 0.0 } else { 1.0 },
                checks: None,
            });
            Ok::<_, Status>(ScoreResponse { judged: judged.collect() })
        })
    };
    let with = |content: usize, revision: usize| {
        let proposal =
            Proposal { revisions: vec!["r".repeat(revision)], ..proposal("a", &"é".repeat(content / 2)) };
        judged(host(), vec![proposal.clone(), proposal]).0.unwrap().remove(0)
    };
    let (small, large, huge) = (with(10, 10), with(10, 500_000), with(600_000, 10));
    assert_eq!((small.score, large.score, huge.score), (1.0, 0.0, 0.0));
    let kept = [&large, &huge].map(|result| result.proposal.as_ref().unwrap());
    assert_eq!((kept[0].revisions[0].len(), kept[1].content.len()), (500_000, 600_000));
}

#[test]
fn a_stage_of_many_words_is_cut_short() {
    let host = Host::new().answers("scoring", SCORE, |_: ScoreRequest| {
        let words = || "wörter ".repeat(100_000);
        let check = CheckResult {
            check_type: words(),
            message: words(),
            score: f64::NAN,
            details: (0..1_000).map(|n| (format!("{n}"), "x".repeat(1_000))).collect(),
            ..CheckResult::default()
        };
        let checks = CheckSuite {
            policy: Some(PolicyResult { violations: vec![words(); 3], message: words(), passed: true }),
            lint: Some(LintResult {
                errors: vec!["e".into(); 10_000],
                error_count: 10_000,
                ..LintResult::default()
            }),
            dryrun: Some(DryRunResult { output: words(), message: words(), ..DryRunResult::default() }),
            additional_checks: vec![check; 3],
            all_passed: true,
        };
        Ok::<_, Status>(ScoreResponse { judged: vec![Judged { score: 1.0, checks: Some(checks) }] })
    });
    let result = judged(host, vec![proposal("a", "x")]).0.unwrap().remove(0);
    let checks = result.checks.unwrap();
    assert!(prost::Message::encoded_len(&checks) < 12 << 10, "{}", prost::Message::encoded_len(&checks));
    assert_eq!((checks.lint.as_ref().unwrap().error_count, checks.all_passed), (10_000, true));
    assert!(checks.policy.unwrap().message.ends_with('…'));
    assert_eq!(checks.additional_checks[0].score, 0.0);
}

#[test]
fn the_architects_choice_is_one_of_those_that_were_offered() {
    let choosing = |index: u32| {
        Host::new().answers("scoring", SELECT, move |request: SelectRequest| {
            assert_eq!((request.task_id.as_str(), request.results.len()), ("T", 2));
            Ok::<_, Status>(SelectResponse { index, reason: "r".repeat(9_000) })
        })
    };
    let results = [DeliberationResult::default(), DeliberationResult::default()];
    let choice = selected(choosing(1), &results).unwrap();
    assert!(choice.index == 1 && choice.reason.len() < 2_100);
    let failure = selected(choosing(2), &results).unwrap_err();
    assert!(
        matches!(&failure, Failure::Retry { reason, .. } if reason.contains("selected number 2 of 2")),
        "{failure}"
    );
}
