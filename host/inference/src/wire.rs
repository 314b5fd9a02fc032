//! What endpoints send: one shape for the whole answer and for the pieces of a stream, with all that servers do
//! differently. Unknown fields are nobody's fault.

use serde::Deserialize;
use serde_json::Value;

use crate::answer::Usage;

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Frame {
    pub(crate) model: Option<String>,
    pub(crate) choices: Option<Vec<Choice>>,
    pub(crate) usage: Option<Tokens>,
    /// An object or a text, in the place of an answer or in the middle of one.
    pub(crate) error: Option<Value>,
    /// `error` at older servers, with `message` and `code` beside it.
    pub(crate) object: Option<Value>,
    pub(crate) message: Option<Value>,
    pub(crate) code: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Choice {
    index: Option<u64>,
    /// In a whole answer.
    message: Option<Said>,
    /// In a piece of a stream.
    delta: Option<Said>,
    pub(crate) finish_reason: Option<String>,
}

impl Choice {
    /// One is asked for; others are a server's own idea.
    pub(crate) fn is_ours(&self) -> bool {
        self.index.unwrap_or(0) == 0
    }

    pub(crate) fn said(self) -> Said {
        self.delta.or(self.message).unwrap_or_default()
    }
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Said {
    content: Option<Content>,
    /// vLLM, llama.cpp, DeepSeek.
    reasoning_content: Option<Content>,
    /// Ollama, OpenRouter, newer vLLM.
    reasoning: Option<Content>,
    refusal: Option<Content>,
}

impl Said {
    pub(crate) fn content(&mut self) -> String {
        text(self.content.take())
    }

    pub(crate) fn reasoning(&mut self) -> String {
        let text_of = text(self.reasoning_content.take());
        if text_of.is_empty() { text(self.reasoning.take()) } else { text_of }
    }

    pub(crate) fn refusal(&mut self) -> String {
        text(self.refusal.take())
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Part {
    Bare(String),
    Typed { text: Option<String> },
}

fn text(content: Option<Content>) -> String {
    match content {
        None => String::new(),
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => parts
            .into_iter()
            .filter_map(|part| match part {
                Part::Bare(text) => Some(text),
                Part::Typed { text } => text,
            })
            .collect(),
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Tokens {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

impl Tokens {
    pub(crate) fn usage(&self) -> Option<Usage> {
        if self.prompt_tokens.is_none() && self.completion_tokens.is_none() {
            return None;
        }
        Some(Usage {
            tokens_in: self.prompt_tokens.unwrap_or(0),
            tokens_out: self.completion_tokens.unwrap_or(0),
        })
    }
}

/// An error as an endpoint puts it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// An HTTP status that it names.
    pub(crate) status: Option<u16>,
    /// `code` or `type`, where it is a word.
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Frame {
    pub(crate) fn complaint(&self) -> Option<Complaint> {
        if let Some(error) = self.error.as_ref().filter(|error| !error.is_null()) {
            return Some(Complaint::of(error));
        }
        if self.object.as_ref().and_then(Value::as_str) == Some("error") {
            let fields = [("message", &self.message), ("code", &self.code)];
            let fields =
                fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
            return Some(Complaint::of(&Value::Object(fields.collect())));
        }
        None
    }
}

impl Complaint {
    /// Of the body of an answer whose status is an error, whatever the server makes its errors of.
    pub(crate) fn of_body(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(Value::Object(object)) => {
                let error = object.get("error").or_else(|| object.get("detail"));
                match error.filter(|error| !error.is_null()) {
                    Some(error) => Self::of(error),
                    None => Self::of(&Value::Object(object)),
                }
            }
            Ok(text @ Value::String(_)) => Self::of(&text),
            _ => Self {
                status: None,
                code: String::new(),
                message: String::from_utf8_lossy(body).into_owned(),
            },
        }
    }

    fn of(error: &Value) -> Self {
        let word = |field: &str| match error.get(field) {
            Some(Value::String(word)) => word.clone(),
            _ => String::new(),
        };
        let status = match error.get("code").or_else(|| error.get("status")) {
            Some(Value::Number(code)) => code.as_u64(),
            Some(Value::String(code)) => code.parse().ok(),
            _ => None,
        };
        let message = match error {
            Value::String(text) => text.clone(),
            _ if !word("message").is_empty() => word("message"),
            _ => error.to_string(),
        };
        let code = if word("code").is_empty() { word("type") } else { word("code") };
        Self {
            status: status.and_then(|status| u16::try_from(status).ok()).filter(|s| (400..600).contains(s)),
            code,
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(json: &str) -> Said {
        serde_json::from_str::<Choice>(json).unwrap().said()
    }

    #[test]
    fn content_is_a_text_or_parts_or_nothing() {
        for (json, content) in [
            (r#"{"message": {"role": "assistant", "content": "a"}}"#, "a"),
            (r#"{"delta": {"content": "b"}}"#, "b"),
            (r#"{"delta": {"content": null}}"#, ""),
            (r#"{"delta": null}"#, ""),
            (r#"{"delta": {"content": [{"type": "text", "text": "c"}, {"type": "image_url"}, "d"]}}"#, "cd"),
        ] {
            assert_eq!(said(json).content(), content, "{json}");
        }
    }

    #[test]
    fn reasoning_goes_by_two_names() {
        assert_eq!(said(r#"{"message": {"content": null, "reasoning_content": "hm"}}"#).reasoning(), "hm");
        assert_eq!(said(r#"{"message": {"reasoning_content": null, "reasoning": "hm"}}"#).reasoning(), "hm");
    }

    #[test]
    fn errors_come_in_many_shapes() {
        for (body, status, code, message) in [
            (r#"{"error": {"message": "no", "code": "model_not_found"}}"#, None, "model_not_found", "no"),
            (
                r#"{"error": {"message": "no", "type": "NotFoundError", "code": 404}}"#,
                Some(404),
                "NotFoundError",
                "no",
            ),
            (r#"{"error": {"message": "no", "code": "429"}}"#, Some(429), "429", "no"),
            (r#"{"error": "no"}"#, None, "", "no"),
            (
                r#"{"object": "error", "message": "no", "type": "BadRequest", "code": 400}"#,
                Some(400),
                "BadRequest",
                "no",
            ),
            (r#"{"detail": "Not Found"}"#, None, "", "Not Found"),
            (r#"{"detail": [{"msg": "field required"}]}"#, None, "", r#"[{"msg":"field required"}]"#),
            ("<html>Bad Gateway</html>", None, "", "<html>Bad Gateway</html>"),
            ("[1]", None, "", "[1]"),
            (r#""no""#, None, "", "no"),
            ("", None, "", ""),
        ] {
            let complaint = Complaint { status, code: code.into(), message: message.into() };
            assert_eq!(Complaint::of_body(body.as_bytes()), complaint, "{body}");
        }
    }

    #[test]
    fn an_error_that_is_null_is_none() {
        let frame: Frame = serde_json::from_str(r#"{"error": null, "choices": [], "usage": null}"#).unwrap();
        assert_eq!(frame.complaint(), None);
        let frame: Frame =
            serde_json::from_str(r#"{"object": "error", "message": "no", "code": 503}"#).unwrap();
        assert_eq!(frame.complaint().unwrap().status, Some(503));
    }
}
