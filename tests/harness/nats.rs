//! A real nats-server per test: started on a free port of 127.0.0.1 with a store of its own, stopped, killed and restarted
//! at will, gone with the value. Knows nothing of Cofferdam.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    time::Instant,
};

use crate::process::die_with_us;

/// Ports are taken from below the range that the system gives to outgoing connections, so that a server finds its port
/// free after a restart.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
const START: Duration = Duration::from_secs(20);

/// `$NATS_SERVER`, else the one in PATH, else the one that `cargo xtask setup` fetched.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("NATS_SERVER") {
        return path.into();
    }
    let in_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("nats-server")).find(|file| file.is_file())
    });
    in_path.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/nats-server"))
}

/// A nats-server with JetStream; killed on drop.
pub struct Server {
    dir: TempDir,
    settings: String,
    port: u16,
    child: Option<Child>,
}

impl Server {
    pub async fn start() -> Server {
        Server::start_with("").await
    }

    /// With more lines for its configuration file.
    pub async fn start_with(settings: &str) -> Server {
        let jetstream = "jetstream { store_dir: \"STORE\" }\n";
        Server::start_bare(&format!("{jetstream}{settings}")).await
    }

    /// Without JetStream, unless the settings say so (`STORE` stands for its directory).
    pub async fn start_bare(settings: &str) -> Server {
        let dir = TempDir::new().expect("a temporary directory");
        let settings = settings.replace("STORE", &dir.path().join("store").to_string_lossy());
        let mut server = Server { dir, settings, port: 0, child: None };
        for _ in 0..20 {
            server.port = free_port().await;
            if server.try_up().await {
                return server;
            }
        }
        panic!("nats-server does not start; its log: {}", server.log());
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Has it been started, and neither stopped nor killed?
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A connection of the plain client.
    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.expect("a connection to the server just started")
    }

    /// Starts it again on the same port and store.
    pub async fn up(&mut self) {
        assert!(self.try_up().await, "nats-server does not start again; its log: {}", self.log());
    }

    /// SIGTERM, and waits for its end.
    pub async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(child.id(), "TERM").await;
        child.wait().await.expect("the server's end");
    }

    /// SIGKILL: what it had not written is lost.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("a kill");
        }
    }

    /// SIGSTOP and SIGCONT: alive to the network, silent to its clients.
    pub async fn freeze(&self) {
        signal(self.child.as_ref().and_then(Child::id), "STOP").await;
    }

    pub async fn thaw(&self) {
        signal(self.child.as_ref().and_then(Child::id), "CONT").await;
    }

    async fn try_up(&mut self) -> bool {
        let path = |name: &str| self.dir.path().join(name);
        let config = format!(
            "listen: \"127.0.0.1:{}\"\nports_file_dir: \"{}\"\n{}",
            self.port,
            self.dir.path().display(),
            self.settings
        );
        std::fs::write(path("conf"), config).expect("a configuration file");
        let mut command = Command::new(binary());
        command
            .arg("-c")
            .arg(path("conf"))
            .arg("-l")
            .arg(path("log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        die_with_us(&mut command);
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; run `cargo xtask setup`", binary().display()));
        // Written once it listens; its name has the process id, so no other server can be mistaken for ours.
        let ready = format!("_{}.ports", child.id().unwrap_or_default());
        let deadline = Instant::now() + START;
        loop {
            if child.try_wait().expect("the server's state").is_some() {
                return false;
            }
            let listed = std::fs::read_dir(self.dir.path()).expect("our own directory");
            let mut names = listed.filter_map(|f| f.ok()?.file_name().into_string().ok());
            if names.any(|name| name.ends_with(&ready)) {
                break;
            }
            assert!(Instant::now() < deadline, "nats-server is not ready; its log: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.child = Some(child);
        true
    }
}

pub(crate) async fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run side by side begin at different places.
    let begin = (std::process::id().wrapping_mul(2_654_435_761) >> 16) as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + begin.wrapping_add(step) % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
    }
}

async fn signal(pid: Option<u32>, name: &str) {
    let pid = pid.expect("a running process").to_string();
    // The shell's own `kill`: the program is not installed everywhere.
    let done = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().await.expect("sh");
    assert!(done.success(), "kill -{name} {pid}");
}
