//! `cofferdam check` and `cofferdam config show` as an operator sees them. The messages themselves have golden tests beside
//! the code.

use std::{net::TcpListener, process::Output};

use harness::{plugin::Plugin, process::output, process::program, setup::Setup};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("text")
}

#[tokio::test]
async fn the_built_in_configuration_is_fine_and_nothing_is_left_behind() {
    let folder = TempDir::new().expect("a directory");
    let mut command = Command::new(program("cofferdam"));
    command.arg("check").current_dir(folder.path());
    let told = output("cofferdam check", command).await;
    let text = stdout(&told);
    assert!(told.status.success(), "{told:?}");
    assert!(text.starts_with("the built-in configuration: fine\n"), "{text}");
    for plugin in ["prompt-builder", "output-parser", "dependency-analyzer", "workflow-router"] {
        assert!(text.lines().any(|line| line.starts_with(plugin)), "{plugin}\n{text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("the directory").count(), 0);
}

#[tokio::test]
async fn neither_a_server_nor_the_port_is_needed() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let setup = Setup::new("nats://me:hunter2@127.0.0.1:9").with("admin.listen", address.as_str());
    let told = setup.tell(&["check"]).await;
    let text = stdout(&told);
    assert!(told.status.success(), "{told:?}");
    assert!(text.contains("note: ") && text.contains("no plugins are configured"), "{text}");
    assert!(text.contains("nats, nats://***@127.0.0.1:9") && text.contains(&address), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn what_lacks_a_grant_is_told_with_the_line_that_makes_it_fine() {
    let plugin = Plugin::fixture("state-counter")
        .on("cofferdam.asked", "order-key = [\"/key\"]")
        .wants_state("state-counter")
        .asks("publish", &["cofferdam.seen", "cofferdam.heard"])
        .granted("publish", &["cofferdam.seen"])
        .set("to", "cofferdam.seen");
    let mut setup = Setup::local().plugin(plugin);
    let told = setup.tell(&["check", "--json"]).await;
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let report: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    let findings = report["findings"].as_array().expect("a list");
    assert_eq!(findings.len(), 1, "{report}");
    assert_eq!(findings[0]["severity"], "fault", "it imports state, and run refuses it: {report}");
    let write = &findings[0]["write"];
    assert_eq!(write["table"], "plugins.state-counter.grants");
    for line in write["lines"].as_array().expect("lines") {
        setup.paste_grant("state-counter", line["text"].as_str().expect("text"));
    }
    let told = setup.tell(&["check"]).await;
    assert!(told.status.success(), "{told:?}");
    let mut daemon = setup.start().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_plugin_that_runs_with_less_than_it_asks_for_fails_the_check_and_starts() {
    let plugin = Plugin::fixture("echo")
        .on("cofferdam.asked", "")
        .reports_to("cofferdam.seen")
        .asks("publish", &["cofferdam.seen", "cofferdam.heard"]);
    let setup = Setup::local().plugin(plugin);
    let told = setup.tell(&["check"]).await;
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert!(stdout(&told).contains("publish = [\"cofferdam.seen\", \"cofferdam.heard\"]"), "{told:?}");
    let mut daemon = setup.start().await;
    daemon.says("asked for and not granted").await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_configuration_that_is_shown_starts_a_daemon() {
    let plugin = Plugin::fixture("echo").on("cofferdam.asked", "").reports_to("cofferdam.seen");
    let setup = Setup::local().plugin(plugin).env("LOG_LEVEL", "debug");
    let told = setup.tell(&["config", "show"]).await;
    assert!(told.status.success(), "{told:?}");
    let text = stdout(&told);
    assert!(text.contains("level = \"debug\"") && text.contains("# LOG_LEVEL"), "{text}");
    let file = setup.folder().join("shown.toml");
    std::fs::write(&file, text).expect("a file");
    let mut command = Command::new(program("cofferdam"));
    command.arg("run").arg("--config").arg(&file);
    let mut daemon = harness::daemon::Daemon::start(command).await;
    assert_eq!(daemon.bus(), "local");
    daemon.stop().await;
}

#[tokio::test]
async fn faults_end_every_command_with_the_same_words() {
    let setup = Setup::local().with("bus.local", 7);
    let fault = "bus.local is 7, which is not a string: put it in quotes";
    let checked = setup.tell(&["check"]).await;
    assert_eq!(checked.status.code(), Some(1));
    assert!(stdout(&checked).contains(fault), "{checked:?}");
    let shown = setup.tell(&["config", "show"]).await;
    assert_eq!(shown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&shown.stderr).contains(fault), "{shown:?}");
    assert!(setup.refused().await.contains(fault));
}
