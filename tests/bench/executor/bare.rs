//! The bare client: the same requests, as many at a time, by the HTTP client that the executor's workers have; it reads each
//! answer and looks at what it says. Beside it, what is possible at most: the same over plain sockets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use harness::answering;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::Load;
use crate::compare::{Round, Side};

/// Plain sockets are the measure of the bare client; more of them at a time are no faster.
const SOCKETS: usize = 64;

pub(crate) struct Bare {
    client: Client<HttpConnector, Full<Bytes>>,
    address: String,
    body: Template,
    load: Load,
    next: u64,
}

/// A request's body, but for its number.
#[derive(Debug, Clone)]
pub(crate) struct Template(Arc<(String, std::ops::Range<usize>)>);

impl Template {
    /// Of one that was sent.
    pub(crate) fn of(body: &str) -> Result<Template, String> {
        let (_, digits) =
            answering::number(body.as_bytes()).ok_or_else(|| format!("no number in {body:?}"))?;
        Ok(Template(Arc::new((body.to_owned(), digits))))
    }

    fn with(&self, number: u64) -> Bytes {
        let (body, digits) = &*self.0;
        let width = digits.len();
        format!("{}{number:0width$}{}", &body[..digits.start], &body[digits.end..]).into()
    }
}

impl Bare {
    pub(crate) fn new(address: &str, body: Template, load: Load) -> Bare {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Bare { client, address: address.to_owned(), body, load, next: 0 }
    }

    /// How long each request took, and all of them.
    pub(crate) async fn drive(&mut self) -> Result<(Vec<Duration>, Duration), String> {
        let next = Arc::new(AtomicU64::new(self.next));
        self.next += self.load.jobs;
        let (began, end) = (Instant::now(), self.next);
        let mut slots = JoinSet::new();
        for _ in 0..self.load.in_flight {
            let (client, body, next) = (self.client.clone(), self.body.clone(), next.clone());
            let url = format!("http://{}/v1/chat/completions", self.address);
            slots.spawn(async move {
                let mut took = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return Ok(took);
                    }
                    let began = Instant::now();
                    ask(&client, &url, body.with(number), number).await?;
                    took.push(began.elapsed());
                }
            });
        }
        let mut all = Vec::new();
        while let Some(took) = slots.join_next().await {
            let took: Result<Vec<Duration>, String> = took.expect("a slot");
            all.extend(took?);
        }
        Ok((all, began.elapsed()))
    }

    /// Requests a second over plain sockets.
    async fn possible(&self) -> f64 {
        let body = self.body.with(0);
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        let request: Bytes = [head.as_bytes(), &body].concat().into();
        let sockets = self.load.in_flight.min(SOCKETS);
        let each = self.load.jobs / sockets as u64;
        let began = Instant::now();
        let mut all = JoinSet::new();
        for _ in 0..sockets {
            let (address, request) = (self.address.clone(), request.clone());
            all.spawn(async move { exchange(&address, &request, each).await });
        }
        while let Some(done) = all.join_next().await {
            done.expect("a socket").expect("an endpoint that answers");
        }
        (each * sockets as u64) as f64 / began.elapsed().as_secs_f64()
    }
}

impl Side for Bare {
    async fn round(&mut self) -> Result<Round, String> {
        let (took, all) = self.drive().await?;
        let rate = took.len() as f64 / all.as_secs_f64();
        Ok(Round { rate, fed: Some(self.possible().await) })
    }
}

async fn ask(
    client: &Client<HttpConnector, Full<Bytes>>,
    url: &str,
    body: Bytes,
    number: u64,
) -> Result<(), String> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|e| e.to_string())?;
    let response = client.request(request).await.map_err(|e| format!("request {number}: {e}"))?;
    let body = response.into_body().collect().await.map_err(|e| format!("request {number}: {e}"))?.to_bytes();
    match answering::content(&body) {
        Some(said) if said == answering::said(number) => Ok(()),
        _ => Err(format!("request {number} was answered {:?}", String::from_utf8_lossy(&body))),
    }
}

/// So many requests on one connection; every answer is of the same length.
async fn exchange(address: &str, request: &[u8], times: u64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut buffer, mut length) = (vec![0; 64 << 10], None);
    for _ in 0..times {
        stream.write_all(request).await?;
        let mut read = 0;
        while length.is_none_or(|length| read < length) {
            let more = stream.read(&mut buffer[read..]).await?;
            if more == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            read += more;
            length = length.or_else(|| whole(&buffer[..read]));
        }
    }
    Ok(())
}

/// How long the answer is that begins so, head and all.
fn whole(text: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(text);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    Some(head.len() + 4 + length.parse::<usize>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_differs_in_the_number_alone() {
        let sent = serde_json::json!({ "content": answering::prompt(7) }).to_string();
        let body = Template::of(&sent).unwrap().with(12);
        assert_eq!(body.len(), sent.len());
        assert_eq!(answering::number(&body).unwrap().0, 12);
    }
}
