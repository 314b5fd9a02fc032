//! What is stored of a message, whatever the bus: which subjects and headers a caller may give, what the bus adds to
//! them, and what they weigh.

use std::borrow::Cow;

use crate::{
    api::{Headers, Message},
    error::Error,
    subject,
};

/// Which event caused a message: `<origin>.<sequence>`.
pub(crate) const CAUSE: &str = "Cofferdam-Cause";
pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";
pub(crate) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// A time to live is the one instruction to the bus that a caller may give.
pub(crate) const TTL: &str = "Nats-TTL";

/// Subjects that no caller may store under: commit points, floors and timers, and the server's own. The rest of our stream is
/// the daemon's, for its jobs.
const RESERVED: [&str; 9] =
    ["cd.c.", "cd.s.", "cd.m.", "cd.f.", "cd.t.", "cd.d.", "$JS.", "$SYS.", "_INBOX."];

pub(crate) fn is_reserved(subject: &str) -> bool {
    RESERVED.iter().any(|p| subject.starts_with(p))
}

/// Refuses what is malformed or reserved.
pub(crate) fn check_subject(subject: &str) -> Result<(), Error> {
    subject::check(subject)?;
    if is_reserved(subject) {
        return Err(Error::Refused(format!("the subject {subject:?} is reserved; publish under another")));
    }
    Ok(())
}

/// What we add to a message's own headers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Added<'a> {
    pub(crate) cause: Option<&'a str>,
    pub(crate) message_id: Option<&'a str>,
    pub(crate) expected: Option<u64>,
}

/// The headers to store, as they will be read back, or why they can't be. An instruction to the bus (`Nats-*`) among
/// the caller's could make it discard other messages or forge an identity, so it is refused.
pub(crate) fn outgoing(message: &Message, added: Added<'_>) -> Result<Headers, Error> {
    let stored = borrowed(message, added)?;
    Ok(stored.into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect())
}

/// The same, copied only where that can't be helped.
pub(crate) fn borrowed<'a>(
    message: &'a Message,
    added: Added<'a>,
) -> Result<Vec<(&'a str, Cow<'a, str>)>, Error> {
    let refuse = |name: &str, why: &str| {
        Error::Refused(format!("header {name:?} of a message for {:?} {why}", message.subject))
    };
    let mut headers: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(message.headers.len() + 3);
    for (name, value) in &message.headers {
        let reserved = name.get(..5).is_some_and(|p| p.eq_ignore_ascii_case("nats-"));
        if reserved && name != TTL {
            return Err(refuse(name, "is an instruction to the server; only Nats-TTL may be set"));
        }
        if name.is_empty() {
            return Err(refuse(name, "has no name"));
        }
        if !name.chars().all(|c| c.is_ascii_graphic() && c != ':') {
            return Err(refuse(name, "is not a valid header name"));
        }
        // A copy of another event's headers: its cause is not this one's.
        if added.cause.is_some() && name.eq_ignore_ascii_case(CAUSE) {
            continue;
        }
        headers.push((name, value.as_str().into()));
    }
    headers.extend(added.cause.map(|cause| (CAUSE, cause.into())));
    headers.extend(added.message_id.map(|id| (MESSAGE_ID, id.into())));
    headers.extend(added.expected.map(|sequence| (EXPECTED, sequence.to_string().into())));
    for (name, value) in &mut headers {
        // White space around a value means nothing; readers drop it.
        let trimmed = value.trim();
        if trimmed.len() < value.len() {
            *value = trimmed.to_owned().into();
        }
        if value.contains(['\r', '\n']) {
            return Err(refuse(name, "has a line break in its value"));
        }
    }
    headers.sort_by_key(|(name, _)| *name);
    Ok(headers)
}

/// By name, so that a run sees the same every time; the values of a name in their order.
pub(crate) fn sort(headers: &mut Headers) {
    headers.sort_by(|a, b| a.0.cmp(&b.0));
}

/// What they weigh on the wire and in the limits of a stream.
pub(crate) fn weight(headers: &[(impl AsRef<str>, impl AsRef<str>)]) -> u64 {
    if headers.is_empty() {
        return 0;
    }
    let line =
        |(name, value): &(_, _)| AsRef::<str>::as_ref(name).len() + AsRef::<str>::as_ref(value).len() + 4;
    let lines: usize = headers.iter().map(line).sum();
    (lines + "NATS/1.0\r\n\r\n".len()) as u64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn with(headers: &[(&str, &str)]) -> Message {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Message { subject: "a".into(), headers, data: Bytes::new() }
    }

    fn pairs(headers: &Headers) -> Vec<(&str, &str)> {
        headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect()
    }

    #[test]
    fn instructions_to_the_server_are_refused() {
        for name in
            ["Nats-Rollup", "nats-msg-id", "Nats-Expected-Stream", "nats-ttl", "", "a b", "a:b", "ä", "a\r"]
        {
            assert!(
                matches!(outgoing(&with(&[(name, "x")]), Added::default()), Err(Error::Refused(_))),
                "{name}"
            );
        }
        assert!(outgoing(&with(&[("X", "a\r\nNats-Rollup: all")]), Added::default()).is_err());
        assert!(outgoing(&with(&[("Nats-TTL", "1s")]), Added::default()).is_ok());
    }

    #[test]
    fn an_identity_is_one_line() {
        let added = Added { message_id: Some("a\r\nNats-Rollup: all"), ..Added::default() };
        assert!(matches!(outgoing(&with(&[]), added), Err(Error::Refused(_))));
    }

    #[test]
    fn headers_are_sorted_with_repeated_names_in_order() {
        let headers = outgoing(&with(&[("b", " 2 "), ("a", "1"), ("b", "1")]), Added::default()).unwrap();
        assert_eq!(pairs(&headers), [("a", "1"), ("b", "2"), ("b", "1")]);
    }

    #[test]
    fn anothers_cause_gives_way_to_this_one() {
        let copied = with(&[("cofferdam-cause", "another's")]);
        let caused = outgoing(&copied, Added { cause: Some("o.1"), ..Added::default() }).unwrap();
        assert_eq!(pairs(&caused), [(CAUSE, "o.1")]);
        let plain = outgoing(&copied, Added::default()).unwrap();
        assert_eq!(pairs(&plain), [("cofferdam-cause", "another's")]);
    }

    #[test]
    fn reserved_subjects_are_refused() {
        for reserved in [
            "cd.s.test.x",
            "cd.c.a",
            "cd.m.0",
            "cd.f.a",
            "cd.t.a",
            "cd.d.a",
            "$JS.API.INFO",
            "$SYS.x",
            "_INBOX.a",
        ] {
            assert!(matches!(check_subject(reserved), Err(Error::Refused(_))), "{reserved}");
        }
        assert_eq!(check_subject("a..b"), Err(Error::InvalidSubject("a..b".into())));
        for fine in ["a.b", "cd.job.x"] {
            assert_eq!(check_subject(fine), Ok(()), "{fine}");
        }
    }
}
