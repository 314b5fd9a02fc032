//! How far a durable is behind: what came into its stream and went out of it without having been delivered is counted as
//! it happens.

use std::{sync::Arc, time::Duration};

use super::{durable::Durable, fault::Fault, stream::Stream, tables::Tables};
use crate::{
    api::Stored,
    backlog::{Backlog, Discarded, Holding, Oldest},
};

/// Messages looked at for the oldest that waits; the durable's own cursor passes over the rest with time.
const LOOKS: usize = 4096;

/// What happened to a stream's messages in one group, for the durables that count.
#[derive(Debug)]
pub(super) enum Happened {
    Stored(Arc<Stored>),
    Gone {
        sequence: u64,
        subject: String,
        /// By the stream's limits, not by somebody's wish.
        discarded: bool,
    },
}

/// What a durable has still to deliver, and what it never will.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// Wanted, and never delivered.
    pub(super) waiting: u64,
    /// Since the bus was opened.
    pub(super) discarded: u64,
}

pub(super) fn measure(tables: &Tables<'_>, stream: &Stream, durable: &Durable) -> Result<Backlog, Fault> {
    let row = stream.row();
    let holding = Holding {
        first: row.first,
        last: row.last,
        messages: row.count,
        bytes: row.bytes,
        max_messages: row.max_messages,
        max_bytes: row.max_bytes,
        max_age: row.max_age.map(Duration::from_nanos),
        refuses_new: false,
    };
    let Counts { waiting, discarded } = durable.counts();
    Ok(Backlog {
        waiting,
        outstanding: durable.outstanding(),
        ack_floor: durable.floor(),
        oldest: if waiting + durable.outstanding() == 0 { None } else { oldest(tables, stream, durable)? },
        discarded: Discarded { known: discarded, unseen: 0 },
        stream: holding,
    })
}

fn oldest(tables: &Tables<'_>, stream: &Stream, durable: &Durable) -> Result<Option<Oldest>, Fault> {
    let mut from = durable.floor() + 1;
    let mut oldest = None;
    for _ in 0..LOOKS {
        let Some(stored) = stream.message_from(tables, from)? else { return Ok(None) };
        oldest = Some(Oldest { sequence: stored.sequence, timestamp: stored.timestamp });
        if durable.wants(&stored) && !durable.is_settled(stored.sequence) {
            break;
        }
        from = stored.sequence + 1;
    }
    Ok(oldest)
}
