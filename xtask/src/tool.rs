//! Runs another program as part of a step: output to a log, its last line as progress, stopped by Ctrl-C or a time
//! limit, and a failure that says what to look at and what to run again.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::interrupt::{self, Interrupted};
use crate::steps::Step;
use crate::sys::{self, Signal};
use crate::terminal;

/// Lines of a log that a failure shows.
const TAIL: usize = 20;
/// A log that has grown past it begins anew.
const LOG_SIZE: u64 = 4 << 20;
/// How often a silent program's wait looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(100);
/// What a program gets to end by itself once told to.
const GRACE: Duration = Duration::from_secs(5);

/// A program that failed.
#[derive(Debug, thiserror::Error)]
#[error("`{shown}` {end}\n{}\n  log: {}\n  run it again: {again}", indented(.tail), .log.display())]
pub(crate) struct Failed {
    shown: String,
    end: String,
    pub(crate) tail: Vec<String>,
    log: PathBuf,
    again: String,
}

fn indented(tail: &[String]) -> String {
    tail.iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}

/// Shows how far a program is, where its own last line does not say so.
type Progress = Box<dyn Fn(&Step)>;

/// A program about to run.
pub(crate) struct Tool {
    command: Command,
    log: PathBuf,
    again: String,
    echo: bool,
    limit: Option<Duration>,
    progress: Option<Progress>,
}

enum Line {
    Out(String),
    Err(String),
}

impl Tool {
    /// `log` is appended to; `again` is the command a person runs to repeat the step.
    pub(crate) fn new(program: impl AsRef<OsStr>, log: &Path, again: &str) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self {
            command,
            log: log.to_path_buf(),
            again: again.to_owned(),
            echo: false,
            limit: None,
            progress: None,
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    pub(crate) fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Shows the output as it comes, each stream on its own.
    pub(crate) fn echo(mut self) -> Self {
        self.echo = true;
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    pub(crate) fn without_fleet_settings(mut self) -> Self {
        without_fleet_settings(&mut self.command);
        self
    }

    /// Instead of the program's last line.
    pub(crate) fn progress(mut self, show: impl Fn(&Step) + 'static) -> Self {
        self.progress = Some(Box::new(show));
        self
    }

    fn shown(&self) -> String {
        let program = Path::new(self.command.get_program());
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let words = std::iter::once(name)
            .chain(self.command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
        let line = words.collect::<Vec<_>>().join(" ");
        if line.chars().count() > 160 { line.chars().take(157).chain("...".chars()).collect() } else { line }
    }

    /// Runs to the end; returns stdout's lines. An end other than success is [`Failed`].
    pub(crate) fn run(self, step: &Step) -> Result<Vec<String>> {
        let (lines, status) = self.run_to_status(step)?;
        status.map(|()| lines)
    }

    /// As [`Tool::run`], but stdout is there even if the program failed.
    pub(crate) fn run_to_status(mut self, step: &Step) -> Result<(Vec<String>, Result<()>)> {
        interrupt::check()?;
        let shown = self.shown();
        let mut log = open_log(&self.log)?;
        writeln!(log, "$ {shown}").with_context(|| format!("can't write {}", self.log.display()))?;
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::own_group(&mut self.command);
        sys::die_with_us(&mut self.command);
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("can't start {}", self.command.get_program().to_string_lossy()))?;
        let (sender, lines) = mpsc::channel();
        read_lines(child.stdout.take(), sender.clone(), Line::Out);
        read_lines(child.stderr.take(), sender, Line::Err);

        let begun = Instant::now();
        let mut stdout = Vec::new();
        let mut tail = VecDeque::new();
        let mut last = String::new();
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(line) => {
                    let (text, out) = match line {
                        Line::Out(text) => (text, true),
                        Line::Err(text) => (text, false),
                    };
                    if self.echo {
                        step.aside(|| if out { terminal::out(&text) } else { terminal::err(&text) });
                    }
                    // cargo's messages for machines are no reading.
                    if !(out && text.starts_with("{\"")) {
                        writeln!(log, "{text}")
                            .with_context(|| format!("can't write {}", self.log.display()))?;
                        if tail.len() == TAIL {
                            tail.pop_front();
                        }
                        tail.push_back(text.clone());
                        last.clone_from(&text);
                    }
                    if out {
                        stdout.push(text);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            match &self.progress {
                Some(show) => show(step),
                None if self.echo => {}
                None => step.at(&last),
            }
            if interrupt::requested() {
                stop(&mut child);
                return Err(Interrupted.into());
            }
            if let Some(limit) = self.limit.filter(|limit| begun.elapsed() > *limit) {
                stop(&mut child);
                let end = format!("took longer than {} s and was stopped", limit.as_secs());
                return Ok((stdout, Err(self.failed(shown, end, tail))));
            }
        }
        let status = child.wait().with_context(|| format!("can't wait for `{shown}`"))?;
        let end = if status.success() { Ok(()) } else { Err(self.failed(shown, describe(status), tail)) };
        Ok((stdout, end))
    }

    fn failed(self, shown: String, end: String, tail: VecDeque<String>) -> anyhow::Error {
        Failed { shown, end, tail: tail.into(), log: self.log, again: self.again }.into()
    }
}

pub(crate) fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => format!("was stopped: {status}"),
    }
}

/// First politely, then not.
fn stop(child: &mut Child) {
    sys::signal_group(child.id(), Signal::Term);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        interrupt::pause(LOOK / 4);
    }
    sys::signal_group(child.id(), Signal::Kill);
    drop(child.wait());
}

fn read_lines(
    stream: Option<impl Read + Send + 'static>,
    sender: mpsc::Sender<Line>,
    wrap: fn(String) -> Line,
) {
    let Some(stream) = stream else { return };
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while stream.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&bytes);
            // Programs draw their own bars with carriage returns: what was drawn last counts.
            let text = text.trim_end().rsplit('\r').next().unwrap_or_default().to_owned();
            if sender.send(wrap(text)).is_err() {
                return;
            }
            bytes.clear();
        }
    });
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    if path.metadata().is_ok_and(|data| data.len() > LOG_SIZE) {
        std::fs::remove_file(path).with_context(|| format!("can't remove {}", path.display()))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("can't write {}", path.display()))
}

/// The fleet's own variables would override what we tell its programs.
pub(crate) fn without_fleet_settings(command: &mut Command) {
    for name in [
        "NATS_URL",
        "NATS_JETSTREAM_ENABLED",
        "COFFERDAM_ADMIN",
        "COFFERDAM_TOKEN",
        "PLANNING_SERVICE_ADDRESS",
        "CONTEXT_SERVICE_ADDRESS",
        "RAY_EXECUTOR_ADDRESS",
        "VLLM_URL",
        "VLLM_MODEL",
        "TASK_DERIVATION_CONFIG",
        "LOG_LEVEL",
    ] {
        command.env_remove(name);
    }
}

/// What a program prints, if it runs at all: for asking versions and paths.
pub(crate) fn ask<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The first file of this name on PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::Steps;

    fn run(tool: Tool) -> Result<Vec<String>> {
        Steps::new().run("test", |step| tool.run(step))
    }

    #[test]
    fn a_failure_shows_the_last_lines_the_log_and_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("logs/x.log");
        let tool = Tool::new("seq", &log, "cargo xtask setup").args(["1", "30"]);
        assert_eq!(run(tool).unwrap().len(), 30);
        let error = run(Tool::new("ls", &log, "cargo xtask setup").arg("/no/such")).unwrap_err().to_string();
        assert!(error.starts_with("`ls /no/such` ended with exit code"), "{error}");
        assert!(
            error.contains("  | ls: ")
                && error.contains("x.log")
                && error.ends_with("run it again: cargo xtask setup"),
            "{error}"
        );
        assert!(std::fs::read_to_string(&log).unwrap().contains("\n30\n"));
    }

    #[test]
    fn a_program_over_its_limit_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let tool = Tool::new("tail", &folder.path().join("log"), "again").args(["-f", "/dev/null"]);
        let error = run(tool.limit(Duration::from_millis(50))).unwrap_err();
        assert!(error.to_string().contains("took longer than 0 s"), "{error}");
    }
}
