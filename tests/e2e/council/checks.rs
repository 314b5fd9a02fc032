//! What fails a check loses, and what the architect makes of it.

use fleet_proto::orchestrator::v1::{CheckSuite, DeliberationResult, OrchestratorOptions};
use harness::plugin::Plugin;
use serde_json::json;

use super::{Hall, Running, THREE, TWO, content, contents, deliberation, orchestration};
use crate::both::on_both_buses;

on_both_buses! {
    contract_6_what_breaks_a_policy_loses,
    contract_6_what_is_badly_formed_loses,
    contract_6_what_can_not_be_carried_out_loses,
    contract_6_the_architect_takes_the_first_whose_dryrun_and_lint_pass,
}

/// Says what must not be said.
const FORBIDDEN: &str =
    "Store each order once, then publish it by `git push --force origin main`, and mail the receipt.";
/// Ends in the middle of a block.
const BROKEN: &str = "Store each order once, as here:\n\n```json\n{\"order\": 1, \"stored\": true}";
/// Two tasks, each of which waits for the other.
const CIRCULAR: &str = "TASK_ID: TASK-001\nTITLE: Store each order once\nROLE: DEVELOPER\nDEPENDS_ON: TASK-002\n\n\
    TASK_ID: TASK-002\nTITLE: Mail the receipt\nROLE: DEVELOPER\nDEPENDS_ON: TASK-001";

fn checks(result: &DeliberationResult) -> &CheckSuite {
    result.checks.as_ref().expect("checks")
}

/// The first agent's proposal is the bad one: it is not the winner, and would be without the check.
async fn loses(hall: Hall, bad: &str, check: &str) -> DeliberationResult {
    let running = hall.open().await;
    let deliberated = async |running: &Running, task_id: &str| {
        let answer = running.client.deliberate(deliberation(task_id, &[bad, TWO, THREE])).await;
        answer.expect("an answer").results
    };
    let results = deliberated(&running, "t").await;
    assert_eq!(contents(&results), [TWO, THREE, bad]);
    assert_eq!((results[0].score, results[1].score), (1.0, 1.0));
    assert!((results[2].score - 2.0 / 3.0).abs() < 1e-9, "{:?}", results[2]);
    assert!(!checks(&results[2]).all_passed);
    let told = running.told_once("t").await;
    assert_eq!((&told["winner_id"], &told["result"]), (&json!("agent-dev-002"), &json!(TWO)));
    drop(running);

    // The same where nobody looks.
    let left: Vec<&str> = ["policy", "lint", "dryrun"].into_iter().filter(|of| *of != check).collect();
    let hall = hall.with(Plugin::bundled("council-scoring").set("checks", left));
    let running = hall.open().await;
    assert_eq!(contents(&deliberated(&running, "blind").await), [bad, TWO, THREE]);
    assert_eq!(running.told_once("blind").await["result"], bad);
    results.into_iter().nth(2).expect("the one that lost")
}

async fn contract_6_what_breaks_a_policy_loses(hall: Hall) {
    let lost = loses(hall, FORBIDDEN, "policy").await;
    let policy = checks(&lost).policy.as_ref().expect("a check");
    assert!(!policy.passed && !policy.violations.is_empty() && !policy.message.is_empty(), "{policy:?}");
}

async fn contract_6_what_is_badly_formed_loses(hall: Hall) {
    let lost = loses(hall, BROKEN, "lint").await;
    let lint = checks(&lost).lint.as_ref().expect("a check");
    assert!(!lint.passed && lint.error_count > 0 && !lint.errors.is_empty(), "{lint:?}");
}

async fn contract_6_what_can_not_be_carried_out_loses(hall: Hall) {
    let lost = loses(hall, CIRCULAR, "dryrun").await;
    let dryrun = checks(&lost).dryrun.as_ref().expect("a check");
    assert!(!dryrun.passed && dryrun.exit_code != 0 && !dryrun.output.is_empty(), "{dryrun:?}");
}

async fn contract_6_the_architect_takes_the_first_whose_dryrun_and_lint_pass(hall: Hall) {
    let running = hall.open().await;
    // Two thirds each: the first of them is rank 1.
    let proposals = [BROKEN, FORBIDDEN, CIRCULAR];
    let answer = running.client.orchestrate(orchestration("t", &proposals)).await.expect("an answer");
    let winner = answer.winner.expect("a winner");
    assert_eq!((content(&winner), winner.rank), (FORBIDDEN, 2));
    assert_eq!(contents(&answer.candidates), [BROKEN, CIRCULAR]);
    assert_eq!(running.told_once("t").await["result"], FORBIDDEN);

    // None of the best passes: it is the first.
    let answer = running.client.orchestrate(orchestration("u", &[BROKEN, CIRCULAR, BROKEN])).await;
    assert_eq!(answer.expect("an answer").winner.expect("a winner").rank, 1);

    // Nor is it another if nobody selects.
    let mut asked = orchestration("v", &proposals);
    asked.options = Some(OrchestratorOptions { enable_peer_review: true, ..Default::default() });
    let answer = running.client.orchestrate(asked).await.expect("an answer");
    assert_eq!(content(&answer.winner.expect("a winner")), BROKEN);
}
