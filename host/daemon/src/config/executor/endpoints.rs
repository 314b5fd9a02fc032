//! `[executor.endpoints.NAME]` and `[executor.models."NAME"]`: who is asked, for what, and how long one waits for it.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use toml::Value;

use super::{
    super::{
        Url,
        env::Surroundings,
        paths::file,
        reader::{At, Table},
        settings::Origin,
        token::token,
        words::{bad_name, is_name, nearest},
    },
    EndpointSettings, ModelSettings,
};

const EXAMPLE: &str = "http://gpu-1:8000/v1";
/// The endpoint where none is configured.
const VLLM: &str = "vllm";
/// A host that is there answers in milliseconds.
const CONNECT: Duration = Duration::from_secs(5);
/// The request may wait its turn there, and its prompt is read.
const FIRST: Duration = Duration::from_secs(300);
const IDLE: Duration = Duration::from_secs(60);
const WHOLE: Duration = Duration::from_secs(900);
/// A model's longest answers are of 128 thousand tokens, some four bytes each; and what the bus takes as one message.
const MAX_ANSWER: usize = 1 << 20;
/// Of a model's name, in bytes, as everywhere.
const MAX_NAME: usize = 512;

/// What holds where nothing else is said.
pub(super) struct Defaults<'a> {
    pub concurrency: u32,
    pub model: &'a str,
    pub vllm_url: &'a str,
}

/// Without any it is one where the fleet has its server.
pub(super) fn endpoints(
    table: &Table<'_>,
    defaults: &Defaults<'_>,
    surroundings: &Surroundings<'_>,
) -> Vec<EndpointSettings> {
    let mut all = Vec::new();
    for (name, table) in table.named_tables() {
        if !is_name(&name) {
            table.fault(bad_name(&name));
        }
        let url = table.required("url", &format!("{EXAMPLE:?}"));
        if let Some(url) = &url {
            check_url(&table, url);
        }
        let url = url.map(|url| url.value).unwrap_or_default();
        all.push(endpoint(&name, url, &table, defaults, surroundings));
        table.finish();
    }
    all
}

/// The one endpoint where none is configured.
pub(super) fn vllm(
    table: &Table<'_>,
    defaults: &Defaults<'_>,
    surroundings: &Surroundings<'_>,
) -> EndpointSettings {
    let table = table.table_or_empty(VLLM);
    let base = defaults.vllm_url.trim_end_matches('/');
    let url = if base.ends_with("/v1") { base.to_owned() } else { format!("{base}/v1") };
    table.set("url", Value::from(url.as_str()), Origin::Default);
    endpoint(VLLM, url, &table, defaults, surroundings)
}

fn endpoint(
    name: &str,
    url: String,
    table: &Table<'_>,
    defaults: &Defaults<'_>,
    surroundings: &Surroundings<'_>,
) -> EndpointSettings {
    let token = token(table, surroundings);
    let ca = file(table, "ca", &surroundings.base);
    if let Some(lost) = lost(&url, ca.is_some(), token.is_some()) {
        let name = table.name("url");
        table.fault_of("url", format!("{name} is {:?}, and there is {lost}", Url::new(url.as_str())));
    }
    let field =
        table.parsed_or("token-limit", "max_tokens", "max_tokens or max_completion_tokens", |s| match s {
            "max_tokens" => Some(false),
            "max_completion_tokens" => Some(true),
            _ => None,
        });
    EndpointSettings {
        name: name.to_owned(),
        url: Url::new(url),
        token,
        ca,
        concurrency: table.integer("concurrency", 1, 10_000).or(defaults.concurrency),
        connect_timeout: table.duration("connect-timeout").or(CONNECT),
        first_timeout: table.duration("first-timeout").or(FIRST),
        idle_timeout: table.duration("idle-timeout").or(IDLE),
        timeout: table.duration("timeout").or(WHOLE),
        max_answer: table.size("max-answer").or(MAX_ANSWER),
        max_completion_tokens: field.unwrap_or_default(),
    }
}

fn check_url(table: &Table<'_>, url: &At<String>) {
    let name = table.name("url");
    let shown = Url::new(url.value.as_str());
    let parsed = url.value.parse::<http::Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    let wrong = match parsed {
        None => Some(format!("which is not a URL; write one such as {EXAMPLE:?}")),
        Some(uri) if uri.authority().is_some_and(|a| a.as_str().contains('@')) => Some(
            "and no endpoint is sent the user and password of a URL; remove them, and name a token with token-file or \
             token-env"
                .to_owned(),
        ),
        Some(uri) if uri.path().trim_end_matches('/').ends_with("/chat/completions") => {
            Some("and /chat/completions is put behind it here; leave that out".to_owned())
        }
        // A query stays behind the path.
        Some(_) if url.value.contains('#') => Some("and no server is sent what comes with a #; remove it".to_owned()),
        Some(_) => None,
    };
    if let Some(wrong) = wrong {
        table.fault_at(url, format!("{name} is {shown:?}, {wrong}"));
    }
}

/// What is configured for the way there and would not protect it.
fn lost(url: &str, ca: bool, token: bool) -> Option<&'static str> {
    let uri: http::Uri = url.parse().ok()?;
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let host = uri.host()?;
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let own = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    if ca {
        Some("ca, which plain http has no use for; write https://, or remove it")
    } else if token && !own {
        Some("a token, which plain http would show to everybody on the way; write https://, or remove it")
    } else {
        None
    }
}

/// Without any it is the one that jobs have which name none, at all endpoints.
pub(super) fn models(
    table: &Table<'_>,
    endpoints: &[EndpointSettings],
    defaults: &Defaults<'_>,
) -> Vec<ModelSettings> {
    let known: BTreeSet<String> = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    let mut all = Vec::new();
    for (name, table) in table.named_tables() {
        if let Some(wrong) = bad_model(&name) {
            table.fault(wrong);
        }
        all.push(model(&name, &table, &known, defaults));
        table.finish();
    }
    all
}

/// What is wrong with a model's name.
pub(super) fn bad_model(name: &str) -> Option<String> {
    let bad = name.trim().is_empty() || name.len() > MAX_NAME;
    bad.then(|| format!("{name:?} can't be the name of a model; use 1 to {MAX_NAME} bytes"))
}

/// The one model where none is configured.
pub(super) fn only(
    table: &Table<'_>,
    endpoints: &[EndpointSettings],
    defaults: &Defaults<'_>,
) -> ModelSettings {
    let known = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    model(defaults.model, &table.table_or_empty(defaults.model), &known, defaults)
}

fn model(name: &str, table: &Table<'_>, known: &BTreeSet<String>, defaults: &Defaults<'_>) -> ModelSettings {
    let concurrency = table.integer("concurrency", 1, 10_000).or(defaults.concurrency);
    let unknown = |name: &str| match nearest(name, known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("add [executor.endpoints.{name}] with its url"),
    };
    let mut at: Vec<String> = Vec::new();
    for endpoint in table.strings("endpoints") {
        let key = table.name("endpoints");
        if at.contains(&endpoint.value) {
            table.fault_at(&endpoint, format!("{key} names {:?} twice; name it once", endpoint.value));
        } else if known.contains(&endpoint.value) {
            at.push(endpoint.value);
        } else {
            let remedy = unknown(&endpoint.value);
            table.fault_at(
                &endpoint,
                format!("{key} names {:?}, and there is no such endpoint; {remedy}", endpoint.value),
            );
        }
    }
    if !table.has("endpoints") {
        at = known.iter().cloned().collect();
        let shown = at.iter().map(|name| Value::from(name.as_str())).collect();
        table.set("endpoints", Value::Array(shown), Origin::Default);
    } else if table.value("endpoints").is_some_and(|list| list.value.as_array().is_some_and(Vec::is_empty)) {
        let key = table.name("endpoints");
        table
            .fault_of("endpoints", format!("{key} is empty; name an endpoint, or remove it for all of them"));
    }
    let names = table.table_or_empty("names");
    let mut called = Vec::new();
    for endpoint in names.names() {
        let text = names.string(&endpoint);
        if !at.contains(&endpoint) {
            let remedy = if known.contains(&endpoint) {
                format!("add it to {}, or remove it", table.name("endpoints"))
            } else {
                unknown(&endpoint)
            };
            names.fault_of(
                &endpoint,
                format!(
                    "{} says what {endpoint:?} calls the model, and it is not asked there; {remedy}",
                    names.name(&endpoint)
                ),
            );
        }
        if let Some(text) = text {
            if text.value.trim().is_empty() {
                names.fault_at(
                    &text,
                    format!("{} is empty; write the name, or remove it", names.name(&endpoint)),
                );
            }
            called.push((endpoint, text.value));
        }
    }
    let name_at = |endpoint: &str| called.iter().find(|(at, _)| at == endpoint).map(|(_, name)| name.clone());
    ModelSettings {
        name: name.to_owned(),
        concurrency,
        endpoints: at.into_iter().map(|endpoint| (endpoint.clone(), name_at(&endpoint))).collect(),
    }
}
