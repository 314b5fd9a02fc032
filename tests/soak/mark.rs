//! The mark that every effect carries: which event it is of, which run of it, which effect.

/// When something was seen, in nanoseconds since the epoch, by this machine's clock.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    u64::try_from(since.as_nanos()).expect("a time in this age")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Slot {
    First,
    Second,
    Job,
    /// By a timer.
    Later,
}

impl Slot {
    /// What every event has that is done.
    pub(crate) const ALL: [Slot; 3] = [Slot::First, Slot::Second, Slot::Job];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    /// The event's sequence in its stream.
    pub(crate) event: u64,
    /// The number of the call of the run that made it.
    pub(crate) run: u64,
    pub(crate) slot: Slot,
}

impl Mark {
    /// `7-1-first`
    pub(crate) fn parse(text: &str) -> Option<Mark> {
        let mut words = text.split('-');
        let event = words.next()?.parse().ok()?;
        let run = words.next()?.parse().ok()?;
        let slot = match words.next()? {
            "first" => Slot::First,
            "second" => Slot::Second,
            "job" => Slot::Job,
            "later" => Slot::Later,
            _ => return None,
        };
        words.next().is_none().then_some(Mark { event, run, slot })
    }

    /// The first that stands in `data` after `"<name>":"`, wherever that is.
    pub(crate) fn find(data: &[u8], name: &str) -> Option<Mark> {
        let key = format!("\"{name}\":\"");
        let at = data.windows(key.len()).position(|window| window == key.as_bytes())? + key.len();
        let end = at + data[at..].iter().position(|b| *b == b'"')?;
        Mark::parse(std::str::from_utf8(&data[at..end]).ok()?)
    }
}
