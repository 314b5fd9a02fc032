//! The offline executor on its bad days: whatever its answers look like, a derivation reads tasks in them or says by name what
//! is wrong and asks again, and ends. What it says in councils is sound, on its good days.

use std::collections::{BTreeMap, BTreeSet};

use fleet_proto::{
    bus::v1::StoredMessage,
    orchestrator::v1::{
        DeliberateRequest, TaskConstraints, orchestrator_service_client::OrchestratorServiceClient,
    },
};
use harness::{
    daemon::Daemon,
    pipeline::{bundled, derivation_on},
    planning::Planning,
    plugin::Plugin,
    setup::Setup,
    wait::wait_for,
    way_in::body,
};
use serde_json::{Value, json};

const APPROVED: &str = "planning.plan.approved";
const ANSWERED: &str = "agent.response.completed";
const PARSED: &str = "cofferdam.derivation.parsed";
const REJECTED: &str = "cofferdam.derivation.rejected";
const COMPLETED: &str = "task.derivation.completed";
const FAILED: &str = "task.derivation.failed";
/// Enough for each kind of mess to come up.
const PLANS: usize = 40;

async fn payloads(daemon: &Daemon, subject: &str) -> Vec<Value> {
    daemon
        .stored(subject)
        .await
        .iter()
        .map(|stored: &StoredMessage| body(stored)["payload"].clone())
        .collect()
}

fn plans(payloads: &[Value]) -> BTreeSet<&str> {
    payloads.iter().filter_map(|payload| payload["plan_id"].as_str()).collect()
}

async fn answers(seed: u32) -> (Vec<String>, BTreeMap<String, usize>) {
    let planning = Planning::start().await;
    let mut daemon = derivation_on(Setup::local(), &planning.address, &planning.address)
        .with("executor.backend", "offline")
        .with("executor.offline.messy", 100)
        .with("executor.offline.seed", seed)
        .start()
        .await;
    for n in 0..PLANS {
        daemon.publish(APPROVED, json!({ "plan_id": format!("p-{n}") })).await;
    }
    wait_for("all derivations to end", async || {
        let ended = daemon.stored(COMPLETED).await.len() + daemon.stored(FAILED).await.len();
        (ended >= PLANS).then_some(())
    })
    .await;
    let (completed, failed) = (payloads(&daemon, COMPLETED).await, payloads(&daemon, FAILED).await);
    assert_eq!(completed.len() + failed.len(), PLANS, "each ends once");
    assert_eq!(plans(&completed).union(&plans(&failed)).count(), PLANS);
    // Each answer was read, or refused by name; nothing else became of it.
    let (answered, parsed) = (payloads(&daemon, ANSWERED).await, payloads(&daemon, PARSED).await);
    let rejected = payloads(&daemon, REJECTED).await;
    assert_eq!(answered.len(), parsed.len() + rejected.len());
    let mut kinds = BTreeMap::new();
    for payload in &rejected {
        let kind = payload["kind"].as_str().expect("a kind").to_owned();
        assert!(
            ["no_tasks", "truncated_json", "too_many_tasks", "circular_dependency"].contains(&kind.as_str()),
            "{payload}"
        );
        *kinds.entry(kind).or_default() += 1;
    }
    for payload in &parsed {
        let titles = payload["tasks"].to_string();
        assert!(!titles.contains("A thought that is no task"), "{titles}");
    }
    assert!(answered.iter().all(|answer| answer["proposal"]["model"] == "cofferdam-offline"));
    let texts = answered
        .iter()
        .filter_map(|answer| answer["proposal"]["content"].as_str().map(str::to_owned))
        .collect();
    daemon.stop().await;
    (texts, kinds)
}

#[tokio::test]
async fn messy_answers_become_tasks_or_a_named_rejection_and_every_derivation_ends() {
    let (texts, kinds) = answers(7).await;
    let shows = |part: &str| texts.iter().any(|text| text.contains(part));
    for part in [
        "```",
        "</think>",
        "**TITLE:**",
        "\ntitle: ",
        "1. TASK_ID:",
        "\n---\n",
        "\"title\": ",
        "\r\n",
        "rule-based stand-in",
    ] {
        assert!(shows(part), "no answer with {part:?}");
    }
    assert!(kinds.contains_key("no_tasks") || kinds.contains_key("truncated_json"), "{kinds:?}");
}

const ASKED: &str = "cofferdam.asked";
const TOLD: &str = "cofferdam.told";

/// A daemon with a plugin that asks models, which the stand-in answers.
async fn asking(messy: u32) -> Daemon {
    let asker = Plugin::fixture("infer").on(ASKED, "").may("executor", &["default"]).reports_to(TOLD);
    Setup::local()
        .with("executor.backend", "offline")
        .with("executor.offline.messy", messy)
        .plugin(asker)
        .start()
        .await
}

/// What three members of a council, each with its own words of the system, answer to this prompt.
async fn council(daemon: &Daemon, prompt: &str, turn: usize) -> Vec<String> {
    let member = |n| json!({ "prompt": prompt, "system": format!("You are member {n}."), "seed": n });
    daemon.publish(ASKED, json!({ "ask": [member(1), member(2), member(3)] })).await;
    let told = daemon.wait_stored(TOLD, turn).await;
    let answers = body(&told[turn - 1])["answers"].clone();
    let answers = answers.as_array().expect("answers").iter();
    answers.map(|answer| answer["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()).collect()
}

const TASK: &str = "TASK: T-7\nROLE: DEV\n--- task ---\nKeep the cart for a day. It outlives a restart of the shop\n--- end ---\n\
    REQUIREMENTS:\n- must mention: session store\n- must not mention: Redis\n";

#[tokio::test]
async fn members_of_a_council_propose_review_and_revise() {
    let mut daemon = asking(0).await;
    let proposals = council(&daemon, &format!("Wanted: a proposal\n{TASK}"), 1).await;
    assert_eq!(proposals.iter().collect::<BTreeSet<_>>().len(), 3, "they differ: {proposals:?}");
    for proposal in &proposals {
        for part in [
            "# Keep the cart for a day (T-7)",
            "It outlives a restart",
            "session store",
            "rule-based stand-in",
        ] {
            assert!(proposal.contains(part), "{part}: {proposal}");
        }
        assert!(!proposal.contains("TODO") && !proposal.to_lowercase().contains("redis"), "{proposal}");
    }
    let proposed = format!("{TASK}--- proposal ---\n{}--- end ---\n", proposals[0]);
    let reviews = council(&daemon, &format!("Wanted: a review\n{proposed}"), 2).await;
    assert!(reviews.iter().all(|review| review.contains("To be improved:\n- ")), "{reviews:?}");
    let reviewed = format!("{proposed}--- review ---\n{}--- end ---\n", reviews[0]);
    let revisions = council(&daemon, &format!("Wanted: a revision\n{reviewed}"), 3).await;
    for revision in &revisions {
        assert!(revision.starts_with(proposals[0].trim_end()), "what was good stays: {revision}");
        assert!(revision.contains("## Changed after the review"), "{revision}");
    }
    // The same is answered the same.
    assert_eq!(council(&daemon, &format!("Wanted: a proposal\n{TASK}"), 4).await, proposals);
    daemon.stop().await;
}

#[tokio::test]
async fn members_of_a_council_have_bad_days_too() {
    let mut daemon = asking(100).await;
    let mut all = Vec::new();
    for turn in 1..=12 {
        all.extend(council(&daemon, &format!("Wanted: a proposal\n{TASK}It is the {turn}th\n"), turn).await);
    }
    let shows = |part: &str| all.iter().any(|text| text.contains(part));
    for part in ["```", "</think>", "\r\n", "rule-based stand-in"] {
        assert!(shows(part), "no answer with {part:?}");
    }
    assert!(!shows("TITLE:") && !shows("Here is the plan"), "what is said of plans is not said here");
    daemon.stop().await;
}

/// Council and checks as they are, over the daemon itself.
#[tokio::test]
async fn what_a_council_says_by_rules_passes_the_checks() {
    let planning = Planning::start().await;
    let mut daemon = Setup::local()
        .upstream("planning", &planning.address)
        .with("grpc.listen", vec!["127.0.0.1:0"])
        .with("upstreams.scoring.address", "self")
        .with("executor.backend", "offline")
        .plugin(bundled("council"))
        .plugin(Plugin::bundled("council-scoring"))
        .start()
        .await;
    let mut client =
        OrchestratorServiceClient::connect(format!("http://{}", daemon.grpc())).await.expect("a connection");
    let requirements =
        ["must mention: session store", "must not mention: Redis", "at most 400 words", "It is quick"];
    for (n, role) in ["DEV", "QA", "ARCHITECT", "DEVOPS", "DATA"].into_iter().enumerate() {
        let request = DeliberateRequest {
            task_id: format!("T-{n}"),
            task_description: format!(
                "Keep the cart of customer {n} for a day. TODO: find out who else needs it.\n- tests"
            ),
            role: role.to_owned(),
            rounds: 2,
            num_agents: 4,
            constraints: Some(TaskConstraints {
                rubric: "It holds under load.".to_owned(),
                requirements: requirements.map(str::to_owned).into(),
                ..TaskConstraints::default()
            }),
        };
        let results = client.deliberate(request).await.expect("an answer").into_inner().results;
        assert_eq!(results.len(), 4);
        for result in &results {
            assert!(result.score >= 1.0, "{result:?}");
            let proposal = result.proposal.as_ref().expect("a proposal");
            assert!(proposal.content.contains("## Changed after the review"), "{}", proposal.content);
            assert!(!proposal.revisions.is_empty(), "what it was before its revision is kept");
        }
        let texts = results.iter().filter_map(|result| Some(&result.proposal.as_ref()?.content));
        assert_eq!(texts.collect::<BTreeSet<_>>().len(), 4, "they differ");
    }
    daemon.stop().await;
}
