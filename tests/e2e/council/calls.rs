//! What a gateway calls: to deliberate, to orchestrate, and to look after councils.

use fleet_proto::orchestrator::v1::{
    CouncilConfig, CouncilInfo, CreateCouncilRequest, DeliberateRequest, DeliberationStatus,
    GetStatusRequest, OrchestratorOptions,
};
use harness::wait::wait_for;
use serde_json::json;
use tonic::Code;

use super::{Hall, ONE, THREE, TWO, author, content, contents, deliberation, orchestration, task};
use crate::both::on_both_buses;

on_both_buses! {
    contract_6_a_council_proposes_reviews_revises_and_is_ranked,
    contract_6_each_round_reviews_the_next_agents_proposal_and_keeps_what_was_revised,
    contract_6_an_agent_that_fails_drops_out_and_none_left_is_an_error,
    contract_6_orchestrate_gives_a_winner_and_the_others_without_it,
    contract_6_an_empty_role_or_task_is_invalid_and_a_role_without_council_is_not_found,
    contract_3_councils_are_created_listed_and_taken_back,
    a_repeat_with_its_key_is_the_same_deliberation,
}

async fn contract_6_a_council_proposes_reviews_revises_and_is_ranked(hall: Hall) {
    let running = hall.open().await;
    let answer = running.client.deliberate(deliberation("t", &[ONE, TWO, THREE])).await.expect("an answer");
    assert_eq!(answer.task_id, "t");
    assert_eq!(hall.asked().await, 3 * (1 + 2), "three propose, review and revise");
    // All pass, so that they keep the order of the council.
    assert_eq!(contents(&answer.results), [ONE, TWO, THREE]);
    let authors: Vec<&str> = answer.results.iter().map(author).collect();
    assert_eq!(authors, ["agent-dev-001", "agent-dev-002", "agent-dev-003"]);
    assert_eq!(answer.winner_id, authors[0]);
    for (rank, result) in (1..).zip(&answer.results) {
        assert_eq!((result.rank, result.score), (rank, 1.0), "{result:?}");
        let checks = result.checks.as_ref().expect("checks");
        assert!(checks.all_passed, "{checks:?}");
        let proposal = result.proposal.as_ref().expect("a proposal");
        assert_eq!(proposal.author_role, "DEV");
        assert!(proposal.created_at_ms > 1_700_000_000_000, "{proposal:?}");
    }
    let metadata = answer.metadata.expect("metadata");
    assert!(!metadata.execution_id.is_empty() && metadata.timestamp_ms > 1_700_000_000_000, "{metadata:?}");

    let told = running.told_once("t").await;
    assert_eq!((&told["status"], &told["winner_id"]), (&json!("completed"), &json!(authors[0])));
    assert_eq!(told["result"], content(&answer.results[0]));
    assert_eq!(told["decisions"][0]["id"], "DEC-t");
    assert_eq!(told["decisions"][0]["type"], "TECHNICAL");
    assert_eq!((&told["total_agents"], &told["failed_responses"]), (&json!(3), &json!(0)));
    let kept = running.client.kept("t").await;
    assert_eq!(kept.status(), DeliberationStatus::Completed);
    assert_eq!((kept.winner_id.as_str(), &kept.results), (authors[0], &answer.results));
    running.no_dead_letters().await;
}

async fn contract_6_each_round_reviews_the_next_agents_proposal_and_keeps_what_was_revised(hall: Hall) {
    let running = hall.open().await;
    let revisions: Vec<String> = (1..=4).map(|n| format!("{TWO} This is revision {n}.")).collect();
    let asked = DeliberateRequest {
        task_description: format!("{}\n!revisions {}", task(&[ONE]), json!(revisions)),
        rounds: 2,
        num_agents: 2,
        ..deliberation("t", &[])
    };
    let answer = running.client.deliberate(asked).await.expect("an answer");
    assert_eq!(hall.asked().await, 2 * (1 + 2 * 2));
    for result in &answer.results {
        let proposal = result.proposal.as_ref().expect("a proposal");
        // What was there before, oldest first.
        assert_eq!(proposal.revisions.len(), 2, "{proposal:?}");
        assert_eq!(proposal.revisions[0], ONE);
        assert!(revisions[..2].contains(&proposal.revisions[1]), "{proposal:?}");
        assert!(revisions[2..].contains(&proposal.content), "{proposal:?}");
    }
}

async fn contract_6_an_agent_that_fails_drops_out_and_none_left_is_an_error(hall: Hall) {
    let running = hall.open().await;
    let answer =
        running.client.deliberate(deliberation("t", &[ONE, "!500", THREE])).await.expect("an answer");
    assert_eq!(contents(&answer.results), [ONE, THREE]);
    // Two of three were left to review and to revise.
    assert_eq!(hall.asked().await, 3 + 2 * 2);
    let told = running.told_once("t").await;
    assert_eq!((&told["successful_responses"], &told["failed_responses"]), (&json!(2), &json!(1)));
    assert_eq!(told["failed_agents"].as_array().map(Vec::len), Some(1), "{told}");

    // One that fails to review or to revise leaves the proposal as it is.
    let stubborn = DeliberateRequest {
        task_description: format!("{}\n!reviews [\"!500\"]\n!revisions [\"!500\"]", task(&[TWO])),
        ..deliberation("u", &[])
    };
    let answer = running.client.deliberate(stubborn).await.expect("an answer");
    assert_eq!(contents(&answer.results), [TWO; 3]);

    let refused = running.client.deliberate(deliberation("v", &["!500"])).await.expect_err("nobody is left");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("server_error"), "{refused}");
    running.client.keeps_nothing_of("v").await;
}

async fn contract_6_orchestrate_gives_a_winner_and_the_others_without_it(hall: Hall) {
    let running = hall.open().await;
    let answer = running.client.orchestrate(orchestration("t", &[ONE, TWO, THREE])).await.expect("an answer");
    let winner = answer.winner.as_ref().expect("a winner");
    assert_eq!((winner.rank, author(winner)), (1, "agent-dev-001"));
    let others: Vec<&str> = answer.candidates.iter().map(author).collect();
    assert_eq!(others, ["agent-dev-002", "agent-dev-003"]);
    assert!(!answer.execution_id.is_empty());
    let told = running.told_once("t").await;
    assert_eq!((&told["story_id"], &told["winner_id"]), (&json!("S"), &json!("agent-dev-001")));

    // Options that switch on selection alone are without review.
    let before = hall.asked().await;
    let mut plain = orchestration("u", &[ONE, TWO, THREE]);
    plain.options =
        Some(OrchestratorOptions { enable_architect_selection: true, ..OrchestratorOptions::default() });
    let answer = running.client.orchestrate(plain).await.expect("an answer");
    assert_eq!(hall.asked().await - before, 3);
    assert_eq!(answer.winner.expect("a winner").rank, 1);
    assert_eq!(running.client.kept("u").await.winner_id, "agent-dev-001");
}

async fn contract_6_an_empty_role_or_task_is_invalid_and_a_role_without_council_is_not_found(hall: Hall) {
    let running = hall.open().await;
    let asked = || deliberation("t", &[ONE]);
    for (wrong, code, names) in [
        (DeliberateRequest { role: " ".into(), ..asked() }, Code::InvalidArgument, "role"),
        (
            DeliberateRequest { task_description: String::new(), ..asked() },
            Code::InvalidArgument,
            "task_description",
        ),
        (DeliberateRequest { task_id: String::new(), ..asked() }, Code::InvalidArgument, "task_id"),
        (DeliberateRequest { num_agents: 17, ..asked() }, Code::InvalidArgument, "17"),
        (DeliberateRequest { num_agents: -1, ..asked() }, Code::InvalidArgument, "-1"),
        (DeliberateRequest { num_agents: 16, rounds: 8, ..asked() }, Code::InvalidArgument, "256"),
        (DeliberateRequest { role: "PO".into(), ..asked() }, Code::NotFound, "DEV"),
        (DeliberateRequest { role: "plumber".into(), ..asked() }, Code::NotFound, "DEV"),
    ] {
        let refused = running.client.deliberate(wrong.clone()).await.expect_err("a refusal");
        assert_eq!(refused.code(), code, "{wrong:?}: {refused}");
        assert!(refused.message().contains(names), "{wrong:?}: {refused}");
    }
    let mut nobody = orchestration("t", &[ONE]);
    nobody.role = "PO".into();
    assert_eq!(running.client.orchestrate(nobody).await.expect_err("no council").code(), Code::NotFound);
    assert_eq!(hall.asked().await, 0);
    // Every alias of a role is the role.
    let answer = running.client.deliberate(DeliberateRequest { role: "developer".into(), ..asked() }).await;
    assert_eq!(answer.expect("an answer").results[0].proposal.as_ref().expect("one").author_role, "DEV");
    running.told_once("t").await;
}

async fn contract_3_councils_are_created_listed_and_taken_back(hall: Hall) {
    let mut running = hall.open().await;
    let roles = |councils: Vec<_>| {
        let councils: Vec<CouncilInfo> = councils;
        let mut roles: Vec<String> = councils.into_iter().map(|council| council.role).collect();
        roles.sort();
        roles.join(" ")
    };
    assert_eq!(roles(running.client.councils("").await), "ARCHITECT DATA DEV DEVOPS QA");
    let mock = |role: &str, num_agents| CreateCouncilRequest {
        role: role.into(),
        num_agents,
        config: Some(CouncilConfig { agent_type: "MOCK".into(), ..Default::default() }),
    };
    let created = running.client.create(mock("po", 2)).await.expect("a council");
    assert_eq!((created.council_id.as_str(), created.agents_created), ("council-po", 2));
    assert_eq!(created.agent_ids, ["agent-po-001", "agent-po-002"]);
    let twice = running.client.create(mock("PO", 2)).await.expect_err("there is one");
    assert_eq!(twice.code(), Code::AlreadyExists, "{twice}");
    for wrong in [-1, 17] {
        let refused = running.client.create(mock("QA", wrong)).await.expect_err("a refusal");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    // It is kept, and asks no model.
    running = hall.again(running).await;
    let [po] = &running.client.councils("product_owner").await[..] else { panic!("one council") };
    assert_eq!((po.role.as_str(), po.num_agents, po.agents.len()), ("PO", 2, 2));
    let answer =
        running.client.deliberate(DeliberateRequest { role: "PO".into(), ..deliberation("t", &[]) }).await;
    let authors: Vec<String> =
        answer.expect("an answer").results.iter().map(|r| author(r).to_owned()).collect();
    assert_eq!(authors, created.agent_ids);
    assert_eq!(hall.asked().await, 0);
    running.client.delete("PO").await.expect("it is taken back");
    assert_eq!(running.client.delete("PO").await.expect_err("it is gone").code(), Code::NotFound);
    let gone = DeliberateRequest { role: "PO".into(), ..deliberation("u", &[]) };
    assert_eq!(running.client.deliberate(gone).await.expect_err("no council").code(), Code::NotFound);

    // It is counted a moment later.
    wait_for("the figures", async || {
        let status = running.client.0.clone().get_status(GetStatusRequest { include_stats: true }).await;
        let status = status.expect("a status").into_inner();
        assert_eq!(status.status, "healthy");
        (status.stats.expect("figures").total_deliberations == 1).then_some(())
    })
    .await;
}

async fn a_repeat_with_its_key_is_the_same_deliberation(hall: Hall) {
    let mut running = hall.open().await;
    let asked = || deliberation("t", &[ONE, TWO, THREE]);
    let first = running.client.deliberate_with("k", asked()).await.expect("an answer");
    running = hall.again(running).await;
    let again = running.client.deliberate_with("k", asked()).await.expect("an answer");
    assert_eq!(first, again);
    assert_eq!(hall.asked().await, 9);
    running.told_once("t").await;
}
