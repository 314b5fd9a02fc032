//! Golden tests: what a config with faults tells, and what a config without any becomes.

use std::{path::Path, time::Duration};

use super::{Backend, Config, Environment};

fn testdata(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata").join(name)
}

/// `UPDATE=1` accepts what is told now.
#[test]
fn all_faults_of_a_config_are_told_at_once() {
    let faults = Config::load(&testdata("bad-config.toml"), &Environment::default()).unwrap_err().to_string();
    let told = faults.replace(&format!("{}/", testdata("").display()).replace("//", "/"), "");
    let golden = testdata("bad-config.err");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&golden, &told).unwrap();
    }
    assert_eq!(told, std::fs::read_to_string(&golden).unwrap());
}

fn write(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cofferdam.toml");
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

#[test]
fn an_empty_file_has_defaults_for_everything() {
    let (_folder, file) = write("");
    let config = Config::load(&file, &Environment::default()).unwrap();
    assert_eq!(config.bus.nats, ["nats://127.0.0.1:4222"]);
    assert_eq!(config.admin.to_string(), "127.0.0.1:8080");
    assert_eq!(config.envelope, "mirror");
    assert!(config.executor.is_none() && config.plugins.is_empty());
}

#[test]
fn the_environment_overrides_the_file() {
    let (_folder, file) = write(
        "[bus]\nnats = \"nats://a:1\"\n[executor]\nbackend = \"fleet\"\nmodel = \"m\"\n[upstreams.planning]\naddress = \"http://p:1\"\ntimeout = \"9s\"\n",
    );
    let environment = Environment::of([
        ("NATS_URL", "nats://b:2,nats://c:3"),
        ("PLANNING_SERVICE_ADDRESS", "q:2"),
        ("RAY_EXECUTOR_ADDRESS", "r:3"),
        ("VLLM_MODEL", "n"),
        ("LOG_LEVEL", "WARNING"),
        ("VLLM_URL", ""),
    ]);
    let config = Config::load(&file, &environment).unwrap();
    assert_eq!(config.bus.nats, ["nats://b:2", "nats://c:3"]);
    let planning = &config.upstreams["planning"];
    assert_eq!((planning.address.as_str(), planning.timeout), ("http://q:2", Duration::from_secs(9)));
    let executor = config.executor.unwrap();
    assert_eq!(executor.backend, Backend::Fleet { upstream: "ray".into() });
    assert_eq!(
        (executor.model.as_str(), executor.vllm_url.as_str()),
        ("n", "http://vllm-server-service:8000")
    );
    assert_eq!(config.log.level, "warn");
}

#[test]
fn a_token_is_read_from_its_file_and_never_shown() {
    let (folder, file) = write("[upstreams.planning]\naddress = \"http://p:1\"\ntoken-file = \"token\"\n");
    std::fs::write(folder.path().join("token"), "hunter2\n").unwrap();
    let config = Config::load(&file, &Environment::default()).unwrap();
    assert_eq!(config.upstreams["planning"].token.as_ref().unwrap().reveal(), "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn the_config_of_the_repository_grants_what_its_plugins_ask_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("cofferdam.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = text;
    for name in ["prompt-builder", "output-parser", "dependency-analyzer", "workflow-router"] {
        let component = folder.path().join(format!("{name}.wasm"));
        std::fs::write(&component, "").unwrap();
        std::fs::copy(root.join("plugins").join(name).join("plugin.toml"), component.with_extension("toml"))
            .unwrap();
        config = config.replace(&format!("target/plugins/{name}.wasm"), &component.display().to_string());
    }
    let file = folder.path().join("cofferdam.toml");
    std::fs::write(&file, config).unwrap();
    let config = Config::load(&file, &Environment::default()).unwrap();
    for plugin in &config.plugins {
        let missing: Vec<String> = plugin.grants.missing().iter().map(ToString::to_string).collect();
        assert!(missing.is_empty(), "{missing:#?}");
    }
}
