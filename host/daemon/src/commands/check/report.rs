//! What a check found, for people and for programs.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    examine::Report,
    finding::{Finding, Severity},
};
use crate::config::{
    Backend, BusKind, Config, GrpcConfig, Location, MethodKind, PluginConfig, isolation_text,
};

/// Digits of a digest that people compare.
const DIGITS: usize = 12;

pub(super) fn text(location: &Location, report: &Report, config: Option<&Config>) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text.push_str(&finding.to_string());
    }
    match config {
        Some(config) if report.fine() => {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("{location}: fine\n\n{}", summary(report, config)));
        }
        _ => text.push_str(&format!("{location}: {}\n", counts(&report.findings))),
    }
    text
}

fn counts(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let kinds = [
        (count(Severity::Fault), "fault", "faults"),
        (count(Severity::Missing), "plugin that lacks grants", "plugins that lack grants"),
        (count(Severity::Note), "note", "notes"),
    ];
    let counts = kinds.iter().filter(|(n, _, _)| *n > 0).map(|(n, one, more)| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {more}"),
    });
    counts.collect::<Vec<_>>().join(", ")
}

fn summary(report: &Report, config: &Config) -> String {
    let admin = &config.admin;
    let token = if admin.token.is_some() { ", with a token" } else { "" };
    let mut text = format!(
        "bus        {}\nadmin      {}{token}\nexecutor   {}\n",
        bus(config),
        admin.listen,
        executor(config)
    );
    text.push_str(&asked(config));
    let upstreams: Vec<String> =
        config.upstreams.iter().map(|(name, u)| format!("{name} {}", u.address)).collect();
    if !upstreams.is_empty() {
        text.push_str(&format!("upstreams  {}\n", upstreams.join(", ")));
    }
    if !config.grpc.listen.is_empty() {
        text.push_str(&format!("grpc       {}\n", grpc(&config.grpc)));
    }
    let mut rows = vec![["plugin", "version", "digest", "isolation", "subscriptions"].map(str::to_owned)];
    for plugin in &config.plugins {
        let digest = report.digests.get(&plugin.name).map(ToString::to_string).unwrap_or_default();
        let mut first = [
            plugin.name.clone(),
            plugin.manifest.version.clone(),
            digest.chars().take(DIGITS).collect(),
            isolation_text(plugin.isolation),
            String::new(),
        ];
        let mut subjects = subjects(plugin);
        first[4] = subjects.next().unwrap_or("none").to_owned();
        rows.push(first);
        rows.extend(subjects.map(|subject| {
            let [a, b, c, d] = Default::default();
            [a, b, c, d, subject.to_owned()]
        }));
    }
    if rows.len() > 1 {
        text.push('\n');
        text.push_str(&table(&rows));
    }
    let served = config.plugins.iter().flat_map(|plugin| plugin.served().map(move |method| (plugin, method)));
    let served: Vec<String> = served
        .map(|(plugin, method)| format!("{}, by {}: {}\n", kind(method.kind), plugin.name, method.path))
        .collect();
    if !served.is_empty() {
        text.push_str(&format!("\nserves\n  {}", served.join("  ")));
    }
    text
}

fn grpc(grpc: &GrpcConfig) -> String {
    let addresses: Vec<String> = grpc.listen.iter().map(ToString::to_string).collect();
    let tls = match (&grpc.certificate, &grpc.client_ca) {
        (None, _) => "",
        (Some(_), None) => ", with TLS",
        (Some(_), Some(_)) => ", with TLS, for clients with a certificate",
    };
    format!("{}{tls}", addresses.join(", "))
}

fn kind(kind: MethodKind) -> &'static str {
    match kind {
        MethodKind::Read => "read",
        MethodKind::Write => "write",
    }
}

fn subjects(plugin: &PluginConfig) -> impl Iterator<Item = &str> {
    plugin.manifest.subscriptions.iter().map(|s| s.subject.as_str())
}

fn table(rows: &[[String; 5]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let (a, b, c, d) = (width(0), width(1), width(2), width(3));
    let lines = rows.iter().map(|[name, version, digest, isolation, subject]| {
        format!("{name:a$}  {version:b$}  {digest:c$}  {isolation:d$}  {subject}").trim_end().to_owned()
            + "\n"
    });
    lines.collect()
}

fn bus(config: &Config) -> String {
    match &config.bus.kind {
        BusKind::Local { directory } => format!("local, {}", absolute(directory)),
        BusKind::Nats(nats) => {
            let urls: Vec<String> = nats.urls.iter().map(ToString::to_string).collect();
            format!("nats, {}", urls.join(", "))
        }
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn executor(config: &Config) -> String {
    match config.executor.as_ref().map(|executor| &executor.backend) {
        None => "none".to_owned(),
        Some(Backend::Offline) => "offline, a rule-based stand-in for a model".to_owned(),
        Some(Backend::Queue) if config.works_jobs() => "queue, worked by this daemon".to_owned(),
        Some(Backend::Queue) => "queue, worked by `cofferdam executor`".to_owned(),
        Some(Backend::Fleet { upstream }) => format!("fleet, at the upstream {upstream}"),
    }
}

/// Who answers jobs, and where others submit some.
fn asked(config: &Config) -> String {
    let Some(executor) = &config.executor else { return String::new() };
    let mut text = String::new();
    if executor.backend == Backend::Queue {
        let endpoints = executor.inference.endpoints.iter().map(|e| format!("{} {}", e.name, e.url));
        text.push_str(&format!("endpoints  {}\n", endpoints.collect::<Vec<_>>().join(", ")));
        for (index, model) in executor.inference.models.iter().enumerate() {
            let at = model.endpoints.iter().map(|(endpoint, name)| match name {
                Some(name) => format!("{endpoint} as {name}"),
                None => endpoint.clone(),
            });
            let at = at.collect::<Vec<_>>().join(", ");
            let head = if index == 0 { "models" } else { "" };
            text.push_str(&format!("{head:9}  {} at {at}\n", model.name));
        }
    }
    if !executor.grpc.listen.is_empty() {
        text.push_str(&format!("jobs       {}\n", grpc(&executor.grpc)));
    }
    text
}

pub(super) fn json(location: &Location, report: &Report, config: Option<&Config>) -> String {
    let mut all = json!({
        "ok": report.fine(),
        "config": location.to_string(),
        "findings": report.findings,
    });
    if let Some(config) = config {
        let plugins = config.plugins.iter().map(|plugin| {
            json!({
                "name": plugin.name,
                "version": plugin.manifest.version,
                "component": plugin.component.display().to_string(),
                "digest": report.digests.get(&plugin.name).map(ToString::to_string),
                "isolation": isolation_text(plugin.isolation),
                "subscriptions": subjects(plugin).collect::<Vec<_>>(),
                "serves": plugin
                    .served()
                    .map(|method| json!({ "method": method.path, "kind": kind(method.kind) }))
                    .collect::<Vec<_>>(),
            })
        });
        all["plugins"] = plugins.collect();
        all["admin"] = config.admin.listen.to_string().into();
        all["grpc"] = json!({
            "listen": config.grpc.listen,
            "tls": config.grpc.certificate.is_some(),
            "client_certificates": config.grpc.client_ca.is_some(),
        });
        all["executor"] = match &config.executor {
            None => Value::Null,
            Some(executor) => json!({
                "backend": executor.backend.name(),
                "models": executor.inference.models.iter().map(|model| &model.name).collect::<Vec<_>>(),
                "listen": executor.grpc.listen,
            }),
        };
        all["bus"] = match &config.bus.kind {
            BusKind::Local { directory } => {
                json!({ "kind": "local", "directory": absolute(directory) })
            }
            BusKind::Nats(nats) => {
                let urls: Vec<Value> = nats.urls.iter().map(|url| url.to_string().into()).collect();
                json!({ "kind": "nats", "urls": urls })
            }
        };
    }
    format!("{all}\n")
}
