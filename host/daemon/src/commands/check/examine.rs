//! What `run` would find before it connects, in its order, going on behind each fault.

use std::collections::BTreeMap;

use bytes::Bytes;
use cofferdam_sandbox::{Digest, LoadError, Sandbox, Shape};
use futures_util::future::join_all;

use super::finding::{Finding, Line, Lines, Severity};
use crate::{
    capabilities::Upstreams,
    config::{Fault, Location, PluginConfig, Reading, unused},
    executor,
    grants::Kind,
    observe::metrics::Metrics,
    plugins::{self, PluginError},
    serve::{self, Tls},
};

#[derive(Debug, Default)]
pub(super) struct Report {
    pub findings: Vec<Finding>,
    /// Of the components that are some, by the plugin's name.
    pub digests: BTreeMap<String, Digest>,
}

impl Report {
    pub(super) fn of_faults(faults: Vec<Fault>) -> Self {
        Self { findings: faults.into_iter().map(fault).collect(), digests: BTreeMap::new() }
    }

    pub(super) fn fine(&self) -> bool {
        self.findings.iter().all(|f| f.severity == Severity::Note)
    }
}

fn fault(fault: Fault) -> Finding {
    let Fault { file, line, message } = fault;
    let file = file.display().to_string();
    Finding { severity: Severity::Fault, file, line, message, details: Vec::new(), write: None }
}

pub(super) async fn examine(location: &Location, reading: &Reading) -> Report {
    let mut report = Report::of_faults(reading.faults.clone());
    let mut found = Vec::new();
    let place = Place { location, reading };
    let sandbox = plugins::sandbox_without_cache(&reading.config);
    if let Err(error) = &sandbox {
        found.push(place.fault("sandbox", "", error.to_string()));
    }
    let components = reading.config.plugins.iter().map(|plugin| component(plugin, sandbox.as_ref().ok()));
    let components = join_all(components).await;
    for (plugin, (shape, error)) in reading.config.plugins.iter().zip(components) {
        let table = format!("plugins.{}", plugin.name);
        found.extend(error.map(|error| place.fault(&table, "component", error.to_string())));
        let promises = shape.as_ref().and_then(|shape| plugins::serves_nothing(plugin, shape));
        found.extend(promises.map(|error| place.fault(&table, "component", error.to_string())));
        if let Some(lacking) = place.lacking(plugin, shape.as_ref()) {
            // It tells the same with more around it.
            let told = crate::config::trespass(plugin);
            report.findings.retain(|finding| finding.message != told);
            found.push(lacking);
        }
        // A manifest that is not there, or has faults, may ask for more than could be read.
        let file = &plugin.manifest_file;
        if file.is_file() && !reading.faults.iter().any(|fault| fault.file == *file) {
            found.extend(place.idle(plugin));
        }
        report.digests.extend(shape.map(|shape| (plugin.name.clone(), shape.digest)));
    }
    // What has a fault already would only be told again.
    if reading.faults.is_empty() {
        if let Err(error) = Upstreams::connect(&reading.config.upstreams) {
            found.push(place.fault("upstreams", "", format!("{error:#}")));
        }
        if let Err(error) = Tls::read(&reading.config.grpc, serve::PLUGINS) {
            found.push(place.fault("grpc", "certificate", format!("{error:#}")));
        }
        found.extend(place.executor());
        found.extend(place.unheard());
        let metrics = reading.config.plugins.iter().flat_map(|plugin| &plugin.manifest.metrics);
        if let Err(error) = Metrics::new(metrics) {
            found.push(place.fault(
                "plugins",
                "",
                format!("a plugin's metrics can't be registered: {error}"),
            ));
        }
    }
    if reading.faults.is_empty() && reading.config.plugins.is_empty() {
        let message =
            "no plugins are configured, so no event is handled; add [plugins.NAME] for each".to_owned();
        found.push(place.finding(Severity::Note, None, message));
    }
    report.findings.extend(found);
    in_order(&mut report.findings, &location.to_string());
    report
}

/// The config's before those of other places, each in the order of its lines; notes at the end.
fn in_order(findings: &mut [Finding], config: &str) {
    let mut files = vec![config.to_owned()];
    for finding in findings.iter() {
        if !files.contains(&finding.file) {
            files.push(finding.file.clone());
        }
    }
    findings.sort_by_key(|finding| {
        let file = files.iter().position(|file| *file == finding.file);
        (finding.severity == Severity::Note, file, finding.line)
    });
}

/// What the component is, as far as that can be told, and why it can't run here.
async fn component(plugin: &PluginConfig, sandbox: Option<&Sandbox>) -> (Option<Shape>, Option<PluginError>) {
    let (name, path) = (plugin.name.clone(), plugin.component.clone());
    // That there is none has been told.
    if !path.is_file() {
        return (None, None);
    }
    let bytes = match tokio::fs::read(&path).await {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) => return (None, Some(PluginError::Unreadable { name, path, error })),
    };
    let unloadable = |error: LoadError| Some(PluginError::Load { name, path, error });
    let shape = match Sandbox::inspect(&bytes) {
        Ok(shape) => shape,
        Err(error) => return (None, unloadable(error)),
    };
    match sandbox {
        Some(sandbox) => (Some(shape), sandbox.load(bytes).await.err().and_then(unloadable)),
        None => (Some(shape), None),
    }
}

struct Place<'a> {
    location: &'a Location,
    reading: &'a Reading,
}

impl Place<'_> {
    /// The line of a key, else that of its table.
    fn line(&self, table: &str, key: &str) -> Option<usize> {
        let settings = &self.reading.settings;
        settings.get(table, key).and_then(|s| s.origin.line()).or_else(|| settings.table(table))
    }

    fn fault(&self, table: &str, key: &str, message: String) -> Finding {
        self.finding(Severity::Fault, self.line(table, key), message)
    }

    fn finding(&self, severity: Severity, line: Option<usize>, message: String) -> Finding {
        let file = self.location.to_string();
        Finding { severity, file, line, message, details: Vec::new(), write: None }
    }

    /// What the plugin asks for, or imports, and is not granted: together, as the lines belong into one table.
    fn lacking(&self, plugin: &PluginConfig, shape: Option<&Shape>) -> Option<Finding> {
        let name = &plugin.name;
        let ungranted = shape.map(|shape| plugins::ungranted(plugin, shape)).unwrap_or_default();
        let missing = plugin.grants.missing();
        let (mut details, mut lines) = (Vec::new(), Vec::new());
        let table = format!("plugins.{name}.grants");
        for denial in missing {
            let mut detail = format!("asks for {} {}", denial.kind.name(), denial.thing);
            if denial.kind == Kind::State && plugin.trespasses() {
                detail.push_str(", where it keeps the cells of its events");
            } else if ungranted.contains(&denial.kind) {
                detail.push_str(", imports that interface, and is granted nothing of the kind");
            }
            details.push(detail);
            let replaces =
                self.reading.settings.get(&table, denial.kind.name()).and_then(|s| s.origin.line());
            let text = denial.grant.and_then(|text| self.without_faulty(&text));
            lines.extend(text.map(|text| Line { text, replaces }));
        }
        for kind in &ungranted {
            if plugin.grants.asked.list(*kind).is_empty() {
                details.push(unasked(*kind, plugin));
            }
        }
        if details.is_empty() {
            return None;
        }
        let (severity, message) = match ungranted.is_empty() && !plugin.trespasses() {
            true => (
                Severity::Missing,
                format!("plugin {name:?} asks for more than it is granted; it runs, and the rest is denied"),
            ),
            false => (Severity::Fault, format!("plugin {name:?} can't run without grants that it lacks")),
        };
        let mut finding = self.finding(severity, self.line(&format!("plugins.{name}"), "component"), message);
        finding.details = details;
        let table_line = self.reading.settings.table(&table);
        finding.write = (!lines.is_empty()).then_some(Lines { table, table_line, lines });
        Some(finding)
    }

    /// The line of a list without the entries that are faults: who pastes it is not to be told of them again.
    fn without_faulty(&self, line: &str) -> Option<String> {
        let (kind, list) = line.split_once(" = ")?;
        let mut entries: Vec<String> = serde_json::from_str(list).ok()?;
        let faulty = |entry: &String| {
            let begins = format!("{entry:?} ");
            self.reading.faults.iter().any(|fault| fault.message.starts_with(&begins))
        };
        entries.retain(|entry| !faulty(entry));
        let entries: Vec<String> = entries.iter().map(|entry| format!("{entry:?}")).collect();
        (!entries.is_empty()).then(|| format!("{kind} = [{}]", entries.join(", ")))
    }

    /// What is wrong with files of the executor, and what it makes nothing of.
    fn executor(&self) -> Vec<Finding> {
        let Some(config) = &self.reading.config.executor else { return Vec::new() };
        let mut found = Vec::new();
        if let Err(error) = Tls::read(&config.grpc, serve::EXECUTOR) {
            found.push(self.fault("executor.grpc", "certificate", format!("{error:#}")));
        }
        if let Err(error) = executor::examine(&config.inference) {
            found.push(self.fault("executor", "backend", format!("{error:#}")));
        }
        let unused = unused(&self.reading.settings, config);
        found.extend(unused.into_iter().map(|(line, message)| self.finding(Severity::Note, line, message)));
        found
    }

    /// Methods that are granted to be served, where nothing listens.
    fn unheard(&self) -> Option<Finding> {
        let config = &self.reading.config;
        let plugin = config.plugins.iter().find(|plugin| plugin.served().next().is_some())?;
        let message = format!(
            "plugin {:?} is granted to serve methods, and nothing listens for calls; add listen = [\"127.0.0.1:50056\"] to \
             [grpc]",
            plugin.name
        );
        let table = format!("plugins.{}.grants", plugin.name);
        let found = self.finding(Severity::Note, self.line(&table, "serve"), message);
        (config.grpc.listen.is_empty() && !config.calls_itself()).then_some(found)
    }

    /// Grants that the plugin never asked for.
    fn idle(&self, plugin: &PluginConfig) -> Vec<Finding> {
        let table = format!("plugins.{}.grants", plugin.name);
        let notes = plugin.grants.idle().into_iter().map(|(kind, entry)| {
            let message = format!(
                "{table}.{} has {entry:?}, which the plugin does not ask for; it allows nothing until {:?} asks for it {}",
                kind.name(),
                plugin.manifest_file.display(),
                asked_in(kind)
            );
            self.finding(Severity::Note, self.line(&table, kind.name()), message)
        });
        notes.collect()
    }
}

fn unasked(kind: Kind, plugin: &PluginConfig) -> String {
    format!(
        "imports the interface {:?}, which {:?} does not ask for and nothing is granted of; build it for a world without \
         that import, or ask for it there {} and grant it here",
        kind.name(),
        plugin.manifest_file.display(),
        asked_in(kind)
    )
}

/// The table of a manifest.
fn asked_in(kind: Kind) -> &'static str {
    match kind {
        Kind::State => "with [state]",
        Kind::Serve => "with [[services]]",
        Kind::Publish | Kind::Rpc | Kind::Executor => "in [asks]",
    }
}
