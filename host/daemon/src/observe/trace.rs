//! W3C trace context: read from an event's headers, carried on to every message and call that the event causes.

use sha2::{Digest, Sha256};

pub const HEADER: &str = "traceparent";

/// The trace that an event belongs to, and the span of its dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    sampled: bool,
}

impl TraceContext {
    /// Continues the trace of the headers, or begins one. Both ids follow from the event's id (and the attempt), so that
    /// a run can be repeated to the letter.
    pub fn of_event(headers: &[(String, String)], event_id: &str, attempt: u32) -> Self {
        let span = Sha256::new().chain_update(event_id).chain_update("#").chain_update(attempt.to_string());
        let span_id = hex(&span.finalize()[..8]);
        let parent = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(HEADER));
        match parent.and_then(|(_, value)| parse(value)) {
            Some((trace_id, sampled)) => Self { trace_id, span_id, sampled },
            None => Self { trace_id: hex(&Sha256::digest(event_id)[..16]), span_id, sampled: true },
        }
    }

    pub fn header(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// `00-<trace id>-<parent id>-<flags>`; anything else begins a new trace, as the standard says.
fn parse(value: &str) -> Option<(String, bool)> {
    let mut parts = value.trim().split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |s: &str, n: usize| {
        s.len() == n && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let zero = |s: &str| s.bytes().all(|b| b == b'0');
    let fine = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && !zero(trace)
        && is_hex(parent, 16)
        && !zero(parent)
        && is_hex(flags, 2);
    fine.then(|| (trace.to_owned(), u8::from_str_radix(flags, 16).is_ok_and(|f| f & 1 == 1)))
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_continued_and_a_bad_one_begun_anew() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::of_event(&[("Traceparent".into(), good.into())], "o.1", 1);
        assert_eq!(context.trace_id, "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(context.span_id, "b7ad6b7169203331");
        for bad in ["", "00-xyz", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"] {
            let context = TraceContext::of_event(&[(HEADER.into(), bad.into())], "o.1", 1);
            assert!(parse(&context.header()).is_some(), "{bad:?}");
        }
    }
}
