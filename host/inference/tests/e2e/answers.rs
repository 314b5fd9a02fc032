//! Answers that are good, however oddly they come.

use cofferdam_inference::{
    Answer, ChatRequest, Chunk, Endpoint, EndpointConfig, Finish, Format, Secret, Usage,
};
use serde_json::json;

use crate::{
    config, endpoint,
    server::{DONE, STOP, Server, Step, answer, event, json, piece, response, send, stream, stream_head},
};

async fn complete(steps: Vec<Step>) -> Answer {
    let server = Server::saying(steps).await;
    endpoint(&server).complete(&ChatRequest::new("m", "hello")).await.unwrap()
}

async fn streamed(steps: Vec<Step>) -> Answer {
    let server = Server::saying(steps).await;
    endpoint(&server).stream(&ChatRequest::new("m", "hello")).await.unwrap().finish().await.unwrap()
}

fn choice(message: serde_json::Value) -> Step {
    json(&json!({"choices": [{"message": message, "finish_reason": "stop"}]}))
}

#[tokio::test]
async fn a_usual_answer_is_told_whole() {
    let told = complete(vec![answer("Hello.")]).await;
    assert_eq!(
        told,
        Answer {
            content: "Hello.".into(),
            finish: Some(Finish::Stop),
            usage: Some(Usage { tokens_in: 5, tokens_out: 7 }),
            model: Some("served-m".into()),
            ..Answer::default()
        }
    );
}

#[tokio::test]
async fn a_stream_gives_its_pieces_as_they_come_and_then_the_whole() {
    let usage = event(&json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}));
    let body = [&piece("Hel"), &piece("lo."), STOP, &usage, DONE].concat();
    let server = Server::saying(stream(&body)).await;
    let mut stream = endpoint(&server).stream(&ChatRequest::new("m", "hello")).await.unwrap();
    let chunk = |content: &str| Some(Chunk { content: content.into(), ..Chunk::default() });
    assert_eq!(stream.next().await.unwrap(), chunk("Hel"));
    assert_eq!(stream.so_far().content, "Hel");
    assert_eq!(stream.next().await.unwrap(), chunk("lo."));
    assert_eq!(stream.next().await.unwrap(), None);
    assert_eq!(stream.next().await.unwrap(), None, "still over");
    let told = stream.finish().await.unwrap();
    assert_eq!((told.content.as_str(), told.finish), ("Hello.", Some(Finish::Stop)));
    assert_eq!(told.usage, Some(Usage { tokens_in: 3, tokens_out: 2 }));
    assert!(told.first_token_after.is_some());
    assert_eq!(server.seen()[0].body["stream_options"], json!({"include_usage": true}));
}

#[tokio::test]
async fn token_headers_path_and_parameters_reach_the_endpoint() {
    let server = Server::saying(vec![answer("[1]")]).await;
    let endpoint = Endpoint::new(EndpointConfig {
        url: format!("http://{}/openai/v1/?api-version=7", server.address),
        bearer: Some(Secret::new("sk-1234567890")),
        headers: vec![("X-Team".into(), Secret::new("blue"))],
        ..config(&server)
    })
    .unwrap();
    let schema = Format::Schema { name: "list".into(), schema: json!({"type": "array"}), strict: true };
    let mut request = ChatRequest { format: schema, seed: Some(7), ..ChatRequest::new("m", "hello") };
    request.headers.insert("x-request-id", "job-1".parse().unwrap());
    endpoint.complete(&request).await.unwrap();
    let seen = &server.seen()[0];
    for wanted in [
        "post /openai/v1/chat/completions?api-version=7 http/1.1",
        "authorization: bearer sk-1234567890",
        "x-team: blue",
        "x-request-id: job-1",
        "content-type: application/json",
    ] {
        assert!(seen.head.lines().any(|line| line == wanted), "{wanted} in {}", seen.head);
    }
    assert_eq!(seen.body["response_format"]["type"], "json_schema");
    assert_eq!((&seen.body["seed"], &seen.body["stream"]), (&json!(7), &json!(false)));
}

#[tokio::test]
async fn content_comes_as_parts_and_reasoning_beside_it() {
    let parts = json!([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}]);
    assert_eq!(complete(vec![choice(json!({"content": parts}))]).await.content, "Hello.");

    let told = complete(vec![choice(json!({"content": "Hello.", "reasoning_content": "hm"}))]).await;
    assert_eq!((told.content.as_str(), told.reasoning.as_str()), ("Hello.", "hm"));

    let thought = event(&json!({"choices": [{"delta": {"content": null, "reasoning": "hm"}}]}));
    let told = streamed(stream(&[&thought, &piece("Hello."), STOP].concat())).await;
    assert_eq!((told.content.as_str(), told.reasoning.as_str()), ("Hello.", "hm"));
}

#[tokio::test]
async fn an_answer_that_was_cut_says_so() {
    let cut = json!({"choices": [{"message": {"content": "Hel"}, "finish_reason": "length"}], "usage": null});
    let told = complete(vec![json(&cut)]).await;
    assert_eq!((told.finish, told.usage), (Some(Finish::Length), None));
    let odd = json!({"choices": [{"message": {"content": "Hel"}, "finish_reason": "eos"}]});
    assert_eq!(complete(vec![json(&odd)]).await.finish, Some(Finish::Other("eos".into())));
}

#[tokio::test]
async fn a_stream_may_be_written_in_any_way_that_sse_allows() {
    let end = STOP.replace("data: ", "data:");
    for (what, body) in [
        ("no space after data:", piece("Hello.").replace("data: ", "data:") + &end),
        ("CRLF", (piece("Hello.") + STOP + DONE).replace('\n', "\r\n")),
        ("CR", (piece("Hello.") + STOP + DONE).replace('\n', "\r")),
        ("comments", [": here\n\n", &piece("Hello."), ":\n\n: still\n", STOP, ": bye\n\n", DONE].concat()),
        (
            "an event in several lines of data",
            "data: {\"choices\": [{\"delta\":\ndata: {\"content\": \"Hello.\"},\ndata: \"finish_reason\": \"stop\"}]}\n\n"
                .to_owned(),
        ),
        ("event names and ids", format!("event: message\nid: 7\nretry: 10\n{}{STOP}", piece("Hello."))),
        ("a byte order mark", format!("\u{feff}{}{STOP}{DONE}", piece("Hello."))),
        ("no [DONE]", piece("Hello.") + STOP),
        ("[DONE] and no finish_reason", piece("Hello.") + DONE),
        ("half of [DONE]", [&piece("Hello."), STOP, "data: [DO"].concat()),
        ("an empty finish_reason until it is known", {
            let unsure = json!({"choices": [{"delta": {"role": "assistant", "content": "Hello."}, "finish_reason": ""}]});
            event(&unsure) + STOP
        }),
        ("a choice of its own", {
            let other = json!({"choices": [{"index": 1, "delta": {"content": "Bye."}, "finish_reason": "length"}]});
            [&event(&other), &piece("Hello."), STOP].concat()
        }),
        ("something behind [DONE]", [&piece("Hello."), STOP, DONE, "data: {nonsense\n\n"].concat()),
    ] {
        assert_eq!(streamed(stream(&body)).await.content, "Hello.", "{what}");
    }
}

#[tokio::test]
async fn a_stream_may_be_cut_anywhere_also_within_a_character() {
    let body = [": é\n\n", &piece("Grüße, 世界 🦀"), STOP, DONE].concat().into_bytes();
    let mut steps = vec![send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )];
    // Of HTTP's own chunks, too: one byte each.
    steps.extend(body.iter().map(|byte| send([b"1\r\n", &[*byte][..], b"\r\n"].concat())));
    steps.push(send("0\r\n\r\n"));
    assert_eq!(streamed(steps).await.content, "Grüße, 世界 🦀");
}

#[tokio::test]
async fn what_breaks_after_the_end_of_an_answer_harms_nothing() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let body = piece("Hello.") + STOP;
    let told = streamed(vec![send(head), send(format!("{:x}\r\n{body}\r\n", body.len()))]).await;
    assert_eq!((told.content.as_str(), told.usage), ("Hello.", None));
}

#[tokio::test]
async fn a_server_that_forgets_to_close_after_the_end_is_not_waited_for() {
    let told = streamed(vec![stream_head(), send(piece("Hello.") + STOP), Step::Hold]).await;
    assert_eq!(told.content, "Hello.");
}

#[tokio::test]
async fn a_server_may_answer_in_the_other_way_than_asked() {
    assert_eq!(streamed(vec![answer("Hello.")]).await.content, "Hello.");
    assert_eq!(complete(stream(&(piece("Hello.") + STOP))).await.content, "Hello.");
    let unnamed = vec![send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"), send(piece("Hello.") + STOP)];
    assert_eq!(streamed(unnamed).await.content, "Hello.");
    let unnamed =
        response("200 OK", "", &json!({"choices": [{"message": {"content": "Hello."}}]}).to_string());
    assert_eq!(complete(vec![unnamed]).await.content, "Hello.");
}

#[tokio::test]
async fn json_that_was_asked_for_is_taken_as_it_is() {
    let server = Server::saying(vec![answer("\n{\"a\": 1}\n")]).await;
    let request = ChatRequest { format: Format::Json, ..ChatRequest::new("m", "hello") };
    assert_eq!(endpoint(&server).complete(&request).await.unwrap().content, "\n{\"a\": 1}\n");
}

#[tokio::test]
async fn a_connection_serves_again_but_not_after_a_stream() {
    let server = Server::start(|_, seen| match seen.body["stream"].as_bool() {
        Some(true) => {
            let body = [&piece("Hello."), STOP, DONE].concat();
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            // As llama.cpp does it: it says nothing of the end of the connection, and closes it.
            vec![send(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len())), Step::Close]
        }
        _ => vec![answer("Hello.")],
    })
    .await;
    let endpoint = endpoint(&server);
    let request = ChatRequest::new("m", "hello");
    for _ in 0..4 {
        endpoint.complete(&request).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    for _ in 0..4 {
        endpoint.stream(&request).await.unwrap().finish().await.unwrap();
        endpoint.complete(&request).await.unwrap();
    }
    assert_eq!(server.seen().len(), 12);
}
