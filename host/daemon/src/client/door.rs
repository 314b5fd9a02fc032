//! The connection to a daemon's admin port, and what its refusals mean to whoever typed a command.

use std::{error::Error, time::Duration};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use fleet_proto::{
    admin::v1::{dead_letters_client::DeadLettersClient, jobs_client::JobsClient},
    bus::v1::bus_service_client::BusServiceClient,
};
use http::Uri;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, ClientTlsConfig, Endpoint},
};

/// On this machine or the next; a daemon that takes longer is not there.
const CONNECT: Duration = Duration::from_secs(5);
/// A daemon whose machine vanished is noticed after these two.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);

/// Which daemon.
#[derive(Debug, Args)]
pub struct Reach {
    /// The daemon's admin port.
    #[arg(long, value_name = "URL", env = "COFFERDAM_ADMIN", default_value = "http://127.0.0.1:8080")]
    pub admin: String,
    /// What [admin] token-env or token-file of the daemon holds. Better given by the variable: other users of this
    /// machine can see arguments.
    #[arg(long, value_name = "TOKEN", env = "COFFERDAM_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Shows the token with every call.
#[derive(Clone)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A daemon that answered once. Its connection is made again when it is needed.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) bus: BusServiceClient<InterceptedService<Channel, Bearer>>,
    pub(super) letters: DeadLettersClient<InterceptedService<Channel, Bearer>>,
    pub(super) jobs: JobsClient<InterceptedService<Channel, Bearer>>,
    url: String,
    with_token: bool,
}

impl Door {
    pub(super) async fn open(reach: &Reach) -> anyhow::Result<Door> {
        let url = url(&reach.admin)?;
        let wrong = || no_url(&reach.admin, "");
        let mut endpoint = Endpoint::from_shared(url.clone())
            .with_context(wrong)?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true);
        if url.starts_with("https:") {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).with_context(wrong)?;
        }
        // A variable that is set to nothing stands for no token.
        let token = reach.token.as_deref().map(str::trim).filter(|token| !token.is_empty());
        let bearer = token.map(|token| {
            let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let bearer = match bearer {
            Some(None) => {
                return Err(anyhow!(
                    "the token has letters that no token has; check --token or COFFERDAM_TOKEN"
                ));
            }
            Some(Some(value)) => Some(value),
            None => None,
        };
        let channel = endpoint.connect().await.map_err(|error| {
            anyhow!(
                "no daemon answers at {url}: {}; start one with `cofferdam run`, or name another with --admin or \
                 COFFERDAM_ADMIN",
                root(&error)
            )
        })?;
        let with_token = bearer.is_some();
        let letters = DeadLettersClient::with_interceptor(channel.clone(), Bearer(bearer.clone()))
            .max_decoding_message_size(usize::MAX);
        let jobs = JobsClient::with_interceptor(channel.clone(), Bearer(bearer.clone()))
            .max_decoding_message_size(usize::MAX);
        let bus = BusServiceClient::with_interceptor(channel, Bearer(bearer))
            // The daemon decides how large a message may be.
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Ok(Door { bus, letters, jobs, url, with_token })
    }

    /// Why a call ended that had begun.
    pub(super) fn lost(&self, status: &Status) -> String {
        match status.source() {
            Some(source) => format!("the connection to {} broke: {}", self.url, root(source)),
            // What to do about it comes after the reason; we do it.
            None => format!("{}: {}", self.url, status.message().split(';').next().unwrap_or_default()),
        }
    }

    /// What a refusal means.
    pub(super) fn told(&self, status: &Status) -> anyhow::Error {
        let url = &self.url;
        match status.code() {
            Code::Unauthenticated if self.with_token => anyhow!(
                "the daemon at {url} does not take this token; give the one that its [admin] names, with COFFERDAM_TOKEN \
                 or --token"
            ),
            Code::Unauthenticated => {
                anyhow!("the daemon at {url} wants a token; give it with COFFERDAM_TOKEN or --token")
            }
            Code::Unimplemented => anyhow!(
                "what answers at {url} takes no such calls: is it a cofferdam, and of this version? Name another with \
                 --admin or COFFERDAM_ADMIN"
            ),
            _ if status.source().is_some() => anyhow!(
                "the connection to {url} broke, or what answers there is no daemon: {}",
                status.source().map_or_else(String::new, root)
            ),
            _ => anyhow!("{}", status.message()),
        }
    }
}

/// With its scheme. What would be ignored of it is refused: it was meant for something.
fn url(admin: &str) -> anyhow::Result<String> {
    let url = if admin.contains("://") { admin.to_owned() } else { format!("http://{admin}") };
    let uri: Uri = url.parse().map_err(|_| anyhow!(no_url(admin, "")))?;
    let wrong = match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            // A password may be in it.
            bail!(
                "the URL of the daemon has a user in it, whom nobody asks for; take it out, and give the token with \
                 COFFERDAM_TOKEN or --token"
            )
        }
        (Some("http" | "https"), Some(_)) if !matches!(uri.path(), "" | "/") || uri.query().is_some() => {
            ": the admin port has no path, only a host and a port"
        }
        (Some("http" | "https"), Some(_)) => return Ok(url),
        _ => ": http is spoken there, or https by a proxy before it",
    };
    Err(anyhow!(no_url(admin, wrong)))
}

fn no_url(admin: &str, why: &str) -> String {
    format!("{admin:?} is no URL of a daemon{why}; one is http://127.0.0.1:8080 (--admin or COFFERDAM_ADMIN)")
}

/// Whether the same call can fare better later. What is wrong with the call itself stays wrong.
pub(super) fn may_pass(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::Unimplemented
    )
}

/// What lies at the bottom of an error: above it is only "transport error" and the like.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_named_by_host_and_port_and_nothing_else() {
        for (admin, expected) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://a:1/", "http://a:1/"),
            ("https://a", "https://a"),
        ] {
            assert_eq!(url(admin).unwrap(), expected);
        }
        for (admin, why) in [
            ("ftp://a:1", "http is spoken there"),
            ("nats://a:4222", "http is spoken there"),
            ("http://a:1/bus", "has no path"),
            ("a:1/?x=1", "has no path"),
            ("not a url", "is no URL of a daemon; one is"),
            ("", "is no URL of a daemon; one is"),
        ] {
            let told = url(admin).unwrap_err().to_string();
            assert!(told.contains(why), "{admin}: {told}");
        }
        let told = url("http://me:hunter2@a:1").unwrap_err().to_string();
        assert!(told.contains("COFFERDAM_TOKEN") && !told.contains("hunter2"), "{told}");
    }
}
