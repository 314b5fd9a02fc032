//! Grants: a plugin reaches for what is its neighbour's. The real server or bus sees nothing, the guest gets a typed error,
//! and the log prints the line of config that, pasted, makes it pass.

use harness::{
    daemon::{Daemon, message},
    metrics::counts,
    planning::{Planning, SERVICE},
    plugin::Plugin,
    setup::Setup,
    world::World,
};
use serde_json::{Value, json};

const PASTE: &str = "write in the config under [plugins.neighbour.grants]: ";

struct Reach {
    /// What the guest is told to do.
    told: Value,
    /// Where it reports, and the kind of grant that it lacks.
    key: &'static str,
    kind: &'static str,
    /// What the denial names, and the line to paste.
    thing: String,
    line: String,
}

/// The fixture imports every kind, so it has something of each; what it reaches for it asks for and is not granted.
fn setup(world: &World, planning: &Planning) -> Setup {
    let own = format!("planning/{SERVICE}/GetPlanContext");
    let theirs = format!("planning/{SERVICE}/ListStoryTasks");
    let plugin = Plugin::fixture("neighbour")
        .on("test.in", "order-key = [\"/key\"]")
        .set("to", "test.seen")
        .asks("publish", &["test.seen", "test.theirs"])
        .granted("publish", &["test.seen"])
        .asks("rpc", &[own.as_str(), theirs.as_str()])
        .granted("rpc", &[own.as_str()])
        .asks("executor", &["mine", "theirs"])
        .granted("executor", &["mine"])
        .wants_state("neighbour")
        .granted("state", &["mine"]);
    world.setup().plugin(plugin).upstream("planning", &planning.address).with("executor.backend", "offline")
}

/// What the guest saw.
async fn reach(world: &World, told: &Value) -> Value {
    // From the stream: a plain subscriber may see again what a daemon that starts makes sure of.
    let before = world.count("test.seen").await;
    world.publish("test.in", told).await;
    world.wait_stored("test.seen", before + 1).await.pop().expect("a message").json()
}

/// Reaches in vain, pastes the line, restarts, and reaches again. `touched` tells whether the other side saw anything.
async fn denied_then_pasted(reach_for: Reach, touched: impl AsyncFn(&World, &Planning) -> bool) {
    let world = World::start().await;
    let planning = Planning::start().await;
    let mut setup = setup(&world, &planning);
    let mut daemon = setup.start().await;
    let before = daemon.scrape().await;
    let Reach { told, key, kind, thing, line } = reach_for;

    let seen = reach(&world, &told).await;
    let error = seen[key].as_str().unwrap_or_default().to_owned();
    assert!(error.to_lowercase().contains("denied: "), "a typed error: {seen}");
    assert!(error.contains(&format!("plugin \"neighbour\" has no {kind} grant for {thing}")), "{seen}");
    world.quiet().await;
    assert!(!touched(&world, &planning).await, "the neighbour's must not be touched");
    let moved = daemon.events(&before, [("neighbour done -", 1)]).await;
    assert_eq!(
        moved.counts("cofferdam_denials_total", &["plugin", "kind"]),
        counts([(&*format!("neighbour {kind}"), 1)])
    );

    let printed = pasteable(&daemon).await;
    assert_eq!(printed, line);
    setup.paste_grant("neighbour", &printed);
    daemon.stop().await;
    let _daemon = setup.start().await;
    let seen = reach(&world, &told).await;
    // Planning answers what it was asked; what became of the message or the job is for the other side to show.
    assert_eq!(seen[key], "ok", "{seen}");
    world.quiet().await;
    assert!(touched(&world, &planning).await, "now it is granted");
}

/// The line of config that the log shows at the denial.
async fn pasteable(daemon: &Daemon) -> String {
    let line = daemon.logged("a denial", |line| message(line).starts_with("denied: ")).await;
    message(&line).split(PASTE).nth(1).unwrap_or_else(|| panic!("no line to paste: {line}")).to_owned()
}

#[tokio::test]
async fn another_plugins_subject_is_out_of_reach() {
    let reach = Reach {
        told: json!({ "key": "k", "emit": "test.theirs" }),
        key: "emit",
        kind: "publish",
        thing: "test.theirs".to_owned(),
        line: r#"publish = ["test.seen", "test.theirs"]"#.to_owned(),
    };
    denied_then_pasted(reach, async |world, _| world.count("test.theirs").await > 0).await;
}

#[tokio::test]
async fn another_plugins_method_is_out_of_reach() {
    let method = format!("{SERVICE}/ListStoryTasks");
    let reach = Reach {
        told: json!({ "key": "k", "rpc": { "upstream": "planning", "method": method } }),
        key: "rpc",
        kind: "rpc",
        thing: format!("planning/{method}"),
        line: format!("rpc = [\"planning/{SERVICE}/GetPlanContext\", \"planning/{method}\"]"),
    };
    denied_then_pasted(reach, async |_, planning| !planning.calls().is_empty()).await;
}

#[tokio::test]
async fn another_plugins_model_is_out_of_reach() {
    let reach = Reach {
        told: json!({ "key": "k", "model": "theirs" }),
        key: "model",
        kind: "executor",
        thing: "theirs".to_owned(),
        line: r#"executor = ["mine", "theirs"]"#.to_owned(),
    };
    // Every job, whatever becomes of it, is a message before it is anything else; its answer is another.
    denied_then_pasted(reach, async |world, _| {
        world.count("cd.j.>").await + world.count("agent.response.>").await > 0
    })
    .await;
}

#[tokio::test]
async fn how_a_job_is_may_be_asked_without_a_grant_and_none_submitted() {
    let world = World::start().await;
    let guest = Plugin::fixture("submit-job").on("test.in", "").reports_to("test.seen");
    let daemon = world.setup().plugin(guest).with("executor.backend", "offline").start().await;
    let before = daemon.scrape().await;
    let seen = reach(&world, &json!({ "status": "nobody-knows" })).await;
    assert_eq!(seen["phase"], "Unknown");
    let seen = reach(&world, &json!({ "task_id": "t-1", "prompt": "Do it", "role": "DEV" })).await;
    let refused = seen["refused"].as_str().expect("a refusal");
    assert!(
        refused.starts_with("denied: plugin \"submit-job\" has no executor grant for default"),
        "{refused}"
    );
    world.quiet().await;
    assert_eq!(world.count("cd.j.>").await, 0);
    let moved = daemon.events(&before, [("submit-job done -", 2)]).await;
    assert_eq!(moved.sum("cofferdam_denials_total", &[]), 1.0);
}

#[tokio::test]
async fn state_that_was_not_granted_is_out_of_reach() {
    let reach = Reach {
        told: json!({ "key": "k", "state": "secret" }),
        key: "state",
        kind: "state",
        thing: "neighbour".to_owned(),
        line: r#"state = ["mine", "neighbour"]"#.to_owned(),
    };
    // The cell holds the event itself as settled, so it exists; what matters is what it holds.
    denied_then_pasted(reach, async |world, _| {
        let cells = world.stored("cd.s.>").await;
        cells.iter().any(|cell| cell.data.windows(6).any(|bytes| bytes == b"secret"))
    })
    .await;
}

#[tokio::test]
async fn another_plugins_state_is_refused_before_anything_runs() {
    let world = World::start().await;
    let counter = |name: &str| Plugin::fixture("state-counter").named(name).reports_to("test.seen");
    let theirs = counter("theirs").on("test.theirs", "order-key = [\"/key\"]").state("theirs");
    let curious = counter("curious").on("test.in", "order-key = [\"/key\"]").wants_state("theirs");
    let mut setup = world.setup().plugin(theirs).plugin(curious);
    let told = setup.refused().await;
    assert!(
        told.contains("plugin \"curious\" keeps the cells of its events in the space \"theirs\""),
        "{told}"
    );
    let line = told.split("under [plugins.curious.grants]: ").nth(1).and_then(|rest| rest.lines().next());
    assert_eq!(line, Some(r#"state = ["theirs"]"#), "{told}");
    assert!(world.jetstream.get_stream("COFFERDAM").await.is_err(), "not even connected");

    setup.paste_grant("curious", line.expect("a line"));
    let _daemon = setup.start().await;
    world.publish("test.theirs", r#"{"key": "k"}"#).await;
    world.wait_stored("test.seen", 1).await;
    world.publish("test.in", r#"{"key": "k"}"#).await;
    let seen = world.wait_stored("test.seen", 2).await;
    assert_eq!(seen[1].json()["count"], 2, "now they share it");
}

#[tokio::test]
async fn what_the_manifest_does_not_ask_for_no_grant_allows() {
    let world = World::start().await;
    let plugin = Plugin::fixture("echo")
        .on("test.in", "")
        .asks("publish", &["test.seen"])
        .granted("publish", &["test.>"])
        .set("to", "test.elsewhere");
    let daemon = world.setup().plugin(plugin).start().await;
    world.publish("test.in", "x").await;
    let letter = world.dead_letters("echo", 1).await.remove(0);
    assert_eq!((&letter["outcome"], &letter["fault"]), (&json!("rejected"), &json!("operator")));
    let line = daemon.logged("a denial", |line| message(line).starts_with("denied: ")).await;
    let asks = "its plugin.toml does not ask for it, which takes: [asks] publish = [\"test.seen\", \"test.elsewhere\"]";
    assert!(message(&line).contains(asks), "{line}");
    assert!(!message(&line).contains(PASTE), "the grant is there already: {line}");
    assert_eq!(world.count("test.elsewhere").await, 0);
}

#[tokio::test]
async fn the_hosts_own_subjects_and_headers_are_nobodys() {
    let world = World::start().await;
    let guest = || Plugin::fixture("echo").set("to", "test.seen");
    let greedy = guest().named("greedy").on("test.greedy", "").may("publish", &["cd.>", "$JS.>"]);
    let sly = guest().named("sly").on("test.sly", "").may("publish", &["test.>"]);
    let _daemon = world.setup().plugin(greedy).plugin(sly).start().await;
    world.publish_with("test.greedy", &[("X-To", "cd.j.forged")], "{}").await;
    let letter = world.dead_letters("greedy", 1).await.remove(0);
    assert!(letter["reason"].as_str().is_some(), "{letter}");
    world.quiet().await;
    assert_eq!(world.count("cd.j.>").await, 0);

    // A host's header on the way in is not echoed on the way out as the guest's own.
    world.publish_with("test.sly", &[("X-To", "test.seen"), ("Cofferdam-Plugin", "somebody")], "{}").await;
    let seen = world.wait_stored("test.seen", 1).await;
    assert_eq!(seen[0].header("Cofferdam-Plugin"), Some("sly"));
}
