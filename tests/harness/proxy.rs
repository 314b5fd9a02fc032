//! A TCP proxy before a nats-server that reads what clients send, and at a chosen operation holds it back or lets it
//! through and swallows the answer. So a crash or a cut comes at an exact step, without hooks in the code under test.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What to do to the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The server never sees it, nor anything after it on this connection.
    Hold,
    /// The server sees it, its answer is lost, and so is all that comes after it.
    HoldAfter,
    /// The server sees it, its answer is lost, and the connection is cut.
    CutAfter,
    /// The connection is cut before the server sees it.
    CutBefore,
}

struct Rule {
    subject_prefix: String,
    act: Act,
    /// How many matching operations to let pass first.
    skip: u32,
}

type Rules = Arc<Mutex<Option<Rule>>>;

/// Closed on drop.
pub struct Proxy {
    port: u16,
    rules: Rules,
    hits: watch::Receiver<u32>,
    accept: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Proxy {
    pub async fn before(server_port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let rules = Rules::default();
        let (hit, hits) = watch::channel(0);
        let hit = Arc::new(hit);
        let accept = tokio::spawn({
            let rules = rules.clone();
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    // A refused connection is what a client of a stopped server sees.
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else { continue };
                    connections.spawn(relay(client, server, rules.clone(), hit.clone()));
                }
            }
        });
        Proxy { port, rules, hits, accept }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Acts once, on the publish after `skip` others whose subject begins so.
    pub fn once(&self, subject_prefix: &str, skip: u32, act: Act) {
        let rule = Rule { subject_prefix: subject_prefix.to_owned(), act, skip };
        *self.rules.lock().expect("no poison") = Some(rule);
    }

    /// Takes back a rule that has not acted.
    pub fn forget(&self) {
        *self.rules.lock().expect("no poison") = None;
    }

    /// How often rules have acted.
    pub fn hits(&self) -> u32 {
        *self.hits.borrow()
    }

    /// Waits until rules have acted so often, all in all.
    pub async fn acted(&mut self, times: u32) {
        self.hits.wait_for(|n| *n >= times).await.expect("the proxy lives");
    }
}

async fn relay(client: TcpStream, server: TcpStream, rules: Rules, hit: Arc<watch::Sender<u32>>) {
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let (mute, muted) = watch::channel(false);
    let down = tokio::spawn(downstream(server_read, client_write, muted));
    upstream(client_read, server_write, &rules, &hit, &mute, &down).await;
    down.abort();
}

/// Server to client, until muted: then it reads one answer more and ends. The client sees no end before the handle is
/// dropped.
async fn downstream(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    muted: watch::Receiver<bool>,
) -> Option<OwnedWriteHalf> {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if *muted.borrow() {
            return Some(to);
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    None
}

/// Client to server, one protocol operation after another.
async fn upstream(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rules: &Rules,
    hit: &watch::Sender<u32>,
    mute: &watch::Sender<bool>,
    down: &JoinHandle<Option<OwnedWriteHalf>>,
) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        if !matches!(from.read_until(b'\n', &mut line).await, Ok(1..)) {
            return;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        let mut words = text.split_ascii_whitespace();
        let publish = matches!(words.next(), Some("PUB" | "HPUB"));
        let subject = words.next().unwrap_or_default();
        if publish {
            let size: usize = words.last().and_then(|w| w.parse().ok()).expect("a size");
            let mut payload = vec![0; size + 2];
            if from.read_exact(&mut payload).await.is_err() {
                return;
            }
            line.extend(payload);
        }
        let act = if publish { acting(rules, subject) } else { None };
        match act {
            None => {
                if to.write_all(&line).await.is_err() {
                    return;
                }
            }
            Some(Act::CutBefore) => {
                hit.send_modify(|n| *n += 1);
                return;
            }
            Some(Act::Hold) => {
                hit.send_modify(|n| *n += 1);
                // Until the client is gone; then the server is to learn of it.
                while matches!(from.read(&mut [0; 1024]).await, Ok(1..)) {}
                return;
            }
            Some(act @ (Act::CutAfter | Act::HoldAfter)) => {
                mute.send_replace(true);
                if to.write_all(&line).await.is_err() {
                    return;
                }
                while !down.is_finished() {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                hit.send_modify(|n| *n += 1);
                if act == Act::HoldAfter {
                    while matches!(from.read(&mut [0; 1024]).await, Ok(1..)) {}
                }
                return;
            }
        }
    }
}

fn acting(rules: &Rules, subject: &str) -> Option<Act> {
    let mut rule = rules.lock().expect("no poison");
    let matching = rule.as_mut().filter(|r| subject.starts_with(&r.subject_prefix))?;
    if matching.skip > 0 {
        matching.skip -= 1;
        return None;
    }
    rule.take().map(|r| r.act)
}
