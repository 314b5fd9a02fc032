//! From `cofferdam.toml` to [`Config`]: each table's keys, defaults with their reasons, and what must fit together.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Backend, BusConfig, Config, DispatchConfig, Environment, ExecutorConfig, Faults, LogConfig,
    SandboxSettings, Upstream, Url,
    env::Surroundings,
    limits::Ceilings,
    plugin::{Around, plugins},
    reader::{Item, Source, Table},
    upstreams::upstreams,
};
use crate::observe::logs;

/// What the fleet's own deployment uses.
const MODEL: &str = "Qwen/Qwen2.5-7B-Instruct";
const VLLM_URL: &str = "http://vllm-server-service:8000";
const NATS_URL: &str = "nats://127.0.0.1:4222";
const ADMIN: &str = "127.0.0.1:8080";

pub(super) fn load(file: &Path, environment: &Environment) -> Result<Config, Faults> {
    let source = Source::read(file)?;
    let base = file.parent().map_or_else(PathBuf::new, Path::to_owned);
    let surroundings = Surroundings::new(base, environment);
    let (config, mut faults) = source.parse(|top| read(top, &surroundings));
    faults.extend(surroundings.into_faults());
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(Faults(faults)),
    }
}

/// `None` only along with a fault.
fn read(top: &Table<'_>, surroundings: &Surroundings<'_>) -> Option<Config> {
    let bus = section(top, "bus", |t| bus(t, surroundings));
    let admin = section(top, "admin", |t| {
        t.and_then(|t| {
            t.parsed("listen", "an address with a port such as \"127.0.0.1:8080\"", |s| s.parse().ok())
        })
    })
    .or_else(|| ADMIN.parse::<SocketAddr>().ok());
    let envelope = section(top, "wire", |t| {
        t.and_then(|t| {
            t.parsed("envelope", "one of mirror, envelope, bare", |s| {
                ["mirror", "envelope", "bare"].contains(&s).then(|| s.to_owned())
            })
        })
    });
    let log = section(top, "log", |t| log(t, surroundings));
    let sandbox = section(top, "sandbox", |t| sandbox(t, &surroundings.base));
    let limits = section(top, "limits", |t| Ceilings::read(t, sandbox.memory));
    let dispatch = section(top, "dispatch", dispatch);
    let advisories = section(top, "observe", |t| t.and_then(|t| t.boolean("advisories"))).unwrap_or(false);
    let upstreams = section(top, "upstreams", |t| upstreams(t, surroundings));
    let executor = section(top, "executor", |t| t.and_then(|t| executor(t, &upstreams, surroundings)));
    let around = Around {
        surroundings,
        upstreams: &upstreams,
        // One that is faulty is there all the same.
        executor: top.has("executor"),
        memory: sandbox.memory,
        ceilings: &limits,
        max_deliveries: dispatch.max_deliveries,
    };
    let plugins = section(top, "plugins", |t| plugins(t, &around));
    Some(Config {
        bus,
        admin: admin?,
        envelope: envelope.unwrap_or_else(|| "mirror".to_owned()),
        log,
        sandbox,
        limits,
        dispatch,
        executor,
        upstreams,
        plugins,
        advisories,
    })
}

/// Reads a table that may be missing, and reports its unknown keys.
pub(super) fn section<T>(top: &Table<'_>, name: &str, read: impl FnOnce(Option<&Table<'_>>) -> T) -> T {
    let table = top.table(name);
    let value = read(table.as_ref());
    if let Some(table) = table {
        table.finish();
    }
    value
}

fn path(table: &Table<'_>, key: &str, base: &Path) -> Option<PathBuf> {
    table.string(key).map(|p| base.join(p.value))
}

/// A path whose file must be there.
pub(super) fn file(table: &Table<'_>, key: &str, base: &Path) -> Option<PathBuf> {
    let text = table.string(key)?;
    let path = base.join(&text.value);
    if !path.is_file() {
        table.fault_at(
            &text,
            format!("{key} names {:?}, which is not a file; correct the path", path.display()),
        );
    }
    Some(path)
}

/// A client certificate comes with its key.
pub(super) fn certificate(table: &Table<'_>, base: &Path) -> Option<(PathBuf, PathBuf)> {
    match (file(table, "certificate", base), file(table, "key", base)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            table.fault("certificate and key belong together; add the one that is missing");
            None
        }
    }
}

fn bus(table: Option<&Table<'_>>, surroundings: &Surroundings<'_>) -> BusConfig {
    let wrong = |what: &str, url: &Url| {
        format!("{what} has {url:?}, which is not a NATS URL; write one such as {NATS_URL:?}")
    };
    let mut nats = Vec::new();
    if let Some(table) = table {
        for item in table.mixed("nats") {
            match item {
                Item::String(text) => {
                    let url = Url::new(text.value.as_str());
                    if !is_nats_url(url.reveal()) {
                        table.fault_at(&text, wrong("bus.nats", &url));
                    }
                    nats.push(url);
                }
                Item::Table(t) => t.fault("bus.nats takes URLs"),
            }
        }
    }
    if let Some(urls) = surroundings.variable("NATS_URL") {
        nats = urls.split(',').map(|url| Url::new(url.trim())).collect();
        for url in nats.iter().filter(|url| !is_nats_url(url.reveal())) {
            surroundings.fault(wrong("NATS_URL", url));
        }
    }
    if nats.is_empty() {
        nats.push(Url::new(NATS_URL));
    }
    let base = &surroundings.base;
    BusConfig {
        nats,
        credentials: table.and_then(|t| file(t, "credentials", base)),
        ca: table.and_then(|t| file(t, "ca", base)),
        certificate: table.and_then(|t| certificate(t, base)),
        connect_timeout: table.and_then(|t| t.duration("connect-timeout")).unwrap_or(Duration::from_secs(10)),
        create_streams: table.and_then(|t| t.boolean("create-streams")).unwrap_or(true),
    }
}

/// `scheme://host`, with a port or without, and with anything for user and password.
fn is_nats_url(url: &str) -> bool {
    let Some(rest) = ["nats://", "tls://", "ws://", "wss://"].iter().find_map(|s| url.strip_prefix(s)) else {
        return false;
    };
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place).trim_end_matches('/');
    let (host, port) = match place.rsplit_once(':') {
        // Colons inside of brackets are those of an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().is_ok_and(|p| p > 0)),
        _ => (place, true),
    };
    let fine = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ',');
    port && !host.is_empty() && host.chars().all(fine)
}

fn log(table: Option<&Table<'_>>, surroundings: &Surroundings<'_>) -> LogConfig {
    let mut level = None;
    if let Some(table) = table
        && let Some(text) = table.string("level")
    {
        level = logs::level(&text.value);
        if level.is_none() {
            table.fault_at(&text, format!("log.level is {:?}, which is not {}", text.value, logs::LEVELS));
        }
    }
    if let Some(text) = surroundings.variable("LOG_LEVEL") {
        level = logs::level(&text);
        if level.is_none() {
            surroundings.fault(format!("LOG_LEVEL is {text:?}, which is not {}", logs::LEVELS));
        }
    }
    let json = table.and_then(|t| {
        t.parsed("format", "text or json", |s| match s {
            "text" => Some(false),
            "json" => Some(true),
            _ => None,
        })
    });
    LogConfig { level: level.unwrap_or_else(|| "info".to_owned()), json: json.unwrap_or(false) }
}

fn sandbox(table: Option<&Table<'_>>, base: &Path) -> SandboxSettings {
    SandboxSettings {
        cache: Some(
            table
                .and_then(|t| path(t, "cache", base))
                .unwrap_or_else(|| base.join(".cofferdam").join("compiled")),
        ),
        // Each costs address space, and memory only while it lives.
        instances: table.and_then(|t| t.integer("instances", 1, 10_000)).unwrap_or(256) as u32,
        memory: table.and_then(|t| t.size("memory")).unwrap_or(256 << 20),
    }
}

fn dispatch(table: Option<&Table<'_>>) -> DispatchConfig {
    DispatchConfig {
        // A few times what runs at once: enough to keep it busy, little enough that other hosts get their share.
        max_in_flight: table.and_then(|t| t.integer("max-in-flight", 1, 65_536)).unwrap_or(256) as u32,
        drain: table.and_then(|t| t.duration("drain")).unwrap_or(Duration::from_secs(30)),
        // Far above what restarts and hand-backs make of an innocent event.
        max_deliveries: table.and_then(|t| t.integer("max-deliveries", 1, 10_000)).unwrap_or(25) as u32,
    }
}

/// `None` only along with a fault; every key has been read by then.
fn executor(
    table: &Table<'_>,
    upstreams: &BTreeMap<String, Upstream>,
    surroundings: &Surroundings<'_>,
) -> Option<ExecutorConfig> {
    let name = table.required("backend", "\"offline\"");
    let upstream = table.string("upstream");
    let model = table.string("model").map(|m| m.value);
    let vllm_url = table.string("vllm-url");
    let concurrency = table.integer("concurrency", 1, 10_000).unwrap_or(16) as u32;
    let wrong = |what: &str, url: &str| {
        format!("{what} is {:?}, which is not a URL; write one such as {VLLM_URL:?}", Url::new(url))
    };
    if let Some(url) = vllm_url.as_ref().filter(|url| !is_http_url(&url.value)) {
        table.fault_at(url, wrong("executor.vllm-url", &url.value));
    }
    let moved = surroundings.variable("VLLM_URL");
    if let Some(url) = moved.as_ref().filter(|url| !is_http_url(url)) {
        surroundings.fault(wrong("VLLM_URL", url));
    }
    let name = name?;
    let backend = match name.value.as_str() {
        "offline" => Backend::Offline,
        "fleet" => {
            let upstream = upstream.unwrap_or_else(|| name.with("ray"));
            if !upstreams.contains_key(&upstream.value) {
                table.fault_at(
                    &upstream,
                    format!(
                        "the executor's upstream {:?} is not configured; add [upstreams.{}] with its address",
                        upstream.value, upstream.value
                    ),
                );
            }
            Backend::Fleet { upstream: upstream.value }
        }
        other => {
            table.fault_at(&name, format!("executor.backend is {other:?}; known here: offline, fleet"));
            return None;
        }
    };
    Some(ExecutorConfig {
        backend,
        model: surroundings.variable("VLLM_MODEL").or(model).unwrap_or_else(|| MODEL.to_owned()),
        vllm_url: moved.or(vllm_url.map(|u| u.value)).unwrap_or_else(|| VLLM_URL.to_owned()),
        concurrency,
    })
}

fn is_http_url(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|u| {
        matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some_and(|h| !h.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nats_urls_have_a_scheme_and_a_host() {
        for good in [
            "nats://a",
            "nats://a:4222",
            "tls://me:p@ss/w:rd@a.b:4222",
            "nats://token@[::1]:4222",
            "nats://[::1]",
            "wss://a:443/",
        ] {
            assert!(is_nats_url(good), "{good}");
        }
        for bad in [
            "",
            "a:4222",
            "http://a:1",
            "nats://",
            "nats://:4222",
            "nats://a:b",
            "nats://a:0",
            "nats://a b",
            "nats://me:p@",
        ] {
            assert!(!is_nats_url(bad), "{bad}");
        }
    }
}
