//! Who may call gRPC: a bearer token, where one is configured, and never a web page.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::config::Secret;

/// What callers have to show.
pub(super) struct Gate {
    /// Of the token: digests are compared, so that the time it takes tells nothing of how far a guess agrees.
    digest: Option<[u8; 32]>,
}

impl Gate {
    pub(super) fn new(token: Option<Secret>) -> Gate {
        Gate { digest: token.map(|token| digest(token.reveal())) }
    }

    fn admits(&self, headers: &HeaderMap) -> Result<(), Status> {
        let Some(wanted) = &self.digest else { return Ok(()) };
        match bearer(headers) {
            Some(token) if digest(token) == *wanted => Ok(()),
            Some(_) => Err(Status::unauthenticated(
                "the bearer token is not this daemon's; send the one that its [admin] names",
            )),
            None => Err(Status::unauthenticated(
                "a token is wanted; send `authorization: Bearer TOKEN` with the one that [admin] of the daemon names",
            )),
        }
    }
}

/// Lets a call pass or says why not.
pub(super) async fn check(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    // A web page can make its reader's browser post to a port of the reader's own machine, but neither in HTTP/2
    // without TLS nor, unasked, with this content type.
    if request.version() != Version::HTTP_2 || !is_grpc(&request) {
        let text = "gRPC is spoken here: HTTP/2 with content-type application/grpc\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
    }
    match gate.admits(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(status) => status.into_http(),
    }
}

pub(super) fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| {
        value
            .strip_prefix("application/grpc")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(token: Option<&str>, authorization: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        Gate::new(token.map(|t| Secret::new(t.to_owned()))).admits(&headers).is_ok()
    }

    #[test]
    fn only_the_token_itself_opens() {
        assert!(admits(Some("hunter2"), Some("Bearer hunter2")));
        assert!(admits(Some("hunter2"), Some("bearer hunter2")));
        for wrong in ["Bearer hunter", "Bearer hunter22", "Bearer ", "Bearer", "Basic hunter2", "hunter2", ""]
        {
            assert!(!admits(Some("hunter2"), Some(wrong)), "{wrong:?}");
        }
        assert!(!admits(Some("hunter2"), None));
    }

    #[test]
    fn without_a_token_everybody_may_call() {
        assert!(admits(None, None) && admits(None, Some("Bearer anything")));
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let request = |value: &str| Request::builder().header("content-type", value).body(().into());
        for grpc in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert!(is_grpc(&request(grpc).unwrap()), "{grpc}");
        }
        for other in ["text/plain", "application/json", "application/grpc-web", ""] {
            assert!(!is_grpc(&request(other).unwrap()), "{other}");
        }
    }
}
