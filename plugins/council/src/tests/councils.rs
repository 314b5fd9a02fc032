//! Councils that callers create, and what is told of all.

use cofferdam_sdk::{
    rpc::Code,
    testing::{EPOCH, Host, Served, call},
};
use fleet_proto::orchestrator::v1::{
    CouncilConfig, CreateCouncilRequest, CreateCouncilResponse, DeleteCouncilRequest, DeleteCouncilResponse,
    DeliberateRequest, GetStatusRequest, GetStatusResponse, ListCouncilsRequest, ListCouncilsResponse,
};

use super::support::*;

fn create(host: &mut Host, role: &str, agents: i32, config: Option<CouncilConfig>) -> Served {
    serve(host, "CreateCouncil", &CreateCouncilRequest { role: role.into(), num_agents: agents, config }, "")
}

fn list(host: &mut Host, filter: &str, agents: bool) -> ListCouncilsResponse {
    let request = ListCouncilsRequest { role_filter: filter.into(), include_agents: agents };
    serve(host, "ListCouncils", &request, "").read()
}

fn delete(host: &mut Host, role: &str) -> Served {
    serve(host, "DeleteCouncil", &DeleteCouncilRequest { role: role.into() }, "")
}

fn mock() -> Option<CouncilConfig> {
    Some(CouncilConfig { agent_type: "mock".into(), enable_peer_review: true, ..CouncilConfig::default() })
}

#[test]
fn contract_3_orchestrator_a_council_is_created_with_its_agents() {
    let mut host = host();
    let created: CreateCouncilResponse = create(&mut host, "product_owner", 0, None).read();
    assert_eq!((created.council_id.as_str(), created.agents_created), ("council-po", 3));
    assert_eq!(created.agent_ids, ["agent-po-001", "agent-po-002", "agent-po-003"]);
    let answer = deliberated(&mut host, &DeliberateRequest { role: "PO".into(), ..request() });
    assert_eq!(answer.winner_id, "agent-po-001");
}

#[test]
fn a_created_council_has_as_many_rounds_as_all_unless_it_says_so() {
    for (config, expected) in [
        (CouncilConfig { agent_type: "VLLM".into(), ..CouncilConfig::default() }, [3, 6, 6]),
        (CouncilConfig { enable_peer_review: true, ..CouncilConfig::default() }, [3, 3, 3]),
        (CouncilConfig { deliberation_rounds: 3, ..CouncilConfig::default() }, [3, 9, 9]),
    ] {
        let mut host = host().config("rounds", 2);
        create(&mut host, "DEV", 3, Some(config));
        assert_eq!(steps(&orchestrate(&mut host, &orchestration())), expected);
    }
}

#[test]
fn a_created_council_goes_before_the_configured_one() {
    let mut host = host();
    let config = CouncilConfig {
        model_profile: "large".into(),
        deliberation_rounds: 2,
        custom_params: [
            ("temperature".to_owned(), "0".to_owned()),
            ("max_tokens".to_owned(), "50".to_owned()),
        ]
        .into(),
        ..CouncilConfig::default()
    };
    create(&mut host, "dev", 2, Some(config));
    let served = orchestrate(&mut host, &orchestration());
    assert_eq!(steps(&served), [2, 4, 4]);
    let asked = &served.inferences[0];
    assert_eq!(
        (asked.model.as_deref(), asked.sampling.max_tokens, asked.sampling.temperature),
        (Some("large"), Some(50), Some(0.0))
    );
    assert_eq!(list(&mut host, "developer", false).councils[0].model, "large");
    let removed: DeleteCouncilResponse = delete(&mut host, "DEV").read();
    assert!(removed.success && removed.agents_removed == 2 && removed.message.contains("configuration"));
    assert_eq!(steps(&deliberate(&mut host, &request())), [3, 3, 3]);
}

#[test]
fn a_role_has_one_created_council_at_a_time() {
    let mut host = host();
    create(&mut host, "PO", 1, None);
    is(&create(&mut host, "po", 1, None), Code::AlreadyExists, "DeleteCouncil");
    let removed: DeleteCouncilResponse = delete(&mut host, "po").read();
    assert!(removed.success && removed.message.contains("gone"));
    is(&delete(&mut host, "po"), Code::NotFound, "PO");
    let kept: DeleteCouncilResponse = delete(&mut host, "qa").read();
    assert!(!kept.success && kept.message.contains("configuration") && kept.agents_removed == 0);
    assert!(create(&mut host, "po", 1, None).answer.is_ok());
}

#[test]
fn what_a_council_can_not_have_is_refused() {
    let mut host = host();
    let config = |change: fn(&mut CouncilConfig)| {
        let mut config = CouncilConfig::default();
        change(&mut config);
        Some(config)
    };
    for (role, agents, config, words) in [
        ("", 3, None, "role is empty"),
        ("a/b", 3, None, "no name of a role"),
        (&*"x".repeat(65), 3, None, "no name of a role"),
        ("PO", -1, None, "num_agents is -1"),
        ("PO", 17, None, "17 agents"),
        ("PO", 3, config(|config| config.agent_type = "ROBOT".into()), "MOCK, VLLM and RAY_VLLM"),
        ("PO", 3, config(|config| config.deliberation_rounds = -1), "deliberation_rounds is -1"),
        ("PO", 16, config(|config| config.deliberation_rounds = 8), "here it is 272"),
        ("PO", 3, config(|config| config.model_profile = "m".repeat(600)), "model_profile has 600"),
        (
            "PO",
            3,
            config(|config| drop(config.custom_params.insert("temperature".into(), "hot".into()))),
            "\"hot\"",
        ),
        (
            "PO",
            3,
            config(|config| drop(config.custom_params.insert("max_tokens".into(), "0".into()))),
            "\"0\"",
        ),
    ] {
        is(&create(&mut host, role, agents, config), Code::InvalidArgument, words);
    }
    assert_eq!(list(&mut host, "", false).councils.len(), 5);
}

#[test]
fn contract_3_orchestrator_a_mock_council_answers_without_a_model() {
    let mut host = bare();
    create(&mut host, "DEV", 2, mock());
    let served = deliberate(&mut host, &request());
    assert!(served.inferences.is_empty());
    let answer: fleet_proto::orchestrator::v1::DeliberateResponse = served.read();
    assert_eq!(authors(&answer.results), ["agent-dev-001", "agent-dev-002"]);
    let first = answer.results[0].proposal.as_ref().unwrap();
    assert!(first.content.contains("Build the login.") && first.content.contains("Revised by agent-dev-001"));
    assert!(first.content.contains("must mention: tests") && first.revisions.len() == 1);
    assert_eq!(list(&mut host, "DEV", false).councils[0].model, "mock");
    let again = deliberated(&mut host, &request());
    assert_eq!(content(&again.results[0]), content(&answer.results[0]));
}

#[test]
fn contract_3_orchestrator_councils_are_listed_with_their_agents_if_asked() {
    let mut host = host().config("councils", serde_json::json!(["qa", "developer"]));
    create(&mut host, "PO", 2, None);
    let all = list(&mut host, "", false);
    let roles: Vec<&str> = all.councils.iter().map(|council| council.role.as_str()).collect();
    assert_eq!(roles, ["DEV", "PO", "QA"]);
    assert!(all.councils.iter().all(|council| council.agents.is_empty() && council.status == "active"));
    let one = &list(&mut host, "po", true).councils[0];
    assert_eq!((one.council_id.as_str(), one.num_agents, one.model.as_str()), ("council-po", 2, "default"));
    assert_eq!(one.agents[1].agent_id, "agent-po-002");
    assert_eq!((one.agents[1].role.as_str(), one.agents[1].status.as_str()), ("PO", "ready"));
    assert!(list(&mut host, "nobody", true).councils.is_empty());
}

fn status(host: &mut Host, include_stats: bool) -> GetStatusResponse {
    serve(host, "GetStatus", &GetStatusRequest { include_stats }, "").read()
}

#[test]
fn contract_3_orchestrator_the_status_counts_what_was_deliberated() {
    let mut host = host();
    let fresh = status(&mut host, true);
    assert_eq!((fresh.status.as_str(), fresh.uptime_seconds), ("healthy", 0));
    let stats = fresh.stats.unwrap();
    assert_eq!((stats.total_deliberations, stats.active_councils, stats.role_counts["DEV"]), (0, 5, 3));
    for served in [deliberate(&mut host, &request()), orchestrate(&mut host, &orchestration())] {
        for ended in served.on(ENDED) {
            assert_eq!(run(&mut host, ENDED, ended).result, Ok(()));
        }
    }
    settle(&mut host, READY, ready("Q"));
    let known = status(&mut host, true);
    let stats = known.stats.unwrap();
    assert_eq!((stats.total_deliberations, stats.total_orchestrations), (3, 2));
    assert!(known.uptime_seconds > 0);
    assert_eq!(status(&mut host, false).stats, None);
}

#[test]
fn a_plugin_is_up_since_its_first_council() {
    let mut host = host();
    create(&mut host, "PO", 1, None);
    let mut later = call(
        "fleet.orchestrator.v1.OrchestratorService/GetStatus",
        &GetStatusRequest { include_stats: false },
    );
    later.call.timestamp = EPOCH + 3_600_000 * 1_000_000_000;
    let up: GetStatusResponse = host.serve(crate::serve::serve, later).read();
    assert!((1..=3_600_000).contains(&up.uptime_seconds), "{}", up.uptime_seconds);
}
