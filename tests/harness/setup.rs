//! A daemon's configuration, in a folder of its own: written as a user would, started as often as a test likes.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use tempfile::TempDir;
use tokio::process::Command;
use toml::{Table, Value};

use crate::{
    daemon::Daemon,
    plugin::Plugin,
    process::{output, program, run_to_end, target},
};

pub struct Setup {
    folder: TempDir,
    config: Table,
    plugins: Vec<Plugin>,
    variables: Vec<(String, String)>,
}

impl Setup {
    /// On a NATS server.
    pub fn new(nats: &str) -> Setup {
        Setup::local().with("bus.nats", nats)
    }

    /// On the embedded bus, whose data is in the setup's folder.
    pub fn local() -> Setup {
        let setup = Setup {
            folder: TempDir::new().expect("a temporary directory"),
            config: Table::new(),
            plugins: Vec::new(),
            variables: Vec::new(),
        };
        // What was compiled once starts at once in the next test.
        let cache = target().join("compiled");
        setup
            .with("admin.listen", "127.0.0.1:0")
            .with("log.format", "json")
            .with("sandbox.cache", cache.to_str().expect("a path in UTF-8"))
            // Address space is reserved for each, and tests run side by side.
            .with("sandbox.instances", 16)
    }

    pub fn plugin(mut self, plugin: Plugin) -> Setup {
        self.plugins.retain(|other| other.name != plugin.name);
        self.plugins.push(plugin);
        self
    }

    /// A key with its tables before it, such as `dispatch.drain`.
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Setup {
        self.set(path, value);
        self
    }

    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = &mut self.config;
        for name in tables.split('.').filter(|name| !name.is_empty()) {
            let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            table = inner.as_table_mut().unwrap_or_else(|| panic!("{path} leads through a value"));
        }
        table.insert(key.to_owned(), value.into());
    }

    /// A variable of the environment, for every program that is started from now on.
    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn upstream(self, name: &str, address: &str) -> Setup {
        self.with(&format!("upstreams.{name}.address"), format!("http://{address}"))
    }

    /// Does what a denial's message says: writes the line under `[plugins.<name>.grants]`.
    pub fn paste_grant(&mut self, plugin: &str, line: &str) {
        let line: Table = line.parse().unwrap_or_else(|e| panic!("{line:?} can't be pasted: {e}"));
        let plugin = self.plugins.iter_mut().find(|p| p.name == plugin).expect("a plugin of this setup");
        for (kind, entries) in line {
            let entries: Vec<&str> =
                entries.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
            *plugin = plugin.clone().granted(&kind, &entries);
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the configuration is.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("cofferdam.toml")
    }

    /// Starts the daemon and waits until it takes events.
    pub async fn start(&self) -> Daemon {
        self.write();
        Daemon::start(self.command()).await
    }

    /// Starts `cofferdam executor` and waits until it takes jobs.
    pub async fn start_worker(&self) -> Daemon {
        self.write();
        Daemon::start(self.cofferdam(&["executor"])).await
    }

    /// The same with the file that is there.
    pub async fn start_worker_as_it_is(&self) -> Daemon {
        Daemon::start(self.cofferdam(&["executor"])).await
    }

    /// Starts a daemon that may well die of what it finds; `None` if it did before it took events.
    pub async fn start_perhaps(&self) -> Option<Daemon> {
        self.write();
        Daemon::start_perhaps(self.command()).await.ok()
    }

    /// Starts a daemon that is to refuse; gives what it says.
    pub async fn refused(&self) -> String {
        self.write();
        self.refused_as_it_is().await
    }

    /// The same with the file that is there.
    pub async fn refused_as_it_is(&self) -> String {
        let (status, log) = run_to_end("cofferdam", self.command()).await;
        assert_eq!(status.code(), Some(1), "{log}");
        log
    }

    /// Runs `cofferdam ARGUMENTS --config FILE` to its end.
    pub async fn tell(&self, arguments: &[&str]) -> Output {
        self.write();
        output("cofferdam", self.cofferdam(arguments)).await
    }

    fn command(&self) -> Command {
        self.cofferdam(&["run"])
    }

    fn cofferdam(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("cofferdam"));
        command.args(arguments).arg("--config").arg(self.file());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn write(&self) {
        let mut config = self.config.clone();
        let plugins: Table = self
            .plugins
            .iter()
            .map(|p| (p.name.clone(), Value::Table(p.write(self.folder.path()))))
            .collect();
        config.insert("plugins".into(), plugins.into());
        std::fs::write(self.file(), config.to_string()).expect("a configuration");
    }
}
