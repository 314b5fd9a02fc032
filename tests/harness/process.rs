//! A child process of a test: its first line of output, its log, its end. None outlives the test, however that ends.
//! Knows nothing of what the programs do.

#![allow(unsafe_code, reason = "plain libc calls, each with its argument")]

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::wait::{PATIENCE, wait_for, within};

/// Settings that a developer's shell may have; a test brings its own.
const VARIABLES: [&str; 14] = [
    "COFFERDAM_ADMIN",
    "COFFERDAM_EXECUTOR_LISTEN",
    "COFFERDAM_GRPC_LISTEN",
    "COFFERDAM_LISTEN",
    "COFFERDAM_PLUGINS",
    "COFFERDAM_TOKEN",
    "NATS_URL",
    "LOG_LEVEL",
    "RUST_LOG",
    "PLANNING_SERVICE_ADDRESS",
    "CONTEXT_SERVICE_ADDRESS",
    "RAY_EXECUTOR_ADDRESS",
    "VLLM_URL",
    "VLLM_MODEL",
];
/// Lines of a log that a failing test shows.
const SHOWN: usize = 80;

/// One of the workspace's programs, of the same build as this one: where cargo puts them.
pub fn program(name: &str) -> PathBuf {
    let file = build().join(name);
    assert!(
        file.is_file(),
        "{} is not there: run `cargo xtask test`, or `cargo build -p cofferdam -p fleet`",
        file.display()
    );
    file
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    build().parent().map(Path::to_owned).expect("a folder in the target directory")
}

/// The folder of this build, from where this binary lies: `<target>/debug/deps/<test>` or `<target>/release/<program>`.
fn build() -> PathBuf {
    let binary = std::env::current_exe().expect("our own path");
    let folder = binary.ancestors().find(|folder| folder.ends_with("debug") || folder.ends_with("release"));
    folder.map(Path::to_owned).expect("a binary in target/debug or target/release")
}

/// A running program. Killed on drop, or when the thread that started it ends.
pub struct Process {
    name: String,
    child: Child,
    log: Log,
    first: Option<JoinHandle<Option<String>>>,
    errors: Option<JoinHandle<()>>,
}

/// Lines that a program wrote to standard error, shared with whoever reads them.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no poison").clone()
    }

    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    fn push(&self, line: String) {
        self.0.lock().expect("no poison").push(line);
    }
}

impl Process {
    pub fn start(name: &str, mut command: Command) -> Process {
        shield(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        die_with_us(&mut command);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        let log = Log::default();
        let mut stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
        let into = log.clone();
        let errors = tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                into.push(line);
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        // Held open to the end: a program that prints again must not meet a closed pipe.
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut tell = Some(tell);
            while let Ok(Some(line)) = stdout.next_line().await {
                if let Some(tell) = tell.take() {
                    drop(tell.send(line));
                }
            }
        });
        let first = tokio::spawn(async move { told.await.ok() });
        Process { name: name.to_owned(), child, log, first: Some(first), errors: Some(errors) }
    }

    /// The first line of standard output, as JSON; nothing if the program ended without one.
    pub async fn ready(&mut self) -> Option<Value> {
        let first = self.first.take().expect("asked once");
        let line = within(&format!("{} to be ready", self.name), first).await.expect("a reader")?;
        Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{} printed {line:?}: {e}", self.name)))
    }

    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or_else(|| panic!("{} has ended", self.name))
    }

    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// SIGKILL, and waits for its end.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a kill");
        self.rest_of_log().await;
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let Some(pid) = self.child.id() else { return };
        let pid = libc::pid_t::try_from(pid).expect("a process id");
        // SAFETY: kill takes two integers and touches no memory.
        let sent = unsafe { libc::kill(pid, libc::SIGTERM) };
        assert_eq!(sent, 0, "SIGTERM to {}", self.name);
    }

    /// SIGSTOP: it does nothing more until it is resumed, and its connections stay.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id().expect("a running process")).expect("a process id");
        // SAFETY: kill takes two integers and touches no memory.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "signal {signal} to {}", self.name);
    }

    /// Waits for its end; the log is complete then.
    pub async fn end(&mut self) -> ExitStatus {
        let name = self.name.clone();
        let status = within(&format!("the end of {name}"), self.child.wait()).await.expect("a status");
        self.rest_of_log().await;
        status
    }

    async fn rest_of_log(&mut self) {
        if let Some(errors) = self.errors.take() {
            within("the rest of a log", errors).await.expect("a reader");
        }
    }

    /// Waits for a line of the log.
    pub async fn logged(&self, what: &str, matches: impl Fn(&str) -> bool) -> String {
        let log = self.log();
        wait_for(&format!("{}'s log to say {what}", self.name), async || {
            log.lines().into_iter().find(|line| matches(line))
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.log.lines();
            let shown = &lines[lines.len().saturating_sub(SHOWN)..];
            #[allow(clippy::print_stderr, reason = "the test harness shows it with the failed test")]
            {
                eprintln!("--- the end of {}'s log ---\n{}\n---", self.name, shown.join("\n"));
            }
        }
    }
}

/// Makes the kernel kill the child when the thread that starts it ends: a test's thread ends with the test, and with
/// the process. Only Linux can; elsewhere `kill_on_drop` has to do.
pub(crate) fn die_with_us(command: &mut Command) {
    #[cfg(target_os = "linux")]
    // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    #[cfg(not(target_os = "linux"))]
    let _: &mut Command = command;
}

/// Keeps the shell's settings from a program, but for those that the test itself has set.
fn shield(command: &mut Command) {
    for variable in VARIABLES {
        if !command.as_std().get_envs().any(|(name, _)| name == variable) {
            command.env_remove(variable);
        }
    }
}

/// Runs a program that ends by itself, and gives all that it prints.
pub async fn output(name: &str, mut command: Command) -> Output {
    shield(&mut command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    die_with_us(&mut command);
    within(&format!("the end of {name}"), command.output()).await.unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What a program prints and how it ends, for one that is to fail.
pub async fn run_to_end(name: &str, command: Command) -> (ExitStatus, String) {
    let mut process = Process::start(name, command);
    let status = match tokio::time::timeout(PATIENCE, process.child.wait()).await {
        Ok(status) => status.expect("a status"),
        Err(_) => panic!("{name} was to end by itself; its log: {}", process.log().text()),
    };
    process.rest_of_log().await;
    (status, process.log().text())
}
