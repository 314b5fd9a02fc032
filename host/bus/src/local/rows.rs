//! The rows of the tables, as they are encoded. Fields may be added; a number is never given to another.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use super::{
    fault::Fault,
    tables::{DurableId, StreamId},
};
use crate::api::{Message, Stored};

/// A stream as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StreamRow {
    #[prost(uint32, tag = "1")]
    pub(super) id: StreamId,
    #[prost(string, repeated, tag = "2")]
    pub(super) subjects: Vec<String>,
    /// Nanoseconds since the epoch.
    #[prost(uint64, tag = "3")]
    pub(super) created: u64,
    /// Nanoseconds.
    #[prost(uint64, optional, tag = "4")]
    pub(super) max_age: Option<u64>,
    #[prost(uint64, optional, tag = "5")]
    pub(super) max_messages: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    pub(super) max_bytes: Option<u64>,
    /// Nanoseconds.
    #[prost(uint64, tag = "7")]
    pub(super) duplicate_window: u64,
    /// One message for each subject, and messages may carry a time to live.
    #[prost(bool, tag = "8")]
    pub(super) ours: bool,
    #[prost(uint64, tag = "9")]
    pub(super) first: u64,
    #[prost(uint64, tag = "10")]
    pub(super) last: u64,
    #[prost(uint64, tag = "11")]
    pub(super) count: u64,
    #[prost(uint64, tag = "12")]
    pub(super) bytes: u64,
}

/// A durable as it is stored: its settings, and how far it is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DurableRow {
    #[prost(uint32, tag = "1")]
    pub(super) id: DurableId,
    #[prost(string, tag = "2")]
    pub(super) filter: String,
    /// Nanoseconds.
    #[prost(uint64, tag = "3")]
    pub(super) ack_wait: u64,
    #[prost(uint32, optional, tag = "4")]
    pub(super) max_deliver: Option<u32>,
    #[prost(uint32, tag = "5")]
    pub(super) max_ack_pending: u32,
    /// Nanoseconds since the epoch.
    #[prost(uint64, tag = "6")]
    pub(super) created: u64,
    /// All up to here is settled.
    #[prost(uint64, tag = "7")]
    pub(super) floor: u64,
    /// Nothing from here on has been delivered.
    #[prost(uint64, tag = "8")]
    pub(super) next: u64,
    /// Wanted, from there on.
    #[prost(uint64, optional, tag = "9")]
    pub(super) waiting: Option<u64>,
    #[prost(bool, tag = "10")]
    pub(super) ordered: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MessageRow {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderRow>,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
    #[prost(uint64, tag = "4")]
    timestamp: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeaderRow {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// A cell: its state, and how often it changed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CellRow {
    #[prost(uint64, tag = "1")]
    pub(super) revision: u64,
    #[prost(btree_map = "string, bytes", tag = "2")]
    pub(super) entries: BTreeMap<String, Bytes>,
}

/// A key of a bucket; without a value it was deleted.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyRow {
    #[prost(uint64, tag = "1")]
    pub(super) revision: u64,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) value: Option<Bytes>,
}

pub(super) fn message_row(message: &Message, timestamp: u64) -> Vec<u8> {
    let Message { subject, headers, data } = message;
    let headers = headers.iter().map(|(name, value)| HeaderRow { name: name.clone(), value: value.clone() });
    let row =
        MessageRow { subject: subject.clone(), headers: headers.collect(), data: data.clone(), timestamp };
    row.encode_to_vec()
}

pub(super) fn stored(sequence: u64, row: &[u8]) -> Result<Stored, Fault> {
    let row = MessageRow::decode(row)?;
    let headers = row.headers.into_iter().map(|h| (h.name, h.value)).collect();
    let message = Message { subject: row.subject, headers, data: row.data };
    Ok(Stored { message, sequence, timestamp: row.timestamp })
}
