//! A TCP line to a server that can be slowed and cut at any moment. Knows nothing of what goes over it; for faults at an
//! exact step of the protocol there is the harness's proxy before it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Closed on drop.
pub(crate) struct Line {
    port: u16,
    delay: Arc<AtomicU64>,
    cut: watch::Sender<u64>,
    accept: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Line {
    pub(crate) async fn to(server_port: u16) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let delay = Arc::new(AtomicU64::new(0));
        let cut = watch::channel(0).0;
        let accept = tokio::spawn({
            let (delay, cuts) = (delay.clone(), cut.subscribe());
            async move {
                let mut lines = tokio::task::JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    // A refused connection is what a client of a stopped server sees.
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else { continue };
                    for stream in [&client, &server] {
                        stream.set_nodelay(true).expect("a TCP option");
                    }
                    let ((a, b), (c, d)) = (client.into_split(), server.into_split());
                    let (delay, mut cuts) = (delay.clone(), cuts.clone());
                    cuts.mark_unchanged();
                    lines.spawn(async move {
                        tokio::select! {
                            () = relay(a, d, &delay) => {}
                            () = relay(c, b, &delay) => {}
                            _ = cuts.changed() => {}
                        }
                    });
                    while lines.try_join_next().is_some() {}
                }
            }
        });
        Line { port, delay, cut, accept }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on each piece that goes over it waits for so long.
    pub(crate) fn delay(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_millis()).expect("a short time"), Ordering::Relaxed);
    }

    /// Cuts what is connected.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let wait = delay.load(Ordering::Relaxed);
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
