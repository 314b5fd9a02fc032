//! `[bus]`: the embedded bus in a directory, or NATS.

use std::time::Duration;

use toml::Value;

use super::{
    BusConfig, BusKind, NatsSettings, Url,
    env::Surroundings,
    literal,
    paths::{certificate, file, optional_path},
    reader::{Item, Table},
    settings::Origin,
};

const EXAMPLE: &str = "nats://127.0.0.1:4222";
const VARIABLE: &str = "NATS_URL";
/// Where the embedded bus keeps its data, beside the config.
const DIRECTORY: &str = ".cofferdam";
/// Keys that say how NATS is reached, and how it keeps what we store.
const OF_NATS: [&str; 6] = ["credentials", "ca", "certificate", "key", "connect-timeout", "replicas"];

pub(super) fn bus(table: &Table<'_>, surroundings: &Surroundings<'_>) -> BusConfig {
    let base = &surroundings.base;
    let local = optional_path(table, "local", base);
    let mut urls = urls(table);
    if let Some((_, text)) = local.as_ref().filter(|_| table.has("nats")) {
        table.fault_at(text, "bus.local and bus.nats exclude each other; remove one");
    }
    if let Some(text) = surroundings.overriding(table, "nats", VARIABLE) {
        urls = text.split(',').map(|url| Url::new(url.trim())).collect();
        for url in urls.iter().filter(|url| !is_nats_url(url.reveal())) {
            surroundings.fault(wrong(VARIABLE, url));
        }
        let shown = urls.iter().map(|url| Value::from(url.reveal())).collect();
        table.set("nats", Value::Array(shown), Origin::Variable(VARIABLE.to_owned()));
        table.overridden("local", VARIABLE);
    }
    let kind = if table.has("nats") || surroundings.has(VARIABLE) {
        BusKind::Nats(NatsSettings {
            urls,
            credentials: file(table, "credentials", base),
            ca: file(table, "ca", base),
            certificate: certificate(table, base),
            connect_timeout: table.duration("connect-timeout").or(Duration::from_secs(10)),
            replicas: replicas(table),
        })
    } else {
        // What is configured to protect the way to a server is not lost in silence.
        for key in OF_NATS.into_iter().filter(|key| table.has(key)) {
            table.fault_of(
                key,
                format!(
                    "bus.{key} is for NATS, and without a URL the bus is the embedded one; add nats = {EXAMPLE:?} or set \
                     {VARIABLE}, or remove {key}"
                ),
            );
        }
        let directory = local.map_or_else(
            || {
                let directory = base.join(DIRECTORY);
                table.set("local", literal::path(&directory), Origin::Default);
                directory
            },
            |(directory, _)| directory,
        );
        BusKind::Local { directory }
    };
    BusConfig { kind, create_streams: table.boolean("create-streams").or(true) }
}

/// An even number survives no more than the odd one below it, and a cluster votes.
fn replicas(table: &Table<'_>) -> u32 {
    let replicas = table.integer("replicas", 1, 5).or(1);
    if replicas.is_multiple_of(2) {
        table.fault_of("replicas", format!("bus.replicas is {replicas}; it takes 1, 3 or 5"));
    }
    replicas
}

fn urls(table: &Table<'_>) -> Vec<Url> {
    let mut urls = Vec::new();
    let items = table.mixed("nats");
    if items.is_empty() && table.has("nats") {
        table.fault_of(
            "nats",
            format!("bus.nats names no server; write one such as {EXAMPLE:?}, or remove it"),
        );
    }
    for item in items {
        match item {
            Item::String(text) => {
                let url = Url::new(text.value.as_str());
                if !is_nats_url(url.reveal()) {
                    table.fault_at(&text, wrong("bus.nats", &url));
                }
                urls.push(url);
            }
            Item::Table(t) => t.fault("bus.nats takes URLs"),
        }
    }
    urls
}

fn wrong(what: &str, url: &Url) -> String {
    format!("{what} has {url:?}, which is not a NATS URL; write one such as {EXAMPLE:?}")
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
