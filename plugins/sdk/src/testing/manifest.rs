//! What a `plugin.toml` means to a handler: its cells, its grants (all that it asks for), its config and its metrics.
//! Whether the rest of a manifest is well-formed is the daemon's business.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::limits::covers;
use crate::{Event, executor::Job};

#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) plugin: Plugin,
    #[serde(default)]
    subscriptions: Vec<Subscription>,
    state: Option<State>,
    #[serde(default)]
    asks: Asks,
    #[serde(default)]
    config: BTreeMap<String, Setting>,
    #[serde(default)]
    metrics: BTreeMap<String, Declared>,
    #[serde(default)]
    services: Vec<Service>,
}

#[derive(Debug, Deserialize)]
struct Service {
    name: String,
    #[serde(default)]
    methods: BTreeMap<String, Method>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Method {
    kind: MethodKind,
    key: Option<String>,
    cell: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MethodKind {
    Read,
    Write,
}

#[derive(Debug, Deserialize)]
pub(super) struct Plugin {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
struct Subscription {
    subject: String,
    #[serde(rename = "order-key", default)]
    order_key: Vec<Source>,
    cell: Option<String>,
    commit: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Source {
    Pointer(String),
    Table {
        pointer: Option<String>,
        header: Option<String>,
        #[serde(rename = "strip-prefix")]
        strip_prefix: Option<String>,
    },
}

#[derive(Debug, Default, Deserialize)]
struct State {}

#[derive(Debug, Default, Deserialize)]
struct Asks {
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    rpc: Vec<String>,
    #[serde(default)]
    executor: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Setting {
    default: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Declared {
    kind: String,
    #[serde(default)]
    labels: Vec<String>,
}

impl Manifest {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| format!("the manifest can't be read: {error}"))
    }

    /// The event's order key and the name of its cell; an error if nothing subscribes to the subject.
    pub(super) fn cell(&self, event: &Event) -> Result<Option<(String, String)>, String> {
        let subscription = self
            .subscriptions
            .iter()
            .find(|s| covers(&s.subject, &event.subject))
            .ok_or_else(|| format!("{} does not subscribe to {}", self.plugin.name, event.subject))?;
        let class = subscription.commit.as_deref().unwrap_or("cell");
        let body: Value = serde_json::from_slice(&event.data).unwrap_or(Value::Null);
        let key = subscription.order_key.iter().find_map(|source| source.find(event, &body));
        Ok(key.filter(|_| class == "cell").map(|key| {
            let cell = cell_of(subscription.cell.as_deref(), &key);
            (key, cell)
        }))
    }

    /// The method of this name (`package.Service/Method`), if it is served.
    pub(super) fn method(&self, name: &str) -> Option<&Method> {
        let (service, method) = name.rsplit_once('/')?;
        self.services.iter().find(|s| s.name == service)?.methods.get(method)
    }

    pub(super) fn commits_by_publish(&self, event: &Event) -> bool {
        let subscription = self.subscriptions.iter().find(|s| covers(&s.subject, &event.subject));
        subscription.is_some_and(|s| s.commit.as_deref() == Some("publish"))
    }

    pub(super) fn may_keep_state(&self) -> bool {
        self.state.is_some()
    }

    pub(super) fn may_publish(&self, subject: &str) -> bool {
        self.asks.publish.iter().any(|pattern| covers(pattern, subject))
    }

    pub(super) fn may_call(&self, upstream: &str, method: &str) -> bool {
        let service = method.rsplit_once('/').map_or("", |(service, _)| service);
        let exact = format!("{upstream}/{method}");
        let all = format!("{upstream}/{service}/*");
        self.asks.rpc.iter().any(|ask| *ask == exact || *ask == all)
    }

    pub(super) fn may_submit(&self, job: &Job) -> bool {
        let models = job.agents.iter().map(|agent| agent.model.as_str()).filter(|model| !model.is_empty());
        let mut wanted: Vec<&str> = models.collect();
        wanted.push(job.model.as_deref().unwrap_or("default"));
        wanted.into_iter().all(|model| self.may_infer(model))
    }

    pub(super) fn may_infer(&self, model: &str) -> bool {
        self.asks.executor.iter().any(|ask| ask == "*" || ask == model)
    }

    /// The default of a key; `None` if the manifest does not name it or gives it none.
    pub(super) fn default(&self, key: &str) -> Option<&Value> {
        self.config.get(key)?.default.as_ref()
    }

    pub(super) fn names_config(&self, key: &str) -> bool {
        key == "wire.envelope" || self.config.contains_key(key)
    }

    pub(super) fn declares(&self, name: &str, kind: &str, labels: &[(&str, &str)]) -> bool {
        self.metrics.get(name).is_some_and(|declared| {
            declared.kind == kind
                && declared.labels.len() == labels.len()
                && labels.iter().all(|(label, _)| declared.labels.iter().any(|l| l == label))
        })
    }
}

impl Method {
    pub(super) fn reads(&self) -> bool {
        self.kind == MethodKind::Read
    }

    /// Key and cell of a call with this key; none if the method has no key.
    pub(super) fn cell(&self, key: String) -> Option<(String, String)> {
        self.key.as_ref()?;
        let cell = cell_of(self.cell.as_deref(), &key);
        Some((key, cell))
    }
}

/// The name of a key's cell, from the manifest's pattern.
fn cell_of(pattern: Option<&str>, key: &str) -> String {
    pattern.unwrap_or("{key}").replace("{key}", key)
}

impl Source {
    fn find(&self, event: &Event, body: &Value) -> Option<String> {
        let found = |pointer: &str| match body.pointer(pointer)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let key = match self {
            Self::Pointer(pointer) => found(pointer)?,
            Self::Table { pointer, header, strip_prefix } => {
                let text = match (pointer, header) {
                    (Some(pointer), _) => found(pointer)?,
                    (None, header) => event.header(header.as_deref()?)?.to_owned(),
                };
                match strip_prefix {
                    Some(prefix) => text.trim().strip_prefix(prefix.as_str())?.to_owned(),
                    None => text,
                }
            }
        };
        let key = key.trim();
        (!key.is_empty()).then(|| key.to_owned())
    }
}
