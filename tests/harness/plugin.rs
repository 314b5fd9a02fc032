//! A plugin in a daemon's configuration: its component, its manifest, and what the operator grants and sets. Bundled
//! plugins bring their manifest; fixtures get one from the test.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::guests;

/// What the ledger serves.
pub const LEDGER: &str = "cofferdam.fixtures.v1.LedgerService";

#[derive(Debug, Clone)]
pub struct Plugin {
    pub name: String,
    component: PathBuf,
    manifest: Table,
    grants: Table,
    values: Table,
    limits: Table,
    /// Further keys of the operator's table.
    operator: Table,
}

impl Plugin {
    /// A test guest under its own name; it subscribes to nothing and may do nothing until it is told.
    pub fn fixture(guest: &str) -> Plugin {
        Plugin::of(guest, guests::fixture(guest))
    }

    /// Any file as a component.
    pub fn of(name: &str, component: PathBuf) -> Plugin {
        let manifest = toml::toml! {
            [plugin]
            version = "0.1.0"
            description = "a guest of the tests"
            wit = "0.1"
        };
        let none = Table::new();
        let plugin = Plugin {
            name: name.to_owned(),
            component,
            manifest,
            grants: none.clone(),
            values: none.clone(),
            limits: none.clone(),
            operator: none,
        };
        plugin.named(name)
    }

    /// A plugin that the repository brings, granted all that it asks for.
    pub fn bundled(name: &str) -> Plugin {
        let component = guests::bundled(name);
        let file = component.with_extension("toml");
        let written = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let manifest: Table = written.parse().unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut grants = manifest.get("asks").and_then(Value::as_table).cloned().unwrap_or_default();
        if let Some(state) = manifest.get("state") {
            let space = state.get("space").and_then(Value::as_str).unwrap_or(name);
            grants.insert("state".into(), vec![space.to_owned()].into());
        }
        let mut plugin = Plugin { manifest, grants, ..Plugin::of(name, component.clone()) };
        let mut served = Vec::new();
        for service in plugin.services() {
            served.extend(service["name"].as_str().map(str::to_owned));
            // They lie beside its own manifest, not beside the one that the test writes.
            let beside = component.with_file_name(service["descriptors"].as_str().expect("a file"));
            service.insert("descriptors".into(), text(&beside));
        }
        if !served.is_empty() {
            plugin.grants.insert("serve".into(), served.into());
        }
        plugin
    }

    /// The fixture that serves `cofferdam.fixtures.v1.LedgerService`, with its own manifest, granted all that it asks for.
    pub fn ledger() -> Plugin {
        let text = include_str!("../guests/ledger-service.toml");
        let manifest: Table = text.parse().unwrap_or_else(|e| panic!("{e}"));
        let plugin = Plugin { manifest, ..Plugin::fixture("ledger-service") };
        plugin
            .named("ledger")
            .granted("publish", &["ledger.added"])
            .granted("state", &["ledger"])
            .granted("serve", &[LEDGER])
    }

    /// Another component under its manifest.
    pub fn component(self, component: PathBuf) -> Plugin {
        Plugin { component, ..self }
    }

    /// The author's word on a method that it serves, such as `kind = "read"`.
    pub fn method(mut self, name: &str, settings: &str) -> Plugin {
        let settings: Table = settings.parse().unwrap_or_else(|e| panic!("{settings}: {e}"));
        for service in self.services() {
            section(service, "methods").insert(name.into(), settings.clone().into());
        }
        self
    }

    fn services(&mut self) -> impl Iterator<Item = &mut Table> {
        let all = self.manifest.get_mut("services").and_then(Value::as_array_mut);
        all.into_iter().flatten().filter_map(Value::as_table_mut)
    }

    pub fn named(mut self, name: &str) -> Plugin {
        self.name = name.to_owned();
        section(&mut self.manifest, "plugin").insert("name".into(), name.into());
        self
    }

    /// Subscribes; `settings` are further lines of the subscription.
    pub fn on(mut self, subject: &str, settings: &str) -> Plugin {
        let mut subscription: Table = settings.parse().unwrap_or_else(|e| panic!("{settings}: {e}"));
        subscription.insert("subject".into(), subject.into());
        let all = self.manifest.entry("subscriptions").or_insert_with(|| Value::Array(Vec::new()));
        all.as_array_mut().expect("a list").push(Value::Table(subscription));
        self
    }

    /// Changes all subscriptions, where those of a bundled plugin would let a test wait.
    pub fn every_subscription(mut self, settings: &str) -> Plugin {
        let settings: Table = settings.parse().unwrap_or_else(|e| panic!("{settings}: {e}"));
        let all =
            self.manifest.get_mut("subscriptions").and_then(Value::as_array_mut).expect("subscriptions");
        for subscription in all.iter_mut().filter_map(Value::as_table_mut) {
            subscription.extend(settings.clone());
        }
        self
    }

    /// What the author asks for.
    pub fn asks(mut self, kind: &str, entries: &[&str]) -> Plugin {
        section(&mut self.manifest, "asks").insert(kind.into(), entries.to_vec().into());
        self
    }

    /// What the operator grants.
    pub fn granted(mut self, kind: &str, entries: &[&str]) -> Plugin {
        self.grants.insert(kind.into(), entries.to_vec().into());
        self
    }

    /// Asked for and granted.
    pub fn may(self, kind: &str, entries: &[&str]) -> Plugin {
        self.asks(kind, entries).granted(kind, entries)
    }

    /// The author wants state in this space; granting it is another matter.
    pub fn wants_state(mut self, space: &str) -> Plugin {
        section(&mut self.manifest, "state").insert("space".into(), space.into());
        self
    }

    /// Has state in this space.
    pub fn state(self, space: &str) -> Plugin {
        self.wants_state(space).granted("state", &[space])
    }

    /// Publishes what it saw there.
    pub fn reports_to(self, subject: &str) -> Plugin {
        self.may("publish", &[subject]).set("to", subject)
    }

    /// A config value; the manifest declares the key if it has none of this name.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Plugin {
        let value = value.into();
        let kind = match &value {
            Value::String(_) => "string",
            Value::Integer(_) => "integer",
            Value::Float(_) => "number",
            Value::Boolean(_) => "boolean",
            Value::Array(_) => "list",
            _ => "table",
        };
        let schema = section(&mut self.manifest, "config");
        if !schema.contains_key(key) {
            section(schema, key).insert("type".into(), kind.into());
        }
        self.values.insert(key.into(), value);
        self
    }

    /// The author declares it; `settings` such as `kind = "counter"`.
    pub fn metric(mut self, name: &str, settings: &str) -> Plugin {
        let settings: Table = settings.parse().unwrap_or_else(|e| panic!("{settings}: {e}"));
        section(&mut self.manifest, "metrics").insert(name.into(), settings.into());
        self
    }

    /// The operator's limit, such as `cpu`, `"100ms"`.
    pub fn limit(mut self, name: &str, value: impl Into<Value>) -> Plugin {
        self.limits.insert(name.into(), value.into());
        self
    }

    /// The operator's word, such as `isolation`, `"batch"`.
    pub fn operator(mut self, name: &str, value: impl Into<Value>) -> Plugin {
        self.operator.insert(name.into(), value.into());
        self
    }

    /// The manifest's word, in `[plugin]`.
    pub fn says(mut self, name: &str, value: impl Into<Value>) -> Plugin {
        section(&mut self.manifest, "plugin").insert(name.into(), value.into());
        self
    }

    /// Writes the manifest into `folder`; returns the plugin's table of the configuration.
    pub(crate) fn write(&self, folder: &Path) -> Table {
        let manifest = folder.join(format!("{}.plugin.toml", self.name));
        std::fs::write(&manifest, self.manifest.to_string()).expect("a manifest");
        std::fs::write(folder.join("ledger.binpb"), fleet_proto::FIXTURES_DESCRIPTOR_SET)
            .expect("descriptors");
        let mut table = self.operator.clone();
        table.insert("component".into(), text(&self.component));
        table.insert("manifest".into(), text(&manifest));
        for (name, section) in [("grants", &self.grants), ("config", &self.values), ("limits", &self.limits)]
        {
            if !section.is_empty() {
                table.insert(name.into(), section.clone().into());
            }
        }
        table
    }
}

fn text(path: &Path) -> Value {
    path.to_str().expect("a path in UTF-8").into()
}

fn section<'a>(table: &'a mut Table, name: &str) -> &'a mut Table {
    let value = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
    value.as_table_mut().expect("a table")
}
