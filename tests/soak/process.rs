//! A child process: its first line of output, its log, signals. None outlives the soak.

#![allow(unsafe_code, reason = "plain libc calls, each with its argument")]

use std::{fs::File, path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts it, its standard error appended to `log`, and waits for the line that says it is ready.
    pub(crate) async fn start(name: &str, mut command: Command, log: &Path) -> (Process, Value) {
        let log = File::options().create(true).append(true).open(log).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        #[cfg(target_os = "linux")]
        // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let first = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let first = first.unwrap_or_else(|_| panic!("{name} is not ready after {PATIENCE:?}"));
        let Some(first) = first.expect("readable") else {
            let status = child.wait().await.expect("a status");
            panic!("{name} ended with {status}; its log is in the soak's folder (--keep DIR)");
        };
        // Held open to the end: a program that prints again must not meet a closed pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let ready = serde_json::from_str(&first).unwrap_or_else(|e| panic!("{name} printed {first:?}: {e}"));
        (Process { name: name.to_owned(), child }, ready)
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        let pid = self.child.id().unwrap_or_else(|| panic!("{} has ended by itself", self.name));
        let pid = libc::pid_t::try_from(pid).expect("a process id");
        // SAFETY: kill takes two integers and touches no memory.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "signal {signal} to {}", self.name);
    }

    /// SIGKILL, and waits for its end.
    pub(crate) async fn kill(&mut self) {
        assert!(
            self.child.try_wait().expect("a state").is_none(),
            "{} has ended by itself; its log is in the soak's folder (--keep DIR)",
            self.name
        );
        self.child.kill().await.expect("a kill");
    }

    /// SIGTERM, and waits for its end.
    pub(crate) async fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("{} does not end", self.name)).expect("a status");
        assert!(status.success(), "{} ended with {status}", self.name);
    }
}
