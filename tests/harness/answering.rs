//! An OpenAI-compatible endpoint that answers by a function, as a process that measures or counts needs it: quick, and always
//! well behaved. The one that misbehaves is another.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A request, whole.
#[derive(Debug)]
pub struct Asked {
    /// Its bearer token, by which whoever asks is told apart.
    pub who: String,
    pub path: String,
    pub body: Bytes,
}

/// Until the process ends. A request whose client is gone is dropped where it waits.
pub async fn serve<F, Fut>(listener: TcpListener, answer: F)
where
    F: Fn(Asked) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Bytes> + Send + 'static,
{
    let answer = Arc::new(answer);
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| reply(request, answer.as_ref()));
            // It ends as the client wishes, which may be in the middle.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

async fn reply<F, Fut>(request: Request<Incoming>, answer: &F) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn(Asked) -> Fut,
    Fut: Future<Output = Bytes>,
{
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let who = bearer.unwrap_or_default().trim_start_matches("Bearer ").to_owned();
    let path = request.uri().path().to_owned();
    let mut response = Response::new(Full::default());
    match request.into_body().collect().await {
        Ok(body) => {
            let json = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            *response.body_mut() = Full::new(answer(Asked { who, path, body: body.to_bytes() }).await);
        }
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

/// What the number of a request is written behind.
const NUMBER: &str = "Job number ";
const DIGITS: usize = 9;

/// A prompt that is of one length whatever its number.
pub fn prompt(number: u64) -> String {
    format!("{NUMBER}{number:0DIGITS$}: say its number, and nothing else.")
}

/// The number of the prompt in a request's body, and where its digits are.
pub fn number(body: &[u8]) -> Option<(u64, std::ops::Range<usize>)> {
    let text = std::str::from_utf8(body).ok()?;
    let start = text.find(NUMBER)? + NUMBER.len();
    let digits = start..start + DIGITS;
    Some((text.get(digits.clone())?.parse().ok()?, digits))
}

/// What is said to the request of that number.
pub fn said(number: u64) -> String {
    format!("That is {number}.")
}

/// A whole answer.
pub fn completion(number: u64) -> Bytes {
    json!({
        "id": format!("chatcmpl-{number}"),
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "plain",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": said(number) }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16 },
    })
    .to_string()
    .into()
}

/// What is said in a whole answer.
pub fn content(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    Some(answer["choices"][0]["message"]["content"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_in_what_is_sent() {
        let body = json!({ "messages": [{ "role": "user", "content": prompt(1707) }] }).to_string();
        let (found, digits) = number(body.as_bytes()).unwrap();
        assert_eq!((found, &body[digits]), (1707, "000001707"));
        assert_eq!(content(&completion(1707)), Some("That is 1707.".into()));
        assert_eq!(number(b"{}"), None);
    }
}
