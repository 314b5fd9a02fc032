//! A daemon without a configuration and without a server: the embedded bus in the working directory, the bundled plugins.

use std::path::Path;

use harness::{
    daemon::Daemon,
    nats::Server,
    plugin::Plugin,
    process::{program, run_to_end},
    setup::Setup,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// `cofferdam run` there, on any free ports.
fn run_in(folder: &Path) -> Command {
    let mut command = Command::new(program("cofferdam"));
    command.arg("run").current_dir(folder);
    command.env("COFFERDAM_LISTEN", "127.0.0.1:0").env("COFFERDAM_GRPC_LISTEN", "127.0.0.1:0");
    command
}

#[tokio::test]
async fn an_empty_directory_is_enough() {
    let folder = TempDir::new().expect("a directory");
    let mut daemon = Daemon::start(run_in(folder.path())).await;
    assert_eq!(daemon.bus(), "local");
    let log = daemon.log().text();
    let said =
        log.lines().find(|line| line.contains("running on the built-in configuration")).expect("a word");
    assert!(said.contains(&format!("data in {}/.cofferdam", folder.path().display())), "{said}");
    assert!(folder.path().join(".cofferdam/compiled").is_dir());

    let (status, health) = daemon.health("/health").await;
    assert_eq!(status, 200, "{health}");
    let health: Value = serde_json::from_str(&health).expect("JSON");
    let plugins: Vec<&str> =
        health["plugins"].as_array().expect("a list").iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(plugins, ["prompt-builder", "output-parser", "dependency-analyzer", "workflow-router"]);

    let (status, told) = run_to_end("cofferdam", run_in(folder.path())).await;
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains(".cofferdam") && told.contains("process"), "{told}");
    assert_eq!(daemon.health("/health/ready").await.0, 200, "the first goes on");

    daemon.stop().await;
    let mut again = Daemon::start(run_in(folder.path())).await;
    assert_eq!(again.bus(), "local");
    again.stop().await;
}

#[tokio::test]
async fn a_durable_that_the_config_changed_is_deleted_by_the_command_that_the_message_names() {
    let plugin = || Plugin::fixture("echo").on("cofferdam.ping", "").reports_to("cofferdam.pong");
    let first = Setup::local().plugin(plugin());
    let mut daemon = first.start().await;
    let running = first.tell(&["durable", "delete", "COFFERDAM_EVENTS/cofferdam-echo-cofferdam-ping"]).await;
    assert!(!running.status.success(), "a daemon has the directory");
    daemon.stop().await;
    let changed = first.plugin(plugin().every_subscription("ack-wait = \"7s\""));
    let told = changed.refused().await;
    let command = "cofferdam durable delete COFFERDAM_EVENTS/cofferdam-echo-cofferdam-ping";
    assert!(told.contains(command) && told.contains("7s") && told.contains("10s"), "{told}");
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let deleted = changed.tell(&words).await;
    assert!(deleted.status.success(), "{deleted:?}");
    let again = changed.tell(&words).await;
    assert!(String::from_utf8_lossy(&again.stderr).contains("there is no durable"), "{again:?}");
    changed.start().await.stop().await;
}

#[tokio::test]
async fn a_configuration_in_the_working_directory_is_found() {
    let folder = TempDir::new().expect("a directory");
    std::fs::write(folder.path().join("cofferdam.toml"), "[bus]\nlocal = \"elsewhere\"\n").expect("a file");
    let mut daemon = Daemon::start(run_in(folder.path())).await;
    assert!(daemon.log().text().contains("configured by cofferdam.toml"), "{}", daemon.log().text());
    assert!(folder.path().join("elsewhere").is_dir());
    assert!(daemon.log().text().contains("no plugins are configured"), "{}", daemon.log().text());
    daemon.stop().await;
}

#[tokio::test]
async fn the_shown_configuration_can_be_written_where_it_is_looked_for() {
    let folder = TempDir::new().expect("a directory");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{} config show > cofferdam.toml", program("cofferdam").display()));
    let (status, told) = run_to_end("cofferdam config show", {
        command.current_dir(folder.path());
        command
    })
    .await;
    assert!(status.success(), "{told}");
    let text = std::fs::read_to_string(folder.path().join("cofferdam.toml")).expect("a configuration");
    assert!(text.contains("[plugins.prompt-builder]") && text.contains("built-in"), "{text}");
}

#[tokio::test]
async fn nats_url_moves_the_same_configuration_to_a_cluster() {
    let nats = Server::start().await;
    let plugin = Plugin::fixture("echo").on("cofferdam.asked", "").reports_to("cofferdam.seen");
    let setup = Setup::local().plugin(plugin);
    let mut daemon = setup.start().await;
    assert_eq!(daemon.bus(), "local");
    daemon.stop().await;

    let setup = setup.env("NATS_URL", &nats.url());
    let mut daemon = setup.start().await;
    assert_eq!(daemon.bus(), "nats");
    let jetstream = async_nats::jetstream::new(nats.client().await);
    jetstream.get_stream("COFFERDAM_EVENTS").await.expect("a stream on the server");
    daemon.stop().await;
}
