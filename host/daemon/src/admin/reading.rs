//! Reading stored messages for a caller: which streams, from where, and one order out of several.

use std::sync::Arc;

use cofferdam_bus::{Bus, Reader, Start, StreamInfo, subject};
use fleet_proto::bus::v1::{ReadRequest, StoredMessage, read_request};
use prost_types::Timestamp;
use tokio::sync::mpsc;
use tonic::Status;

use super::{
    rules, status,
    way_in::{AHEAD, outward},
};

const SECOND: u64 = 1_000_000_000;

/// Begins to read; what is read comes through the channel, which is closed at the end.
pub(super) async fn begin(
    bus: &Arc<dyn Bus>,
    request: ReadRequest,
) -> Result<mpsc::Receiver<Result<StoredMessage, Status>>, Status> {
    let filter = request.subject;
    rules::check_filter(&filter)?;
    let streams = storing(&filter, bus.streams().await.map_err(status::of)?);
    if streams.is_empty() {
        return Err(Status::not_found(format!(
            "no stream stores {filter:?}; create one that covers it, or correct the subject"
        )));
    }
    let start = match request.start {
        None | Some(read_request::Start::Last(false)) => Start::Sequence(0),
        Some(read_request::Start::Sequence(sequence)) if streams.len() == 1 => Start::Sequence(sequence),
        Some(read_request::Start::Sequence(sequence)) => {
            return Err(Status::invalid_argument(format!(
                "sequence {sequence} of which stream? {filter:?} is stored by {}; start with a time, or narrow the \
                 subject down to one of them",
                streams.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
            )));
        }
        Some(read_request::Start::Time(time)) => Start::Time(nanos(&time)?),
        Some(read_request::Start::Last(true)) => last(bus, &filter).await?,
    };
    let mut readers = Vec::new();
    for stream in streams {
        let reader = bus.read(&stream, &filter, start).await.map_err(status::of)?;
        readers.push((stream, reader));
    }
    let (out, messages) = mpsc::channel(AHEAD);
    for (stream, reader) in readers {
        let reading = Reading { stream, filter: filter.clone(), follow: request.follow, reader };
        tokio::spawn(reading.pass_on(out.clone()));
    }
    Ok(messages)
}

/// The streams that hold something of the filter, in the order of their names.
fn storing(filter: &str, streams: Vec<StreamInfo>) -> Vec<String> {
    let shows = |stored: &String| subject::overlaps(filter, stored) && !rules::is_hidden(filter, stored);
    streams.into_iter().filter(|stream| stream.subjects.iter().any(shows)).map(|stream| stream.name).collect()
}

/// Where the newest message is. Without one, what comes next will be the first.
async fn last(bus: &Arc<dyn Bus>, subject: &str) -> Result<Start, Status> {
    if subject::check(subject).is_err() {
        return Err(Status::invalid_argument(format!(
            "which is the last of {subject:?}? Name one subject, without wildcards, or start with a time"
        )));
    }
    let last = bus.last(subject).await.map_err(status::of)?;
    Ok(Start::Sequence(last.map_or(0, |stored| stored.sequence)))
}

pub(super) fn nanos(time: &Timestamp) -> Result<u64, Status> {
    let nanos = u64::try_from(time.nanos).ok().filter(|nanos| *nanos < SECOND);
    // Nothing was stored before the epoch.
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    let total = nanos.and_then(|nanos| seconds.checked_mul(SECOND)?.checked_add(nanos));
    total.ok_or_else(|| {
        Status::invalid_argument(format!(
            "the time of {} seconds and {} nanoseconds is none to start with: seconds since 1970, before the year 2554, \
             and 0 to 999999999 nanoseconds",
            time.seconds, time.nanos
        ))
    })
}

pub(super) fn timestamp(nanos: u64) -> Timestamp {
    // Both fit: there are fewer seconds in a u64 of nanoseconds than in an i64.
    let seconds = i64::try_from(nanos / SECOND).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: i32::try_from(nanos % SECOND).unwrap_or(0) }
}

struct Reading {
    stream: String,
    filter: String,
    follow: bool,
    reader: Box<dyn Reader>,
}

impl Reading {
    /// Until the end of what is stored, an error, or the caller's end.
    async fn pass_on(mut self, out: mpsc::Sender<Result<StoredMessage, Status>>) {
        loop {
            let next = async {
                if self.follow { self.reader.next().await.map(Some) } else { self.reader.stored().await }
            };
            let next = tokio::select! {
                next = next => next,
                () = out.closed() => return,
            };
            let item = match next {
                Ok(None) => return,
                Ok(Some(stored)) if rules::is_hidden(&self.filter, &stored.message.subject) => continue,
                Ok(Some(stored)) => Ok(StoredMessage {
                    message: Some(outward(stored.message)),
                    stream: self.stream.clone(),
                    sequence: stored.sequence,
                    stored_at: Some(timestamp(stored.timestamp)),
                }),
                Err(error) => Err(status::of(error)),
            };
            let over = item.is_err();
            if out.send(item).await.is_err() || over {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stream(name: &str, subjects: &[&str]) -> StreamInfo {
        StreamInfo {
            name: name.to_owned(),
            subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
            created: 0,
            duplicate_window: Duration::ZERO,
            max_message_size: None,
        }
    }

    #[test]
    fn every_stream_that_holds_something_of_the_filter_is_read() {
        let all = || {
            vec![
                stream("A", &["a.>"]),
                stream("B", &["b.*", "a2"]),
                stream("COFFERDAM", &["cd.>"]),
                stream("KV_x", &["$KV.x.>"]),
            ]
        };
        for (filter, expected) in [
            (">", &["A", "B"][..]),
            ("a.b", &["A"]),
            ("*.b", &["A", "B"]),
            ("a2", &["B"]),
            ("cd.j.*", &["COFFERDAM"]),
            ("$KV.x.k", &["KV_x"]),
            ("c", &[]),
        ] {
            assert_eq!(storing(filter, all()), expected, "{filter}");
        }
    }

    #[test]
    fn times_go_both_ways_and_nonsense_is_refused() {
        for ns in [0, 1, SECOND - 1, SECOND, 1_763_727_000_123_456_789, u64::MAX] {
            assert_eq!(nanos(&timestamp(ns)).unwrap(), ns);
        }
        assert_eq!(nanos(&Timestamp { seconds: -7, nanos: 0 }).unwrap(), 0);
        for (seconds, ns) in [(0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert!(nanos(&Timestamp { seconds, nanos: ns }).is_err(), "{seconds} {ns}");
        }
    }
}
