//! Golden tests: what a config with faults tells, and what a config without any becomes.

use std::{path::Path, time::Duration};

use super::{Backend, BusKind, Config, Environment, Faults, Location, NatsSettings, Reading, Url};

fn testdata(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata").join(name)
}

fn load(file: &Path, environment: &Environment) -> Result<Config, Faults> {
    Config::load(&Location::File(file.to_owned()), environment)
}

fn nats(config: &Config) -> &NatsSettings {
    match &config.bus.kind {
        BusKind::Nats(nats) => nats,
        other => panic!("{other:?}"),
    }
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
    let faults = load(&testdata("bad-config.toml"), &environment).unwrap_err().to_string();
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
    let config = load(&file, &Environment::default()).unwrap();
    let local = file.with_file_name(".cofferdam");
    assert!(matches!(config.bus.kind, BusKind::Local { directory } if directory == local));
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:8080");
    assert_eq!((config.envelope.as_str(), config.log.level.as_str()), ("mirror", "info"));
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
        ("CONTEXT_SERVICE_ADDRESS", "c:4"),
        ("RAY_EXECUTOR_ADDRESS", "r:3"),
        ("VLLM_MODEL", "n"),
        ("LOG_LEVEL", "WARNING"),
        ("VLLM_URL", ""),
    ]);
    let config = load(&file, &environment).unwrap();
    assert_eq!(nats(&config).urls, ["nats://b:2", "nats://c:3"].map(Url::new));
    let planning = &config.upstreams["planning"];
    assert_eq!((planning.address.as_str(), planning.timeout), ("http://q:2", Duration::from_secs(9)));
    let context = &config.upstreams["context"];
    assert_eq!((context.address.as_str(), context.timeout), ("http://c:4", Duration::from_secs(5)));
    let executor = config.executor.unwrap();
    assert_eq!(executor.backend, Backend::Fleet { upstream: "ray".into() });
    assert_eq!(
        (executor.model.as_str(), executor.vllm_url.reveal()),
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
    let told = load(&file, environment).map(|c| format!("{c:?}")).unwrap_err().to_string();
    assert!(!told.contains("hunter2"), "{told}");
    told.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn a_token_is_read_from_its_file_and_never_shown() {
    let (folder, file) = write(
        "[bus]\nnats = \"nats://me:hunter2@a\"\n[upstreams.planning]\naddress = \"https://p:1\"\ntoken-file = \"token\"\n",
    );
    std::fs::write(folder.path().join("token"), "hunter2\n").unwrap();
    let config = load(&file, &Environment::default()).unwrap();
    assert_eq!(config.upstreams["planning"].token.as_ref().unwrap().reveal(), "hunter2");
    assert_eq!(nats(&config).urls[0].reveal(), "nats://me:hunter2@a");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_moved_upstream_keeps_its_tls() {
    let (folder, file) = write("[upstreams.planning]\naddress = \"https://p:1\"\nca = \"ca.pem\"\n");
    std::fs::write(folder.path().join("ca.pem"), "").unwrap();
    let moved = |to| Environment::of([("PLANNING_SERVICE_ADDRESS", to)]);
    let config = load(&file, &moved("q:2")).unwrap();
    assert_eq!(config.upstreams["planning"].address, "https://q:2");
    let told = load(&file, &moved("http://q:2")).unwrap_err().to_string();
    let expected = "environment: PLANNING_SERVICE_ADDRESS is \"http://q:2\", and upstreams.planning has ca, which plain \
                    http has no use for; write https://, or remove it there";
    assert!(told.contains(expected), "{told}");
    let told = load(&file, &moved("q")).unwrap_err().to_string();
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
        load(&file, &Environment::default()).unwrap();
    }
    let both = "[upstreams.p]\naddress = \"https://p:1\"\ntoken-file = \"token\"\ntoken-env = \"T\"\n";
    let told = faults(both, &Environment::of([("T", "hunter2")]));
    assert!(told.contains("cofferdam.toml:4: token-file and token-env exclude each other"), "{told}");
    let told = faults(
        &config("http://127.0.0.1").replace("file", "env"),
        &Environment::of([("token", "hunter2 ?")]),
    );
    assert!(
        told.contains("cofferdam.toml:3: the variable \"token\", which token-env names, holds no token"),
        "{told}"
    );
    let (folder, file) = write(&config("https://p"));
    std::fs::write(folder.path().join("token"), "\n").unwrap();
    let told = load(&file, &Environment::default()).unwrap_err().to_string();
    let path = folder.path().join("token");
    assert!(
        told.contains(&format!("the file {path:?}, which token-file names, is empty; write the token there")),
        "{told}"
    );
}

#[test]
fn a_password_that_was_shown_is_none() {
    let hidden = "the password is hidden (***), as `config show` prints it; put the real one back";
    let nats = Environment::of([("NATS_URL", "nats://a,nats://***@b")]);
    assert!(faults("", &nats).contains(&format!("environment: NATS_URL: {hidden}")));
    let told = faults("[bus]\nnats = [\"nats://a\", \"nats://***@b\"]\n", &Environment::default());
    assert!(told.contains(&format!("cofferdam.toml:2: bus.nats: {hidden}")), "{told}");
}

#[test]
fn a_path_is_written_whole() {
    let told = faults("[bus]\nlocal = \"\"\n[sandbox]\ncache = \"~/compiled\"\n", &Environment::default());
    assert!(told.contains("cofferdam.toml:2: bus.local is empty; write a path, or remove it"), "{told}");
    let tilde =
        "cofferdam.toml:4: sandbox.cache is \"~/compiled\", and ~ is not expanded here; write the whole path";
    assert!(told.contains(tilde), "{told}");
}

#[test]
fn text_that_is_no_toml_is_told_once() {
    for text in
        ["[bus\nlocal = \"x\"\nnowhere = 1\n", "[bus]\nlocal = \"x\n", "[admin]\nlisten = \n[executor]\n"]
    {
        let told = faults(text, &Environment::default());
        assert!(told.starts_with("1 fault ") && told.contains(": this is no TOML: "), "{told}");
    }
}

#[test]
fn a_user_in_the_address_of_an_upstream_is_told_with_the_remedy() {
    let told = faults("[upstreams.p]\naddress = \"http://me:hunter2@p:1\"\n", &Environment::default());
    let expected = "upstreams.p.address is \"http://***@p:1\", and no upstream is sent the user and password of a URL; \
                    write \"http://p:1\"";
    assert!(told.contains(expected), "{told}");
}

/// A config with one plugin, called `p`, of this manifest.
fn with_plugin(grants: &str, manifest: &str) -> Result<Config, String> {
    let (folder, file) = write(&format!("[plugins.p]\ncomponent = \"p.wasm\"\n{grants}"));
    std::fs::write(folder.path().join("p.wasm"), "").unwrap();
    let manifest = format!("[plugin]\nname = \"theirs\"\nversion = \"0.1.0\"\n{manifest}");
    std::fs::write(folder.path().join("p.toml"), manifest).unwrap();
    load(&file, &Environment::default()).map_err(|faults| faults.to_string())
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
fn a_value_out_of_its_manifests_range_is_told_with_the_range() {
    let manifest = "[config.most]\ntype = \"integer\"\nmin = 0\nmax = 1000\ndefault = 1\n[config.how]\ntype = \"string\"\n\
                    one-of = [\"first\", \"all\"]\n";
    let told = with_plugin("[plugins.p.config]\nmost = -1\nhow = \"frist\"\n", manifest).unwrap_err();
    assert!(told.contains("cofferdam.toml:4: plugins.p.config.most is -1; it is from 0 to 1000\n"), "{told}");
    let expected = "cofferdam.toml:5: plugins.p.config.how is \"frist\"; it is one of \"first\", \"all\"";
    assert!(told.contains(expected), "{told}");
    let config = with_plugin("[plugins.p.config]\nmost = 1000\nhow = \"all\"\n", manifest).unwrap();
    assert_eq!(config.plugins[0].values["most"], 1000);
    let told = with_plugin("", &manifest.replace("default = 1", "default = 1001")).unwrap_err();
    assert!(told.contains("p.toml:8: config.most.default is 1001; it is from 0 to 1000"), "{told}");
}

/// The guest would take a number out of it for another, or fail each event.
#[test]
fn every_number_of_a_bundled_plugin_has_a_range() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let files = std::fs::read_dir(plugins).unwrap().map(|entry| entry.unwrap().path().join("plugin.toml"));
    let mut seen = 0;
    for file in files.filter(|file| file.is_file()) {
        let manifest: toml::Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        for (key, schema) in manifest.get("config").and_then(toml::Value::as_table).into_iter().flatten() {
            if matches!(schema["type"].as_str(), Some("integer" | "number")) {
                let bounded = ["min", "max"].iter().all(|bound| schema.get(bound).is_some());
                assert!(bounded, "{key} of {} has no min and max", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn no_plugin_has_a_name_of_the_executors() {
    for (name, whose) in [
        ("clients", "all that call [executor.grpc], whose queues, shares and budgets it would share"),
        ("executor", "the executor's own service in metrics"),
        ("cofferdam-executor", "whoever answers jobs in events"),
    ] {
        let told = faults(&format!("[plugins.{name}]\n"), &Environment::default());
        let expected = format!("plugins.{name} has the name of {whose}; give the plugin another name");
        assert!(told.contains(&expected), "{told}");
    }
    let told = faults("[plugins.clients-2]\n", &Environment::default());
    assert!(!told.contains("has the name of"), "{told}");
}

#[test]
fn the_operator_may_exceed_the_ceilings_of_authors() {
    let asks = "[limits]\ncpu = \"20s\"\nwall = \"20m\"\nhost-calls = 200000\nconcurrency = 1000\n";
    let told = with_plugin("", asks).unwrap_err();
    assert!(told.contains("4 faults") && told.contains("p.toml:5: limits.cpu is 20s"), "{told}");
    let config = with_plugin(&asks.replace("[limits]", "[plugins.p.limits]"), asks).unwrap();
    assert_eq!(config.plugins[0].limits.cpu, Duration::from_secs(20));
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
    assert!(
        lines[2].starts_with(
            "cofferdam.toml:4: plugins.p has no component, and none of that name is known; build"
        ),
        "{told}"
    );
    assert!(lines[3].starts_with("cofferdam.toml:5: \"p.toml\" is not a file"), "{told}");
}

/// A folder with the bundled plugins as far as a config is concerned, and a program that finds them.
fn bundled_plugins() -> (tempfile::TempDir, Environment) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let first = ["prompt-builder", "output-parser", "dependency-analyzer", "workflow-router"];
    let rest = ["story-lifecycle", "task-queue", "council", "council-scoring", "context-updater"];
    for name in first.into_iter().chain(rest) {
        let component = plugins.join(format!("{name}.wasm"));
        std::fs::write(&component, "").unwrap();
        std::fs::write(component.with_file_name("fleet.binpb"), fleet_proto::FILE_DESCRIPTOR_SET).unwrap();
        std::fs::copy(root.join("plugins").join(name).join("plugin.toml"), component.with_extension("toml"))
            .unwrap();
    }
    let environment = Environment::default().with_program(folder.path().join("bin/cofferdam"));
    (folder, environment)
}

#[test]
fn the_built_in_configuration_grants_what_the_bundled_plugins_ask_for() {
    let (folder, environment) = bundled_plugins();
    let config = Config::load(&Location::BuiltIn, &environment).unwrap();
    assert_eq!(config.plugins.len(), 4);
    for plugin in &config.plugins {
        assert!(plugin.component.starts_with(folder.path().join("plugins")), "{plugin:?}");
        let missing: Vec<String> = plugin.grants.missing().iter().map(ToString::to_string).collect();
        assert!(missing.is_empty(), "{missing:#?}");
    }
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:8080");
    assert!(matches!(config.bus.kind, BusKind::Local { directory } if directory == Path::new(".cofferdam")));
    assert_eq!(config.executor.unwrap().backend, Backend::Offline);
    let moved = Environment::of([("NATS_URL", "nats://a")]).with_program(folder.path().join("bin/cofferdam"));
    assert_eq!(nats(&Config::load(&Location::BuiltIn, &moved).unwrap()).urls, [Url::new("nats://a")]);
}

#[test]
fn the_configuration_with_all_of_them_grants_what_they_ask_for() {
    let (_folder, environment) = bundled_plugins();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cofferdam.full.toml");
    let config = load(&file, &environment).unwrap();
    assert_eq!(config.plugins.len(), 9);
    for plugin in &config.plugins {
        let missing: Vec<String> = plugin.grants.missing().iter().map(ToString::to_string).collect();
        assert!(missing.is_empty(), "{missing:#?}");
    }
    assert!(matches!(config.bus.kind, BusKind::Local { .. }));
}

#[test]
fn bundled_plugins_that_are_nowhere_are_told_once_with_the_places_and_the_remedy() {
    let environment = Environment::of([("COFFERDAM_PLUGINS", "/a")]).with_program("/opt/bin/cofferdam");
    let told = Config::load(&Location::BuiltIn, &environment).unwrap_err();
    let [fault] = &told.0[..] else { panic!("{told}") };
    let told = fault.to_string();
    assert!(told.starts_with("the built-in configuration:"), "{told}");
    for part in [
        "plugins.prompt-builder, plugins.output-parser, plugins.dependency-analyzer and plugins.workflow-router have no \
         component",
        "in \"/a\", \"/opt/bin/plugins\", \"/opt/plugins\", \"/opt/lib/cofferdam/plugins\"; ",
        "`cargo xtask plugins`",
        "COFFERDAM_PLUGINS",
    ] {
        assert!(told.contains(part), "{part}\n--- was told\n{told}");
    }
}

#[test]
fn the_environments_plugins_come_first() {
    let (folder, environment) = bundled_plugins();
    let own = tempfile::tempdir().unwrap();
    let (_config, file) =
        write("[plugins.output-parser]\n[plugins.output-parser.grants]\nstate = [\"derivation\"]\n");
    let with_own = Environment::of([("COFFERDAM_PLUGINS", own.path().to_str().unwrap())])
        .with_program(folder.path().join("bin/cofferdam"));
    let component =
        |environment: &Environment| load(&file, environment).unwrap().plugins[0].component.clone();
    assert!(component(&with_own).starts_with(folder.path()), "it has none of that name");
    std::fs::write(own.path().join("output-parser.wasm"), "").unwrap();
    std::fs::copy(folder.path().join("plugins/output-parser.toml"), own.path().join("output-parser.toml"))
        .unwrap();
    assert!(component(&with_own).starts_with(own.path()));
    assert!(component(&environment).starts_with(folder.path()));
}

#[test]
fn one_bus_is_meant_and_its_protection_is_not_lost() {
    let fault = |text: &str, environment: &Environment| {
        let told = faults(text, environment);
        told.lines().nth(1).unwrap_or_default().trim().to_owned()
    };
    let none = Environment::default();
    assert_eq!(
        fault("[bus]\nlocal = \"x\"\nnats = \"nats://a\"\n", &none),
        "cofferdam.toml:2: bus.local and bus.nats exclude each other; remove one"
    );
    assert!(fault("[bus]\nnats = []\n", &none).starts_with("cofferdam.toml:2: bus.nats names no server"));
    let told = fault("[bus]\nca = \"ca.pem\"\n", &none);
    assert!(
        told.starts_with(
            "cofferdam.toml:2: bus.ca is for NATS, and without a URL the bus is the embedded one"
        )
    );

    // NATS_URL moves a config that says local.
    let (_folder, file) = write("[bus]\nlocal = \"x\"\n");
    assert!(matches!(load(&file, &none).unwrap().bus.kind, BusKind::Local { .. }));
    let moved = load(&file, &Environment::of([("NATS_URL", "nats://a")])).unwrap();
    assert_eq!(nats(&moved).urls, [Url::new("nats://a")]);
}

#[test]
fn what_is_served_is_protected_as_it_is_configured_or_not_at_all() {
    let (folder, file) =
        write("[grpc]\nlisten = [\"127.0.0.1:1\", \"[::1]:2\"]\ncertificate = \"c\"\nkey = \"k\"\n");
    for name in ["c", "k"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let config = load(&file, &Environment::default()).unwrap().grpc;
    assert_eq!(config.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:1", "[::1]:2"]);
    assert!(config.certificate.is_some() && config.client_ca.is_none());
    let moved = Environment::of([("COFFERDAM_GRPC_LISTEN", "127.0.0.1:3, 127.0.0.1:4")]);
    assert_eq!(load(&file, &moved).unwrap().grpc.listen.len(), 2);
    let none = Environment::default();
    for (text, says) in [
        ("listen = [\"localhost\"]", "2: grpc.listen has \"localhost\", which is not an address with a port"),
        (
            "certificate = \"ca.pem\"\nkey = \"ca.pem\"",
            "2: grpc.certificate is set, and nothing listens; add listen",
        ),
        (
            "listen = [\"127.0.0.1:1\"]\nclient-ca = \"ca.pem\"",
            "3: grpc.client-ca asks clients for certificates",
        ),
        ("listen = [\"127.0.0.1:1\"]\ncertificate = \"ca.pem\"", "certificate and key belong together"),
    ] {
        let told = faults(&format!("[grpc]\n{text}\n"), &none);
        assert!(told.contains(says), "{told}");
    }
    let told = faults("", &Environment::of([("COFFERDAM_GRPC_LISTEN", "127.0.0.1:1,50056")]));
    assert!(
        told.contains("environment: COFFERDAM_GRPC_LISTEN has \"50056\", which is not an address"),
        "{told}"
    );
}

#[test]
fn an_upstream_that_is_the_daemon_itself_takes_no_protection_and_somebody_who_serves() {
    let own = "[upstreams.p]\naddress = \"self\"\n";
    let (_folder, file) = write(own);
    let config = load(&file, &Environment::default()).unwrap();
    assert!(config.upstreams["p"].is_own());
    let none = Environment::default();
    for (key, value) in [("ca", "ca.pem"), ("domain", "p"), ("token-env", "T")] {
        let told = faults(&format!("{own}{key} = {value:?}\n"), &none);
        assert!(
            told.contains(&format!(
                "2: upstreams.p has {key}, which a call in memory has no use for; remove it, or write \"http"
            )),
            "{told}"
        );
    }
    let moved = Environment::of([("PLANNING_SERVICE_ADDRESS", "self")]);
    let told = faults("[upstreams.planning]\naddress = \"https://p:1\"\ndomain = \"p\"\n", &moved);
    let says = "environment: PLANNING_SERVICE_ADDRESS is \"self\", and upstreams.planning has domain, which a call in memory";
    assert!(told.contains(says), "{told}");

    let component = testdata("plugin.wasm");
    let manifest = testdata("talker.toml");
    let plugin = format!(
        "{own}[plugins.talker]\ncomponent = {component:?}\nmanifest = {manifest:?}\n[plugins.talker.grants]\n\
         rpc = [\"p/a.B/*\"]\n"
    );
    let told = faults(&plugin, &none);
    let says = "7: \"p/a.B/*\" is called at this daemon itself, as upstreams.p.address says, and no plugin here is granted to serve \
                it; add serve = [\"a.B\"]";
    assert!(told.contains(says), "{told}");

    // A worker of jobs loads no plugin, so there is nothing to call; whatever else names the upstream is the daemon's.
    let (_folder, file) = write(&format!("{own}[executor]\nbackend = \"fleet\"\nupstream = \"p\"\n"));
    let location = Location::File(file);
    assert!(Config::load(&location, &none).is_ok());
    let told = Config::load_executor(&location, &none).unwrap_err().to_string();
    assert!(told.contains("5: the executor's upstream \"p\" is the daemon itself"), "{told}");
    let (_folder, file) = write(&plugin);
    assert!(Config::load_executor(&Location::File(file), &none).is_ok());
}

#[test]
fn an_admin_port_for_others_takes_a_token() {
    let (folder, file) = write("[admin]\nlisten = \"0.0.0.0:8080\"\ntoken-file = \"token\"\n");
    std::fs::write(folder.path().join("token"), "0123456789abcdef\n").unwrap();
    let config = load(&file, &Environment::default()).unwrap();
    assert_eq!(config.admin.token.unwrap().reveal(), "0123456789abcdef");
    let moved = Environment::of([("COFFERDAM_LISTEN", "127.0.0.1:0")]);
    std::fs::write(folder.path().join("token"), "0123456789abcde\n").unwrap();
    let told = load(&file, &Environment::default()).unwrap_err().to_string();
    assert!(
        told.contains("cofferdam.toml:3: the token that admin.token-file names has 15 characters"),
        "{told}"
    );
    assert_eq!(load(&file, &moved).unwrap().admin.listen.to_string(), "127.0.0.1:0");
    let told = faults("", &Environment::of([("COFFERDAM_LISTEN", "[::]:1")]));
    assert!(told.contains("environment: COFFERDAM_LISTEN is [::]:1, where others"), "{told}");
    let told = faults("", &Environment::of([("COFFERDAM_LISTEN", "8080")]));
    assert!(told.contains("environment: COFFERDAM_LISTEN is \"8080\", which is not an address"), "{told}");
    let told = faults("[admin]\nlisten = \"0.0.0.0:8080\"\n", &Environment::default());
    assert!(told.contains("cofferdam.toml:2: admin.listen is 0.0.0.0:8080, where others"), "{told}");
    assert!(told.contains("add token-file or token-env to [admin], or listen on 127.0.0.1"), "{told}");
}

/// `UPDATE=1` accepts what is shown now.
#[test]
fn the_effective_configuration_says_where_each_value_comes_from() {
    let environment = Environment::of([
        ("NATS_URL", "nats://b:4222, nats://me:hunter2@c"),
        ("PLANNING_SERVICE_ADDRESS", "planning:1"),
        ("RAY_EXECUTOR_ADDRESS", "https://ray:2"),
        ("LOG_LEVEL", "WARNING"),
        ("VLLM_MODEL", "large"),
        ("UPSTREAM_TOKEN", "hunter2"),
    ]);
    let reading = Reading::of(&Location::File(testdata("show.toml")), &environment).unwrap();
    assert!(reading.faults.is_empty(), "{}", Faults(reading.faults));
    let shown = reading.settings.to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    let shown = shown.replace(&testdata("").display().to_string(), "");
    // How far a comment is from its value depends on the length of paths here.
    let tidy = |line: &str| match line.rsplit_once("  # ") {
        Some((value, comment)) => format!("{}  # {comment}\n", value.trim_end()),
        None => format!("{line}\n"),
    };
    let shown: String = shown.lines().map(tidy).collect();
    let golden = testdata("show.out");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&golden, &shown).unwrap();
    }
    assert_eq!(shown, std::fs::read_to_string(&golden).unwrap());
}

#[test]
fn what_is_shown_can_be_used_again_and_means_the_same() {
    let (plugins, _) = bundled_plugins();
    let program = plugins.path().join("bin/cofferdam");
    let (_folder, other) = write("");
    for (location, nats) in [
        (Location::BuiltIn, false),
        (Location::File(testdata("show.toml")), false),
        (Location::File(testdata("show.toml")), true),
    ] {
        let environment = match nats {
            true => Environment::of([("NATS_URL", "nats://b:4222"), ("UPSTREAM_TOKEN", "t")]),
            false => Environment::of([("UPSTREAM_TOKEN", "t")]).with_program(&program),
        };
        let first = Reading::of(&location, &environment).unwrap();
        assert!(first.faults.is_empty(), "{}", Faults(first.faults));
        let shown = first.settings.to_string();
        if shown.contains("***@") {
            std::fs::write(&other, &shown).unwrap();
            let told = load(&other, &Environment::of([("UPSTREAM_TOKEN", "t")])).unwrap_err().to_string();
            assert!(
                told.contains(": the password is hidden (***), as `config show` prints it; put"),
                "{told}"
            );
        }
        std::fs::write(&other, shown.replace("***@", "me:hunter2@")).unwrap();
        let without = Environment::of([("UPSTREAM_TOKEN", "t")]);
        let again = Reading::of(&Location::File(other.clone()), &without).unwrap();
        assert!(again.faults.is_empty(), "{}\n{}", Faults(again.faults), first.settings);
        let meant = |reading: &Reading| {
            let text = format!("{:#?}", reading.config);
            text.replace(&format!("{}/", std::env::current_dir().unwrap().display()), "")
        };
        assert_eq!(meant(&first), meant(&again));
    }
}

/// The keys of a section of the docs' first example, commented ones too.
fn documented<'a>(docs: &'a str, section: &str) -> &'a str {
    let example = docs.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    let from = example.split(&format!("[{section}]")).nth(1).unwrap_or_default();
    from.split("\n[").next().unwrap_or_default()
}

#[test]
fn every_key_that_is_read_is_in_the_docs() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let location = Location::File(testdata("show.toml"));
    for nats in ["", "nats://a"] {
        let environment = Environment::of([("NATS_URL", nats), ("UPSTREAM_TOKEN", "t")]);
        let reading = Reading::of(&location, &environment).unwrap();
        assert!(reading.faults.is_empty(), "{}", Faults(reading.faults));
        // The config's keys are the manifest's business.
        for setting in reading.settings.iter().filter(|s| s.table != "plugins.talker.config") {
            let section = setting
                .table
                .replace("talker", "output-parser")
                .replace("upstreams.ray", "upstreams.planning");
            let known = documented(&docs, &section).contains(&format!("{} = ", setting.key));
            assert!(known, "docs/configuration.md lacks {} in [{section}]", setting.key);
        }
    }
}
