//! Reads `[executor]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use toml::Value;

use super::{
    super::{
        Upstream, Url,
        env::Surroundings,
        grpc::{Port, grpc},
        reader::{At, Table},
        settings::Origin,
        words::{bad_name, is_name, nearest},
    },
    Backend, ExecutorConfig, InferenceConfig, OfflineConfig, Share,
    endpoints::{Defaults, bad_model, endpoints, models, only, vllm},
};
use crate::executor::job::CLIENTS;

/// What the fleet's own deployment uses.
const MODEL: &str = "Qwen/Qwen2.5-7B-Instruct";
const VLLM_URL: &str = "http://vllm-server-service:8000";
const UPSTREAM: &str = "ray";
/// A stand-in answers at once, and the fleet's executor only takes jobs.
const FEW: u32 = 16;
/// A server with a GPU works dozens of requests at a time; smaller ones are given less by who knows them.
const MANY: u32 = 64;
/// As long as an event of a plugin.
const LEASE: Duration = Duration::from_secs(30);
const SHORTEST_LEASE: Duration = Duration::from_secs(1);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);
/// What a cache keeps is a message with a time of its own, in whole seconds.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
const LONGEST_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Tries of a request over the endpoints: as long as a server takes to come back whose place another takes at once.
const ATTEMPTS: u32 = 4;
/// Where the executor is served.
const SERVED: Port = Port { variable: "COFFERDAM_EXECUTOR_LISTEN", example: "127.0.0.1:50055" };

/// `None` if there is no such table, or along with a fault; every key has been read by then. `plugins` are those that are
/// configured here.
pub(in crate::config) fn executor(
    table: &Table<'_>,
    upstreams: &BTreeMap<String, Upstream>,
    plugins: &BTreeSet<String>,
    surroundings: &Surroundings<'_>,
) -> Option<ExecutorConfig> {
    if !table.is_there() {
        return None;
    }
    let name = table.required("backend", "\"offline\"");
    let backend = name.as_ref().and_then(|name| backend(name, table, upstreams));
    let queue = backend == Some(Backend::Queue);
    let model = table.text("model").or(only_model(table).unwrap_or_else(|| MODEL.to_owned()));
    if let Some(wrong) = bad_model(&model).filter(|_| table.has("model")) {
        table.fault_of("model", format!("executor.model: {wrong}, or remove it"));
    }
    let moved = surroundings.overriding(table, "model", "VLLM_MODEL");
    if let Some(wrong) = moved.as_deref().and_then(bad_model) {
        surroundings.fault(format!("VLLM_MODEL: {wrong}, or unset it"));
    }
    let model = moved.unwrap_or(model);
    let vllm_url = vllm_url(table, surroundings);
    let concurrency = table.integer("concurrency", 1, 10_000).or(if queue { MANY } else { FEW });
    let lease = table.duration_within("lease", SHORTEST_LEASE, LONGEST_LEASE).or(LEASE);
    let attempts = table.integer("attempts", 1, 100).or(ATTEMPTS);
    let repeat = table.parsed_or("repeat", "unworked", "unworked or unknown", |s| match s {
        "unworked" => Some(false),
        "unknown" => Some(true),
        _ => None,
    });
    let stream_tokens = table.boolean("stream-tokens").or(false);
    let task_results = table.boolean("task-results").or(false);
    let defaults = Defaults { concurrency, model: &model, vllm_url: &vllm_url };
    let (at, of) = (table.table_or_empty("endpoints"), table.table_or_empty("models"));
    let mut inference = InferenceConfig {
        endpoints: endpoints(&at, &defaults, surroundings),
        attempts,
        repeat_unknown: repeat.unwrap_or_default(),
        models: Vec::new(),
    };
    if queue && inference.endpoints.is_empty() {
        as_endpoint(table, &vllm_url, surroundings);
        inference.endpoints.push(vllm(&at, &defaults, surroundings));
    }
    inference.models = models(&of, &inference.endpoints, &defaults);
    if queue && inference.models.is_empty() {
        inference.models.push(only(&of, &inference.endpoints, &defaults));
    }
    let shares = shares(&table.table_or_empty("plugins"), plugins);
    let cache = table.section("cache", |t| t.duration_within("ttl", SHORTEST_TTL, LONGEST_TTL).optional());
    let offline = table.section("offline", |t| OfflineConfig {
        seed: t.integer("seed", 0, u32::MAX).or(0).into(),
        messy_percent: t.integer("messy", 0, 100).or(0),
    });
    let grpc = table.section("grpc", |t| grpc(t, surroundings, &SERVED));
    Some(ExecutorConfig {
        backend: backend?,
        model,
        vllm_url: Url::new(vllm_url),
        concurrency,
        lease,
        inference,
        shares,
        cache,
        stream_tokens,
        task_results,
        offline,
        grpc,
    })
}

fn backend(name: &At<String>, table: &Table<'_>, upstreams: &BTreeMap<String, Upstream>) -> Option<Backend> {
    let upstream = table.string("upstream");
    match name.value.as_str() {
        "offline" => Some(Backend::Offline),
        "queue" => Some(Backend::Queue),
        "fleet" => {
            let upstream = upstream.unwrap_or_else(|| {
                table.set("upstream", Value::from(UPSTREAM), Origin::Default);
                name.with(UPSTREAM)
            });
            if !upstreams.contains_key(&upstream.value) {
                table.fault_at(
                    &upstream,
                    format!(
                        "the executor's upstream {:?} is not configured; add [upstreams.{}] with its address",
                        upstream.value, upstream.value
                    ),
                );
            }
            Some(Backend::Fleet { upstream: upstream.value })
        }
        other => {
            table.fault_at(name, format!("executor.backend is {other:?}; known here: offline, fleet, queue"));
            None
        }
    }
}

/// Where one model is configured, it is the one that jobs mean which name none.
fn only_model(table: &Table<'_>) -> Option<String> {
    let mut names = table.names_in("models").into_iter();
    names.next().filter(|_| names.next().is_none())
}

fn vllm_url(table: &Table<'_>, surroundings: &Surroundings<'_>) -> String {
    let wrong = |what: &str, url: &str| {
        format!("{what} is {:?}, which is not a URL; write one such as {VLLM_URL:?}", Url::new(url))
    };
    let url = table.text("vllm-url").or(VLLM_URL.to_owned());
    if !is_http_url(&url) {
        table.fault_of("vllm-url", wrong("executor.vllm-url", &url));
    }
    let moved = surroundings.overriding(table, "vllm-url", "VLLM_URL");
    if let Some(url) = moved.as_ref().filter(|url| !is_http_url(url)) {
        surroundings.fault(wrong("VLLM_URL", url));
    }
    moved.unwrap_or(url)
}

/// The fleet's executor is handed the URL as it is; an endpoint of ours is sent no user, and its path goes on.
fn as_endpoint(table: &Table<'_>, url: &str, surroundings: &Surroundings<'_>) {
    let wrong = if url.contains('@') {
        "no endpoint is sent the user and password of a URL; remove them, and name a token with token-file or token-env in \
         [executor.endpoints.vllm]"
    } else if url.contains(['?', '#']) {
        "/v1 is put behind it; remove what comes with ? or #, or write the whole as url in [executor.endpoints.vllm], which \
         may have a query"
    } else {
        return;
    };
    let told = |what: &str| format!("{what} is {:?}, and {wrong}", Url::new(url));
    if surroundings.has("VLLM_URL") {
        surroundings.fault(told("VLLM_URL"));
    } else {
        table.fault_of("vllm-url", told("executor.vllm-url"));
    }
}

fn shares(table: &Table<'_>, plugins: &BTreeSet<String>) -> BTreeMap<String, Share> {
    let mut all = BTreeMap::new();
    let mut known = plugins.clone();
    known.insert(CLIENTS.to_owned());
    for (name, table) in table.named_tables() {
        if !is_name(&name) {
            table.fault(bad_name(&name));
        } else if let Some(near) = nearest(&name, &known).filter(|_| !known.contains(&name)) {
            // One of another daemon on the same bus may have a share, too: its name is hardly like one of ours.
            table.fault(format!(
                "executor.plugins.{name} is a share of a plugin that is not configured here; did you mean {near:?}?"
            ));
        }
        let share = Share {
            weight: table.integer("weight", 1, 1000).or(1),
            tokens_per_hour: table.integer("tokens-per-hour", 1, u32::MAX).optional().map(u64::from),
        };
        table.finish();
        all.insert(name, share);
    }
    all
}

fn is_http_url(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|u| {
        matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some_and(|h| !h.is_empty())
    })
}
