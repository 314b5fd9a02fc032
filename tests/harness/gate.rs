//! A TCP address that is known before anything answers there: an upstream that is down, then up.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Closed on drop.
pub struct Gate {
    address: SocketAddr,
    to: Arc<watch::Sender<Option<String>>>,
    accept: JoinHandle<()>,
}

impl Gate {
    /// Connections are cut at once until it opens, and when it shuts or leads elsewhere.
    pub async fn closed() -> Gate {
        Gate::at("127.0.0.1:0").await
    }

    /// The same at an address where nobody was.
    pub async fn at(address: &str) -> Gate {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let to = Arc::new(watch::channel(None).0);
        let accept = tokio::spawn({
            let to = to.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let mut to = to.subscribe();
                    let Some(target) = to.borrow_and_update().clone() else { continue };
                    tokio::spawn(relay(client, target, to));
                }
            }
        });
        Gate { address, to, accept }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn open(&self, target: &str) {
        self.to.send_replace(Some(target.to_owned()));
    }

    /// As if the upstream had died.
    pub fn shut(&self) {
        self.to.send_replace(None);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn relay(mut client: TcpStream, target: String, mut to: watch::Receiver<Option<String>>) {
    let Ok(mut server) = TcpStream::connect(&target).await else { return };
    tokio::select! {
        // Either side may break off; the other learns of it by the end of its connection.
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = to.changed() => {}
    }
}
