//! The processes of a run: started in order, each with its output in files of the run's folder, stopped in reverse.
//! None outlives us unless it is to be kept.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use super::keep::Kept;
use super::tail::{Tail, last_lines};
use super::{TRAIL, WATCH};
use crate::interrupt;
use crate::repo::Repo;
use crate::steps::Step;
use crate::sys::{self, Signal};
use crate::tool;

/// What a process gets to become ready; compiling the plugins for the first time is in it.
pub(super) const READY: Duration = Duration::from_secs(60);
/// What a process gets to end by itself; the daemon drains in it.
const GRACE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Process {
    name: &'static str,
    /// Starts it again, with its output where it was.
    command: Command,
    child: Child,
    out: Tail,
    log: PathBuf,
}

#[derive(Debug)]
pub(super) struct Processes {
    folder: PathBuf,
    keep: bool,
    running: Vec<Process>,
}

impl Processes {
    pub(super) fn new(folder: &Path, keep: bool) -> Self {
        Self { folder: folder.to_path_buf(), keep, running: Vec::new() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a process: stdout to `<name>.out`, stderr to `<name>.log`. Files, not pipes, so that a kept process can
    /// go on without us.
    pub(super) fn start(
        &mut self,
        name: &'static str,
        program: &Path,
        set: impl FnOnce(&mut Command),
    ) -> Result<()> {
        let file = |end: &str| {
            let path = self.folder.join(format!("{name}.{end}"));
            let file = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
            Ok::<_, anyhow::Error>((path, file))
        };
        let ((out, stdout), (log, stderr)) = (file("out")?, file("log")?);
        let mut command = Command::new(program);
        tool::without_fleet_settings(&mut command);
        set(&mut command);
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        sys::own_group(&mut command);
        if !self.keep {
            sys::die_with_us(&mut command);
        }
        let child = command.spawn().with_context(|| format!("can't start {}", program.display()))?;
        self.running.push(Process { name, command, child, out: Tail::open(&out)?, log });
        Ok(())
    }

    /// Kills a process as a crash would, unless it has ended, and starts it again as it was.
    pub(super) fn kill_and_restart(&mut self, name: &str) -> Result<()> {
        let process = self.named(name)?;
        if process.child.try_wait()?.is_none() {
            sys::signal_group(process.child.id(), Signal::Kill);
            process.child.wait()?;
        }
        process.child = process.command.spawn().with_context(|| format!("can't start {name} again"))?;
        Ok(())
    }

    fn named(&mut self, name: &str) -> Result<&mut Process> {
        let found = self.running.iter_mut().find(|process| process.name == name);
        found.with_context(|| format!("{name} was not started"))
    }

    /// The lines of stdout that came since the last look.
    pub(super) fn lines(&mut self, name: &str) -> Result<Vec<String>> {
        self.named(name)?.out.lines()
    }

    /// Waits for the line with which a process says that it is ready, once more after each start.
    pub(super) fn ready<T: DeserializeOwned>(&mut self, step: &Step, name: &str) -> Result<T> {
        self.wait(step, name, |all| match all.named(name)?.out.line()? {
            Some(line) => {
                let told = serde_json::from_str(&line);
                told.map(Some).with_context(|| format!("its first line is {line:?}"))
            }
            None => Ok(None),
        })
    }

    /// Waits until a process is ready, has ended, or took too long.
    pub(super) fn wait<T>(
        &mut self,
        step: &Step,
        name: &str,
        mut ready: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + READY;
        loop {
            if let Some(value) = ready(self).with_context(|| format!("{name} is not what was expected"))? {
                return Ok(value);
            }
            self.check()?;
            interrupt::check()?;
            if Instant::now() > deadline {
                bail!("{name} was not ready after {} s", READY.as_secs());
            }
            step.at("waiting until it is ready");
            interrupt::pause(LOOK);
        }
    }

    /// How a process ended, if it did.
    pub(super) fn ended(&mut self, name: &str) -> Result<Option<String>> {
        Ok(self.named(name)?.child.try_wait()?.map(tool::describe))
    }

    /// A process that ended by itself is an error; but for the one whose reader begins it anew.
    pub(super) fn check(&mut self) -> Result<()> {
        for process in self.running.iter_mut().filter(|process| process.name != TRAIL) {
            if let Some(status) = process.child.try_wait()? {
                bail!("{} {}", process.name, tool::describe(status));
            }
        }
        Ok(())
    }

    /// Whether a process that was started has told of this.
    pub(super) fn said(&self, name: &str, what: &str) -> bool {
        let process = self.running.iter().find(|process| process.name == name);
        let log = process.and_then(|process| std::fs::read(&process.log).ok());
        log.is_some_and(|log| String::from_utf8_lossy(&log).contains(what))
    }

    /// The last log lines of every process, for a failure.
    pub(super) fn last_words(&mut self, repo: &Repo) -> String {
        let mut text = Vec::new();
        for process in &mut self.running {
            let ended = !matches!(process.child.try_wait(), Ok(None));
            let lines = last_lines(&process.log, if ended { 20 } else { 8 });
            if lines.is_empty() && !ended {
                continue;
            }
            let state = if ended { "ended" } else { "was running" };
            text.push(format!("{} {state}, log {}", process.name, repo.short(&process.log)));
            text.extend(lines.iter().map(|line| format!("  | {line}")));
        }
        text.join("\n")
    }

    /// Stops all, the last first, and waits.
    pub(super) fn stop(&mut self) {
        while let Some(mut process) = self.running.pop() {
            stop(&mut process.child);
        }
    }

    /// Stops this one and all that were started after it.
    pub(super) fn stop_from(&mut self, name: &str) {
        let first = self.running.iter().position(|process| process.name == name);
        while first.is_some_and(|first| self.running.len() > first)
            && let Some(mut process) = self.running.pop()
        {
            stop(&mut process.child);
        }
    }

    /// Stops one before the others.
    pub(super) fn end(&mut self, name: &str) {
        for process in self.running.iter_mut().filter(|process| process.name == name) {
            stop(&mut process.child);
        }
        self.running.retain(|process| process.name != name);
    }

    /// Leaves all running but what only shows us events, as we go; remembers them for `--stop`.
    pub(super) fn leave(&mut self) -> Result<Kept> {
        for name in [WATCH, TRAIL] {
            self.end(name);
        }
        let kept =
            Kept::write(&self.folder, self.running.iter().map(|process| (process.name, process.child.id())))?;
        self.running.clear();
        Ok(kept)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.stop();
    }
}

fn stop(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    sys::signal_group(child.id(), Signal::Term);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        interrupt::pause(LOOK);
    }
    sys::signal_group(child.id(), Signal::Kill);
    drop(child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::Steps;

    #[test]
    fn a_process_that_ends_early_is_an_error_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repo::at(folder.path());
        let mut processes = Processes::new(folder.path(), false);
        processes
            .start("ls", Path::new("/bin/ls"), |command| {
                command.arg("/no/such");
            })
            .unwrap();
        let waited = Steps::new().run("test", |step| processes.ready::<u64>(step, "ls"));
        assert!(waited.unwrap_err().to_string().starts_with("ls ended with exit code"));
        let words = processes.last_words(&repo);
        assert!(processes.said("ls", "/no/such") && !processes.said("ls", "else"));
        assert!(words.starts_with("ls ended, log ls.log\n  | ") && words.contains("/no/such"), "{words}");
    }

    #[test]
    fn a_process_that_was_killed_comes_back_and_goes_on_in_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut processes = Processes::new(folder.path(), false);
        let script = "echo $$; exec tail -f /dev/null";
        processes
            .start("it", Path::new("/bin/sh"), |command| {
                command.args(["-c", script]);
            })
            .unwrap();
        let steps = Steps::new();
        let first = steps.run("test", |step| processes.ready::<u32>(step, "it")).unwrap();
        processes.kill_and_restart("it").unwrap();
        let second = steps.run("test", |step| processes.ready::<u32>(step, "it")).unwrap();
        assert!(first != second && !sys::is_alive(first) && sys::is_alive(second), "{first} {second}");
        processes.check().unwrap();
        let told = std::fs::read_to_string(folder.path().join("it.out")).unwrap();
        assert_eq!(told, format!("{first}\n{second}\n"));
    }

    #[test]
    fn none_is_left_when_they_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut processes = Processes::new(folder.path(), false);
        processes
            .start("tail", Path::new("/usr/bin/tail"), |command| {
                command.args(["-f", "/dev/null"]);
            })
            .unwrap();
        let pid = processes.running[0].child.id();
        assert!(sys::is_alive(pid));
        drop(processes);
        assert!(!sys::is_alive(pid));
    }
}
