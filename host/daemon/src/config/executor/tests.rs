//! What `[executor]` becomes, and what faults in it are told.

use std::{path::PathBuf, time::Duration};

use super::{super::*, *};

fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("token", "hunter2\n"), ("ca.pem", "a certificate\n")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let file = folder.path().join("cofferdam.toml");
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

fn read(text: &str, environment: &Environment) -> Reading {
    let (_folder, file) = write(text);
    Reading::of(&Location::File(file), environment).unwrap()
}

#[track_caller]
fn fine(text: &str, environment: &Environment) -> ExecutorConfig {
    let Reading { config, faults, .. } = read(text, environment);
    assert!(faults.is_empty(), "{}", Faults(faults));
    config.executor.unwrap()
}

fn plain(text: &str) -> ExecutorConfig {
    fine(text, &Environment::default())
}

/// What is told, each with its line.
fn faults_with(text: &str, environment: &Environment) -> Vec<String> {
    let told = read(text, environment).faults;
    told.into_iter().map(|f| format!("{}: {}", f.line.unwrap_or_default(), f.message)).collect()
}

fn faults(text: &str) -> Vec<String> {
    faults_with(text, &Environment::default())
}

const QUEUE: &str = "[executor]\nbackend = \"queue\"\n";

#[test]
fn without_endpoints_and_models_the_fleets_server_answers_for_the_one_model() {
    let executor = plain(QUEUE);
    assert_eq!((executor.backend.name(), executor.concurrency), ("queue", 64));
    assert_eq!((executor.lease, executor.cache), (Duration::from_secs(30), None));
    let InferenceConfig { endpoints, models, attempts, repeat_unknown } = executor.inference;
    assert_eq!((attempts, repeat_unknown), (4, false));
    let [endpoint] = &endpoints[..] else { panic!("{endpoints:?}") };
    assert_eq!(
        (endpoint.name.as_str(), endpoint.url.reveal()),
        ("vllm", "http://vllm-server-service:8000/v1")
    );
    assert_eq!((endpoint.concurrency, endpoint.max_answer), (64, 1 << 20));
    assert!(!endpoint.max_completion_tokens && endpoint.token.is_none());
    let [model] = &models[..] else { panic!("{models:?}") };
    assert_eq!((model.name.as_str(), model.concurrency), ("Qwen/Qwen2.5-7B-Instruct", 64));
    assert_eq!(model.endpoints, [("vllm".to_owned(), None)]);
    assert!(executor.grpc.listen.is_empty() && executor.shares.is_empty());
}

#[test]
fn the_variables_of_the_fleet_move_the_one_endpoint_and_its_model() {
    let moved = Environment::of([("VLLM_URL", "http://gpu:9000/"), ("VLLM_MODEL", "small")]);
    let executor = fine(QUEUE, &moved);
    let InferenceConfig { endpoints, models, .. } = &executor.inference;
    assert_eq!((endpoints[0].url.reveal(), models[0].name.as_str()), ("http://gpu:9000/v1", "small"));
    assert_eq!(executor.model, "small");
    let with_path = Environment::of([("VLLM_URL", "http://gpu:9000/v1")]);
    assert_eq!(fine(QUEUE, &with_path).inference.endpoints[0].url.reveal(), "http://gpu:9000/v1");
}

/// All there is.
const WHOLE: &str = r#"
[executor]
backend = "queue"
model = "small"
concurrency = 100
lease = "20s"
attempts = 7
repeat = "unknown"
stream-tokens = true
task-results = true

[executor.endpoints.gpu-1]
url = "https://gpu-1:8000/v1"
token-file = "token"
ca = "ca.pem"
concurrency = 256
connect-timeout = "2s"
first-timeout = "1m"
idle-timeout = "20s"
timeout = "10m"
max-answer = "2MiB"
token-limit = "max_completion_tokens"

[executor.endpoints.ollama]
url = "http://127.0.0.1:11434/v1"
token-env = "OLLAMA"

[executor.models.small]
concurrency = 32
endpoints = ["gpu-1", "ollama"]
names = { ollama = "qwen2.5:7b" }

[executor.models."Qwen/Qwen2.5-72B.Instruct"]
endpoints = ["gpu-1"]

[executor.plugins.prompt-builder]
weight = 4
tokens-per-hour = 2000000

[executor.plugins.clients]

[executor.cache]
ttl = "1h"

[executor.offline]
seed = 7
messy = 25

[executor.grpc]
listen = ["127.0.0.1:50055"]
max-calls = 10
"#;

#[test]
fn every_key_is_taken() {
    let executor = fine(WHOLE, &Environment::of([("OLLAMA", "hunter2")]));
    assert_eq!((executor.concurrency, executor.lease), (100, Duration::from_secs(20)));
    assert!(executor.stream_tokens && executor.task_results);
    assert_eq!(executor.cache, Some(Duration::from_secs(3600)));
    assert_eq!(executor.offline, OfflineConfig { seed: 7, messy_percent: 25 });
    assert_eq!((executor.grpc.listen.len(), executor.grpc.max_calls), (1, 10));
    let shares: Vec<_> = executor.shares.iter().map(|(name, share)| (name.as_str(), share.clone())).collect();
    assert_eq!(
        shares,
        [
            ("clients", Share::default()),
            ("prompt-builder", Share { weight: 4, tokens_per_hour: Some(2_000_000) })
        ]
    );
    let InferenceConfig { endpoints, models, attempts, repeat_unknown } = &executor.inference;
    assert_eq!((*attempts, *repeat_unknown), (7, true));
    let gpu = endpoints.iter().find(|endpoint| endpoint.name == "gpu-1").unwrap();
    assert_eq!(gpu.token.as_ref().map(Secret::reveal), Some("hunter2"));
    assert_eq!((gpu.concurrency, gpu.max_answer, gpu.max_completion_tokens), (256, 2 << 20, true));
    let times = [gpu.connect_timeout, gpu.first_timeout, gpu.idle_timeout, gpu.timeout];
    assert_eq!(times, [2, 60, 20, 600].map(Duration::from_secs));
    assert!(gpu.ca.is_some());
    let ollama = endpoints.iter().find(|endpoint| endpoint.name == "ollama").unwrap();
    assert_eq!((ollama.concurrency, ollama.timeout), (100, Duration::from_secs(900)));
    let model = |name: &str| models.iter().find(|model| model.name == name).unwrap();
    let (small, large) = (model("small"), model("Qwen/Qwen2.5-72B.Instruct"));
    assert_eq!((small.concurrency, large.concurrency), (32, 100));
    assert_eq!(
        small.endpoints,
        [("gpu-1".to_owned(), None), ("ollama".to_owned(), Some("qwen2.5:7b".to_owned()))]
    );
    assert!(!format!("{executor:?}").contains("hunter2"));
}

#[test]
fn every_key_is_in_the_docs() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for setting in read(WHOLE, &Environment::of([("OLLAMA", "hunter2")])).settings.iter() {
        let table = setting.table.replace("ollama", "gpu-1").replace("clients", "output-parser");
        let table = table.replace("prompt-builder", "output-parser");
        let table = table.replace(".small", ".\"Qwen/Qwen2.5-7B-Instruct\"").replace("72B.", "7B-");
        if !table.starts_with("executor.") || table.ends_with(".names") {
            continue;
        }
        let said = docs.split(&format!("\n[{table}]")).nth(1).unwrap_or_else(|| panic!("[{table}]"));
        let said = said.split("\n[").next().unwrap_or_default();
        assert!(said.contains(&format!("{} = ", setting.key)), "{} in [{table}]", setting.key);
    }
}

#[test]
fn what_is_shown_is_a_configuration_that_says_the_same() {
    let environment = || Environment::of([("OLLAMA", "hunter2")]);
    for text in [WHOLE, QUEUE, "[executor]\nbackend = \"offline\"\n"] {
        let (folder, file) = write(text);
        let Reading { config, faults, settings } =
            Reading::of(&Location::File(file.clone()), &environment()).unwrap();
        assert!(faults.is_empty(), "{}", Faults(faults));
        let shown = settings.to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
        std::fs::write(&file, &shown).unwrap();
        let again = Reading::of(&Location::File(file), &environment()).unwrap();
        assert!(again.faults.is_empty(), "{}\n{shown}", Faults(again.faults));
        assert_eq!(format!("{:?}", again.config.executor), format!("{:?}", config.executor), "{shown}");
        drop(folder);
    }
}

#[test]
fn all_faults_are_told_with_their_remedies() {
    let text = r#"
[executor]
backend = "queue"
lease = "10ms"
attempts = 0
repeat = "always"
stream-tokens = "yes"
[executor.endpoints.gpu-1]
url = "gpu-1:8000/v1"
[executor.endpoints.gpu-2]
url = "http://me:hunter2@gpu-2/v1"
token-limit = "max_new_tokens"
[executor.endpoints.gpu-3]
url = "http://gpu-3/v1/chat/completions"
ca = "ca.pem"
[executor.endpoints.gpu-4]
[executor.endpoints."gpu 5"]
url = "http://gpu-5/v1"
token-file = "token"
[executor.models.small]
endpoints = ["gpu-1", "gpu-1", "gpu-22", "elsewhere"]
names = { gpu-2 = "s", gpu-1 = "" }
[executor.models.large]
endpoints = []
concurency = 3
[executor.plugins.promt-builder]
weight = 0
tokens-per-hour = "many"
[executor.plugins.on-another-daemon]
[executor.cache]
ttl = "30days"
[executor.offline]
messy = 101
[executor.grpc]
listen = ["everywhere"]
client-ca = "ca.pem"
[plugins.prompt-builder]
component = "ca.pem"
manifest = "ca.pem"
"#;
    let told: Vec<String> =
        faults(text).into_iter().filter(|told| told.contains("executor") || told.contains("gpu")).collect();
    let expected = [
        "4: executor.lease is \"10ms\", which is not a duration from 1s to 1h, such as \"10s\"",
        "5: executor.attempts is 0, which is not a whole number of 1 to 100",
        "6: executor.repeat is \"always\", which is not unworked or unknown",
        "7: executor.stream-tokens is \"yes\", which is not true or false",
        "9: executor.endpoints.gpu-1.url is \"gpu-1:8000/v1\", which is not a URL; write one such as \
         \"http://gpu-1:8000/v1\"",
        "11: executor.endpoints.gpu-2.url is \"http://***@gpu-2/v1\", and no endpoint is sent the user and password of a \
         URL; remove them, and name a token with token-file or token-env",
        "12: executor.endpoints.gpu-2.token-limit is \"max_new_tokens\", which is not max_tokens or \
         max_completion_tokens",
        "14: executor.endpoints.gpu-3.url is \"http://gpu-3/v1/chat/completions\", and /chat/completions is put behind it \
         here; leave that out",
        "14: executor.endpoints.gpu-3.url is \"http://gpu-3/v1/chat/completions\", and there is ca, which plain http has \
         no use for; write https://, or remove it",
        "16: executor.endpoints.gpu-4.url is missing; add url = \"http://gpu-1:8000/v1\"",
        "17: \"gpu 5\" is not a name; use up to 64 letters, digits, - and _",
        "18: executor.endpoints.\"gpu 5\".url is \"http://gpu-5/v1\", and there is a token, which plain http would show to \
         everybody on the way; write https://, or remove it",
        "21: executor.models.small.endpoints names \"gpu-1\" twice; name it once",
        "21: executor.models.small.endpoints names \"gpu-22\", and there is no such endpoint; did you mean \"gpu-2\"?",
        "21: executor.models.small.endpoints names \"elsewhere\", and there is no such endpoint; add \
         [executor.endpoints.elsewhere] with its url",
        "22: executor.models.small.names.gpu-1 is empty; write the name, or remove it",
        "22: executor.models.small.names.gpu-2 says what \"gpu-2\" calls the model, and it is not asked there; add it to \
         executor.models.small.endpoints, or remove it",
        "24: executor.models.large.endpoints is empty; name an endpoint, or remove it for all of them",
        "25: executor.models.large.concurency is not a known key; did you mean \"concurrency\"?",
        "26: executor.plugins.promt-builder is a share of a plugin that is not configured here; did you mean \
         \"prompt-builder\"?",
        "27: executor.plugins.promt-builder.weight is 0, which is not a whole number of 1 to 1000",
        "28: executor.plugins.promt-builder.tokens-per-hour is \"many\", which is not a whole number of 1 to 4294967295",
        "31: executor.cache.ttl is \"30days\", which is not a duration from 1s to 7days, such as \"10s\"",
        "33: executor.offline.messy is 101, which is not a whole number of 0 to 100",
        "35: executor.grpc.listen has \"everywhere\", which is not an address with a port such as \"127.0.0.1:50055\"",
        "36: executor.grpc.client-ca asks clients for certificates, which takes TLS; add certificate and key, or remove it",
    ];
    assert_eq!(told, expected, "{told:#?}");
}

#[test]
fn an_unknown_backend_is_told_with_those_there_are_and_the_rest_is_read() {
    let told =
        faults("[executor]\nbackend = \"vllm\"\nlease = 3\n[executor.endpoint.a]\nurl = \"http://a/v1\"\n");
    assert_eq!(
        told,
        [
            "2: executor.backend is \"vllm\"; known here: offline, fleet, queue",
            "3: executor.lease is 3, which is not a string: put it in quotes",
            "4: executor.endpoint is not a known key; did you mean \"endpoints\"?",
        ]
    );
}

#[test]
fn a_user_in_the_url_of_the_fleets_server_is_for_its_executor_only() {
    let url = "vllm-url = \"http://me:hunter2@gpu:8000\"\n";
    let told = faults(&format!("{QUEUE}{url}"));
    let expected = "3: executor.vllm-url is \"http://***@gpu:8000\", and no endpoint is sent the user and password of a \
                    URL; remove them, and name a token with token-file or token-env in [executor.endpoints.vllm]";
    assert_eq!(told, [expected]);
    let told = faults_with(QUEUE, &Environment::of([("VLLM_URL", "http://me:hunter2@gpu:8000")]));
    assert!(told[0].starts_with("0: VLLM_URL is \"http://***@gpu:8000\", and no endpoint"), "{told:?}");
    let fleet = format!("[executor]\nbackend = \"fleet\"\n{url}[upstreams.ray]\naddress = \"http://r:1\"\n");
    assert_eq!(plain(&fleet).vllm_url.reveal(), "http://me:hunter2@gpu:8000");
}

#[test]
fn one_model_is_the_one_that_jobs_mean_which_name_none() {
    let executor = plain(&format!("{QUEUE}[executor.models.small]\n"));
    assert_eq!(executor.model, "small");
    assert_eq!(executor.inference.models[0].endpoints, [("vllm".to_owned(), None)]);
    let several = plain(&format!("{QUEUE}[executor.models.small]\n[executor.models.large]\n"));
    assert_eq!(several.model, "Qwen/Qwen2.5-7B-Instruct");
}

#[test]
fn the_executors_port_is_moved_by_its_variable() {
    let moved = Environment::of([("COFFERDAM_EXECUTOR_LISTEN", "127.0.0.1:1,127.0.0.1:2")]);
    let listen = fine(QUEUE, &moved).grpc.listen;
    assert_eq!(listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:1", "127.0.0.1:2"]);
    let told = faults_with(QUEUE, &Environment::of([("COFFERDAM_EXECUTOR_LISTEN", "here")]));
    assert_eq!(
        told,
        [
            "0: COFFERDAM_EXECUTOR_LISTEN has \"here\", which is not an address with a port such as \"127.0.0.1:50055\""
        ]
    );
}

fn notes(text: &str, environment: &Environment) -> Vec<String> {
    let Reading { config, faults, settings } = read(text, environment);
    assert!(faults.is_empty(), "{}", Faults(faults));
    let mut notes = unused(&settings, &config.executor.unwrap());
    notes.sort();
    notes.into_iter().map(|(line, note)| format!("{}: {note}", line.unwrap_or_default())).collect()
}

#[test]
fn what_means_nothing_with_the_backend_is_told() {
    let environment = Environment::of([("OLLAMA", "hunter2")]);
    assert_eq!(
        notes(WHOLE, &environment),
        [
            "16: the endpoint \"gpu-1\" never has 256 requests of this process: concurrency is 100 in [executor], and 132 in \
             its models; raise what is lower, or lower the endpoint's",
            "21: executor.endpoints.gpu-1.max-answer is 2MiB, and the event of an answer over about 240KiB can't be stored where \
             the bus has its usual limit of 1 MiB, as it is there 4 times with wire.envelope = \"mirror\" and \
             executor.task-results: it is told as result_too_large, after it was paid for; lower it, or raise NATS's max_payload",
            "46: [executor.offline] means nothing with backend = \"queue\", only with \"offline\"",
        ]
    );
    let offline = WHOLE.replace("\"queue\"", "\"offline\"");
    assert_eq!(
        notes(&offline, &environment),
        [
            "7: executor.attempts means nothing with backend = \"offline\", only with \"queue\"",
            "8: executor.repeat means nothing with backend = \"offline\", only with \"queue\"",
            "13: [executor.endpoints] means nothing with backend = \"offline\", only with \"queue\"",
            "29: [executor.models] means nothing with backend = \"offline\", only with \"queue\"",
            "43: [executor.cache] means nothing with backend = \"offline\", only with \"queue\"",
        ]
    );
    assert_eq!(notes(QUEUE, &Environment::default()), [""; 0]);
}

#[test]
fn endpoints_and_models_that_do_not_meet_are_told() {
    let text = format!(
        "{QUEUE}vllm-url = \"http://a\"\n[executor.endpoints.a]\nurl = \"http://a/v1\"\n[executor.endpoints.b]\nurl = \
         \"http://b/v1\"\n[executor.models.x]\nendpoints = [\"a\"]\n[executor.models.y]\nendpoints = [\"a\"]\n"
    );
    assert_eq!(
        notes(&text, &Environment::default()),
        [
            "1: jobs that name no model are for \"Qwen/Qwen2.5-7B-Instruct\", which no endpoint here is asked for: they \
             wait for a worker with another configuration; set [executor] model, or add \
             [executor.models.\"Qwen/Qwen2.5-7B-Instruct\"]",
            "3: executor.vllm-url means nothing beside [executor.endpoints]; remove it",
            "7: no model is asked of the endpoint \"b\"; add it to endpoints of one in [executor.models], or remove it",
        ]
    );
}

#[test]
fn places_at_an_endpoint_that_nothing_takes_are_told() {
    let of = |executor: &str, endpoint: u32, models: &str| {
        let text = format!(
            "{QUEUE}{executor}model = \"x\"\n[executor.endpoints.a]\nurl = \"http://a/v1\"\nconcurrency = {endpoint}\n{models}"
        );
        notes(&text, &Environment::default())
    };
    let told = |of: u32, here: u32, models: u32| {
        format!(
            "the endpoint \"a\" never has {of} requests of this process: concurrency is {here} in [executor], and {models} in its \
             models; raise what is lower, or lower the endpoint's"
        )
    };
    let none: [String; 0] = [];
    assert_eq!(of("", 64, ""), none);
    assert_eq!(of("", 65, ""), [format!("6: {}", told(65, 64, 64))]);
    // That of the model follows that of [executor].
    assert_eq!(of("concurrency = 128\n", 128, ""), none);
    let models = "[executor.models.x]\nconcurrency = 10\n[executor.models.y]\nconcurrency = 20\n";
    assert_eq!(of("", 30, models), none);
    assert_eq!(of("", 31, models), [format!("6: {}", told(31, 64, 30))]);
}

#[test]
fn an_answer_that_may_be_longer_than_its_event_is_told() {
    let of = |max: &str, envelope: &str| {
        let text = format!(
            "{QUEUE}[executor.endpoints.a]\nurl = \"http://a/v1\"\nmax-answer = \"{max}\"\n[wire]\nenvelope = \"{envelope}\"\n"
        );
        notes(&text, &Environment::default())
    };
    for (max, envelope, about) in [
        ("480KiB", "mirror", None),
        ("481KiB", "mirror", Some("over about 480KiB can't be stored")),
        ("960KiB", "bare", None),
        ("1MiB", "envelope", Some("over about 960KiB can't be stored")),
    ] {
        let told = of(max, envelope);
        assert_eq!(told.len(), usize::from(about.is_some()), "{told:?}");
        assert!(told.iter().all(|told| told.starts_with("5: ") && told.contains(about.unwrap())), "{told:?}");
    }
}

#[test]
fn a_model_without_a_name_is_refused() {
    let wrong = "executor.model: \"\" can't be the name of a model; use 1 to 512 bytes, or remove it";
    assert_eq!(faults(&format!("{QUEUE}model = \"\"\n")), [format!("3: {wrong}")]);
    assert_eq!(faults("[executor]\nbackend = \"offline\"\nmodel = \"\"\n"), [format!("3: {wrong}")]);
    assert_eq!(faults(&format!("{QUEUE}model = \"{}\"\n", "m".repeat(513))).len(), 1);
    let told = faults_with(QUEUE, &Environment::of([("VLLM_MODEL", " ")]));
    assert_eq!(told, ["0: VLLM_MODEL: \" \" can't be the name of a model; use 1 to 512 bytes, or unset it"]);
}

#[test]
fn an_endpoint_may_have_a_query_and_no_fragment() {
    let of = |url: &str| format!("{QUEUE}[executor.endpoints.a]\nurl = \"{url}\"\n");
    let executor = plain(&of("http://a/v1?api-version=7"));
    assert_eq!(executor.inference.endpoints[0].url.reveal(), "http://a/v1?api-version=7");
    let told = "4: executor.endpoints.a.url is \"http://a/v1?x=1#f\", and no server is sent what comes with a #; remove it";
    assert_eq!(faults(&of("http://a/v1?x=1#f")), [told]);
    for url in ["http://a?x=1", "http://a/v1#f"] {
        let told = faults(&format!("{QUEUE}vllm-url = \"{url}\"\n"));
        assert!(
            told.len() == 1 && told[0].contains("and /v1 is put behind it; remove what comes with ? or #"),
            "{told:?}"
        );
    }
}

#[test]
fn a_worker_reads_nothing_of_plugins() {
    let text = format!("{QUEUE}[plugins.gone]\ncomponent = \"gone.wasm\"\n");
    assert!(!faults(&text).is_empty());
    let (_folder, file) = write(&text);
    let config = Config::load_executor(&Location::File(file), &Environment::default()).unwrap();
    assert!(config.plugins.is_empty() && config.executor.is_some());
}
