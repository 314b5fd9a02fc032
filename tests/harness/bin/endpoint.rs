//! An OpenAI-compatible endpoint that behaves, or misbehaves, as it is told: by `--always`, else by a prompt that begins with
//! `!word`, else by the model's name. See `BEHAVIOURS`; with `-once` behind it a word holds for the first request of each prompt.
//! What agents of a council say stands in their task, see `Endpoint::said`. What it was asked is at `/seen`, what it holds goes on at `/release`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failing harness fails its test"
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

/// What a request may ask for.
const BEHAVIOURS: [&str; 24] = [
    "plain",         // an answer
    "tasks",         // tasks in the fleet's block format
    "thinks",        // reasoning, then an answer
    "slow",          // an answer of twenty pieces, 50 ms apart; not streamed it comes after a second
    "hold",          // an answer, once `/release` says so
    "hang",          // nothing is said
    "hang-midway",   // nothing more after the first piece
    "429",           // busy, for a second
    "503",           // busy
    "500",           // an error
    "401",           // a wrong token
    "no-model",      // it knows no such model
    "break",         // the connection closes without an answer
    "half-line",     // the connection closes in the middle of a line
    "endless",       // text without an end
    "drip",          // a little text without an end
    "empty",         // no choices
    "no-content",    // a choice without content
    "bad-json",      // the content is not the JSON that was asked for
    "not-json",      // the answer is not JSON at all
    "html",          // a web page
    "ten-megabytes", // too much
    "cut",           // cut off by max_tokens
    "no-usage",      // nobody counts tokens
];

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Whatever is asked for.
    #[arg(long)]
    always: Option<String>,
}

#[derive(Default)]
struct Seen {
    requests: u64,
    by_prompt: BTreeMap<String, u64>,
    /// Being worked.
    open: u64,
    most_open: u64,
    /// Clients that went before they had their answer.
    gone: u64,
    connections: u64,
    last: Value,
    last_authorization: String,
    /// How often each list of a council was asked for.
    lists: BTreeMap<String, usize>,
}

struct Endpoint {
    always: Option<String>,
    seen: Mutex<Seen>,
    released: watch::Sender<u64>,
}

struct Request {
    /// Method and path.
    line: String,
    authorization: String,
    body: Value,
}

enum Step {
    Send(Vec<u8>),
    Pause(Duration),
    /// Nothing more until the client has gone.
    Hold,
    /// Nothing more until `/release`.
    Await,
    /// Again and again.
    Repeat(Vec<u8>, Duration),
    Close,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let listener = TcpListener::bind(options.listen).await.expect("a free address");
    let address = listener.local_addr().expect("an address");
    #[allow(clippy::print_stdout, reason = "whoever started it waits for this line")]
    {
        println!("{}", json!({ "listen": address.to_string() }));
    }
    let (released, _) = watch::channel(0);
    let endpoint = Arc::new(Endpoint { always: options.always, seen: Mutex::default(), released });
    loop {
        let (socket, _) = listener.accept().await.expect("a connection");
        socket.set_nodelay(true).ok();
        let endpoint = endpoint.clone();
        endpoint.seen.lock().unwrap().connections += 1;
        tokio::spawn(async move { endpoint.serve(socket).await });
    }
}

impl Endpoint {
    /// One connection, request after request.
    async fn serve(&self, mut socket: TcpStream) {
        let mut buffer = Vec::new();
        while let Some(request) = read(&mut socket, &mut buffer).await {
            let completion = request.line.starts_with("POST ") && request.line.contains("/chat/completions");
            // From before it is seen: whoever sees it may say so at once.
            let released = self.released.subscribe();
            let steps = if completion { self.complete(&request) } else { self.tell(&request.line) };
            let done = self.answer(&mut socket, steps, released).await;
            if completion {
                let mut seen = self.seen.lock().unwrap();
                seen.open -= 1;
                seen.gone += u64::from(done.is_none());
            }
            // Whoever asks what it has seen asks once.
            if done != Some(true) || !completion {
                socket.shutdown().await.ok();
                return;
            }
        }
    }

    /// Whether the connection stays open; nothing if the client has gone.
    async fn answer(
        &self,
        socket: &mut TcpStream,
        steps: Vec<Step>,
        mut released: watch::Receiver<u64>,
    ) -> Option<bool> {
        for step in steps {
            match step {
                Step::Send(bytes) => socket.write_all(&bytes).await.ok()?,
                Step::Pause(pause) => {
                    tokio::select! {
                        () = gone(socket) => return None,
                        () = sleep(pause) => {}
                    }
                }
                Step::Hold => {
                    gone(socket).await;
                    return None;
                }
                Step::Await => {
                    tokio::select! {
                        () = gone(socket) => return None,
                        changed = released.changed() => changed.ok()?,
                    }
                }
                Step::Repeat(bytes, pause) => loop {
                    socket.write_all(&bytes).await.ok()?;
                    tokio::select! {
                        () = gone(socket) => return None,
                        () = sleep(pause) => {}
                    }
                },
                Step::Close => return Some(false),
            }
        }
        Some(true)
    }

    fn tell(&self, line: &str) -> Vec<Step> {
        let path = line.split(' ').nth(1).unwrap_or_default();
        let body = match path {
            "/release" => {
                self.released.send_modify(|times| *times += 1);
                json!({})
            }
            "/seen" => {
                let seen = self.seen.lock().unwrap();
                json!({
                    "requests": seen.requests, "by_prompt": seen.by_prompt, "open": seen.open, "most_open": seen.most_open,
                    "gone": seen.gone, "connections": seen.connections, "last": seen.last,
                    "authorization": seen.last_authorization,
                })
            }
            _ => {
                return vec![response(
                    "404 Not Found",
                    "",
                    &json!({"error": {"message": "no such path"}}).to_string(),
                )];
            }
        };
        let headers = "content-type: application/json\r\nconnection: close\r\n";
        vec![response("200 OK", headers, &body.to_string()), Step::Close]
    }

    fn complete(&self, request: &Request) -> Vec<Step> {
        let body = &request.body;
        let prompt = prompt(body);
        let count = {
            let mut seen = self.seen.lock().unwrap();
            seen.requests += 1;
            seen.open += 1;
            seen.most_open = seen.most_open.max(seen.open);
            seen.last = body.clone();
            seen.last_authorization.clone_from(&request.authorization);
            let count = seen.by_prompt.entry(prompt.clone()).or_default();
            *count += 1;
            *count
        };
        let model = body["model"].as_str().unwrap_or_default();
        let said = self.said(&prompt, &body["seed"]);
        let text = said.as_deref().unwrap_or(&prompt);
        let first_word = text.strip_prefix('!').and_then(|rest| rest.split_whitespace().next());
        let told = [self.always.as_deref(), first_word, Some(model)];
        let word = told.into_iter().flatten().find_map(|word| behaviour(word, count)).unwrap_or("plain");
        let answer = match &said {
            Some(said) if said.starts_with('!') => {
                said.split_once(' ').map_or("", |(_, text)| text).to_owned()
            }
            Some(said) => said.clone(),
            None if body["response_format"].is_null() => format!("The answer to: {prompt}"),
            None => json!({ "answer": prompt }).to_string(),
        };
        steps(word, body, &answer)
    }

    /// What an agent of a council is told to say, if the prompt is one's. The first line says what is wanted of it. The task has
    /// lines `!proposals ["...", "..."]`, `!reviews` and `!revisions`. Each agent has a seed, from 1: that is the place of its proposal in the
    /// list. The n-th review of a task has the n-th text, so has the n-th revision; later ones have the last. A text that begins
    /// with `!word` behaves so. Without a list a revision leaves the proposal as it is.
    fn said(&self, prompt: &str, seed: &Value) -> Option<String> {
        let kind = match prompt.lines().next()? {
            "Wanted: a proposal" => "!proposals ",
            "Wanted: a review" => "!reviews ",
            "Wanted: a revision" => "!revisions ",
            _ => return None,
        };
        let Some(list) = prompt.lines().find_map(|line| line.strip_prefix(kind)) else {
            return Some(match kind {
                "!revisions " => section(prompt, "proposal").unwrap_or("A revision.").to_owned(),
                "!reviews " => "It reads well.".to_owned(),
                _ => "Do it as it is asked for.".to_owned(),
            });
        };
        let texts: Vec<String> = serde_json::from_str(list).unwrap_or_else(|e| panic!("{kind}{list}: {e}"));
        let seed = seed.as_u64().filter(|_| kind == "!proposals ");
        let place = seed.map(|seed| seed as usize - 1).unwrap_or_else(|| {
            let mut seen = self.seen.lock().unwrap();
            let asked = seen.lists.entry(format!("{kind}{list}")).or_default();
            *asked += 1;
            *asked - 1
        });
        texts.get(place).or(texts.last()).cloned()
    }
}

/// What stands in a prompt between `--- <name> ---` and `--- end ---`.
fn section<'a>(prompt: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = prompt.split_once(&format!("\n--- {name} ---\n"))?;
    rest.split_once("\n--- end ---").map(|(text, _)| text)
}

/// The behaviour that a word asks for at the so-manieth request of a prompt.
fn behaviour(word: &str, count: u64) -> Option<&'static str> {
    let (name, once) = match word.strip_suffix("-once") {
        Some(name) => (name, true),
        None => (word, false),
    };
    let found = BEHAVIOURS.into_iter().find(|known| *known == name)?;
    Some(if once && count > 1 { "plain" } else { found })
}

fn steps(word: &str, body: &Value, answer: &str) -> Vec<Step> {
    let streamed = body["stream"] == true;
    let says =
        |content: &str| if streamed { stream(content, None) } else { vec![whole(content, "stop", true)] };
    let error = |status: &str, headers: &str, message: &str| {
        vec![response(status, headers, &json!({"error": {"message": message, "type": word}}).to_string())]
    };
    match word {
        "tasks" => {
            says("TASK_ID: TASK-001\nTITLE: One\nKEYWORDS: one\n\nTASK_ID: TASK-002\nTITLE: After one\n")
        }
        "thinks" if streamed => {
            let thought =
                event(&json!({"choices": [{"index": 0, "delta": {"reasoning_content": "Let me see."}}]}));
            let mut steps = stream(answer, None);
            steps.insert(1, Step::Send(thought.into_bytes()));
            steps
        }
        "thinks" => {
            let message = json!({"role": "assistant", "content": answer, "reasoning_content": "Let me see."});
            vec![completion(&json!([{"index": 0, "message": message, "finish_reason": "stop"}]), true)]
        }
        "slow" if streamed => {
            let words: String = (1..=20).map(|n| format!("word{n} ")).collect();
            stream(&words, Some(Duration::from_millis(50)))
        }
        "slow" => [vec![Step::Pause(Duration::from_secs(1))], says(answer)].into_iter().flatten().collect(),
        "hold" => [vec![Step::Await], says(answer)].into_iter().flatten().collect(),
        "hang" => vec![Step::Hold],
        "hang-midway" if streamed => vec![stream_head(), piece("It begins"), Step::Hold],
        "hang-midway" => vec![Step::Send(head_of(1000)), Step::Send(b"{\"choices\": [".to_vec()), Step::Hold],
        "429" => error("429 Too Many Requests", "retry-after: 1\r\n", "slow down"),
        "503" => error("503 Service Unavailable", "", "no room"),
        "500" => error("500 Internal Server Error", "", "CUDA out of memory"),
        "401" => error("401 Unauthorized", "", "no such key"),
        "no-model" => error("404 Not Found", "", "The model does not exist."),
        "break" => vec![Step::Close],
        "half-line" if streamed => {
            vec![
                stream_head(),
                piece("It begins"),
                Step::Send(b"data: {\"choices\": [{\"del".to_vec()),
                Step::Close,
            ]
        }
        "half-line" => vec![Step::Send(head_of(1000)), Step::Send(b"{\"choices\": [".to_vec()), Step::Close],
        "endless" | "drip" => {
            let (text, pause) = if word == "drip" { ("on ", 20) } else { ("and so on, and on, ", 0) };
            let pause = Duration::from_millis(pause);
            let text = if word == "drip" { text.to_owned() } else { text.repeat(500) };
            if streamed {
                vec![stream_head(), Step::Repeat(event(&delta(&text)).into_bytes(), pause)]
            } else {
                let begin = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
                    {\"choices\": [{\"message\": {\"content\": \"";
                vec![Step::Send(begin.into()), Step::Repeat(text.into_bytes(), pause)]
            }
        }
        "empty" if streamed => vec![stream_head(), Step::Send(b"data: [DONE]\n\n".to_vec()), Step::Close],
        "empty" => vec![completion(&json!([]), true)],
        "no-content" => says(""),
        "bad-json" => says("{\"tasks\": ["),
        "not-json" => vec![response("200 OK", "content-type: application/json\r\n", "{\"choices\": [")],
        "html" => vec![response("200 OK", "content-type: text/html\r\n", "<html>a proxy</html>")],
        "ten-megabytes" => says(&"0123456789".repeat(1 << 20)),
        "cut" if streamed => {
            let finish = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]});
            vec![stream_head(), piece("It is cu"), Step::Send(event(&finish).into_bytes()), Step::Close]
        }
        "cut" => vec![whole("It is cu", "length", true)],
        "no-usage" => vec![whole(answer, "stop", false)],
        _ => says(answer),
    }
}

/// The last thing that the user said.
fn prompt(body: &Value) -> String {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = messages.iter().rev().find(|message| message["role"] == "user");
    last.and_then(|message| message["content"].as_str()).unwrap_or_default().to_owned()
}

fn response(status: &str, headers: &str, body: &str) -> Step {
    Step::Send(
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes(),
    )
}

fn head_of(length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
        .into_bytes()
}

fn whole(content: &str, finish: &str, counted: bool) -> Step {
    let message = json!({"role": "assistant", "content": content});
    completion(&json!([{"index": 0, "message": message, "finish_reason": finish}]), counted)
}

fn completion(choices: &Value, counted: bool) -> Step {
    let mut body = json!({"id": "c-1", "object": "chat.completion", "model": "served", "choices": choices});
    if counted {
        body["usage"] = usage();
    }
    response("200 OK", "content-type: application/json\r\n", &body.to_string())
}

/// What each answer is said to cost.
fn usage() -> Value {
    json!({"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18})
}

fn stream_head() -> Step {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    Step::Send(head.into())
}

/// Word by word.
fn stream(content: &str, pause: Option<Duration>) -> Vec<Step> {
    let mut steps = vec![stream_head()];
    // Long ones not in a million pieces.
    let pieces: Vec<String> = if content.len() > 10_000 {
        content.as_bytes().chunks(8192).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    } else {
        content.split_inclusive(' ').map(str::to_owned).collect()
    };
    for text in pieces {
        steps.push(piece(&text));
        steps.extend(pause.map(Step::Pause));
    }
    let finish = json!({"model": "served", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let end =
        [event(&finish), event(&json!({"choices": [], "usage": usage()})), "data: [DONE]\n\n".to_owned()];
    steps.push(Step::Send(end.concat().into_bytes()));
    steps.push(Step::Close);
    steps
}

fn piece(content: &str) -> Step {
    Step::Send(event(&delta(content)).into_bytes())
}

fn delta(content: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": null}]})
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// The client has closed its side.
async fn gone(socket: &mut TcpStream) {
    let mut rest = [0; 64];
    while !matches!(socket.read(&mut rest).await, Ok(0) | Err(_)) {}
}

async fn read(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let header = |name: &str| {
                let lines = head.lines().filter_map(|line| line.split_once(':'));
                let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
                found.next_back().map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
            };
            let length = header("content-length").parse().unwrap_or(0);
            if buffer.len() >= end + 4 + length {
                let body = serde_json::from_slice(&buffer[end + 4..end + 4 + length]).unwrap_or_default();
                buffer.drain(..end + 4 + length);
                let line = head.lines().next().unwrap_or_default().to_owned();
                return Some(Request { line, authorization: header("authorization"), body });
            }
        }
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
