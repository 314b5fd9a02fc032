//! The bundled scoring stage as a component, with its own limits, before proposals that are meant to be too much for it.

use std::time::Duration;

use cofferdam_sandbox::{Ending, Limits, Plugin, Request};
use fleet_proto::{
    council::v1::{Judged, ScoreRequest, ScoreResponse},
    orchestrator::v1::{Proposal, TaskConstraints},
};
use prost::Message;

use super::{host::Host, load};

/// As its manifest has them; the clock of a busy machine gets more.
fn limits() -> Limits {
    Limits {
        cpu: Duration::from_secs(2),
        wall: Duration::from_secs(60),
        memory: 64 << 20,
        ..Limits::default()
    }
}

async fn score(plugin: &Plugin, contents: &[&str], constraints: Option<TaskConstraints>) -> Vec<Judged> {
    let proposals =
        contents.iter().map(|content| Proposal { content: (*content).to_owned(), ..Proposal::default() });
    let asked = ScoreRequest {
        task_id: "t".to_owned(),
        role: "DEV".to_owned(),
        constraints,
        proposals: proposals.collect(),
        ..ScoreRequest::default()
    };
    let request = Request {
        id: "call.1".to_owned(),
        method: "cofferdam.council.v1.ScoringService/Score".to_owned(),
        metadata: Vec::new(),
        request: asked.encode_to_vec().into(),
        timestamp: 1_700_000_000_000_000_000,
    };
    let host = Host { counter: Some("council_checks_failed"), ..Host::default() };
    let run = plugin.serve(Box::new(host), request, &limits()).await;
    assert_eq!(run.ending, Ending::Ok, "{:?}", contents[0].chars().take(60).collect::<String>());
    ScoreResponse::decode(run.answer.clone().expect("an answer")).expect("a response").judged
}

fn of_length(unit: &str) -> String {
    unit.repeat((60 << 10) / unit.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proposal_is_too_much_for_the_checks() {
    let plugin = load(&harness::guests::bundled("council-scoring")).await;
    for unit in [
        "word ",
        "\n",
        "```\n",
        "```json\n{\n```\n",
        "[",
        "{\"a\":",
        "rm -r -r ",
        "git push origin ",
        "TODO ",
        "<a ",
        "$(",
        "<<A ",
        "TASK_ID: T\nTITLE: A\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
        "@@ -1,99999999999999999999 +1 @@\n",
        "\u{e9}\u{65e5}",
    ] {
        for open in ["", "```json\n", "```yaml\n", "```toml\n", "```sh\n", "```diff\n@@ -1 +1 @@\n"] {
            let text = format!("{open}{}", of_length(unit));
            assert_eq!(score(&plugin, &[&text], None).await.len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_of_the_longest_proposals_are_judged_within_the_limits() {
    let plugin = load(&harness::guests::bundled("council-scoring")).await;
    for unit in
        ["We add the login form, then the session: a = {\"b\": [1, 2]}.\n", "\n", "rm -r -r ", "```sh\n"]
    {
        let text = of_length(unit);
        assert_eq!(score(&plugin, &[text.as_str(); 16], None).await.len(), 16);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_no_way_to_break_the_checks() {
    let plugin = load(&harness::guests::bundled("council-scoring")).await;
    let choices: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    let schema = format!("{{\"items\": {{\"enum\": [{}]}}}}", choices.join(","));
    let deep = format!("{}1{}", "{\"items\":".repeat(5_000), "}".repeat(5_000));
    let nested = format!("{}{{}}{}", "{\"items\":".repeat(31), "}".repeat(31));
    let long = format!("[{}]", vec!["4999"; 12_000].join(","));
    let inner = format!("{}1{}", "[".repeat(32), "]".repeat(32));
    for (schema, value) in [(&schema, &long), (&deep, &long), (&schema, &deep), (&nested, &inner)] {
        let metadata = [("schema".to_owned(), schema.clone())].into();
        let requirements = vec![format!("must mention: {}", "a".repeat(2_000)); 100];
        let constraints = TaskConstraints { metadata, requirements, ..TaskConstraints::default() };
        assert_eq!(score(&plugin, &[value.as_str(); 4], Some(constraints)).await.len(), 4);
    }
}
