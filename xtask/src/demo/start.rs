//! Starts what a run consists of, on the daemon's embedded bus or on a nats-server, and says where it listens.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::processes::Processes;
use super::tail::Tail;
use super::{PLUGINS, config};
use crate::binaries;
use crate::repo::Repo;
use crate::steps::{Step, Steps};

/// What a process gets to become ready; compiling the plugins for the first time is in it.
pub(super) const READY: Duration = Duration::from_secs(60);
/// Ports that are tried for the daemon. One is free when it is chosen, and taken by somebody else once in a blue moon.
const PORTS: usize = 5;
/// What the daemon says of a port that is taken.
const TAKEN: &str = "can't be bound";

/// A run's services.
#[derive(Debug)]
pub(super) struct Addresses {
    /// `local` or `nats`, as the daemon says.
    pub(super) bus: String,
    pub(super) nats: Option<String>,
    pub(super) planning: String,
    pub(super) admin: String,
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

/// `nats` is the server's program; without one the daemon brings the bus.
pub(super) fn start(
    repo: &Repo,
    steps: &Steps,
    nats: Option<&Path>,
    binaries: &binaries::Demo,
    processes: &mut Processes,
) -> Result<Addresses> {
    let nats =
        nats.map(|program| steps.run("start nats-server", |step| nats_server(step, program, processes)));
    let nats = nats.transpose()?;
    steps.run("start the fleet and the daemon", |step| {
        if nats.is_some() {
            return pair(repo, step, nats, "127.0.0.1:0", binaries, processes);
        }
        // The daemon needs Planning's address and Planning the daemon's, so one port is chosen beforehand.
        for _ in 0..PORTS {
            let admin = free_address()?;
            match pair(repo, step, None, &admin, binaries, processes) {
                Err(_) if processes.said("cofferdam", TAKEN) => processes.stop(),
                started => return started,
            }
        }
        bail!("no port for the daemon: {PORTS} that were free were taken before it could bind them")
    })
}

/// The fleet, then the daemon, which calls it.
fn pair(
    repo: &Repo,
    step: &Step,
    nats: Option<String>,
    admin: &str,
    binaries: &binaries::Demo,
    processes: &mut Processes,
) -> Result<Addresses> {
    let folder = processes.folder().to_path_buf();
    let mut out = processes.start("fleet", &binaries.fleet, |command| {
        command.args(["serve", "--planning", "127.0.0.1:0", "--context", "127.0.0.1:0"]);
        command.args(flags(nats.as_deref(), admin)).arg("--data").arg(folder.join("fleet"));
    })?;
    let fleet: FleetReady = processes.wait(step, "fleet", READY, || first_line(&mut out))?;

    let file = folder.join("cofferdam.toml");
    let at = config::At { nats: nats.as_deref(), admin, planning: &fleet.planning, context: &fleet.context };
    std::fs::write(&file, config::write(repo, &at, &PLUGINS)?)
        .with_context(|| format!("can't write {}", file.display()))?;
    let mut out = processes.start("cofferdam", &binaries.cofferdam, |command| {
        command.arg("run").arg("--config").arg(&file);
        command.env("COFFERDAM_PLUGINS", repo.plugins());
    })?;
    let daemon: DaemonReady = processes.wait(step, "cofferdam", READY, || first_line(&mut out))?;
    Ok(Addresses { bus: daemon.bus, nats, planning: fleet.planning, admin: daemon.admin })
}

fn nats_server(step: &Step, program: &Path, processes: &mut Processes) -> Result<String> {
    let folder = processes.folder().to_path_buf();
    processes.start("nats-server", program, |command| {
        command
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"])
            .arg(folder.join("nats"));
        command.arg("--ports_file_dir").arg(&folder);
    })?;
    processes.wait(step, "nats-server", READY, || ports_file(&folder))
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
}

/// The line with which a process says that it is ready.
pub(super) fn first_line<T: DeserializeOwned>(out: &mut Tail) -> Result<Option<T>> {
    match out.line()? {
        Some(line) => {
            serde_json::from_str(&line).map(Some).with_context(|| format!("its first line is {line:?}"))
        }
        None => Ok(None),
    }
}

/// An address of this machine that nobody has at the moment.
fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("can't listen on 127.0.0.1")?;
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
        let at = start(&repo, &Steps::new(), None, &binaries, &mut processes).unwrap();
        assert_eq!((at.bus.as_str(), at.planning.as_str()), ("local", "p"));
        // Both sides went over to the second port.
        let told = std::fs::read_to_string(folder.path().join("fleet.args")).unwrap();
        assert_eq!(told.lines().count(), 2, "{told}");
        assert!(told.lines().last().unwrap().contains(&at.flags().join(" ")), "{told} {at:?}");
    }
}
