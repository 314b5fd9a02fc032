//! Processes that a test drives over stdio and kills. One command line in, one answer line out.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Killed on drop.
pub struct Driven {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Driven {
    pub fn start(program: &str, arguments: &[&str]) -> Driven {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        Driven { child, stdin, stdout }
    }

    pub async fn tell(&mut self, command: Value) {
        self.stdin.write_all(format!("{command}\n").as_bytes()).await.expect("a living process");
        self.stdin.flush().await.expect("a living process");
    }

    pub async fn ask(&mut self, command: Value) -> Value {
        self.tell(command).await;
        let line = self.stdout.next_line().await.expect("readable").expect("an answer before the end");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        assert!(answer.get("error").is_none(), "{answer}");
        answer
    }

    /// The next line it says by itself; `None` if it has ended.
    pub async fn line(&mut self) -> Option<String> {
        self.stdout.next_line().await.expect("readable")
    }

    /// SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a kill");
    }

    /// SIGKILL; gives what it had said before.
    pub async fn kill_and_hear(mut self) -> Vec<String> {
        self.child.kill().await.expect("a kill");
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        lines
    }
}
