//! Publishing, now and later: messages are checked when they are emitted or scheduled; what was emitted is stored, and what
//! was scheduled is set, when the event commits.

use bytes::Bytes;
use cofferdam_bus::{Message, Timer, subject};
use cofferdam_sandbox::{EmitError, Pairs, Scheduled};

use super::Run;
use crate::{
    fault::Fault,
    grants::Kind,
    observe::{text, trace},
};

/// Commits, state and jobs: whatever is granted, a guest does not forge these.
const OURS: &str = "cd.";
/// Of one event, what it takes back among them: more is a loop, not a plan.
const MAX_MESSAGES: usize = 1_000;
/// Of a timer's id: a plugin's name, an event's id and a number have room in it.
const MAX_TIMER_ID: usize = 256;
/// Of such an id: the event's has two.
const TOKENS: usize = 4;

/// What an event does to timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    pub(super) set: Vec<Timer>,
    /// Those of other events, once each.
    pub(super) cancelled: Vec<String>,
    /// How many this event has set so far, with those that it took back: an id is given once.
    given: usize,
}

impl Run {
    pub(super) async fn emit(
        &mut self,
        subject: String,
        headers: Pairs,
        data: Bytes,
    ) -> Result<String, EmitError> {
        self.publishable(&subject, &headers, &data).await?;
        self.outgoing += 1;
        Ok(self.effect(subject, headers, data))
    }

    pub(super) async fn schedule(&mut self, scheduled: Scheduled) -> Result<String, EmitError> {
        let Scheduled { at, subject, headers, data } = scheduled;
        self.publishable(&subject, &headers, &data).await?;
        let id = format!("{}{}", self.own_timers(), self.timers.given);
        let timer = Timer { id: id.clone(), at, message: self.message(subject, headers, data) };
        self.outgoing += 1;
        self.timers.given += 1;
        self.message_bytes += timer_weight(&timer);
        self.timers.set.push(timer);
        Ok(id)
    }

    pub(super) fn cancel(&mut self, id: &str) -> Result<(), EmitError> {
        self.may_have_effects().map_err(EmitError::Denied)?;
        check_timer(&self.plugin.name, id)?;
        // One of this event is not set yet, so there is nothing to take back at the bus.
        if id.starts_with(&self.own_timers()) {
            if let Some(at) = self.timers.set.iter().position(|timer| timer.id == id) {
                self.message_bytes -= timer_weight(&self.timers.set.remove(at));
                self.outgoing -= 1;
            }
            return Ok(());
        }
        if !self.timers.cancelled.iter().any(|other| other == id) {
            let size = cancel_weight(id);
            self.fits("a cancellation", size)?;
            self.outgoing += 1;
            self.message_bytes += size;
            self.timers.cancelled.push(id.to_owned());
        }
        Ok(())
    }

    /// What the ids of this event's timers begin with.
    fn own_timers(&self) -> String {
        format!("{}.{}.", self.plugin.name, self.occasion.event_id)
    }

    /// May this be published, now or later?
    async fn publishable(&mut self, subject: &str, headers: &Pairs, data: &Bytes) -> Result<(), EmitError> {
        self.may_have_effects().map_err(EmitError::Denied)?;
        if subject::check(subject).is_err() {
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
        self.granted(Kind::Publish, subject).map_err(|denial| EmitError::Denied(denial.to_string()))?;
        self.fits("a message", weight(headers, data))?;
        match self.services.bus.stores(subject).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.blame = Some(Fault::Operator);
                Err(EmitError::NoStream(format!("no stream stores {subject:?}; create one that covers it")))
            }
            Err(error) => {
                self.blame = Some(Fault::Host);
                Err(EmitError::Unavailable(error.to_string()))
            }
        }
    }

    /// Is there room for one more, of this size?
    fn fits(&self, what: &str, size: usize) -> Result<(), EmitError> {
        let room = self.room();
        if size > room {
            return Err(EmitError::TooLarge(format!(
                "{what} of {size} bytes, and this event's commit has room for {room} more: its messages, timers, jobs \
                 and state are stored as one"
            )));
        }
        if self.outgoing >= MAX_MESSAGES {
            return Err(EmitError::Limit(format!(
                "this event has published, scheduled and cancelled {MAX_MESSAGES} messages, the limit"
            )));
        }
        Ok(())
    }

    /// Adds a message to the effects; returns its id.
    pub(super) fn effect(&mut self, subject: String, headers: Pairs, data: Bytes) -> String {
        let id = format!("{}.{}", self.occasion.event_id, self.messages.len());
        let message = self.message(subject, headers, data);
        self.message_bytes += message_weight(&message);
        self.messages.push(message);
        id
    }

    /// With what the host adds to it.
    fn message(&self, subject: String, mut headers: Pairs, data: Bytes) -> Message {
        headers.push(("Cofferdam-Plugin".into(), self.plugin.name.clone()));
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(trace::HEADER)) {
            headers.push((trace::HEADER.into(), self.occasion.trace.header()));
        }
        Message { subject, headers, data }
    }
}

/// Is it the id of a timer that this plugin can have set?
fn check_timer(plugin: &str, id: &str) -> Result<(), EmitError> {
    let shown = || text::excerpt(id, MAX_TIMER_ID);
    if !id.strip_prefix(plugin).is_some_and(|rest| rest.starts_with('.')) {
        return Err(EmitError::Denied(format!(
            "the timer {:?} is not plugin {plugin:?}'s own; the ids of its own begin with \"{plugin}.\"",
            shown()
        )));
    }
    // Longer ones are the host's, which bring failed events again: nobody takes those back.
    if id.len() > MAX_TIMER_ID
        || !id.split('.').all(subject::is_plain_token)
        || id.split('.').count() > TOKENS
    {
        return Err(EmitError::InvalidSubject(format!(
            "{:?} is not the id of a timer; pass on what `schedule` returned",
            shown()
        )));
    }
    Ok(())
}

/// What a message weighs, with what the host adds to it.
fn weight(headers: &Pairs, data: &Bytes) -> usize {
    const ADDED: usize = 512;
    data.len() + headers.iter().map(|(k, v)| k.len() + v.len() + 4).sum::<usize>() + ADDED
}

fn message_weight(message: &Message) -> usize {
    weight(&message.headers, &message.data) + message.subject.len()
}

fn timer_weight(timer: &Timer) -> usize {
    message_weight(&timer.message) + timer.id.len()
}

/// In a commit, with what is around it.
fn cancel_weight(id: &str) -> usize {
    const AROUND: usize = 64;
    id.len() + AROUND
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
    fn a_plugin_knows_its_own_timers_by_their_name() {
        assert_eq!(check_timer("p", "p.0123.7.0"), Ok(()));
        for foreign in ["", "p", "q.0123.7.0", "p-2.0123.7.0", "P.0123.7.0", ".p.0"] {
            let Err(EmitError::Denied(why)) = check_timer("p", foreign) else { panic!("{foreign:?}") };
            assert!(why.contains(&format!("{foreign:?}")) && why.contains("begin with \"p.\""), "{why}");
        }
        let long = format!("p.{}", "0".repeat(MAX_TIMER_ID));
        for wrong in
            ["p.0123.7.retry.0.2", "p.", "p..0", "p.*", "p.>", "p.a b", "p.ä", "p.a\n", long.as_str()]
        {
            assert!(matches!(check_timer("p", wrong), Err(EmitError::InvalidSubject(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_header_cannot_smuggle_another() {
        assert!(is_header("X-A", "b"));
        for (name, value) in [("", "b"), ("X A", "b"), ("X:A", "b"), ("X", "b\r\nNats-Msg-Id: c")] {
            assert!(!is_header(name, value), "{name:?} {value:?}");
        }
    }
}
