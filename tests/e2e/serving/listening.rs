//! Where clients reach what is served: several addresses, TLS, health checks and server reflection.

use std::path::{Path, PathBuf};

use fleet_proto::fixtures::v1::{GetRequest, ledger_service_client::LedgerServiceClient};
use futures_util::StreamExt;
use harness::plugin::LEDGER;
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::{Ground, Ledger, add};
use crate::both::on_local;

async fn channel(daemon: &harness::daemon::Daemon) -> Channel {
    Endpoint::from_shared(format!("http://{}", daemon.grpc())).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn several_addresses_serve_the_same_and_are_told() {
    on_local(async |mut ground: Ground| {
        ground.setup.set("grpc.listen", vec!["127.0.0.1:0", "[::1]:0"]);
        let daemon = ground.start().await;
        let addresses = daemon.grpcs();
        assert!(
            addresses[0].starts_with("127.0.0.1:") && addresses[1].starts_with("[::1]:"),
            "{addresses:?}"
        );
        for (address, sum) in addresses.iter().zip(1..) {
            assert_eq!(Ledger::at(address).add(add("a", 1)).await.unwrap().sum, sum);
        }
        let (_, health) = daemon.health("/health").await;
        assert!(addresses.iter().all(|address| health.contains(address)), "{health}");
    })
    .await;
}

#[tokio::test]
async fn the_environment_says_where_too() {
    on_local(async |ground: Ground| {
        let setup = ground.setup.env("COFFERDAM_GRPC_LISTEN", "127.0.0.1:0, 127.0.0.1:0");
        let daemon = setup.start().await;
        assert_eq!(daemon.grpcs().len(), 2);
        assert_eq!(Ledger::of(&daemon).add(add("a", 1)).await.unwrap().sum, 1);
    })
    .await;
}

#[tokio::test]
async fn reflection_describes_what_is_served_and_names_nothing_else() {
    on_local(async |ground: Ground| {
        let daemon = ground.start().await;
        let mut client = ServerReflectionClient::new(channel(&daemon).await);
        let ask = [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol(LEDGER.to_owned()),
        ];
        let ask = ask.map(|ask| ServerReflectionRequest { host: String::new(), message_request: Some(ask) });
        let told = client.server_reflection_info(futures_util::stream::iter(ask)).await.unwrap();
        let told: Vec<_> =
            told.into_inner().map(|told| told.unwrap().message_response.unwrap()).collect().await;
        let [MessageResponse::ListServicesResponse(services), MessageResponse::FileDescriptorResponse(file)] =
            &told[..]
        else {
            panic!("{told:?}")
        };
        let mut names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, [LEDGER, "grpc.health.v1.Health"]);
        assert_eq!(file.file_descriptor_proto.len(), 1);
        let mut older = tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient::new(
            channel(&daemon).await,
        );
        let none = futures_util::stream::empty::<tonic_reflection::pb::v1alpha::ServerReflectionRequest>();
        older.server_reflection_info(none).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn health_is_told_of_all_and_of_each_service() {
    on_local(async |ground: Ground| {
        let daemon = ground.start().await;
        let mut client = HealthClient::new(channel(&daemon).await);
        let mut check = async |service: &str| {
            let request = HealthCheckRequest { service: service.to_owned() };
            client.check(request).await.map(|checked| checked.into_inner().status)
        };
        assert_eq!((check("").await.unwrap(), check(LEDGER).await.unwrap()), (1, 1));
        assert_eq!(check("a.v1.B").await.unwrap_err().code(), Code::NotFound);
    })
    .await;
}

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/serving/certificates").join(name)
}

fn pem(name: &str) -> Vec<u8> {
    std::fs::read(certificate(name)).unwrap()
}

#[tokio::test]
async fn with_tls_a_client_needs_the_hosts_authority_and_its_own_certificate() {
    on_local(async |mut ground: Ground| {
        for (key, file) in [("certificate", "host.pem"), ("key", "host.key"), ("client-ca", "ca.pem")] {
            ground.setup.set(&format!("grpc.{key}"), certificate(file).to_str().unwrap());
        }
        let daemon = ground.start().await;
        let get = async |tls: Option<ClientTlsConfig>| -> Result<Status, String> {
            let scheme = if tls.is_some() { "https" } else { "http" };
            let endpoint = Endpoint::from_shared(format!("{scheme}://{}", daemon.grpc())).unwrap();
            let endpoint = match tls {
                Some(tls) => endpoint.tls_config(tls.domain_name("localhost")).unwrap(),
                None => endpoint,
            };
            let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
            let request = GetRequest { account: "a".into(), ..GetRequest::default() };
            let answer = LedgerServiceClient::new(channel).get(Request::new(request)).await;
            Ok(answer.unwrap_err())
        };
        let trusting = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem("ca.pem")));
        let known = Identity::from_pem(pem("client.pem"), pem("client.key"));
        let status = get(Some(trusting().identity(known.clone()))).await.unwrap();
        assert_eq!(status.code(), Code::NotFound, "{status}");
        let stranger = Identity::from_pem(pem("stranger.pem"), pem("stranger.key"));
        for tls in [
            None,
            Some(trusting()),
            Some(trusting().identity(stranger)),
            Some(
                ClientTlsConfig::new()
                    .ca_certificate(Certificate::from_pem(pem("stranger.pem")))
                    .identity(known),
            ),
        ] {
            // Refused when it connects, or with its first call.
            let refused = get(tls).await;
            assert!(!matches!(&refused, Ok(status) if status.code() == Code::NotFound), "{refused:?}");
        }
    })
    .await;
}
