//! Unary gRPC calls to configured upstreams: bytes in, bytes out. The host owns addresses, TLS and tokens.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes};
use cofferdam_sandbox::{RpcRequest, RpcStatus};
use http::uri::PathAndQuery;
use sha2::{Digest, Sha256};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::Run;
use crate::{
    config::{Secret, Upstream},
    fault::Fault,
    grants::Kind,
    observe::{
        text,
        trace::{self, hex},
    },
};

/// Of a request and of an answer.
const MAX_MESSAGE: usize = 4 << 20;

/// The configured upstreams, each with a connection that is made when it is first used and again when it broke.
pub struct Upstreams(BTreeMap<String, Connected>);

struct Connected {
    channel: Channel,
    timeout: Duration,
    token: Option<Secret>,
}

/// A call as it leaves the host.
pub struct Outgoing<'a> {
    pub upstream: &'a str,
    /// `package.Service/Method`
    pub method: &'a str,
    pub request: Bytes,
    /// The upstream's own if `None`.
    pub timeout: Option<Duration>,
    pub metadata: &'a [(String, String)],
    pub idempotency_key: &'a str,
    pub traceparent: &'a str,
}

impl Upstreams {
    pub fn connect(upstreams: &BTreeMap<String, Upstream>) -> anyhow::Result<Self> {
        use anyhow::Context;
        let mut all = BTreeMap::new();
        for (name, upstream) in upstreams {
            let what = || format!("upstream {name:?} at {}", upstream.address);
            let mut endpoint = Endpoint::from_shared(upstream.address.clone())
                .with_context(what)?
                .connect_timeout(upstream.timeout)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(Duration::from_secs(20))
                .keep_alive_timeout(Duration::from_secs(10));
            if upstream.address.starts_with("https")
                || upstream.ca.is_some()
                || upstream.certificate.is_some()
            {
                let roots = || {
                    format!("{}; where the machine has no certificates to trust, name them with ca", what())
                };
                endpoint = endpoint.tls_config(tls(upstream).with_context(what)?).with_context(roots)?;
            }
            let connected = Connected {
                channel: endpoint.connect_lazy(),
                timeout: upstream.timeout,
                token: upstream.token.clone(),
            };
            all.insert(name.clone(), connected);
        }
        Ok(Self(all))
    }

    /// Sends one call and waits for its answer, at most as long as the time-out says.
    pub async fn call(&self, call: Outgoing<'_>) -> Result<Bytes, Status> {
        let Some(upstream) = self.0.get(call.upstream) else {
            return Err(Status::failed_precondition(format!(
                "no upstream {:?} is configured; add [upstreams.{}] with its address",
                call.upstream, call.upstream
            )));
        };
        let path = PathAndQuery::try_from(format!("/{}", call.method))
            .map_err(|_| Status::invalid_argument(format!("{:?} is not a gRPC method", call.method)))?;
        let timeout = call.timeout.unwrap_or(upstream.timeout);
        let mut request = Request::new(call.request);
        request.set_timeout(timeout);
        for (name, value) in call.metadata {
            insert(&mut request, name, value)?;
        }
        insert(&mut request, "cofferdam-idempotency-key", call.idempotency_key)?;
        insert(&mut request, trace::HEADER, call.traceparent)?;
        if let Some(token) = &upstream.token {
            insert(&mut request, "authorization", &format!("Bearer {}", token.reveal()))?;
        }
        let mut client = Grpc::new(upstream.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let exchange = async {
            client.ready().await.map_err(|e| {
                Status::unavailable(format!("{} is out of reach: {}", call.upstream, causes(&e)))
            })?;
            client.unary(request, path, BytesCodec).await
        };
        let began = Instant::now();
        match tokio::time::timeout(timeout, exchange).await {
            // tonic keeps the same time, and calls it a cancellation when its clock is first.
            Ok(Err(status)) if status.code() != Code::Cancelled || began.elapsed() < timeout => Err(status),
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(_)) | Err(_) => {
                Err(Status::deadline_exceeded(format!("{} did not answer within {timeout:?}", call.upstream)))
            }
        }
    }
}

/// The error with what lies under it: tonic's own text says only "transport error".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn tls(upstream: &Upstream) -> anyhow::Result<ClientTlsConfig> {
    let mut tls = ClientTlsConfig::new();
    if let Some(domain) = &upstream.domain {
        tls = tls.domain_name(domain);
    }
    tls = match &upstream.ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(std::fs::read(ca)?)),
        // Whom the machine trusts; the crate itself trusts nobody.
        None => tls.with_native_roots(),
    };
    if let Some((certificate, key)) = &upstream.certificate {
        tls = tls.identity(Identity::from_pem(std::fs::read(certificate)?, std::fs::read(key)?));
    }
    Ok(tls)
}

fn insert(request: &mut Request<Bytes>, name: &str, value: &str) -> Result<(), Status> {
    let wrong = |what: &str| Status::invalid_argument(format!("metadata {name:?} has {what}"));
    let key: AsciiMetadataKey = name.parse().map_err(|_| wrong("a name that is not lower-case ASCII"))?;
    let value: AsciiMetadataValue = value.parse().map_err(|_| wrong("a value that is not visible ASCII"))?;
    request.metadata_mut().insert(key, value);
    Ok(())
}

impl Run {
    pub(super) async fn rpc(&mut self, request: RpcRequest) -> Result<Bytes, RpcStatus> {
        if !self.services.upstreams.0.contains_key(&request.upstream) {
            let name = text::excerpt(&request.upstream, 64);
            self.blame = Some(Fault::Operator);
            return Err(refusal(
                Code::FailedPrecondition,
                format!("no upstream {name:?} is configured; add [upstreams.{name}] with its address"),
            ));
        }
        if !is_method(&request.method) {
            let method = text::excerpt(&request.method, 128);
            return Err(refusal(
                Code::InvalidArgument,
                format!("{method:?} is not a method; write \"package.Service/Method\""),
            ));
        }
        let thing = format!("{}/{}", request.upstream, request.method);
        self.granted(Kind::Rpc, &thing)
            .map_err(|denial| refusal(Code::PermissionDenied, denial.to_string()))?;
        if request.request.len() > MAX_MESSAGE {
            let size = request.request.len();
            return Err(refusal(
                Code::ResourceExhausted,
                format!("the request has {size} bytes, more than {MAX_MESSAGE}"),
            ));
        }
        for (name, value) in &request.metadata {
            let name = text::excerpt(name, 64);
            if is_reserved(&name) {
                return Err(refusal(Code::InvalidArgument, format!("metadata {name:?} belongs to the host")));
            }
            if name.parse::<AsciiMetadataKey>().is_err() || value.parse::<AsciiMetadataValue>().is_err() {
                return Err(refusal(
                    Code::InvalidArgument,
                    format!("metadata {name:?} is not a lower-case name with a visible ASCII value"),
                ));
            }
        }
        let key = self.idempotency_key(&request);
        let left = self.remaining();
        let wanted = request.timeout_ms.map(|ms| Duration::from_millis(ms.into()));
        let upstream_own = self.services.upstreams.0.get(&request.upstream).map(|u| u.timeout);
        let timeout = wanted.or(upstream_own).map_or(left, |t| t.min(left));
        let traceparent = self.occasion.trace.header();
        let answer = self
            .services
            .upstreams
            .call(Outgoing {
                upstream: &request.upstream,
                method: &request.method,
                request: request.request,
                timeout: Some(timeout),
                metadata: &request.metadata,
                idempotency_key: &key,
                traceparent: &traceparent,
            })
            .await;
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.services
            .metrics
            .calls
            .with_label_values(&[
                self.plugin.name.as_str(),
                request.upstream.as_str(),
                (code as i32).to_string().as_str(),
            ])
            .inc();
        if answer.is_ok() && self.blame == Some(Fault::Upstream) {
            self.blame = None;
        }
        answer.map_err(|status| {
            if is_upstreams_fault(status.code()) {
                self.blame = Some(Fault::Upstream);
            }
            RpcStatus { code: status.code() as u8, message: status.message().to_owned(), local: false }
        })
    }

    /// The same for the same call of every run of this event: hash of event, upstream, method, request, occurrence.
    fn idempotency_key(&mut self, request: &RpcRequest) -> String {
        let mut hash = Sha256::new();
        for part in [
            self.occasion.event_id.as_bytes(),
            request.upstream.as_bytes(),
            request.method.as_bytes(),
            &request.request,
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let base: [u8; 32] = hash.clone().finalize().into();
        let occurrence = self.calls_made.entry(base).or_insert(0);
        hash.update(occurrence.to_be_bytes());
        *occurrence += 1;
        hex(&hash.finalize())
    }
}

/// `package.Service/Method`, and nothing that a proxy could take for another path.
fn is_method(method: &str) -> bool {
    let word = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    method.split_once('/').is_some_and(|(service, name)| word(name) && service.split('.').all(word))
}

fn refusal(code: Code, message: String) -> RpcStatus {
    RpcStatus { code: code as u8, message, local: true }
}

fn is_reserved(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower == "authorization"
        || lower == trace::HEADER
        || lower.starts_with("grpc-")
        || lower.starts_with("cofferdam-")
}

/// Codes that say something about the upstream rather than about the request.
fn is_upstreams_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::DataLoss
            | Code::Cancelled
    )
}

/// Messages stay encoded: the guest knows their types, the host doesn't.
#[derive(Default, Clone, Copy)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = from.remaining();
        Ok(Some(from.copy_to_bytes(len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_one_path_and_no_other() {
        assert!(is_method("fleet.task_derivation.v1.Planning/GetPlan"));
        for bad in ["a.B", "a.B/", "/C", "a.B/../D/E", "a..B/C", "a.B/C/D", "a.B/C?x", "a.B/C%2f"] {
            assert!(!is_method(bad), "{bad}");
        }
    }
}
