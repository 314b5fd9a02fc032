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
    /// Connections are cut at once until it opens.
    pub async fn closed() -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let to = Arc::new(watch::channel(None).0);
        let accept = tokio::spawn({
            let to = to.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let Some(target) = to.borrow().clone() else { continue };
                    tokio::spawn(relay(client, target));
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
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn relay(mut client: TcpStream, target: String) {
    let Ok(mut server) = TcpStream::connect(&target).await else { return };
    // Either side may break off; the other learns of it by the end of its connection.
    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
}
