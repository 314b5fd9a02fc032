//! A real server, whose address (`http://127.0.0.1:8080/v1`) and model are in `COFFERDAM_LLM_URL` and
//! `COFFERDAM_LLM_MODEL`: `cargo test -p cofferdam-inference real:: -- --ignored`. What a model says is not looked at, so
//! that one of random weights will do.

use std::{collections::HashSet, env, time::Duration};

use cofferdam_inference::{
    ChatRequest, Endpoint, EndpointConfig, Finish, Format, Kind, Member, ModelConfig, Pool, PoolConfig,
    Served, Work,
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

fn config() -> EndpointConfig {
    let url = env::var("COFFERDAM_LLM_URL")
        .expect("COFFERDAM_LLM_URL=http://127.0.0.1:8080/v1 of a running server");
    EndpointConfig::new("real", url)
}

fn model() -> String {
    env::var("COFFERDAM_LLM_MODEL").unwrap_or_else(|_| "tiny".into())
}

fn request() -> ChatRequest {
    let prompt = "Say something about rivers.";
    ChatRequest {
        max_tokens: Some(48),
        temperature: Some(0.0),
        seed: Some(1),
        ..ChatRequest::new(model(), prompt)
    }
}

fn tasks() -> Format {
    let schema = json!({
        "type": "object",
        "properties": {
            "size": {"type": "integer", "minimum": 0, "maximum": 100},
            "kind": {"enum": ["dam", "weir"]},
        },
        "required": ["size", "kind"],
        "additionalProperties": false,
    });
    Format::Schema { name: "works".into(), schema, strict: true }
}

#[tokio::test]
#[ignore = "needs a real server, see above"]
async fn it_answers_and_counts() {
    let endpoint = Endpoint::new(config()).unwrap();
    let told = endpoint.complete(&request()).await.unwrap();
    let usage = told.usage.expect("a count of tokens");
    assert!(usage.tokens_in > 0 && usage.tokens_out > 0 && usage.tokens_out <= 48, "{told:?}");
    assert!(told.finish.is_some() && told.model.is_some(), "{told:?}");
    assert_eq!(
        endpoint.complete(&request()).await.unwrap().content,
        told.content,
        "cold, it says the same again"
    );

    let cut = ChatRequest { max_tokens: Some(2), ..request() };
    assert_eq!(endpoint.complete(&cut).await.unwrap().finish, Some(Finish::Length));
}

#[tokio::test]
#[ignore = "needs a real server, see above"]
async fn it_streams_what_it_would_have_said_at_once() {
    let endpoint = Endpoint::new(config()).unwrap();
    let whole = endpoint.complete(&request()).await.unwrap();
    let mut stream = endpoint.stream(&request()).await.unwrap();
    let (mut pieces, mut content) = (0, String::new());
    while let Some(chunk) = stream.next().await.unwrap() {
        pieces += 1;
        content.push_str(&chunk.content);
    }
    let told = stream.finish().await.unwrap();
    assert!(pieces > 1, "{told:?}");
    assert_eq!((&content, &told.content), (&whole.content, &whole.content));
    assert_eq!((told.usage, told.finish), (whole.usage, whole.finish));
    assert!(told.first_token_after.is_some_and(|after| after < Duration::from_secs(60)));
}

#[tokio::test]
#[ignore = "needs a real server, see above"]
async fn it_holds_to_a_schema_and_stops_where_told() {
    let endpoint = Endpoint::new(config()).unwrap();
    let request_json = ChatRequest { format: tasks(), max_tokens: Some(200), ..request() };
    let whole = endpoint.complete(&request_json).await.unwrap();
    let streamed = endpoint.stream(&request_json).await.unwrap().finish().await.unwrap();
    for told in [whole, streamed] {
        let value: Value = serde_json::from_str(&told.content).unwrap();
        let keys: HashSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, HashSet::from(["size", "kind"]), "{}", told.content);
    }

    let said = endpoint.complete(&request()).await.unwrap().content;
    // Two letters that it does not begin with.
    let ends =
        said.char_indices().map(|(at, _)| at).skip(1).zip(said.char_indices().map(|(at, _)| at).skip(3));
    let mut pairs = ends.map(|(from, to)| (from, &said[from..to]));
    let (_, stop) = pairs.find(|(from, pair)| said.find(pair) == Some(*from)).expect("two letters");
    let stopped = ChatRequest { stop: vec![stop.to_owned()], ..request() };
    let told = endpoint.complete(&stopped).await.unwrap();
    assert_eq!(told.finish, Some(Finish::Stop));
    assert_eq!(Some(told.content.as_str()), said.split(stop).next());
}

#[tokio::test]
#[ignore = "needs a real server, see above"]
async fn what_it_refuses_is_told_as_refused() {
    let endpoint = Endpoint::new(config()).unwrap();
    let long = ChatRequest::new(model(), "river ".repeat(60_000));
    let failure = endpoint.complete(&long).await.unwrap_err();
    assert_eq!((failure.kind, failure.work), (Kind::Refused, Work::NotWorked), "{failure}");
    let mut elsewhere = config();
    elsewhere.url.push_str("/elsewhere");
    let failure = Endpoint::new(elsewhere).unwrap().complete(&request()).await.unwrap_err();
    assert_eq!((failure.kind, failure.status), (Kind::Refused, Some(404)), "{failure}");
}

#[tokio::test]
#[ignore = "needs a real server, see above"]
async fn a_request_that_nobody_waits_for_leaves_room_for_the_next() {
    let endpoint = Endpoint::new(config()).unwrap();
    for _ in 0..8 {
        let long = ChatRequest { max_tokens: Some(3000), ..request() };
        let mut stream = endpoint.stream(&long).await.unwrap();
        stream.next().await.unwrap();
    }
    let soon = ChatRequest { deadline: Some(Instant::now() + Duration::from_secs(30)), ..request() };
    endpoint.complete(&soon).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a real server, see above"]
async fn a_pool_keeps_it_busy() {
    let pool = Pool::new(PoolConfig {
        endpoints: vec![Member { endpoint: config(), concurrency: 4 }],
        models: vec![ModelConfig {
            name: "m".into(),
            concurrency: 16,
            served: vec![Served { endpoint: "real".into(), model: Some(model()) }],
        }],
        ..PoolConfig::default()
    })
    .unwrap();
    let mut asked = JoinSet::new();
    for number in 0..32 {
        let pool = pool.clone();
        asked.spawn(async move {
            let request = ChatRequest { model: "m".into(), ..request() };
            match number % 2 {
                0 => pool.complete(&request).await,
                _ => pool.stream(&request).await?.finish().await,
            }
        });
    }
    while let Some(answered) = asked.join_next().await {
        answered.unwrap().unwrap();
    }
    let seen = pool.statistics();
    assert_eq!((seen.models[0].counted.answers, seen.models[0].waiting), (32, 0));
    assert_eq!(seen.endpoints[0].counted.first_token.iter().sum::<u64>(), 16);
}
