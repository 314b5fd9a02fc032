//! Starts what a run consists of, on the daemon's embedded bus or on a nats-server, and says where it listens.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::processes::Processes;
use super::{AGENTS, DAEMON, WORKER, config};
use crate::binaries;
use crate::repo::Repo;
use crate::steps::{Step, Steps};

/// Ports that are tried for the daemon. One is free when it is chosen, and taken by somebody else once in a blue moon.
const PORTS: usize = 5;
/// What the daemon says of a port that is taken.
const TAKEN: &str = "can't be bound";
/// For a piece of work of an agent, where somebody is killed meanwhile: what waited for a process does not rush through all at
/// once when that is back, so that the other kills find something to interrupt.
const THINK: &str = "500ms";
/// A port that nobody has to know beforehand.
const ANY: &str = "127.0.0.1:0";

/// What a run consists of.
#[derive(Debug)]
pub(super) struct Cast<'a> {
    pub(super) plugins: &'a [&'a str],
    /// The server's program; without one the daemon brings the bus.
    pub(super) nats: Option<&'a Path>,
    /// With councils, a queue and stories in the plugins' hands, and with agents that work.
    pub(super) full: bool,
    /// How often the daemon and the worker are to be killed.
    pub(super) kills: u64,
}

/// A run's services.
#[derive(Debug)]
pub(super) struct Addresses {
    /// `local` or `nats`, as the daemon says.
    pub(super) bus: String,
    pub(super) nats: Option<String>,
    pub(super) planning: String,
    pub(super) admin: String,
    /// What plugins serve.
    pub(super) grpc: String,
}

impl Addresses {
    /// How the fleet's programs are told where events pass.
    pub(super) fn flags(&self) -> [String; 2] {
        flags(self.nats.as_deref(), &self.admin)
    }
}

fn flags(nats: Option<&str>, admin: &str) -> [String; 2] {
    match nats {
        Some(url) => ["--nats".to_owned(), url.to_owned()],
        None => ["--cofferdam".to_owned(), format!("http://{admin}")],
    }
}

pub(super) fn start(
    repo: &Repo,
    steps: &Steps,
    cast: &Cast<'_>,
    binaries: &binaries::Demo,
    processes: &mut Processes,
) -> Result<Addresses> {
    let nats =
        cast.nats.map(|program| steps.run("start nats-server", |step| nats_server(step, program, processes)));
    let nats = nats.transpose()?;
    steps.run("start the fleet and the daemon", |step| {
        let start = |admin: &str, grpc: &str, processes: &mut Processes| {
            let at = pair(repo, step, cast, nats.clone(), [admin, grpc], binaries, processes)?;
            if cast.full {
                company(step, &at, cast.kills, binaries, processes)?;
            }
            Ok(at)
        };
        if nats.is_some() && !cast.full {
            return start(ANY, ANY, processes);
        }
        // The daemon needs Planning's address and Planning the daemon's, so one port is chosen beforehand; and a daemon that
        // is killed has to come back where it was.
        for _ in 0..PORTS {
            let grpc = if cast.full { free_address()? } else { ANY.to_owned() };
            let started = start(&free_address()?, &grpc, processes);
            if started.is_ok() || !processes.said(DAEMON, TAKEN) {
                return started;
            }
            processes.stop_from(FLEET);
        }
        bail!("no port for the daemon: {PORTS} that were free were taken before it could bind them")
    })
}

const FLEET: &str = "fleet";

/// The fleet, then the daemon, which calls it.
fn pair(
    repo: &Repo,
    step: &Step,
    cast: &Cast<'_>,
    nats: Option<String>,
    [admin, grpc]: [&str; 2],
    binaries: &binaries::Demo,
    processes: &mut Processes,
) -> Result<Addresses> {
    let folder = processes.folder().to_path_buf();
    processes.start(FLEET, &binaries.fleet, |command| {
        command.args(["serve", "--planning", ANY, "--context", ANY]);
        command.args(flags(nats.as_deref(), admin)).arg("--data").arg(folder.join("fleet"));
        if cast.full {
            command.arg("--leave-stories");
        }
    })?;
    let fleet: FleetReady = processes.ready(step, FLEET)?;

    let file = folder.join("cofferdam.toml");
    let at = config::At {
        nats: nats.as_deref(),
        admin,
        grpc,
        planning: &fleet.planning,
        context: &fleet.context,
        full: cast.full.then_some(cast.kills),
    };
    std::fs::write(&file, config::write(repo, &at, cast.plugins)?)
        .with_context(|| format!("can't write {}", file.display()))?;
    processes.start(DAEMON, &binaries.cofferdam, |command| {
        command.arg("run").arg("--config").arg(&file);
        command.env("COFFERDAM_PLUGINS", repo.plugins());
    })?;
    let daemon: DaemonReady = processes.ready(step, DAEMON)?;
    let grpc = daemon.grpc.into_iter().next().unwrap_or_default();
    Ok(Addresses { bus: daemon.bus, nats, planning: fleet.planning, admin: daemon.admin, grpc })
}

/// Those who do the work: the agents, and on NATS somebody who works jobs beside the daemon.
fn company(
    step: &Step,
    at: &Addresses,
    kills: u64,
    binaries: &binaries::Demo,
    processes: &mut Processes,
) -> Result<()> {
    let folder = processes.folder().to_path_buf();
    if at.nats.is_some() {
        processes.start(WORKER, &binaries.cofferdam, |command| {
            command.arg("executor").arg("--config").arg(folder.join("cofferdam.toml"));
            // It goes by the daemon's file, and has a port of its own.
            command.env("COFFERDAM_LISTEN", ANY);
        })?;
        processes.ready::<Ready>(step, WORKER)?;
    }
    processes.start(AGENTS, &binaries.fleet, |command| {
        command.args(["agents", "--stories", &at.grpc]).args(at.flags());
        command.arg("--data").arg(folder.join(AGENTS));
        if kills > 0 {
            command.args(["--think", THINK]);
        }
    })?;
    processes.ready::<Ready>(step, AGENTS)?;
    Ok(())
}

fn nats_server(step: &Step, program: &Path, processes: &mut Processes) -> Result<String> {
    let folder = processes.folder().to_path_buf();
    processes.start("nats-server", program, |command| {
        command
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"])
            .arg(folder.join("nats"));
        command.arg("--ports_file_dir").arg(&folder);
    })?;
    processes.wait(step, "nats-server", |_| ports_file(&folder))
}

#[derive(Debug, Deserialize)]
struct FleetReady {
    planning: String,
    context: String,
}

#[derive(Debug, Deserialize)]
struct DaemonReady {
    admin: String,
    bus: String,
    #[serde(default)]
    grpc: Vec<String>,
}

/// Any object: that it is there says all.
#[derive(Debug, Deserialize)]
pub(super) struct Ready {}

/// An address of this machine that nobody has at the moment.
fn free_address() -> Result<String> {
    let listener = TcpListener::bind(ANY).context("can't listen on 127.0.0.1")?;
    Ok(listener.local_addr().context("a port without a number")?.to_string())
}

/// nats-server writes the ports that it chose into `nats-server_<pid>.ports`.
fn ports_file(folder: &Path) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let Some(file) = files.find(|file| file.extension().is_some_and(|end| end == "ports")) else {
        return Ok(None);
    };
    // Half written it is no JSON yet.
    let text = std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    Ok(serde_json::from_str::<Ports>(&text).ok().and_then(|ports| ports.nats.into_iter().next()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::demo::PLUGINS;
    use crate::tool::Tool;

    /// A program that is a shell script. A shell writes it: were the file open here while another test forks, it could
    /// not be started for a moment.
    fn program(folder: &Path, name: &str, script: &str) -> PathBuf {
        let path = folder.join(name);
        let write = format!("cat > '{0}' <<'END'\n#!/bin/sh\n{script}\nEND\nchmod +x '{0}'", path.display());
        let tool = Tool::new("sh", &folder.join("log"), "again").args(["-c", &write]);
        Steps::new().run("write", |step| tool.run(step)).unwrap();
        path
    }

    #[test]
    fn a_port_that_is_taken_meanwhile_is_followed_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repo::at(folder.path());
        std::fs::create_dir_all(repo.plugins()).unwrap();
        for name in PLUGINS {
            let manifest = format!("[plugin]\nname = \"{name}\"\n");
            std::fs::write(repo.plugins().join(format!("{name}.toml")), manifest).unwrap();
        }
        let fleet = r#"echo "$@" >> fleet.args
echo '{"planning": "p", "context": "c"}'
exec tail -f /dev/null"#;
        let cofferdam = r#"if mkdir tried; then echo "the admin port can't be bound" >&2; exit 1; fi
echo "{\"admin\": \"$(sed -n 's/^listen = "\(.*\)"/\1/p' "$3")\", \"bus\": \"local\"}"
exec tail -f /dev/null"#;
        let binaries = binaries::Demo {
            cofferdam: program(folder.path(), "a-daemon", cofferdam),
            fleet: program(folder.path(), "a-fleet", fleet),
        };
        let mut processes = Processes::new(folder.path(), false);
        let cast = Cast { plugins: &PLUGINS, nats: None, full: false, kills: 0 };
        let at = start(&repo, &Steps::new(), &cast, &binaries, &mut processes).unwrap();
        assert_eq!((at.bus.as_str(), at.planning.as_str()), ("local", "p"));
        // Both sides went over to the second port.
        let told = std::fs::read_to_string(folder.path().join("fleet.args")).unwrap();
        assert_eq!(told.lines().count(), 2, "{told}");
        assert!(told.lines().last().unwrap().contains(&at.flags().join(" ")), "{told} {at:?}");
    }
}
