//! What is asked of a model, and how that reads on the wire.

use http::HeaderMap;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::endpoint::TokenLimit;

/// A chat completion to be had.
#[derive(Debug, Clone, Default)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<Message>,
    /// Left to the server where it is `None`.
    pub temperature: Option<f32>,
    /// The answer's length, in tokens. Left to the server where it is `None`.
    pub max_tokens: Option<u32>,
    /// The answer ends before one of these.
    pub stop: Vec<String>,
    pub seed: Option<i64>,
    pub format: Format,
    /// Fields that this crate does not know, like vLLM's `chat_template_kwargs`; they win over the ones it knows.
    pub extra: Map<String, Value>,
    /// Of this request alone, beside the endpoint's own.
    pub headers: HeaderMap,
    /// When the answer is of no use any more; waiting for a place in a [`Pool`](crate::Pool) counts.
    pub deadline: Option<Instant>,
}

/// A message of the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Message {
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Role::System, content: content.into() }
    }

    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }
}

/// What the answer has to be (`response_format`).
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Format {
    #[default]
    Text,
    /// Any JSON.
    Json,
    /// JSON of a schema. It is for the server to hold to the schema; whether the answer is JSON at all is checked here.
    Schema { name: String, schema: Value, strict: bool },
}

impl Format {
    pub(crate) fn is_json(&self) -> bool {
        !matches!(self, Self::Text)
    }
}

impl ChatRequest {
    /// With one message of the user.
    pub fn new(model: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self { model: model.into(), messages: vec![Message::user(prompt)], ..Self::default() }
    }

    pub(crate) fn body(&self, streamed: bool, limit: TokenLimit) -> Vec<u8> {
        let mut body = Map::new();
        let mut set = |field: &str, value: Value| {
            body.insert(field.to_owned(), value);
        };
        set("model", json!(self.model));
        set("messages", json!(self.messages));
        if let Some(temperature) = self.temperature {
            set("temperature", json!(temperature));
        }
        if let Some(tokens) = self.max_tokens {
            set(limit.field(), json!(tokens));
        }
        if !self.stop.is_empty() {
            set("stop", json!(self.stop));
        }
        if let Some(seed) = self.seed {
            set("seed", json!(seed));
        }
        match &self.format {
            // The default everywhere, and some servers refuse to be told so.
            Format::Text => {}
            Format::Json => set("response_format", json!({"type": "json_object"})),
            Format::Schema { name, schema, strict } => set(
                "response_format",
                json!({
                    "type": "json_schema",
                    "json_schema": {"name": name, "schema": schema, "strict": strict},
                }),
            ),
        }
        set("stream", json!(streamed));
        if streamed {
            set("stream_options", json!({"include_usage": true}));
        }
        for (field, value) in &self.extra {
            set(field, value.clone());
        }
        Value::Object(body).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(request: &ChatRequest, streamed: bool, limit: TokenLimit) -> Value {
        serde_json::from_slice(&request.body(streamed, limit)).unwrap()
    }

    #[test]
    fn a_bare_request_says_no_more_than_it_must() {
        let request = ChatRequest::new("m", "hello");
        assert_eq!(
            body(&request, false, TokenLimit::MaxTokens),
            json!({"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": false})
        );
    }

    #[test]
    fn everything_that_can_be_asked_is_on_the_wire_and_extra_fields_win() {
        let request = ChatRequest {
            messages: vec![Message::system("be brief"), Message::user("hello")],
            temperature: Some(0.5),
            max_tokens: Some(64),
            stop: vec!["END".into()],
            seed: Some(-7),
            format: Format::Schema { name: "tasks".into(), schema: json!({"type": "array"}), strict: true },
            extra: [("top_k".into(), json!(5)), ("seed".into(), json!(8))].into_iter().collect(),
            ..ChatRequest::new("m", "")
        };
        assert_eq!(
            body(&request, true, TokenLimit::MaxCompletionTokens),
            json!({
                "model": "m",
                "messages": [
                    {"role": "system", "content": "be brief"},
                    {"role": "user", "content": "hello"},
                ],
                "temperature": 0.5,
                "max_completion_tokens": 64,
                "stop": ["END"],
                "seed": 8,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "tasks", "schema": {"type": "array"}, "strict": true},
                },
                "stream": true,
                "stream_options": {"include_usage": true},
                "top_k": 5,
            })
        );
    }
}
