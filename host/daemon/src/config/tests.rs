//! Golden tests: what a config with faults tells, and what a config without any becomes.

use std::{path::Path, time::Duration};

use super::{Backend, Config, Environment, Url};

fn testdata(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata").join(name)
}

/// `UPDATE=1` accepts what is told now.
#[test]
fn all_faults_of_a_config_are_told_at_once() {
    let environment = Environment::of([
        ("NATS_URL", "nats://b:4222,me:hunter2@c"),
        ("RAY_EXECUTOR_ADDRESS", "ray"),
        ("LOG_LEVEL", "LOUD"),
        ("VLLM_URL", "gpu"),
    ]);
    let faults = Config::load(&testdata("bad-config.toml"), &environment).unwrap_err().to_string();
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
    assert_eq!(config.bus.nats, [Url::new("nats://127.0.0.1:4222")]);
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
    assert_eq!(config.bus.nats, ["nats://b:2", "nats://c:3"].map(Url::new));
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

/// What is told of a config that can't be loaded.
#[track_caller]
fn faults(text: &str, environment: &Environment) -> String {
    let (folder, file) = write(text);
    for name in ["token", "ca.pem"] {
        std::fs::write(folder.path().join(name), "hunter2\n").unwrap();
    }
    let told = Config::load(&file, environment).map(|c| format!("{c:?}")).unwrap_err().to_string();
    assert!(!told.contains("hunter2"), "{told}");
    told.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn a_token_is_read_from_its_file_and_never_shown() {
    let (folder, file) = write(
        "[bus]\nnats = \"nats://me:hunter2@a\"\n[upstreams.planning]\naddress = \"https://p:1\"\ntoken-file = \"token\"\n",
    );
    std::fs::write(folder.path().join("token"), "hunter2\n").unwrap();
    let config = Config::load(&file, &Environment::default()).unwrap();
    assert_eq!(config.upstreams["planning"].token.as_ref().unwrap().reveal(), "hunter2");
    assert_eq!(config.bus.nats[0].reveal(), "nats://me:hunter2@a");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_moved_upstream_keeps_its_tls() {
    let (folder, file) = write("[upstreams.planning]\naddress = \"https://p:1\"\nca = \"ca.pem\"\n");
    std::fs::write(folder.path().join("ca.pem"), "").unwrap();
    let moved = |to| Environment::of([("PLANNING_SERVICE_ADDRESS", to)]);
    let config = Config::load(&file, &moved("q:2")).unwrap();
    assert_eq!(config.upstreams["planning"].address, "https://q:2");
    let told = Config::load(&file, &moved("http://q:2")).unwrap_err().to_string();
    let expected = "environment: PLANNING_SERVICE_ADDRESS is \"http://q:2\", and upstreams.planning has ca, which plain \
                    http has no use for; write https://, or remove it there";
    assert!(told.contains(expected), "{told}");
    let told = Config::load(&file, &moved("q")).unwrap_err().to_string();
    assert!(
        told.contains("environment: PLANNING_SERVICE_ADDRESS is \"q\", which is neither host:port nor"),
        "{told}"
    );
}

#[test]
fn a_token_leaves_the_machine_through_tls_only() {
    let config = |host: &str| format!("[upstreams.p]\naddress = \"{host}:1\"\ntoken-file = \"token\"\n");
    let told = faults(&config("http://p"), &Environment::default());
    assert!(
        told.contains("cofferdam.toml:2: upstreams.p has a token, which plain http would show"),
        "{told}"
    );
    for host in ["http://127.0.0.1", "http://localhost", "https://p"] {
        let (folder, file) = write(&config(host));
        std::fs::write(folder.path().join("token"), "hunter2\n").unwrap();
        Config::load(&file, &Environment::default()).unwrap();
    }
    let both = "[upstreams.p]\naddress = \"https://p:1\"\ntoken-file = \"token\"\ntoken-env = \"T\"\n";
    let told = faults(both, &Environment::of([("T", "hunter2")]));
    assert!(told.contains("cofferdam.toml:4: token-file and token-env exclude each other"), "{told}");
    let told = faults(
        &config("http://127.0.0.1").replace("file", "env"),
        &Environment::of([("token", "hunter2 ?")]),
    );
    assert!(told.contains("cofferdam.toml:3: what token-env names is not a token"), "{told}");
}

/// A config with one plugin, called `p`, of this manifest.
fn with_plugin(grants: &str, manifest: &str) -> Result<Config, String> {
    let (folder, file) = write(&format!("[plugins.p]\ncomponent = \"p.wasm\"\n{grants}"));
    std::fs::write(folder.path().join("p.wasm"), "").unwrap();
    let manifest = format!("[plugin]\nname = \"theirs\"\nversion = \"0.1.0\"\n{manifest}");
    std::fs::write(folder.path().join("p.toml"), manifest).unwrap();
    Config::load(&file, &Environment::default()).map_err(|faults| faults.to_string())
}

const CELL: &str = "[[subscriptions]]\nsubject = \"a\"\norder-key = \"/id\"\n";

#[test]
fn cells_in_the_space_of_others_take_a_grant_and_those_in_its_own_take_none() {
    let others = format!("{CELL}[state]\nspace = \"others\"\n");
    let told = with_plugin("[plugins.p.grants]\nstate = [\"x\"]\n", &others).unwrap_err();
    assert!(
        told.contains("cofferdam.toml:1: plugin \"p\" keeps the cells of its events in the space \"others\""),
        "{told}"
    );
    assert!(told.contains("under [plugins.p.grants]: state = [\"x\", \"others\"]\n"), "{told}");
    with_plugin("[plugins.p.grants]\nstate = [\"x\", \"others\"]\n", &others).unwrap();
    with_plugin("", &others.replace("order-key = \"/id\"\n", "")).unwrap();
    with_plugin("", CELL).unwrap();

    let config = with_plugin("", &format!("{CELL}[state]\n")).unwrap();
    let plugin = &config.plugins[0];
    assert_eq!(
        (plugin.manifest.space.as_str(), &plugin.grants.asked.state[..]),
        ("p", &["p".to_owned()][..])
    );
    assert_eq!(plugin.manifest.subscriptions[0].durable, "cofferdam-p-a");
    // What its author calls it is not its own here.
    let told = with_plugin("", &format!("{CELL}[state]\nspace = \"theirs\"\n")).unwrap_err();
    assert!(told.contains("state = [\"theirs\"]"), "{told}");
}

#[test]
fn the_operator_may_exceed_the_ceilings_of_authors() {
    let asks = "[limits]\ncpu = \"20s\"\nwall = \"20m\"\nhost-calls = 200000\nconcurrency = 1000\n";
    let told = with_plugin("", asks).unwrap_err();
    assert!(told.contains("4 faults") && told.contains("p.toml:5: limits.cpu is 20s"), "{told}");
    let config = with_plugin(&asks.replace("[limits]", "[plugins.p.limits]"), asks).unwrap();
    assert_eq!(config.plugins[0].limits.cpu, Some(Duration::from_secs(20)));
    with_plugin(&asks.replace("1000", "1000\nmemory = \"256MiB\""), asks).unwrap();
    let told = with_plugin("[plugins.p.limits]\nmemory = \"257MiB\"\nwall = \"2h\"\n", "").unwrap_err();
    assert!(
        told.contains("memory is 257MiB, and the sandbox gives 256MiB")
            && told.contains("not a duration from 1ms to 1h"),
        "{told}"
    );
}

#[test]
fn a_fault_in_one_place_makes_no_false_ones_elsewhere() {
    let told = faults(
        "[executor]\nmodel = \"m\"\nvllm-url = \"http://gpu:1\"\n[plugins.p]\nmanifest = \"p.toml\"\n[plugins.p.grants]\nexecutor = [\"m\"]\n\
         [plugins.p.limits]\ncpu = \"1s\"\n[plugins.p.config]\na = 1\n",
        &Environment::default(),
    );
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    assert_eq!(lines[0], "3 faults in the configuration:", "{told}");
    assert!(lines[1].starts_with("cofferdam.toml:1: executor.backend is missing"), "{told}");
    assert!(lines[2].starts_with("cofferdam.toml:4: plugins.p.component is missing"), "{told}");
    assert!(lines[3].starts_with("cofferdam.toml:5: \"p.toml\" is not a file"), "{told}");
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
