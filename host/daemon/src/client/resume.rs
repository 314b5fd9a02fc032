//! How far a read has come, so that it can go on after a lost connection: without a gap, and without showing anything
//! twice.

use std::collections::BTreeMap;

use fleet_proto::bus::v1::{ReadRequest, StoredMessage, read_request::Start};

/// A read of one subject.
#[derive(Debug)]
pub(super) struct Progress {
    subject: String,
    start: Option<Start>,
    follow: bool,
    /// The newest sequence that was shown, by stream.
    seen: BTreeMap<String, u64>,
    /// Whether the place can't be said in one number: the subject is stored by several streams.
    several: bool,
    begun: bool,
}

const LAST: Option<Start> = Some(Start::Last(true));

impl Progress {
    pub(super) fn new(subject: String, start: Option<Start>, follow: bool) -> Progress {
        Progress { subject, start, follow, seen: BTreeMap::new(), several: false, begun: false }
    }

    /// What to ask for now.
    pub(super) fn request(&self) -> ReadRequest {
        let mut streams = self.seen.values();
        let start = match (streams.next(), streams.next()) {
            (Some(last), None) if !self.several => Some(Start::Sequence(last + 1)),
            // There was no last one: whatever there is by now came later.
            (None, _) if self.begun && self.start == LAST => None,
            _ => self.start,
        };
        let limit = u64::from(self.start == LAST && !self.follow);
        ReadRequest { subject: self.subject.clone(), follow: self.follow, limit, start }
    }

    /// The daemon has taken the request.
    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    /// Whether a refused request can be put in another way: from the beginning, leaving out what was shown.
    pub(super) fn widen(&mut self) -> bool {
        !self.seen.is_empty() && !std::mem::replace(&mut self.several, true)
    }

    /// Whether the message is new; it counts as shown then.
    pub(super) fn advance(&mut self, stored: &StoredMessage) -> bool {
        match self.seen.get_mut(&stored.stream) {
            Some(last) if *last >= stored.sequence => false,
            Some(last) => {
                *last = stored.sequence;
                true
            }
            None => {
                self.seen.insert(stored.stream.clone(), stored.sequence);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(stream: &str, sequence: u64) -> StoredMessage {
        StoredMessage { stream: stream.to_owned(), sequence, ..StoredMessage::default() }
    }

    #[test]
    fn a_read_of_one_stream_goes_on_after_the_last() {
        let mut progress = Progress::new("a.>".to_owned(), None, true);
        assert_eq!(progress.request().start, None);
        assert!(progress.advance(&stored("A", 4)) && progress.advance(&stored("A", 9)));
        assert!(!progress.advance(&stored("A", 9)) && !progress.advance(&stored("A", 4)));
        assert_eq!(progress.request().start, Some(Start::Sequence(10)));
    }

    #[test]
    fn a_read_of_several_streams_begins_anew_and_leaves_out_what_was_shown() {
        let mut progress = Progress::new(">".to_owned(), None, true);
        assert!(!progress.widen(), "nothing was shown: the request was wrong from the start");
        progress.advance(&stored("A", 4));
        assert!(progress.widen(), "the other streams showed nothing yet");
        assert_eq!(progress.request().start, None);
        assert!(progress.advance(&stored("B", 1)) && !progress.advance(&stored("A", 4)));
        assert_eq!(progress.request().start, None);
        assert!(!progress.widen());
    }

    #[test]
    fn the_last_is_found_once() {
        let mut progress = Progress::new("a".to_owned(), Some(Start::Last(true)), true);
        assert_eq!(progress.request().start, Some(Start::Last(true)));
        assert_eq!(progress.request().limit, 0);
        progress.begin();
        assert_eq!(progress.request().start, None, "there was none");
        progress.advance(&stored("A", 4));
        assert_eq!(progress.request().start, Some(Start::Sequence(5)));
        let one = Progress::new("a".to_owned(), Some(Start::Last(true)), false);
        assert_eq!(one.request().limit, 1);
    }
}
