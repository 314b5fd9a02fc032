//! Nodes of one NATS cluster on this machine. Each is a server of its own that can be killed and started again; clients
//! are told of no other address than they were given, so that a proxy before a node stays before it.

use std::time::Duration;

use serde_json::Value;

use crate::{
    nats::{Server, free_port},
    wait::wait_for,
};

/// Of one question to a node that may be down.
const ANSWER: Duration = Duration::from_secs(2);

/// Killed on drop.
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts that many nodes and waits until JetStream answers on each. One is a server by itself.
    pub async fn start(count: usize) -> Cluster {
        if count == 1 {
            return Cluster { nodes: vec![Server::start().await] };
        }
        let mut ports = Vec::new();
        for _ in 0..count {
            ports.push(free_port().await);
        }
        let routes: Vec<String> = ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let routes = routes.join(", ");
        let nodes = ports.iter().enumerate().map(|(number, port)| {
            let settings = format!(
                "server_name: {}\ncluster {{ name: \"c\", listen: \"127.0.0.1:{port}\", routes: [{routes}], \
                 no_advertise: true }}\n",
                name(number)
            );
            async move { Server::start_with(&settings).await }
        });
        let cluster = Cluster { nodes: futures_util::future::join_all(nodes).await };
        cluster.ready().await;
        cluster
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }

    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    pub fn node(&mut self, number: usize) -> &mut Server {
        &mut self.nodes[number]
    }

    /// Waits until JetStream answers on each node that runs.
    pub async fn ready(&self) {
        for node in self.nodes.iter().filter(|node| node.is_up()) {
            let client = node.client().await;
            wait_for("JetStream of a node", async || {
                let asked = tokio::time::timeout(ANSWER, client.request("$JS.API.INFO", "".into())).await;
                let answer: Value = serde_json::from_slice(&asked.ok()?.ok()?.payload).ok()?;
                answer["error"].is_null().then_some(())
            })
            .await;
        }
    }

    /// Which node leads a stream now.
    pub async fn leader(&self, stream: &str) -> usize {
        self.led_by(stream, None).await
    }

    /// Waits until a stream is led by another node than this one.
    pub async fn leader_after(&self, stream: &str, before: usize) -> usize {
        self.led_by(stream, Some(before)).await
    }

    async fn led_by(&self, stream: &str, not: Option<usize>) -> usize {
        let node = self.nodes.iter().find(|node| node.is_up()).expect("a node that runs");
        let client = node.client().await;
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        wait_for(&format!("a leader of {stream}"), async || {
            let asked = tokio::time::timeout(ANSWER, client.request(subject.clone(), "".into())).await;
            let answer: Value = serde_json::from_slice(&asked.ok()?.ok()?.payload).ok()?;
            let leader = answer["cluster"]["leader"].as_str()?;
            let number = (0..self.nodes.len()).find(|number| name(*number) == leader)?;
            (Some(number) != not && self.nodes[number].is_up()).then_some(number)
        })
        .await
    }

    /// Asks a stream's leader to let another lead, as an operator may.
    pub async fn step_down(&self, stream: &str) {
        let before = self.leader(stream).await;
        let client = self.nodes[before].client().await;
        let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
        client.request(subject, "".into()).await.expect("an answer");
        self.leader_after(stream, before).await;
    }
}

fn name(number: usize) -> String {
    format!("n{number}")
}
