//! The soak's surroundings: a folder, a nats-server, hosts on lines of their own, the ledger. What is started here is gone
//! with the value.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use harness::{cluster::Cluster, dice::Dice, guests::fixture, proxy::Proxy};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    line::Line,
    options::{BusKind, Kind, Options},
    plain::Plain,
    ports::free_address,
    process::Process,
    torn::tear,
};

/// The shortest that leaves time for heartbeats on a busy machine.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(1);
/// Settings that a developer's shell may have.
pub(crate) const VARIABLES: [&str; 9] = [
    "COFFERDAM_ADMIN",
    "COFFERDAM_GRPC_LISTEN",
    "COFFERDAM_LISTEN",
    "COFFERDAM_PLUGINS",
    "COFFERDAM_TOKEN",
    "NATS_URL",
    "LOG_LEVEL",
    "RUST_LOG",
    "VLLM_MODEL",
];

const MANIFEST: &str = r#"
[plugin]
name = "soak"
version = "0.1.0"
description = "the workload of the soak"
wit = "0.1"

[[subscriptions]]
subject = "planning.soak.cell"
order-key = ["/key"]
ack-wait = "1s"
max-attempts = 900
backoff = "200ms"

[[subscriptions]]
subject = "planning.soak.record"
ack-wait = "1s"
max-attempts = 900
backoff = "200ms"

[asks]
publish = ["cofferdam.story.soak.>"]
rpc = ["ledger/soak.Ledger/Run", "ledger/soak.Ledger/Count"]
executor = ["default"]

[state]
space = "soak"
"#;

pub(crate) struct Place {
    _temporary: Option<TempDir>,
    folder: PathBuf,
    bus: BusKind,
    pub(crate) nats: Option<Cluster>,
    /// The embedded bus is to note what it has not synced.
    torn: bool,
    pub(crate) hosts: Vec<Host>,
    ledger: Option<Process>,
    ledger_address: String,
    pub(crate) plain: Plain,
}

pub(crate) struct Host {
    number: usize,
    /// How often it has been started.
    generation: u64,
    process: Option<Process>,
    admin: String,
    /// To each node of NATS.
    pub(crate) links: Vec<Link>,
}

/// A host's way to a node.
pub(crate) struct Link {
    pub(crate) proxy: Proxy,
    pub(crate) line: Line,
}

impl Place {
    pub(crate) async fn start(options: &Options) -> Place {
        let temporary = options.keep.is_none().then(|| TempDir::new().expect("a temporary directory"));
        let folder = match (&temporary, &options.keep) {
            (Some(temporary), _) => temporary.path().to_owned(),
            (None, keep) => keep.clone().expect("one of the two"),
        };
        std::fs::create_dir_all(&folder).expect("a folder");
        let folder = folder.canonicalize().expect("a path");
        std::fs::write(folder.join("soak.toml"), MANIFEST).expect("a manifest");
        let mut nats = None;
        let mut hosts = Vec::new();
        if options.bus == BusKind::Nats {
            nats = Some(Cluster::start(options.nodes()).await);
        }
        for number in 0..options.hosts() {
            let mut links = Vec::new();
            for node in nats.iter().flat_map(Cluster::nodes) {
                let line = Line::to(node.port()).await;
                links.push(Link { proxy: Proxy::before(line.port()).await, line });
            }
            hosts.push(Host { number, generation: 0, process: None, admin: free_address(), links });
        }
        let plain = match &nats {
            Some(nats) => Plain::on_nats(&nats.urls(), window(options)).await,
            None => Plain::on_local(&hosts[0].admin),
        };
        let ledger_address = free_address();
        let torn = options.bus == BusKind::Local && options.kinds().contains(&Kind::Torn);
        let mut place = Place {
            _temporary: temporary,
            folder,
            bus: options.bus,
            nats,
            torn,
            hosts,
            ledger: None,
            ledger_address,
            plain,
        };
        place.start_ledger().await;
        for number in 0..place.hosts.len() {
            place.start_host(number).await;
        }
        place
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.join(format!("host-{number}.log"))
    }

    pub(crate) async fn start_ledger(&mut self) {
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.args(["ledger", "--listen", &self.ledger_address, "--journal"]).arg(self.journal());
        let (process, _) = Process::start("ledger", command, &self.folder.join("ledger.log")).await;
        self.ledger = Some(process);
    }

    pub(crate) async fn kill_ledger(&mut self) {
        self.ledger.as_mut().expect("a ledger").kill().await;
    }

    /// Starts a host and waits until it takes events.
    pub(crate) async fn start_host(&mut self, number: usize) {
        self.hosts[number].generation += 1;
        let host = &self.hosts[number];
        let config = self.folder.join(format!("host-{number}.toml"));
        std::fs::write(&config, self.config(host)).expect("a configuration");
        std::fs::write(self.folder.join(format!("host-{number}.token")), host.who()).expect("a token");
        let mut command = Command::new(program("cofferdam"));
        command.arg("run").arg("--config").arg(config);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        if self.torn {
            command.env("COFFERDAM_UNSYNCED", self.unsynced());
        }
        let (process, ready) = Process::start(&host.who(), command, &self.log(number)).await;
        assert_eq!(ready["ready"], true, "{ready}");
        self.hosts[number].process = Some(process);
    }

    fn unsynced(&self) -> PathBuf {
        self.folder.join("unsynced")
    }

    /// The power is lost, after the host was.
    pub(crate) fn tear(&self, dice: &mut Dice) {
        assert!(self.unsynced().is_file(), "the daemon notes nothing: it is no debug build");
        tear(&self.folder.join("data").join("bus.redb"), &self.unsynced(), dice);
    }

    fn config(&self, host: &Host) -> String {
        let quoted = |path: &Path| format!("{:?}", path.to_str().expect("a path in UTF-8"));
        let urls: Vec<String> = host.links.iter().map(|link| link.proxy.url()).collect();
        let bus = match urls.len() {
            0 => format!("local = {}", quoted(&self.folder.join("data"))),
            nodes => format!("nats = {urls:?}\nreplicas = {nodes}"),
        };
        let number = host.number;
        format!(
            "[bus]\n{bus}\n[admin]\nlisten = {:?}\n[log]\nlevel = \"warn\"\nformat = \"json\"\n[sandbox]\ncache = {}\n\
             instances = 64\n[dispatch]\nmax-in-flight = 48\nmax-deliveries = 1000\ndrain = \"20s\"\n[executor]\n\
             backend = \"offline\"\nlease = \"1s\"\nconcurrency = 12\n[upstreams.ledger]\naddress = \"http://{}\"\ntimeout = \"2s\"\nonce = [\"soak.Ledger/Count\"]\n\
             token-file = \"host-{number}.token\"\n[plugins.soak]\ncomponent = {}\nmanifest = \"soak.toml\"\n\
             [plugins.soak.grants]\npublish = [\"cofferdam.story.soak.>\"]\nrpc = [\"ledger/soak.Ledger/Run\", \"ledger/soak.Ledger/Count\"]\n\
             executor = [\"default\"]\nstate = [\"soak\"]\n",
            host.admin,
            quoted(&compiled()),
            self.ledger_address,
            quoted(&fixture("soak")),
        )
    }

    pub(crate) async fn stop_hosts(&mut self) {
        for host in &mut self.hosts {
            host.process.as_mut().expect("a running host").stop().await;
        }
    }

    pub(crate) fn is_local(&self) -> bool {
        self.bus == BusKind::Local
    }
}

impl Host {
    /// As the ledger knows it: another name after each start.
    pub(crate) fn who(&self) -> String {
        format!("h{}g{}", self.number, self.generation)
    }

    pub(crate) async fn kill(&mut self) {
        self.process.as_mut().expect("a running host").kill().await;
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        self.process.as_ref().expect("a running host").signal(signal);
    }
}

/// The duplicate window of the stream that the guest publishes to. When an event comes again after the ack wait half of it has passed, so that the
/// daemon has to look, and cannot rely on message ids. A host that is frozen between its look at the clock and its send is
/// another matter: then only the window saves it, and it has to be longer than that.
fn window(options: &Options) -> Duration {
    if options.kinds().contains(&Kind::Pause) { 10 * ACK_WAIT } else { 2 * ACK_WAIT }
}

/// One of the workspace's programs: beside this one, as cargo puts them.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("our own path");
    let file = own.with_file_name(name);
    assert!(file.is_file(), "{} is not there: run `cargo xtask crash`", file.display());
    file
}

/// What was compiled once starts at once the next time.
fn compiled() -> PathBuf {
    let own = std::env::current_exe().expect("our own path");
    own.ancestors().nth(2).expect("a program in target/debug").join("compiled")
}
