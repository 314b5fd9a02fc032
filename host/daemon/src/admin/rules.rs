//! What outsiders may publish, and what a wildcard shows them. Reading by name is free: whoever may come in may see all.

use cofferdam_bus::{Message, subject};
use tonic::Status;

/// Commits, state and jobs; what servers say among themselves; what the daemon tells of events.
const OURS: [&str; 4] = ["cd.", "$", "_INBOX.", "cofferdam-advisory."];

/// Refuses what is malformed or would be mistaken for the host's own word.
pub(super) fn may_publish(message: &Message) -> Result<(), Status> {
    let Message { subject, headers, .. } = message;
    if subject::check(subject).is_err() {
        return Err(Status::invalid_argument(format!(
            "{subject:?} is not a subject to publish to: tokens with dots between them, no white space, no wildcards, at \
             most {} bytes",
            subject::MAX_LEN
        )));
    }
    if let Some(prefix) = OURS.iter().find(|prefix| subject.starts_with(**prefix)) {
        return Err(Status::invalid_argument(format!(
            "the subject {subject:?} is the host's own, as all that begin with {prefix:?}; publish under another"
        )));
    }
    for (name, value) in headers {
        let lower = name.to_ascii_lowercase();
        if (lower.starts_with("nats-") && name != "Nats-TTL") || lower.starts_with("cofferdam-") {
            return Err(Status::invalid_argument(format!(
                "the header {name:?} belongs to the bus or the host; use another name (a message id and an expected \
                 sequence are fields of the request)"
            )));
        }
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            return Err(Status::invalid_argument(format!(
                "{name:?} is not a header's name: printable ASCII without spaces and colons"
            )));
        }
        if value.contains(['\r', '\n']) {
            return Err(Status::invalid_argument(format!(
                "the header {name:?} has a line break in its value; take it out, or put the value into the data"
            )));
        }
    }
    Ok(())
}

/// A filter to read or listen with.
pub(super) fn check_filter(filter: &str) -> Result<(), Status> {
    subject::check_filter(filter).map_err(|_| {
        Status::invalid_argument(format!(
            "{filter:?} is not a subject or filter: tokens with dots between them, where * stands for one token and a \
             last > for one or more; at most {} bytes",
            subject::MAX_LEN
        ))
    })
}

/// Whether the subject is only shown to who asks for it by its first token: the host's bookkeeping would drown the rest.
pub(super) fn is_hidden(filter: &str, subject: &str) -> bool {
    let wild = matches!(filter.split('.').next(), Some("*" | ">"));
    wild && (subject.starts_with("cd.") || subject.starts_with(['$', '_']))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn publish(subject: &str, headers: &[(&str, &str)]) -> Result<(), Status> {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        may_publish(&Message { subject: subject.to_owned(), headers, data: Vec::new().into() })
    }

    #[test]
    fn the_hosts_own_subjects_are_refused() {
        for ours in
            ["cd.j.x", "cd.s.a.b", "cd.new", "$JS.API.INFO", "$x", "_INBOX.a", "cofferdam-advisory.p.done"]
        {
            let status = publish(ours, &[]).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{ours}");
            assert!(
                status.message().contains(ours) && status.message().contains("publish under"),
                "{status}"
            );
        }
        for fine in ["a", "cdx.a", "cofferdam.dead.p", "cofferdam.derivation.parsed", "a.$b", "a.cd.j"] {
            assert!(publish(fine, &[]).is_ok(), "{fine}");
        }
        for bad in ["", "a.*", "a b", "a..b"] {
            assert_eq!(publish(bad, &[]).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn headers_cannot_instruct_the_bus_or_forge_a_cause() {
        for (name, value) in [
            ("Nats-Rollup", "all"),
            ("nats-ttl", "1s"),
            ("Nats-Msg-Id", "x"),
            ("Cofferdam-Cause", "o.1"),
            ("", "x"),
            ("a b", "x"),
            ("a:b", "x"),
            ("a", "x\r\nNats-Rollup: all"),
        ] {
            let status = publish("a", &[(name, value)]).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{name:?}");
        }
        assert!(publish("a", &[("Nats-TTL", "1s"), ("traceparent", "00-a"), ("traceparent", "")]).is_ok());
    }

    #[test]
    fn a_wildcard_at_the_front_leaves_out_bookkeeping() {
        for hidden in ["cd.c.o.0.1", "$JS.API.INFO", "_INBOX.x"] {
            assert!(is_hidden(">", hidden) && is_hidden("*.>", hidden), "{hidden}");
        }
        assert!(!is_hidden("cd.>", "cd.j.x") && !is_hidden("cd.j.*", "cd.j.x"));
        assert!(!is_hidden(">", "cofferdam-advisory.p.done") && !is_hidden(">", "a.b"));
    }
}
