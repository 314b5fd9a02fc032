//! `[grpc]`: where plugins serve gRPC, and what protects the way there.

use std::{net::SocketAddr, time::Duration};

use toml::Value;

use super::{
    GrpcConfig,
    env::Surroundings,
    paths::{certificate, file},
    reader::Table,
    settings::Origin,
};

const LISTEN: &str = "COFFERDAM_GRPC_LISTEN";
const WANTED: &str = "an address with a port such as \"127.0.0.1:50056\"";
/// Many more than run at once; each holds its request in memory.
const MAX_CALLS: u32 = 1024;
/// What the bus takes as one message, unless a server says otherwise.
const MAX_REQUEST: usize = 1 << 20;
/// As long as a plugin's run may take by default.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Keys that are nothing without an address.
const OF_LISTENERS: [&str; 3] = ["certificate", "key", "client-ca"];

pub(super) fn grpc(table: &Table<'_>, surroundings: &Surroundings<'_>) -> GrpcConfig {
    let base = &surroundings.base;
    let mut listen = Vec::new();
    for text in table.strings("listen") {
        match text.value.parse::<SocketAddr>() {
            Ok(address) => listen.push(address),
            Err(_) => {
                table.fault_at(&text, format!("grpc.listen has {:?}, which is not {WANTED}", text.value))
            }
        }
    }
    if let Some(text) = surroundings.overriding(table, "listen", LISTEN) {
        listen.clear();
        for part in text.split(',').map(str::trim) {
            match part.parse::<SocketAddr>() {
                Ok(address) => listen.push(address),
                Err(_) => surroundings.fault(format!("{LISTEN} has {part:?}, which is not {WANTED}")),
            }
        }
        let shown = listen.iter().map(|address| Value::from(address.to_string())).collect();
        table.set("listen", Value::Array(shown), Origin::Variable(LISTEN.to_owned()));
    }
    let certificate = certificate(table, base);
    let client_ca = file(table, "client-ca", base);
    if client_ca.is_some() && !table.has("certificate") {
        table.fault_of(
            "client-ca",
            "grpc.client-ca asks clients for certificates, which takes TLS; add certificate and key, or remove it",
        );
    }
    // What is to protect the way here is not lost in silence.
    if !table.has("listen") && !surroundings.has(LISTEN) {
        for key in OF_LISTENERS.into_iter().filter(|key| table.has(key)) {
            table.fault_of(
                key,
                format!(
                    "grpc.{key} is set, and nothing listens; add listen = [\"127.0.0.1:50056\"], or remove it"
                ),
            );
        }
    }
    GrpcConfig {
        listen,
        certificate,
        client_ca,
        max_calls: table.integer("max-calls", 1, 1_000_000).or(MAX_CALLS),
        max_request: table.size("max-request").or(MAX_REQUEST),
        timeout: table.duration("timeout").or(TIMEOUT),
    }
}
