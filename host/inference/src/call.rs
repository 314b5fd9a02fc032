//! One request at one endpoint: its clock, its name in messages, and what a failure of it means.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use tokio::time::Instant;

use crate::{
    body::chain,
    endpoint::Limits,
    failure::{Failure, Kind, Late, Work},
    retry_after,
    wire::Complaint,
};

/// Of what an endpoint says, as it is looked at, in bytes.
const MAX_SAID: usize = 64 << 10;
/// Of it, as it is repeated to people, in bytes.
const MAX_EXCERPT: usize = 600;

/// An endpoint, as messages name it.
pub(crate) struct Identity {
    /// Name and address.
    pub(crate) shown: String,
    pub(crate) secrets: Vec<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// When a request began, and when it is over.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    pub(crate) started: Instant,
    pub(crate) limits: Limits,
    pub(crate) deadline: Option<Instant>,
}

impl Clock {
    pub(crate) fn start(limits: Limits, deadline: Option<Instant>) -> Self {
        Self { started: Instant::now(), limits, deadline }
    }

    /// When to give up, and on what: after `patience`, or sooner, as the request's own time ends.
    pub(crate) fn sooner(&self, patience: Duration, late: Late, begun: bool) -> (Instant, Late) {
        let mut first = (Instant::now() + patience, late);
        let whole = self.started + self.limits.whole;
        if whole <= first.0 {
            first = (whole, if begun { Late::Whole } else { Late::Answer });
        }
        match self.deadline {
            Some(deadline) if deadline <= first.0 => (deadline, Late::Deadline),
            _ => first,
        }
    }
}

/// One request at one endpoint, as it is named in messages.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) identity: Arc<Identity>,
    pub(crate) model: String,
}

impl Call {
    pub(crate) fn failure(&self, kind: Kind, work: Work, detail: String) -> Failure {
        Failure {
            kind,
            work,
            status: None,
            retry_after: None,
            endpoint: self.identity.shown.clone(),
            model: self.model.clone(),
            detail,
            usage: None,
        }
    }

    /// Something that the endpoint said, on one line, cut to size and without our secrets.
    pub(crate) fn excerpt(&self, said: &str) -> String {
        // Before it is cut: half a secret is one, too.
        let mut shown = Cow::Borrowed(&said[..said.floor_char_boundary(MAX_SAID)]);
        for secret in &self.identity.secrets {
            if shown.contains(secret.as_str()) {
                shown = shown.replace(secret.as_str(), "***").into();
            }
        }
        let mut line = String::new();
        for word in shown.split_whitespace() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(word.chars().filter(|c| !c.is_control()));
            if line.len() > MAX_EXCERPT {
                line.truncate(line.floor_char_boundary(MAX_EXCERPT));
                line.push_str("...");
                break;
            }
        }
        line
    }

    pub(crate) fn late(&self, late: Late, clock: &Clock) -> Failure {
        let limits = &clock.limits;
        let detail = match late {
            Late::Deadline => format!(
                "no whole answer by the request's deadline, {:.1?} after it was sent; give it more time, or ask for less",
                clock.started.elapsed()
            ),
            Late::Answer => format!(
                "it took the request and said nothing for {:.1?}; see whether it hangs or has too much to do",
                clock.started.elapsed()
            ),
            Late::Idle => format!(
                "nothing more came for {:?} in the middle of its answer; see whether it hangs",
                limits.idle
            ),
            Late::Whole => {
                format!(
                    "its answer had no end after {:?}; set max_tokens, or a longer time-out",
                    limits.whole
                )
            }
        };
        self.failure(Kind::Timeout(late), Work::Unknown, detail)
    }

    pub(crate) fn too_large(&self, max: usize) -> Failure {
        let detail = format!(
            "its answer is over the limit of {max} bytes and was let go; set max_tokens, or a higher limit"
        );
        self.failure(Kind::TooLarge, Work::Worked, detail)
    }

    /// No answer at all.
    pub(crate) fn broken(&self, error: &hyper_util::client::legacy::Error) -> Failure {
        let told = self.excerpt(&chain(error));
        let source = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<hyper::Error>());
        if error.is_connect() {
            let detail = format!("no connection ({told}); see that it runs, and that the address is right");
            return self.failure(Kind::Unreachable, Work::NotSent, detail);
        }
        if source.is_some_and(hyper::Error::is_canceled) {
            let detail = format!("the connection was closed before the request was sent ({told})");
            return self.failure(Kind::Unreachable, Work::NotSent, detail);
        }
        if source.is_some_and(hyper::Error::is_parse) {
            let detail =
                format!("what it sends is not HTTP ({told}); see the port, and whether it wants https://");
            return self.failure(Kind::Malformed, Work::Unknown, detail);
        }
        let detail =
            format!("the connection broke before an answer came ({told}); the request may have been worked");
        self.failure(Kind::Truncated, Work::Unknown, detail)
    }

    /// A status that is no success.
    pub(crate) fn said_no(&self, response: &Response<Bytes>) -> Failure {
        let complaint = Complaint::of_body(response.body());
        let status = response.status();
        let now = SystemTime::now();
        let wait = response.headers().get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok());
        let wait = wait.and_then(|wait| retry_after::parse(wait, now));
        let mut failure = self.complained(status, &complaint, wait);
        if status.is_redirection() {
            let to = response
                .headers()
                .get(header::LOCATION)
                .and_then(|to| to.to_str().ok())
                .unwrap_or("elsewhere");
            failure.detail = format!("it answered {status}, to {}; say that address", self.excerpt(to));
        }
        failure
    }

    /// What the endpoint says is wrong, by a status that it answered with or names.
    fn complained(&self, status: StatusCode, complaint: &Complaint, wait: Option<Duration>) -> Failure {
        let said = self.excerpt(&complaint.message);
        let said = if said.is_empty() { "without a word".to_owned() } else { format!("{said:?}") };
        let (kind, work, remedy) = match status.as_u16() {
            429 | 503 | 529 => {
                let remedy = match wait {
                    Some(wait) => format!("it wants to be left alone for {wait:?}"),
                    None => "ask it less at a time, or later".to_owned(),
                };
                (Kind::Overloaded, Work::NotWorked, remedy)
            }
            500.. => (Kind::ServerError, Work::Unknown, "see its log".to_owned()),
            401 | 403 | 407 => {
                (Kind::Unauthorized, Work::NotWorked, "see the token and what it may do".to_owned())
            }
            _ if names_no_model(status, complaint) => {
                (Kind::ModelMissing, Work::NotWorked, "load the model there, or name another".to_owned())
            }
            404 | 405 => (Kind::Refused, Work::NotWorked, "see the URL: most end in /v1".to_owned()),
            _ => (Kind::Refused, Work::NotWorked, "see the request: prompt, parameters, size".to_owned()),
        };
        let detail = format!("it answered {status}: {said}; {remedy}");
        let retry_after = wait.filter(|_| kind == Kind::Overloaded);
        Failure { status: Some(status.as_u16()), retry_after, ..self.failure(kind, work, detail) }
    }

    /// An error in the place of an answer, or in the middle of one, which no status can tell.
    pub(crate) fn interrupted(&self, complaint: &Complaint) -> Failure {
        let status = complaint.status.and_then(|status| StatusCode::from_u16(status).ok());
        let mut failure =
            self.complained(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), complaint, None);
        let named = status.map(|status| format!(" ({status})")).unwrap_or_default();
        let said = self.excerpt(&complaint.message);
        failure.detail = format!("an error in the place of its answer{named}: {said:?}; see its log");
        failure.status = status.map(|status| status.as_u16());
        failure.work = Work::Unknown;
        failure
    }
}

/// Servers agree on no code for it.
fn names_no_model(status: StatusCode, complaint: &Complaint) -> bool {
    if complaint.code == "model_not_found" {
        return true;
    }
    let message = complaint.message.to_ascii_lowercase();
    matches!(status.as_u16(), 400 | 404)
        && message.contains("model")
        && [
            "not found",
            "does not exist",
            "not exist",
            "unknown model",
            "invalid model",
            "no such model",
            "not loaded",
        ]
        .iter()
        .any(|words| message.contains(words))
}
