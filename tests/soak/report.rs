//! The document that the soak prints.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::windows::Windows;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) bus: &'static str,
    pub(crate) hosts: usize,
    /// Of the NATS cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nodes: Option<usize>,
    pub(crate) events: u64,
    pub(crate) kills: u64,
    /// Faults by kind, kills among them.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) reruns: u64,
    pub(crate) lost: u64,
    pub(crate) repeated_effects: u64,
    /// Of keys and within events.
    pub(crate) misordered: u64,
    /// Sent again after the answer had been recorded, or with two keys.
    pub(crate) once_calls_repeated: u64,
    /// Sent again because nothing had been recorded.
    pub(crate) once_calls_resent: u64,
    pub(crate) windows: Windows,
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    /// Why this is no success; empty if it is.
    pub(crate) failed: Vec<String>,
}
