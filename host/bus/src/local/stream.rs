//! A stream: what is appended, what goes for age, count or size, and what readers may know of it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    backlog::Happened,
    fault::Fault,
    ids::Ids,
    rows::StreamRow,
    tables::{StreamId, Tables},
};
use crate::{
    api::{Headers, Message, Stored, StreamInfo, StreamSpec},
    error::Error,
    outgoing::{CAUSE, MESSAGE_ID, TTL},
    subject,
};

/// As on a server that was not told otherwise.
const WINDOW: Duration = Duration::from_secs(120);
/// A message with its headers.
pub(super) const MAX_MESSAGE: u64 = 1024 * 1024;
/// What a stored message weighs beside subject, headers and data, when sizes are limited.
const OVERHEAD: u64 = 22;
/// The newest messages are at hand for durables that keep up.
const RECENT: usize = 1024;
const RECENT_BYTES: u64 = 4 * 1024 * 1024;

/// What anybody may know of a stream, as of the last group.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) id: StreamId,
    pub(super) info: Arc<StreamInfo>,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Facts {
    pub(super) fn covers(&self, filter: &str) -> bool {
        self.info.subjects.iter().any(|s| subject::covers(s, filter))
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    info: Arc<StreamInfo>,
    row: StreamRow,
    /// Of the first message, and of the last.
    first_at: u64,
    last_at: u64,
    ids: Ids,
    /// The newest, without gaps.
    recent: VecDeque<Arc<Stored>>,
    recent_bytes: u64,
    /// In this group, not told to the durables yet.
    happened: Vec<Happened>,
    changed: bool,
}

impl Stream {
    pub(super) fn create(
        tables: &mut Tables<'_>,
        spec: &StreamSpec,
        ours: bool,
        now: u64,
    ) -> Result<Stream, Fault> {
        let row = StreamRow {
            id: tables.new_id()?,
            subjects: spec.subjects.clone(),
            created: now,
            max_age: spec.max_age.map(nanos),
            max_messages: spec.max_messages,
            max_bytes: spec.max_bytes,
            duplicate_window: nanos(spec.duplicate_window.unwrap_or(WINDOW)),
            ours,
            first: 1,
            ..StreamRow::default()
        };
        tables.put_stream(&spec.name, &row)?;
        Ok(Stream::new(spec.name.clone(), row))
    }

    fn new(name: String, row: StreamRow) -> Stream {
        let info = StreamInfo {
            name: name.clone(),
            subjects: row.subjects.clone(),
            created: row.created,
            duplicate_window: Duration::from_nanos(row.duplicate_window),
            max_message_size: None,
        };
        Stream {
            name,
            info: Arc::new(info),
            row,
            first_at: 0,
            last_at: 0,
            ids: Ids::default(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            happened: Vec::new(),
            changed: false,
        }
    }

    /// From disk.
    pub(super) fn load(tables: &Tables<'_>, name: String, row: StreamRow, now: u64) -> Result<Stream, Fault> {
        let mut stream = Stream::new(name, row);
        let (id, window) = (stream.row.id, stream.window());
        if let Some(first) = tables.message_from(id, stream.row.first)? {
            stream.first_at = first.timestamp;
        }
        let since = now.saturating_sub(nanos(window));
        let mut within = Vec::new();
        tables.backwards(id, |stored| {
            stream.last_at = stream.last_at.max(stored.timestamp);
            let known = stored.timestamp >= since;
            let headers = &stored.message.headers;
            // What an event caused is stored once without its id.
            if known
                && let Some(id) = header(headers, MESSAGE_ID)
                && header(headers, CAUSE).is_none()
            {
                within.push((id.to_owned(), stored.sequence, stored.timestamp));
            }
            known
        })?;
        for (id, sequence, at) in within.into_iter().rev() {
            stream.ids.remember(&id, sequence, at);
        }
        Ok(stream)
    }

    pub(super) fn id(&self) -> StreamId {
        self.row.id
    }

    pub(super) fn created(&self) -> u64 {
        self.row.created
    }

    pub(super) fn first(&self) -> u64 {
        self.row.first
    }

    fn window(&self) -> Duration {
        self.info.duplicate_window
    }

    pub(super) fn info(&self) -> &StreamInfo {
        &self.info
    }

    pub(super) fn facts(&self) -> Facts {
        Facts { id: self.row.id, info: self.info.clone(), first: self.row.first, last: self.row.last }
    }

    pub(super) fn covers(&self, filter: &str) -> bool {
        self.row.subjects.iter().any(|s| subject::covers(s, filter))
    }

    pub(super) fn overlaps(&self, filters: &[String]) -> bool {
        self.row.subjects.iter().any(|s| filters.iter().any(|f| subject::overlaps(s, f)))
    }

    pub(super) fn row(&self) -> &StreamRow {
        &self.row
    }

    /// What came and went since the last time.
    pub(super) fn happened(&mut self) -> Vec<Happened> {
        std::mem::take(&mut self.happened)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.row.bytes
    }

    /// Where a message with this id is, if it was stored within the window.
    pub(super) fn duplicate(&mut self, id: &str, now: u64) -> Option<u64> {
        let window = self.window();
        self.ids.get(id, now, window)
    }

    /// Whether this stream would take the message.
    pub(super) fn check(&self, message: &Message) -> Result<(), Error> {
        let Some(ttl) = header(&message.headers, TTL) else { return Ok(()) };
        let refuse = |why: String| Err(Error::Refused(why));
        if !self.row.ours {
            return refuse(format!(
                "stream {:?} keeps messages by its own limits; {TTL} can't be set for {:?}",
                self.name, message.subject
            ));
        }
        match parse_ttl(ttl) {
            Some(_) => Ok(()),
            None => {
                refuse(format!("{TTL} is {ttl:?}; write seconds such as \"60s\", at least one, or \"never\""))
            }
        }
    }

    /// Stores a message that was checked. `id` is remembered if others may send it again.
    pub(super) fn append(
        &mut self,
        tables: &mut Tables<'_>,
        message: Message,
        id: Option<&str>,
        now: u64,
    ) -> Result<Arc<Stored>, Fault> {
        let stream = self.row.id;
        let before = if self.row.ours { tables.last_of(stream, &message.subject)? } else { None };
        // Readers search by time.
        let timestamp = now.max(self.last_at);
        let stored = Arc::new(Stored { message, sequence: self.row.last + 1, timestamp });
        tables.put_message(stream, &stored, expiry(&stored))?;
        if self.row.count == 0 {
            self.row.first = stored.sequence;
            self.first_at = timestamp;
        }
        self.row.last = stored.sequence;
        self.row.count += 1;
        self.row.bytes += size(&stored);
        self.last_at = timestamp;
        self.changed = true;
        if let Some(id) = id {
            self.ids.remember(id, stored.sequence, timestamp);
        }
        self.keep_at_hand(&stored);
        self.happened.push(Happened::Stored(stored.clone()));
        if let Some(before) = before {
            self.remove(tables, before)?;
        }
        self.shrink(tables)?;
        Ok(stored)
    }

    fn keep_at_hand(&mut self, stored: &Arc<Stored>) {
        self.recent_bytes += size(stored);
        self.recent.push_back(stored.clone());
        while self.recent.len() > RECENT || self.recent_bytes > RECENT_BYTES {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= size(&oldest);
        }
    }

    /// What is over the limits of count and size goes, oldest first.
    fn shrink(&mut self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        let most = self.row.max_messages.unwrap_or(u64::MAX);
        let bytes = self.row.max_bytes.unwrap_or(u64::MAX);
        while self.row.count > most || self.row.bytes > bytes {
            self.take_out(tables, self.row.first, true)?;
        }
        Ok(())
    }

    /// What is too old goes, at most `most` at a time.
    pub(super) fn expire(&mut self, tables: &mut Tables<'_>, now: u64, most: usize) -> Result<(), Fault> {
        let window = self.window();
        self.ids.forget(now, window);
        for _ in 0..most {
            if self.ends().is_some_and(|at| at <= now) {
                self.take_out(tables, self.row.first, true)?;
                continue;
            }
            match if self.row.ours { tables.next_expiry(self.row.id)? } else { None } {
                Some((at, sequence)) if at <= now => {
                    tables.delete_expiry(self.row.id, at, sequence)?;
                    self.remove(tables, sequence)?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// When the first message is too old.
    fn ends(&self) -> Option<u64> {
        self.row.max_age.filter(|_| self.row.count > 0).map(|age| self.first_at.saturating_add(age))
    }

    /// When [`expire`](Self::expire) has something to do again.
    pub(super) fn next_expiry(&self, tables: &Tables<'_>) -> Result<Option<u64>, Fault> {
        let single = if self.row.ours { tables.next_expiry(self.row.id)?.map(|(at, _)| at) } else { None };
        Ok(self.ends().into_iter().chain(single).min())
    }

    /// Deletes one message, wherever it is; tells whether it was there.
    pub(super) fn delete(&mut self, tables: &mut Tables<'_>, sequence: u64) -> Result<bool, Fault> {
        let Some(subject) = tables.subject_of(self.row.id, sequence)? else { return Ok(false) };
        let was_last = tables.last_of(self.row.id, &subject)? == Some(sequence);
        self.remove(tables, sequence)?;
        // The one before it is the subject's newest now; what goes for age or size has none before it, nor has any of ours.
        if was_last && !self.row.ours && sequence > self.row.first {
            tables.find_last(self.row.id, &subject, sequence)?;
        }
        Ok(true)
    }

    fn remove(&mut self, tables: &mut Tables<'_>, sequence: u64) -> Result<(), Fault> {
        self.take_out(tables, sequence, false)
    }

    /// `discarded`: the stream's limits want it.
    fn take_out(&mut self, tables: &mut Tables<'_>, sequence: u64, discarded: bool) -> Result<(), Fault> {
        let removed = tables.delete_message(self.row.id, sequence)?;
        if let Some(removed) = &removed {
            let subject = removed.message.subject.clone();
            self.happened.push(Happened::Gone { sequence, subject, discarded });
            self.row.count -= 1;
            self.row.bytes -= size(removed);
            self.changed = true;
            if let Some(at) = expiry(removed) {
                tables.delete_expiry(self.row.id, at, sequence)?;
            }
            // Gaps: not at hand any more, but on disk.
            if let Some(oldest) = self.recent.front()
                && sequence >= oldest.sequence
            {
                let gone = usize::try_from(sequence - oldest.sequence).unwrap_or(usize::MAX);
                for stored in self.recent.drain(..=gone.min(self.recent.len() - 1)) {
                    self.recent_bytes -= size(&stored);
                }
            }
        }
        if sequence == self.row.first {
            self.changed = true;
            match tables.message_from(self.row.id, sequence + 1)? {
                Some(first) => (self.row.first, self.first_at) = (first.sequence, first.timestamp),
                None => (self.row.first, self.row.count, self.row.bytes) = (self.row.last + 1, 0, 0),
            }
        }
        Ok(())
    }

    /// The first message from `sequence` on.
    pub(super) fn message_from(
        &self,
        tables: &Tables<'_>,
        sequence: u64,
    ) -> Result<Option<Arc<Stored>>, Fault> {
        if sequence > self.row.last {
            return Ok(None);
        }
        let at_hand = self.recent.front().and_then(|oldest| sequence.checked_sub(oldest.sequence));
        match at_hand.and_then(|at| self.recent.get(usize::try_from(at).ok()?)) {
            Some(stored) => Ok(Some(stored.clone())),
            None => Ok(tables.message_from(self.row.id, sequence.max(self.row.first))?.map(Arc::new)),
        }
    }

    /// Writes what this group changed.
    pub(super) fn save(&mut self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        match std::mem::take(&mut self.changed) {
            true => tables.put_stream(&self.name, &self.row),
            false => Ok(()),
        }
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn header<'h>(headers: &'h Headers, name: &str) -> Option<&'h str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn size(stored: &Stored) -> u64 {
    let message = &stored.message;
    let headers = crate::outgoing::weight(&message.headers);
    message.subject.len() as u64 + headers + message.data.len() as u64 + OVERHEAD
}

/// When its time to live ends.
fn expiry(stored: &Stored) -> Option<u64> {
    let ttl = header(&stored.message.headers, TTL).and_then(parse_ttl).flatten()?;
    Some(stored.timestamp.saturating_add(nanos(ttl)))
}

/// `"90s"`, `"90"`, `"5m"`, `"2h"`; `Some(None)` for `"never"`.
fn parse_ttl(text: &str) -> Option<Option<Duration>> {
    if text.eq_ignore_ascii_case("never") {
        return Some(None);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        _ => return None,
    };
    let seconds = digits.parse::<u64>().ok().filter(|n| *n > 0)?.checked_mul(unit)?;
    Some(Some(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_read_as_servers_read_it() {
        let seconds = |n| Some(Some(Duration::from_secs(n)));
        for (text, ttl) in
            [("60s", seconds(60)), ("60", seconds(60)), ("2m", seconds(120)), ("never", Some(None))]
        {
            assert_eq!(parse_ttl(text), ttl, "{text}");
        }
        for bad in ["", "0s", "-1s", "1x", "s", "1.5s"] {
            assert_eq!(parse_ttl(bad), None, "{bad}");
        }
    }
}
