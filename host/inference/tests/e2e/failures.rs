//! All that endpoints do wrong: what it is called, what a person is told, and whether it is safe to ask again.

use std::{sync::Arc, time::Duration};

use cofferdam_inference::{
    Answer, ChatRequest, Endpoint, EndpointConfig, Failure, Faults, Format, Kind, Late, Limits, Secret,
    Usage, Work,
};
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};

use crate::{
    config, endpoint, limits,
    server::{DONE, STOP, Server, Step, answer, event, json, piece, response, send, stream, stream_head},
    told,
};

const SHORT: Duration = Duration::from_millis(50);

async fn ask(endpoint: &Endpoint, streamed: bool) -> Result<Answer, Failure> {
    let request = ChatRequest::new("m", "hello");
    if streamed { endpoint.stream(&request).await?.finish().await } else { endpoint.complete(&request).await }
}

/// Asks a server that does `steps`.
async fn failed(steps: Vec<Step>, streamed: bool) -> (Failure, String) {
    let server = Server::saying(steps).await;
    let failure = ask(&endpoint(&server), streamed).await.unwrap_err();
    let told = told(&failure, &server);
    (failure, told)
}

fn check(what: &str, (failure, told): &(Failure, String), kind: &str, work: Work, wanted: &str) {
    assert_eq!((failure.kind.as_str(), failure.work), (kind, work), "{what}: {told}");
    let told = told.strip_prefix("gpu-1 (http://ADDRESS/v1) with model \"m\": ").expect(told);
    assert_eq!(told, wanted, "{what}");
}

#[tokio::test]
async fn a_status_that_is_an_error_is_told_with_what_to_do() {
    let error = |message: &str| json!({"error": {"message": message}}).to_string();
    for (status, headers, body, kind, work, wanted) in [
        (
            "429 Too Many Requests",
            "retry-after: 7\r\n",
            error("slow down"),
            "overloaded",
            Work::NotWorked,
            "it answered 429 Too Many Requests: \"slow down\"; it wants to be left alone for 7s",
        ),
        (
            "503 Service Unavailable",
            "",
            error("Loading model"),
            "overloaded",
            Work::NotWorked,
            "it answered 503 Service Unavailable: \"Loading model\"; ask it less at a time, or later",
        ),
        (
            "500 Internal Server Error",
            "",
            "<html>\n <b>oops</b>\n</html>".into(),
            "server_error",
            Work::Unknown,
            "it answered 500 Internal Server Error: \"<html> <b>oops</b> </html>\"; see its log",
        ),
        (
            "502 Bad Gateway",
            "",
            String::new(),
            "server_error",
            Work::Unknown,
            "it answered 502 Bad Gateway: without a word; see its log",
        ),
        (
            "400 Bad Request",
            "",
            json!({"object": "error", "message": "maximum context length is 4096", "code": 400}).to_string(),
            "refused",
            Work::NotWorked,
            "it answered 400 Bad Request: \"maximum context length is 4096\"; see the request: prompt, parameters, size",
        ),
        (
            "404 Not Found",
            "",
            json!({"detail": "Not Found"}).to_string(),
            "refused",
            Work::NotWorked,
            "it answered 404 Not Found: \"Not Found\"; see the URL: most end in /v1",
        ),
        (
            "404 Not Found",
            "",
            error("model \"m\" not found, try pulling it first"),
            "model_missing",
            Work::NotWorked,
            "it answered 404 Not Found: \"model \\\"m\\\" not found, try pulling it first\"; load the model there, or name \
             another",
        ),
        (
            "400 Bad Request",
            "",
            json!({"error": {"message": "no", "code": "model_not_found"}}).to_string(),
            "model_missing",
            Work::NotWorked,
            "it answered 400 Bad Request: \"no\"; load the model there, or name another",
        ),
        (
            "401 Unauthorized",
            "",
            error("no key"),
            "unauthorized",
            Work::NotWorked,
            "it answered 401 Unauthorized: \"no key\"; see the token and what it may do",
        ),
        (
            "307 Temporary Redirect",
            "location: https://elsewhere/v1\r\n",
            String::new(),
            "refused",
            Work::NotWorked,
            "it answered 307 Temporary Redirect, to https://elsewhere/v1; say that address",
        ),
    ] {
        for streamed in [false, true] {
            let failure = failed(vec![response(status, headers, &body)], streamed).await;
            check(status, &failure, kind, work, wanted);
            assert_eq!(failure.0.status, status[..3].parse().ok(), "{status}");
        }
    }
}

#[tokio::test]
async fn retry_after_is_read_as_seconds_or_as_a_date() {
    let soon = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(600));
    let within = |wait: Option<Duration>, from: u64, to: u64| {
        wait.is_some_and(|wait| (from..=to).contains(&wait.as_secs()))
    };
    for (value, from, to) in [("17", 17, 17), (soon.as_str(), 500, 600)] {
        let headers = format!("retry-after: {value}\r\n");
        let (failure, told) = failed(vec![response("429 Too Many Requests", &headers, "")], false).await;
        assert!(within(failure.retry_after, from, to), "{value}: {told}");
    }
    let (failure, _) =
        failed(vec![response("429 Too Many Requests", "retry-after: soon\r\n", "")], false).await;
    assert_eq!((failure.kind, failure.retry_after), (Kind::Overloaded, None));
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable_and_safe_to_ask_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let endpoint = Endpoint::new(EndpointConfig::new("gpu-1", format!("http://{address}/v1"))).unwrap();
    let failure = ask(&endpoint, false).await.unwrap_err();
    assert_eq!((failure.kind, failure.work), (Kind::Unreachable, Work::NotSent));
    assert!(failure.is_safe_to_retry() && failure.may_pass());
    assert!(failure.detail.starts_with("no connection (") && failure.detail.contains("refused"), "{failure}");
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_leaves_open_whether_it_was_worked() {
    let (failure, told) = failed(vec![], false).await;
    assert_eq!((failure.kind, failure.work), (Kind::Truncated, Work::Unknown), "{told}");
    assert!(!failure.is_safe_to_retry());
    assert!(told.contains("the connection broke before an answer came ("), "{told}");
}

#[tokio::test]
async fn what_is_not_http_is_malformed() {
    let (failure, told) = failed(vec![send("SSH-2.0-OpenSSH_9.9\r\n\r\n"), Step::Hold], false).await;
    assert_eq!(failure.kind, Kind::Malformed, "{told}");
    assert!(
        told.contains("what it sends is not HTTP (") && told.ends_with("whether it wants https://"),
        "{told}"
    );
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_malformed() {
    let ok = |kind: &str, body: &str| vec![response("200 OK", &format!("content-type: {kind}\r\n"), body)];
    for (what, steps, streamed, wanted) in [
        (
            "no JSON",
            ok("application/json", "{\"choices\": ["),
            false,
            "its answer can't be read (EOF while parsing a list at line 1 column 13): \"{\\\"choices\\\": [\"; see whether it is \
             OpenAI-compatible",
        ),
        (
            "other JSON",
            ok("application/json", "{\"choices\": 7}"),
            false,
            "its answer can't be read (invalid type: integer `7`, expected a sequence at line 1 column 13): \"{\\\"choices\\\": \
             7}\"; see whether it is OpenAI-compatible",
        ),
        (
            "an event that is no JSON",
            stream(&(piece("Hel") + "data: {\"cho\n\n")),
            true,
            "an event of its stream can't be read (EOF while parsing a string at line 1 column 5): \"{\\\"cho\"; see whether it \
             is OpenAI-compatible",
        ),
    ] {
        check(what, &failed(steps, streamed).await, "malformed", Work::Worked, wanted);
    }
    let bytes = vec![stream_head(), send(b"data: \xff\xfe\n\n")];
    let (failure, told) = failed(bytes, true).await;
    assert_eq!(failure.kind, Kind::Malformed, "{told}");
    assert!(told.contains("its stream can't be read (utf8"), "{told}");
    let page = failed(ok("text/html; charset=utf-8", "<html>"), true).await;
    let wanted = "it answered with a web page; see the URL: most end in /v1";
    check("a page", &page, "malformed", Work::NotWorked, wanted);
}

#[tokio::test]
async fn an_answer_without_content_is_empty() {
    let said = |message: serde_json::Value, reason: &str| {
        vec![json(&json!({"choices": [{"message": message, "finish_reason": reason}]}))]
    };
    for (what, steps, streamed, wanted) in [
        ("no choices", vec![json(&json!({"choices": []}))], false, "its answer has no choices; see its log"),
        ("nothing at all", vec![json(&json!({}))], false, "its answer has no choices; see its log"),
        (
            "no content",
            said(json!({"content": ""}), "stop"),
            false,
            "its answer has no content (stop); see max_tokens, stop and the prompt",
        ),
        (
            "no message",
            said(json!(null), "content_filter"),
            false,
            "its answer has no content (content_filter); see max_tokens, stop and the prompt",
        ),
        (
            "reasoning alone",
            said(json!({"content": null, "reasoning_content": "hmm"}), "length"),
            false,
            "there are 3 bytes of reasoning and no content (length); raise max_tokens, or have it think less",
        ),
        (
            "a refusal",
            said(json!({"content": null, "refusal": "I can't."}), "stop"),
            false,
            "the model would not answer: \"I can't.\"",
        ),
        (
            "a stream of nothing",
            stream(&(STOP.to_owned() + DONE)),
            true,
            "its answer has no content (stop); see max_tokens, stop and the prompt",
        ),
        (
            "[DONE] alone",
            stream(DONE),
            true,
            "its answer has no content (no finish_reason); see max_tokens, stop and the prompt",
        ),
    ] {
        check(what, &failed(steps, streamed).await, "empty", Work::Worked, wanted);
    }
}

#[tokio::test]
async fn a_stream_that_ends_without_its_end_is_truncated() {
    let half = piece("lo.");
    for (what, body) in [
        ("after an event", piece("Hel")),
        ("in the middle of a line", piece("Hel") + &half[..half.len() / 2]),
        ("before an event's empty line", piece("Hel") + &STOP[..STOP.len() - 1]),
    ] {
        let wanted = "its stream ended after 3 bytes of text without its end (no finish_reason, no [DONE]); see its log";
        check(what, &failed(stream(&body), true).await, "truncated", Work::Unknown, wanted);
    }
    // Where HTTP can tell, it does.
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\nconnection: close\r\n\r\n";
    let (failure, told) = failed(vec![send(head), send(piece("Hel"))], true).await;
    assert_eq!((failure.kind, failure.work), (Kind::Truncated, Work::Unknown), "{told}");
    assert!(told.contains("the connection broke in the middle of the answer: "), "{told}");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999\r\nconnection: close\r\n\r\n";
    let (failure, told) = failed(vec![send(head), send("{\"choices\": [")], false).await;
    assert_eq!(failure.kind, Kind::Truncated, "{told}");
}

#[tokio::test]
async fn pieces_that_came_before_a_failure_were_given() {
    let server = Server::saying(stream(&piece("Hel"))).await;
    let mut stream = endpoint(&server).stream(&ChatRequest::new("m", "hello")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().content, "Hel");
    assert_eq!(stream.next().await.unwrap_err().kind, Kind::Truncated);
    assert_eq!(stream.next().await.unwrap(), None, "told once");
    assert_eq!(stream.so_far().content, "Hel");
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_told() {
    let error = json!({"error": {"message": "CUDA out of memory", "code": 503}});
    let body = piece("Hel") + &event(&error) + DONE;
    let wanted =
        "an error in the place of its answer (503 Service Unavailable): \"CUDA out of memory\"; see its log";
    check("with a status", &failed(stream(&body), true).await, "overloaded", Work::Unknown, wanted);

    let body = piece("Hel") + "event: error\n" + &event(&json!({"error": "boom"}));
    let wanted = "an error in the place of its answer: \"boom\"; see its log";
    check("a word", &failed(stream(&body), true).await, "server_error", Work::Unknown, wanted);

    let whole = vec![json(&json!({"object": "error", "message": "boom", "code": 400}))];
    let wanted = "an error in the place of its answer (400 Bad Request): \"boom\"; see its log";
    check("a whole one", &failed(whole, false).await, "refused", Work::Unknown, wanted);
}

#[tokio::test]
async fn an_answer_of_ten_megabytes_is_too_large() {
    let server = Server::start(|_, seen| {
        let megabyte = "x".repeat(1 << 20);
        match seen.body["stream"] {
            serde_json::Value::Bool(true) => {
                let mut steps = vec![stream_head()];
                steps.extend((0..10).map(|_| send(piece(&megabyte))));
                steps.push(send(STOP));
                steps
            }
            _ => vec![answer(&megabyte.repeat(10))],
        }
    })
    .await;
    let endpoint = endpoint(&server);
    for streamed in [true, false] {
        let failure = ask(&endpoint, streamed).await.unwrap_err();
        assert_eq!((failure.kind, failure.work), (Kind::TooLarge, Work::Worked), "{failure}");
        let wanted =
            "its answer is over the limit of 1048576 bytes and was let go; set max_tokens, or a higher limit";
        assert_eq!(failure.detail, wanted);
    }
}

#[tokio::test]
async fn an_event_without_end_is_let_go() {
    let server = Server::start(|_, _| {
        let mut steps = vec![stream_head(), send("data: ")];
        steps.extend((0..16).map(|_| send("x".repeat(64 << 10))));
        steps.push(Step::Hold);
        steps
    })
    .await;
    let limits = Limits { max_answer: 64 << 10, ..limits() };
    let endpoint = Endpoint::new(EndpointConfig { limits, ..config(&server) }).unwrap();
    assert_eq!(ask(&endpoint, true).await.unwrap_err().kind, Kind::TooLarge);
}

#[tokio::test]
async fn json_that_was_asked_for_and_did_not_come_is_an_invalid_schema() {
    let schema = || Format::Schema { name: "l".into(), schema: json!({"type": "array"}), strict: true };
    let usage = Some(Usage { tokens_in: 5, tokens_out: 7 });
    for format in [Format::Json, schema()] {
        let server = Server::saying(vec![answer("Sure! Here it is")]).await;
        let request = ChatRequest { format, ..ChatRequest::new("m", "hello") };
        let failure = endpoint(&server).complete(&request).await.unwrap_err();
        assert_eq!((failure.kind, failure.work, failure.usage), (Kind::InvalidSchema, Work::Worked, usage));
        assert_eq!(
            failure.detail,
            "JSON was asked for, and its answer is none (expected value at line 1 column 1): \"Sure! Here it is\"; see \
             whether the endpoint knows response_format"
        );
    }
    let cut = json!({"choices": [{"delta": {"content": "[1, "}, "finish_reason": "length"}]});
    let server = Server::saying(stream(&event(&cut))).await;
    let request = ChatRequest { format: schema(), ..ChatRequest::new("m", "hello") };
    let mut stream = endpoint(&server).stream(&request).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().content, "[1, ");
    let failure = stream.next().await.unwrap_err();
    assert_eq!(failure.kind, Kind::InvalidSchema);
    assert!(failure.detail.ends_with("it was cut (finish_reason length): raise max_tokens"), "{failure}");
}

#[tokio::test]
async fn silence_is_a_time_out_that_says_whose_patience_ended() {
    let begun = || vec![stream_head(), send(piece("Hel")), Step::Hold];
    let all = limits;
    for (what, steps, streamed, limits, late, wanted) in [
        (
            "nothing for a stream",
            vec![Step::Hold],
            true,
            Limits { first: SHORT, ..all() },
            Late::Answer,
            "it took the request and said nothing for ",
        ),
        (
            "a head and then nothing",
            vec![stream_head(), Step::Hold],
            true,
            Limits { first: SHORT, ..all() },
            Late::Answer,
            "it took the request and said nothing for ",
        ),
        (
            "nothing in one piece",
            vec![Step::Hold],
            false,
            Limits { whole: SHORT, first: Duration::ZERO, ..all() },
            Late::Answer,
            "it took the request and said nothing for ",
        ),
        (
            "a stream that hangs",
            begun(),
            true,
            Limits { idle: SHORT, ..all() },
            Late::Idle,
            "nothing more came for 50ms in the middle of its answer; see whether it hangs",
        ),
        (
            "an answer without end",
            begun(),
            true,
            Limits { whole: 4 * SHORT, ..all() },
            Late::Whole,
            "its answer had no end after 200ms; set max_tokens, or a longer time-out",
        ),
    ] {
        let server = Server::saying(steps).await;
        let endpoint = Endpoint::new(EndpointConfig { limits, ..config(&server) }).unwrap();
        let failure = ask(&endpoint, streamed).await.unwrap_err();
        assert_eq!((failure.kind, failure.work), (Kind::Timeout(late), Work::Unknown), "{what}: {failure}");
        assert!(failure.detail.starts_with(wanted), "{what}: {failure}");
        server.client_gone().await;
    }
}

#[tokio::test]
async fn the_requests_own_deadline_is_told_apart() {
    let server = Server::saying(vec![stream_head(), send(piece("Hel")), Step::Hold]).await;
    let endpoint = endpoint(&server);
    let request = ChatRequest { deadline: Some(Instant::now() + SHORT), ..ChatRequest::new("m", "hello") };
    let failure = endpoint.stream(&request).await.unwrap().finish().await.unwrap_err();
    assert_eq!((failure.kind, failure.work), (Kind::Timeout(Late::Deadline), Work::Unknown));
    assert!(!failure.may_pass(), "nobody waits for it any more");
    server.client_gone().await;

    let late = endpoint.complete(&request).await.unwrap_err();
    assert_eq!((late.kind, late.work), (Kind::Timeout(Late::Deadline), Work::NotSent));
    assert_eq!(late.detail, "its deadline had passed before it was sent; give it more time");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn to_drop_a_request_is_to_cancel_it() {
    let server = Server::start(|number, _| match number {
        0 => vec![stream_head(), send(piece("Hel")), Step::Hold],
        _ => vec![Step::Hold],
    })
    .await;
    let endpoint = endpoint(&server);
    let mut stream = endpoint.stream(&ChatRequest::new("m", "hello")).await.unwrap();
    assert!(stream.next().await.unwrap().is_some());
    drop(stream);
    server.client_gone().await;

    let asked = Arc::new(endpoint);
    let waiting = tokio::spawn(async move { asked.complete(&ChatRequest::new("m", "hello")).await });
    while server.seen().len() < 2 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    server.client_gone().await;
}

#[tokio::test]
async fn a_secret_that_the_endpoint_repeats_is_not_passed_on() {
    let said = json!({"error": {"message": "Incorrect key: sk-1234567890, team crimson-42"}}).to_string();
    let server = Server::saying(vec![response("401 Unauthorized", "", &said)]).await;
    let config = EndpointConfig {
        bearer: Some(Secret::new("sk-1234567890")),
        headers: vec![("x-team".into(), Secret::new("crimson-42"))],
        ..config(&server)
    };
    assert!(!format!("{config:?}").contains("1234567890"));
    let endpoint = Endpoint::new(config).unwrap();
    assert!(!format!("{endpoint:?}").contains("1234567890"));
    let failure = ask(&endpoint, false).await.unwrap_err();
    assert_eq!(
        failure.detail,
        "it answered 401 Unauthorized: \"Incorrect key: ***, team ***\"; see the token and what it may do"
    );
}

#[tokio::test]
async fn long_errors_are_cut() {
    let (failure, _) = failed(vec![response("400 Bad Request", "", &"ü ".repeat(200_000))], false).await;
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.detail.len() < 800 && failure.detail.contains("ü ...\""), "{failure}");
}

#[test]
fn what_is_wrong_with_an_endpoint_is_told_at_once() {
    let faults = |config: EndpointConfig| Endpoint::new(config).unwrap_err();
    for (url, wanted) in [
        (
            "gpu-1:8000",
            "\"gpu-1:8000\" is no http:// or https:// URL; it wants one like http://gpu-1:8000/v1",
        ),
        (
            "ftp://gpu-1",
            "\"ftp://gpu-1\" is no http:// or https:// URL; it wants one like http://gpu-1:8000/v1",
        ),
        (
            "http://gpu-1/v1/chat/completions",
            "/chat/completions is put behind \"http://gpu-1/v1/chat/completions\" here; leave it out",
        ),
        (
            "http://gpu-1/v1?x=1#f",
            "no server is sent what comes with a # in \"http://gpu-1/v1?x=1#f\"; remove it",
        ),
        (
            "http://me:secret@gpu-1/v1",
            "there is a user or a password in its URL; say bearer, or a header, instead",
        ),
    ] {
        assert_eq!(faults(EndpointConfig::new("a", url)), Faults(vec![format!("endpoint \"a\": {wanted}")]));
    }
    let all = faults(EndpointConfig {
        bearer: Some(Secret::new("line\nbreak")),
        headers: vec![("x y".into(), Secret::new("z"))],
        ca: Some(b"nonsense".to_vec()),
        ..EndpointConfig::new("a", "https://")
    });
    assert_eq!(all.0.len(), 4, "{all}");
    assert!(!all.to_string().contains("break"), "{all}");
}
