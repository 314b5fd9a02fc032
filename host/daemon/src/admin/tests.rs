//! The admin port as tools see it that know nothing of us.

use std::sync::Arc;

use cofferdam_bus::local::{self, LocalConfig};
use futures_util::stream;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic_reflection::pb::{
    v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
    v1alpha,
};

use super::{Status, serve};
use crate::observe::metrics::Metrics;

#[tokio::test]
async fn reflection_shows_what_is_served_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let bus = local::open(LocalConfig { directory: folder.path().join("data") }).await.unwrap();
    let stop = CancellationToken::new();
    let status = Status {
        metrics: Arc::new(Metrics::new(std::iter::empty()).unwrap()),
        connection: bus.connection(),
        durables: Vec::new(),
        draining: stop.clone(),
        grpc: Vec::new(),
        plugins: Vec::new(),
        takes: std::collections::BTreeMap::new(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(serve(listener, status, bus, None, stop.clone()));

    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let ask = |message_request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message_request),
    };
    let asked = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("cofferdam.bus.v1.BusService".to_owned())),
    ];
    let mut answers = reflection.server_reflection_info(stream::iter(asked)).await.unwrap().into_inner();
    let mut answer = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer().await else { panic!("no list") };
    let mut names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["cofferdam.admin.v1.DeadLetters", "cofferdam.admin.v1.Jobs", "cofferdam.bus.v1.BusService"]
    );
    let MessageResponse::FileDescriptorResponse(files) = answer().await else { panic!("no file") };
    assert!(!files.file_descriptor_proto.is_empty());

    drop((reflection, answers));
    let mut older = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let asked = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut answers = older.server_reflection_info(stream::iter([asked])).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().message_response.is_some());

    drop((older, answers));
    stop.cancel();
    serving.await.unwrap().unwrap();
}
