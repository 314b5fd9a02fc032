//! Messages that go by themselves, by their `Nats-TTL`: how long one that is missing was not there.

use std::time::Duration;

use crate::{api::Message, outgoing::TTL};

/// How long after its commit a message is there for sure, if it was stored; `None`: for as long as its stream keeps it.
/// What can't be read the server does not take either.
pub(super) fn certain(message: &Message) -> Option<Duration> {
    let ttl = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(TTL)).map(|(_, ttl)| ttl)?;
    if ttl.eq_ignore_ascii_case("never") {
        return None;
    }
    let ttl = duration(ttl).unwrap_or_default();
    // For clocks that disagree, and for the time that a look takes.
    Some(ttl.saturating_sub((ttl / 8).clamp(Duration::from_secs(2), Duration::from_secs(60))))
}

/// Seconds, or as Go writes durations.
fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, unit) = rest.split_at(digits);
        let letters = unit.len() - unit.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.').len();
        let (unit, behind) = unit.split_at(letters);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = behind;
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_message_is_trusted_to_be_there_until_shortly_before_it_goes() {
        let of = |ttl: &str| {
            let headers = vec![("nats-ttl".to_owned(), ttl.to_owned())];
            certain(&Message { subject: "s".into(), headers, data: Bytes::new() })
        };
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(of("604800s"), seconds(604_740));
        assert_eq!((of("80"), of("1m20s"), of("1h")), (seconds(70), seconds(70), seconds(3540)));
        assert_eq!((of("1s"), of("1500ms"), of("soon")), (seconds(0), seconds(0), seconds(0)));
        assert_eq!(of("never"), None);
        assert_eq!(certain(&Message { subject: "s".into(), headers: Vec::new(), data: Bytes::new() }), None);
    }
}
