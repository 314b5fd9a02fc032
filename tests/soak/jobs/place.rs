//! The surroundings: a folder, a nats-server, the endpoint, workers. What is started here is gone with the value.

use std::{path::PathBuf, time::Duration};

use async_nats::jetstream::{self, stream};
use harness::{nats::Server, proxy::Proxy};
use tempfile::TempDir;
use tokio::process::Command;

use super::{journal::Journal, options::Options};
use crate::{
    place::{VARIABLES, program},
    process::Process,
};

pub(crate) const MODEL: &str = "plain";
/// The shortest that leaves time for heartbeats on a busy machine.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// Jobs that a worker works at a time: a few, so that a kill hits some and leaves most.
pub(crate) const PLACES: u64 = 4;

pub(crate) struct Place {
    _temporary: Option<TempDir>,
    folder: PathBuf,
    _nats: Server,
    _endpoint: Process,
    /// Where the endpoint is.
    address: String,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) journal: Journal,
    pub(crate) workers: Vec<Worker>,
}

pub(crate) struct Worker {
    number: usize,
    /// How often it has been started.
    generation: u64,
    process: Option<Process>,
    /// Its way to the server.
    pub(crate) proxy: Proxy,
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
        let nats = Server::start().await;
        let jetstream = jetstream::new(nats.client().await);
        let config = stream::Config {
            name: "AGENT_RESPONSES".to_owned(),
            subjects: vec!["agent.response.>".to_owned()],
            // Shorter than a lease, so that no message id saves an answer from coming twice.
            duplicate_window: LEASE / 2,
            ..Default::default()
        };
        jetstream.create_stream(config).await.expect("a stream for answers");
        let journal = folder.join("journal");
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.args(["endpoint", "--journal"]).arg(&journal);
        let (endpoint, ready) = Process::start("endpoint", command, &folder.join("endpoint.log")).await;
        let address = ready["listening"].as_str().expect("an address").to_owned();
        let mut workers = Vec::new();
        for number in 0..options.workers {
            let proxy = Proxy::before(nats.port()).await;
            workers.push(Worker { number, generation: 0, process: None, proxy });
        }
        let mut place = Place {
            _temporary: temporary,
            folder,
            _nats: nats,
            _endpoint: endpoint,
            address,
            jetstream,
            journal: Journal::of(&journal),
            workers,
        };
        for number in 0..place.workers.len() {
            place.start_worker(number).await;
        }
        place
    }

    /// Starts a worker and waits until it takes jobs.
    pub(crate) async fn start_worker(&mut self, number: usize) {
        self.workers[number].generation += 1;
        let worker = &self.workers[number];
        let file = |end: &str| self.folder.join(format!("worker-{number}.{end}"));
        std::fs::write(file("toml"), self.config(number)).expect("a configuration");
        std::fs::write(file("token"), worker.who()).expect("a token");
        let mut command = Command::new(program("cofferdam"));
        command.arg("executor").arg("--config").arg(file("toml"));
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        let (process, ready) = Process::start(&worker.who(), command, &file("log")).await;
        assert_eq!(ready["ready"], true, "{ready}");
        self.workers[number].process = Some(process);
    }

    fn config(&self, number: usize) -> String {
        format!(
            "[bus]\nnats = {:?}\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\nformat = \"json\"\n\
             [executor]\nbackend = \"queue\"\nmodel = \"{MODEL}\"\nconcurrency = {PLACES}\nlease = \"{}s\"\n\
             [executor.endpoints.plain]\nurl = \"http://{}/v1\"\ntoken-file = \"worker-{number}.token\"\nconcurrency = {PLACES}\n",
            self.workers[number].proxy.url(),
            LEASE.as_secs(),
            self.address,
        )
    }

    pub(crate) async fn stop_workers(&mut self) {
        for process in self.workers.iter_mut().filter_map(|worker| worker.process.as_mut()) {
            process.stop().await;
        }
    }

    /// Does a worker that lives wait for an answer?
    pub(crate) fn is_busy(&self) -> bool {
        let living = self.workers.iter().filter(|worker| worker.process.is_some());
        living.into_iter().any(|worker| self.journal.open(&worker.who()) > 0)
    }
}

impl Worker {
    /// As the endpoint knows it: another name after each start.
    pub(crate) fn who(&self) -> String {
        format!("w{}g{}", self.number, self.generation)
    }

    pub(crate) async fn kill(&mut self) {
        self.process.take().expect("a running worker").kill().await;
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        self.process.as_ref().expect("a running worker").signal(signal);
    }
}
