//! `[grpc]` and `[executor.grpc]`: where gRPC is served, and what protects the way there.

use std::{net::SocketAddr, time::Duration};

use toml::Value;

use super::{
    GrpcConfig,
    env::Surroundings,
    paths::{certificate, file},
    reader::Table,
    settings::Origin,
};

/// Many more than run at once; each holds its request in memory.
const MAX_CALLS: u32 = 1024;
/// What the bus takes as one message, unless a server says otherwise.
const MAX_REQUEST: usize = 1 << 20;
/// As long as a plugin's run may take by default.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Which of the program's gRPC ports it is.
pub(super) struct Port {
    /// The variable that moves it.
    pub variable: &'static str,
    pub example: &'static str,
}

/// Where plugins serve.
pub(super) const PLUGINS: Port = Port { variable: "COFFERDAM_GRPC_LISTEN", example: "127.0.0.1:50056" };

/// Keys that are nothing without an address.
const OF_LISTENERS: [&str; 3] = ["certificate", "key", "client-ca"];

pub(super) fn grpc(table: &Table<'_>, surroundings: &Surroundings<'_>, port: &Port) -> GrpcConfig {
    let base = &surroundings.base;
    let Port { variable, example } = port;
    let wanted = format!("an address with a port such as {example:?}");
    let mut listen = Vec::new();
    for text in table.strings("listen") {
        match text.value.parse::<SocketAddr>() {
            Ok(address) => listen.push(address),
            Err(_) => {
                let name = table.name("listen");
                table.fault_at(&text, format!("{name} has {:?}, which is not {wanted}", text.value))
            }
        }
    }
    if let Some(text) = surroundings.overriding(table, "listen", variable) {
        listen.clear();
        for part in text.split(',').map(str::trim) {
            match part.parse::<SocketAddr>() {
                Ok(address) => listen.push(address),
                Err(_) => surroundings.fault(format!("{variable} has {part:?}, which is not {wanted}")),
            }
        }
        let shown = listen.iter().map(|address| Value::from(address.to_string())).collect();
        table.set("listen", Value::Array(shown), Origin::Variable((*variable).to_owned()));
    }
    let certificate = certificate(table, base);
    let client_ca = file(table, "client-ca", base);
    if client_ca.is_some() && !table.has("certificate") {
        table.fault_of(
            "client-ca",
            format!(
                "{} asks clients for certificates, which takes TLS; add certificate and key, or remove it",
                table.name("client-ca")
            ),
        );
    }
    // What is to protect the way here is not lost in silence.
    if !table.has("listen") && !surroundings.has(variable) {
        for key in OF_LISTENERS.into_iter().filter(|key| table.has(key)) {
            let name = table.name(key);
            table.fault_of(
                key,
                format!("{name} is set, and nothing listens; add listen = [{example:?}], or remove it"),
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
