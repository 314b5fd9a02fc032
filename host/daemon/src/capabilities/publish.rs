//! Publishing: messages are checked when they are emitted, and stored when the event commits.

use bytes::Bytes;
use cofferdam_bus::{Message, subject};
use cofferdam_sandbox::{EmitError, Pairs};

use super::Run;
use crate::{fault::Fault, grants::Kind, observe::trace};

/// Commits, state and jobs: whatever is granted, a guest does not forge these.
const OURS: &str = "cd.";
/// Of one event: more is a loop, not a plan.
const MAX_MESSAGES: usize = 1_000;

impl Run {
    pub(super) async fn emit(
        &mut self,
        subject: String,
        headers: Pairs,
        data: Bytes,
    ) -> Result<String, EmitError> {
        if subject::check(&subject).is_err() {
            return Err(EmitError::InvalidSubject(format!("{subject:?} is not a subject to publish to")));
        }
        if subject.starts_with(OURS) || subject.starts_with('$') {
            return Err(EmitError::Denied(format!(
                "the subject {subject:?} is the host's own; publish under another"
            )));
        }
        if let Some((name, _)) = headers.iter().find(|(name, _)| is_reserved(name)) {
            return Err(EmitError::Denied(format!(
                "the header {name:?} belongs to the host; use another name"
            )));
        }
        if let Some((name, _)) = headers.iter().find(|(name, value)| !is_header(name, value)) {
            return Err(EmitError::InvalidSubject(format!(
                "the header {name:?} has a line break, a colon or nothing in its name, or a line break in its value"
            )));
        }
        self.granted(Kind::Publish, &subject).map_err(|denial| EmitError::Denied(denial.to_string()))?;
        let (size, room) = (weight(&headers, &data), self.room());
        if size > room {
            return Err(EmitError::TooLarge(format!(
                "a message of {size} bytes, and this event's commit has room for {room} more: its messages, jobs and \
                 state are stored as one"
            )));
        }
        if self.emitted == MAX_MESSAGES {
            return Err(EmitError::Limit(format!(
                "this event has published {MAX_MESSAGES} messages, the limit"
            )));
        }
        match self.services.bus.covering(&subject).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                self.blame = Some(Fault::Operator);
                return Err(EmitError::NoStream(format!(
                    "no stream stores {subject:?}; create one that covers it"
                )));
            }
            Err(error) => {
                self.blame = Some(Fault::Host);
                return Err(EmitError::Unavailable(error.to_string()));
            }
        }
        self.emitted += 1;
        Ok(self.effect(subject, headers, data))
    }

    /// Adds a message to the effects; returns its id.
    pub(super) fn effect(&mut self, subject: String, mut headers: Pairs, data: Bytes) -> String {
        let id = format!("{}.{}", self.occasion.event_id, self.messages.len());
        headers.push(("Cofferdam-Plugin".into(), self.plugin.name.clone()));
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(trace::HEADER)) {
            headers.push((trace::HEADER.into(), self.occasion.trace.header()));
        }
        self.message_bytes += weight(&headers, &data) + subject.len();
        self.messages.push(Message { subject, headers, data });
        id
    }
}

/// What a message weighs, with what the host adds to it.
fn weight(headers: &Pairs, data: &Bytes) -> usize {
    const ADDED: usize = 512;
    data.len() + headers.iter().map(|(k, v)| k.len() + v.len() + 4).sum::<usize>() + ADDED
}

fn is_reserved(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.starts_with("nats-") || lower.starts_with("cofferdam-")
}

fn is_header(name: &str, value: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
        && !value.contains(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_headers_are_reserved_in_any_case() {
        assert!(is_reserved("nats-msg-id") && is_reserved("Cofferdam-Cause") && !is_reserved("X-Nats"));
    }

    #[test]
    fn a_header_cannot_smuggle_another() {
        assert!(is_header("X-A", "b"));
        for (name, value) in [("", "b"), ("X A", "b"), ("X:A", "b"), ("X", "b\r\nNats-Msg-Id: c")] {
            assert!(!is_header(name, value), "{name:?} {value:?}");
        }
    }
}
