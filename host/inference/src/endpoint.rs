//! One endpoint: what it is, and a call there.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyDataStream, Full};
use tokio::time::timeout_at;

use crate::{
    answer::Answer,
    body::Body,
    call::{Call, Clock, Identity},
    connect::{self, Http},
    failure::{Failure, Kind, Late, Work},
    request::ChatRequest,
    stream::TokenStream,
};

/// Of an error's body, in bytes.
const MAX_ERROR: usize = 64 << 10;

/// Where an endpoint is and how it is spoken to.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// For people and metrics.
    pub name: String,
    /// What comes before `/chat/completions`: `http://gpu-1:8000/v1`. A query stays.
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    pub bearer: Option<Secret>,
    /// Sent with each request.
    pub headers: Vec<(String, Secret)>,
    /// Certificates in PEM to trust instead of the machine's.
    pub ca: Option<Vec<u8>>,
    pub limits: Limits,
    pub token_limit: TokenLimit,
}

impl EndpointConfig {
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            bearer: None,
            headers: Vec::new(),
            ca: None,
            limits: Limits::default(),
            token_limit: TokenLimit::default(),
        }
    }
}

/// What is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How long, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// To a connection, TLS and all.
    pub connect: Duration,
    /// To the first byte of a stream: the request may wait its turn there, and its prompt is read. What is not streamed
    /// comes when it is whole, and has [`Limits::whole`] alone.
    pub first: Duration,
    /// Between two signs of life of an answer that has begun.
    pub idle: Duration,
    /// For a request, from sending it to its end.
    pub whole: Duration,
    /// Of an answer, reasoning included, in bytes.
    pub max_answer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first: Duration::from_secs(300),
            idle: Duration::from_secs(60),
            whole: Duration::from_secs(900),
            // A model's longest answers are of 128 thousand tokens, some four bytes each.
            max_answer: 1 << 20,
        }
    }
}

impl Limits {
    /// Of a body or of one event, as it is on the wire: JSON writes a character in up to four times its bytes, and there is
    /// more in it than the text.
    pub(crate) fn max_raw(&self) -> usize {
        self.max_answer.saturating_mul(4).saturating_add(64 << 10)
    }
}

/// How the limit of tokens is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenLimit {
    /// What everybody knows.
    #[default]
    MaxTokens,
    /// What newer hosted models insist on.
    MaxCompletionTokens,
}

impl TokenLimit {
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Faults(pub Vec<String>);

/// An endpoint to be asked. Clones share connections.
#[derive(Debug, Clone)]
pub struct Endpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    identity: Arc<Identity>,
    uri: Uri,
    headers: HeaderMap,
    http: Http,
    limits: Limits,
    token_limit: TokenLimit,
}

impl Endpoint {
    /// Nothing is connected before the first request.
    ///
    /// # Errors
    /// All that is wrong with `config`.
    pub fn new(config: EndpointConfig) -> Result<Self, Faults> {
        let EndpointConfig { name, url, bearer, headers, ca, limits, token_limit } = config;
        let mut faults = Vec::new();
        let mut kept = |fault: String| faults.push(format!("endpoint {name:?}: {fault}"));
        let uri = completions(&url).map_err(&mut kept).ok();
        let headers =
            all_headers(bearer.as_ref(), &headers).map_err(|all| all.into_iter().for_each(&mut kept)).ok();
        let https = uri.as_ref().and_then(Uri::scheme_str) == Some("https");
        let http = connect::client(https, ca.as_deref(), limits.connect).map_err(&mut kept).ok();
        let (Some(uri), Some((headers, secrets)), Some(http)) = (uri, headers, http) else {
            return Err(Faults(faults));
        };
        let identity = Arc::new(Identity { shown: format!("{name} ({url})"), secrets });
        Ok(Self(Arc::new(Inner { identity, uri, headers, http, limits, token_limit })))
    }

    /// The answer, in one piece.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn complete(&self, request: &ChatRequest) -> Result<Answer, Failure> {
        self.ask(request, false).await?.finish().await
    }

    /// The answer as it comes. The endpoint has accepted the request when this returns.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn stream(&self, request: &ChatRequest) -> Result<TokenStream, Failure> {
        self.ask(request, true).await
    }

    async fn ask(&self, request: &ChatRequest, streamed: bool) -> Result<TokenStream, Failure> {
        let call = self.call(&request.model);
        let mut limits = self.0.limits.clone();
        if !streamed {
            limits.first = limits.whole;
        }
        let clock = Clock::start(limits, request.deadline);
        if request.deadline.is_some_and(|deadline| deadline <= clock.started) {
            let detail = "its deadline had passed before it was sent; give it more time".into();
            return Err(call.failure(Kind::Timeout(Late::Deadline), Work::NotSent, detail));
        }
        let (until, late) = clock.sooner(clock.limits.first, Late::Answer, false);
        let sending = self.0.http.request(self.message(request, streamed));
        let response = match timeout_at(until, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(call.broken(&error)),
            Err(_) => return Err(call.late(late, &clock)),
        };
        let status = response.status();
        let (head, incoming) = response.into_parts();
        let body = Body::new(BodyDataStream::new(incoming), clock);
        if !status.is_success() {
            let said = body.beginning(MAX_ERROR).await;
            return Err(call.said_no(&Response::from_parts(head, said)));
        }
        let kind =
            head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        TokenStream::open(call, body, kind, request.format.is_json(), streamed)
    }

    fn message(&self, request: &ChatRequest, streamed: bool) -> Request<Full<Bytes>> {
        let inner = &*self.0;
        let body = Full::new(Bytes::from(request.body(streamed, inner.token_limit)));
        let mut message = Request::new(body);
        *message.method_mut() = Method::POST;
        *message.uri_mut() = inner.uri.clone();
        let headers = message.headers_mut();
        let accepted = if streamed { "text/event-stream" } else { "application/json" };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accepted));
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("cofferdam/", env!("CARGO_PKG_VERSION"))),
        );
        for (name, value) in &request.headers {
            headers.insert(name, value.clone());
        }
        for (name, value) in &inner.headers {
            headers.insert(name, value.clone());
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if streamed {
            // llama.cpp closes a connection behind a stream without a word, and what is sent on it at that moment is lost.
            // A connection is cheap beside a stream.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        message
    }

    pub(crate) fn call(&self, model: &str) -> Call {
        Call { identity: self.0.identity.clone(), model: model.to_owned() }
    }
}

fn completions(url: &str) -> Result<Uri, String> {
    let wanted = "it wants one like http://gpu-1:8000/v1";
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL ({error}); {wanted}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("{url:?} is no http:// or https:// URL; {wanted}"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        // Without the URL: there is a password in it.
        return Err("there is a user or a password in its URL; say bearer, or a header, instead".into());
    }
    if url.contains('#') {
        return Err(format!("no server is sent what comes with a # in {url:?}; remove it"));
    }
    let path = uri.path().trim_end_matches('/');
    if path.ends_with("/chat/completions") {
        return Err(format!("/chat/completions is put behind {url:?} here; leave it out"));
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    let with_path = format!("{path}/chat/completions{query}").parse();
    parts.path_and_query = Some(with_path.map_err(|error| format!("{url:?} is no URL ({error}); {wanted}"))?);
    Uri::from_parts(parts).map_err(|error| format!("{url:?} is no URL ({error}); {wanted}"))
}

type Headers = (HeaderMap, Vec<String>);

fn all_headers(bearer: Option<&Secret>, extra: &[(String, Secret)]) -> Result<Headers, Vec<String>> {
    let mut headers = HeaderMap::new();
    let (mut secrets, mut faults) = (Vec::new(), Vec::new());
    let mut add =
        |name: &str, text: String| match (name.parse::<HeaderName>(), HeaderValue::from_str(&text)) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            (Err(_), _) => faults.push(format!("{name:?} is no name of a header")),
            (_, Err(_)) => faults
                .push(format!("the value of the header {name:?} has characters that HTTP does not take")),
        };
    for (name, Secret(value)) in extra {
        add(name, value.clone());
        secrets.push(value.clone());
    }
    if let Some(Secret(token)) = bearer {
        add("authorization", format!("Bearer {token}"));
        secrets.push(token.clone());
    }
    // Shorter ones say nothing, and would take whole words out of messages.
    secrets.retain(|secret| secret.len() >= 8);
    if faults.is_empty() { Ok((headers, secrets)) } else { Err(faults) }
}
