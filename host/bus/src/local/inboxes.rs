//! Messages of inboxes are kept for a day, as on NATS, and then go if they are settled. No transaction needs them longer: they
//! are there for people who look for what became of an event.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    durable::Durable,
    fault::Fault,
    state::Now,
    stream::{Stream, nanos},
    tables::Tables,
};
use crate::ahead::weight;

/// Durables of inboxes are called so, and their subjects.
const DURABLE: &str = "cofferdam-inbox-";
const SUBJECTS: &str = "cd.in.";
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Messages looked at in one group, with so many bytes, and how long the next look waits.
const LOOKS: usize = 4096;
const LOOKS_BYTES: usize = 8 * 1024 * 1024;
const PAUSE: Duration = Duration::from_secs(10);
/// Once all were looked at.
const REST: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Default)]
pub(super) struct Inboxes {
    /// Where the next look begins.
    from: u64,
    next: Option<Instant>,
}

impl Inboxes {
    /// What is old and settled goes from our stream.
    pub(super) fn forget<'d>(
        &mut self,
        tables: &mut Tables<'_>,
        ours: &mut Stream,
        durables: impl Iterator<Item = &'d Durable>,
        now: Now,
    ) -> Result<(), Fault> {
        if self.next.is_some_and(|next| now.steady < next) {
            return Ok(());
        }
        let is_inbox = |d: &&Durable| {
            d.stream() == ours.id()
                && d.origin.durable.starts_with(DURABLE)
                && d.origin.filter.starts_with(SUBJECTS)
        };
        let inboxes: Vec<&Durable> = durables.filter(is_inbox).collect();
        let old = now.wall.saturating_sub(nanos(KEPT));
        let mut bytes = 0;
        for _ in 0..if inboxes.is_empty() { 0 } else { LOOKS } {
            if bytes >= LOOKS_BYTES {
                break;
            }
            match ours.message_from(tables, self.from)?.filter(|stored| stored.timestamp <= old) {
                Some(stored) => {
                    self.from = stored.sequence + 1;
                    bytes += weight(&stored.message);
                    if inboxes.iter().any(|d| d.wants(&stored) && d.is_settled(stored.sequence)) {
                        ours.delete(tables, stored.sequence)?;
                    }
                }
                None => {
                    (self.from, self.next) = (0, Some(now.steady + REST));
                    return Ok(());
                }
            }
        }
        self.next = Some(now.steady + PAUSE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use redb::{Database, backends::InMemoryBackend};
    use tokio::sync::oneshot;

    use super::{
        super::{
            op::{Op, Settle, Store},
            outcome::Outcome,
            state::State,
        },
        *,
    };
    use crate::api::{ConsumerSpec, Message};

    const HOUR: u64 = 60 * 60 * 1_000_000_000;

    fn store(subject: &str) -> Op {
        let message = Message { subject: subject.to_owned(), headers: Vec::new(), data: Bytes::new() };
        Op::Store(Store { message, id: None, expected: None }, oneshot::channel().0)
    }

    #[test]
    fn a_message_of_an_inbox_goes_when_it_is_settled_and_a_day_old() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let begin = Instant::now();
        // Of the messages that are left after a group at this hour, with these operations.
        let group = |state: &mut Option<State>, hour: u64, ops: Vec<Op>| {
            let now = Now {
                wall: 1000 * HOUR + hour * HOUR,
                steady: begin + Duration::from_nanos(hour * HOUR + 1),
            };
            let tx = database.begin_write().unwrap();
            let mut tables = Tables::open(&tx).unwrap();
            let state = state.get_or_insert_with(|| State::load(&mut tables, now).unwrap());
            let mut outcome = Outcome::default();
            for op in ops {
                state.run(&mut tables, op, now, &mut outcome).unwrap();
            }
            state.end_group(&mut tables, now, &mut outcome).unwrap();
            let ours = state.facts().into_iter().find(|f| f.info.name == "COFFERDAM").unwrap().id;
            let mut left = Vec::new();
            let mut from = 0;
            while let Some(stored) = tables.message_from(ours, from).unwrap() {
                from = stored.sequence + 1;
                left.push(stored.message.subject);
            }
            drop(tables);
            tx.commit().unwrap();
            outcome.tell();
            left
        };
        let mut state = None;
        let spec = ConsumerSpec {
            stream: "COFFERDAM".into(),
            durable: "cofferdam-inbox-p".into(),
            filter: "cd.in.p.>".into(),
            ack_wait: Duration::from_secs(30),
            max_deliver: None,
            max_ack_pending: 1,
            ordered: false,
        };
        let (made, mut origin) = oneshot::channel();
        let subjects = ["cd.in.p.1", "cd.in.q.1", "cd.in.p.2", "cd.j.1"];
        let ops = std::iter::once(Op::EnsureDurable(spec, made)).chain(subjects.map(store)).collect();
        assert_eq!(group(&mut state, 0, ops), subjects);
        // The first is taken and acked, the rest waits.
        let origin = origin.try_recv().unwrap().unwrap().id.clone();
        let (arrivals, _arrived) = tokio::sync::mpsc::unbounded_channel();
        let (answer, mut durable) = oneshot::channel();
        group(
            &mut state,
            1,
            vec![Op::Subscribe { origin, subscriber: 1, credit: 1, wanted: None, arrivals, answer }],
        );
        let durable = durable.try_recv().unwrap().unwrap();
        let ack = Op::Settle { durable, sequence: 1, count: 1, how: Settle::Ack };
        assert_eq!(group(&mut state, 2, vec![ack]), subjects);
        assert_eq!(group(&mut state, 23, Vec::new()), subjects, "not a day");
        let left = ["cd.in.q.1", "cd.in.p.2", "cd.j.1"];
        assert_eq!(group(&mut state, 25, Vec::new()), left);
        assert_eq!(group(&mut state, 240, Vec::new()), left, "not settled, or no inbox's");
    }
}
