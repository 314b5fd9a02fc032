//! The configured upstreams and their connections: one call there and back, bytes in, bytes out. The host owns addresses,
//! TLS and tokens.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes};
use futures_util::stream;
use http::uri::PathAndQuery;
use tonic::{
    Code, ConnectError, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};

use super::{
    fence::{Fence, Passed},
    own::{Door, Way, Within},
};
use crate::{
    config::{Secret, Upstream},
    observe::trace,
};

/// Of a request and of an answer.
pub(super) const MAX_MESSAGE: usize = 4 << 20;
/// For an answer of this daemon itself that says that the time is over.
const LAST_WORD: Duration = Duration::from_secs(2);
/// How tonic begins its refusal to read an answer over the limit.
const TOO_LONG: &str = "Error, decoded message length too large";

/// The configured upstreams, each with connections that are made when they are first used and again when they broke.
pub struct Upstreams {
    all: BTreeMap<String, Connected>,
    /// To what this daemon serves itself.
    own: Door,
}

struct Connected {
    channel: Way,
    /// For calls that are made once.
    fenced: Way,
    passed: Arc<Passed>,
    token: Option<Secret>,
    config: Upstream,
}

impl Connected {
    fn by(channel: Way, fenced: Way, passed: Arc<Passed>, config: &Upstream) -> Self {
        Self { channel, fenced, passed, token: config.token.clone(), config: config.clone() }
    }
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
    /// Of a call that is made once.
    pub fence: Option<Fence>,
    /// What this host is to know of it, if it is its own upstream.
    pub within: Within,
}

/// A call that brought no answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) status: Status,
    pub(super) reached: Reached,
}

/// How far a call came that brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// It is certain that nothing was sent.
    Nobody,
    /// The fence kept it back.
    Withheld,
    /// The upstream has perhaps done it, unless the status says otherwise.
    Perhaps,
    /// The upstream has done it, and its answer is too long to be read.
    Done,
}

impl Failed {
    fn unsent(status: Status) -> Self {
        Self { status, reached: Reached::Nobody }
    }

    /// Of a status that came instead of the beginning of an answer.
    fn of(status: Status) -> Self {
        let reached = if is_connect(&status) { Reached::Nobody } else { Reached::Perhaps };
        Self { status, reached }
    }

    /// Of a status that came after the beginning of an answer.
    fn while_reading(status: Status) -> Self {
        let too_long = status.code() == Code::OutOfRange && status.message().starts_with(TOO_LONG);
        Self { status, reached: if too_long { Reached::Done } else { Reached::Perhaps } }
    }
}

impl Upstreams {
    pub fn connect(upstreams: &BTreeMap<String, Upstream>) -> anyhow::Result<Self> {
        use anyhow::Context;
        let (mut all, own) = (BTreeMap::new(), Door::default());
        for (name, upstream) in upstreams {
            if upstream.is_own() {
                let way = Way::Own(own.clone());
                all.insert(name.clone(), Connected::by(way.clone(), way, Arc::default(), upstream));
                continue;
            }
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
            let passed = Arc::<Passed>::default();
            let (channel, fenced) = (Way::Out(endpoint.connect_lazy()), Way::Out(passed.connect(&endpoint)));
            all.insert(name.clone(), Connected::by(channel, fenced, passed, upstream));
        }
        Ok(Self { all, own })
    }

    /// Where the daemon's own services are to be had, once it has any.
    pub fn own(&self) -> &Door {
        &self.own
    }

    pub(super) fn config(&self, name: &str) -> Option<&Upstream> {
        self.all.get(name).map(|connected| &connected.config)
    }

    /// Sends one call and waits for its answer, at most as long as the time-out says.
    pub async fn call(&self, call: Outgoing<'_>) -> Result<Bytes, Status> {
        self.exchange(&call).await.map_err(|failed| failed.status)
    }

    pub(super) async fn exchange(&self, call: &Outgoing<'_>) -> Result<Bytes, Failed> {
        let Some(upstream) = self.all.get(call.upstream) else {
            return Err(Failed::unsent(Status::failed_precondition(format!(
                "no upstream {:?} is configured; add [upstreams.{}] with its address",
                call.upstream, call.upstream
            ))));
        };
        let path = PathAndQuery::try_from(format!("/{}", call.method)).map_err(|_| {
            Failed::unsent(Status::invalid_argument(format!("{:?} is not a gRPC method", call.method)))
        })?;
        let timeout = call.timeout.unwrap_or(upstream.config.timeout);
        let mut request = request(call, timeout, upstream.token.as_ref()).map_err(Failed::unsent)?;
        if upstream.config.is_own() {
            if !self.own.is_open() {
                let why = format!("{} is this daemon itself, which serves nothing now", call.upstream);
                return Err(Failed::unsent(Status::unavailable(why)));
            }
            request.extensions_mut().insert(call.within.clone());
        }
        let channel = if call.fence.is_some() { &upstream.fenced } else { &upstream.channel };
        let _out = call.fence.clone().map(|fence| upstream.passed.enter(fence));
        let mut client = Grpc::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let exchange = async {
            client.ready().await.map_err(|e| {
                Failed::unsent(Status::unavailable(format!(
                    "{} is out of reach: {}",
                    call.upstream,
                    causes(&*e)
                )))
            })?;
            unary(&mut client, request, path, BytesCodec { fence: call.fence.clone() }).await
        };
        let began = Instant::now();
        // What this daemon serves keeps the time by itself, and says what becomes of a call that it has taken.
        let patience = if upstream.config.is_own() { timeout + LAST_WORD } else { timeout };
        let ended = tokio::time::timeout(patience, exchange).await;
        let withheld = call.fence.as_ref().is_some_and(Fence::has_withheld);
        match ended {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failed)) if withheld => Err(Failed { reached: Reached::Withheld, ..failed }),
            // tonic keeps the same time, and calls it a cancellation when its clock is first.
            Ok(Err(failed)) if failed.status.code() != Code::Cancelled || began.elapsed() < timeout => {
                Err(failed)
            }
            Ok(Err(_)) | Err(_) => Err(Failed::of(Status::deadline_exceeded(format!(
                "{} did not answer within {timeout:?}",
                call.upstream
            )))),
        }
    }
}

/// One message there, one back. As tonic's own, but for telling apart who refused an answer.
async fn unary(
    client: &mut Grpc<Way>,
    request: Request<Bytes>,
    path: PathAndQuery,
    codec: BytesCodec,
) -> Result<Bytes, Failed> {
    let request = request.map(|message| stream::iter([message]));
    let mut answers = client.streaming(request, path, codec).await.map_err(Failed::of)?.into_inner();
    let answer = answers.message().await.map_err(Failed::while_reading)?;
    let answer = answer.ok_or_else(|| Failed::of(Status::internal("the answer has no message")))?;
    // The status comes last.
    answers.trailers().await.map_err(Failed::while_reading)?;
    Ok(answer)
}

fn request(call: &Outgoing<'_>, timeout: Duration, token: Option<&Secret>) -> Result<Request<Bytes>, Status> {
    let mut request = Request::new(call.request.clone());
    request.set_timeout(timeout);
    for (name, value) in call.metadata {
        insert(&mut request, name, value)?;
    }
    insert(&mut request, "cofferdam-idempotency-key", call.idempotency_key)?;
    insert(&mut request, trace::HEADER, call.traceparent)?;
    if let Some(token) = token {
        insert(&mut request, "authorization", &format!("Bearer {}", token.reveal()))?;
    }
    Ok(request)
}

fn insert(request: &mut Request<Bytes>, name: &str, value: &str) -> Result<(), Status> {
    let wrong = |what: &str| Status::invalid_argument(format!("metadata {name:?} has {what}"));
    let key: AsciiMetadataKey = name.parse().map_err(|_| wrong("a name that is not lower-case ASCII"))?;
    let value: AsciiMetadataValue = value.parse().map_err(|_| wrong("a value that is not visible ASCII"))?;
    request.metadata_mut().insert(key, value);
    Ok(())
}

/// Was there no connection, so that nothing can have been sent?
fn is_connect(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
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

/// Messages stay encoded: the guest knows their types, the host doesn't.
#[derive(Default, Clone)]
struct BytesCodec {
    fence: Option<Fence>,
}

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        self.clone()
    }

    fn decoder(&mut self) -> Self {
        self.clone()
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        self.fence.as_ref().map_or(Ok(()), Fence::pass)?;
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
