//! The document that this soak prints.

use serde::Serialize;

use super::{aim::Windows, verdict::Verdict};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) jobs: u64,
    pub(crate) workers: usize,
    /// Of each worker, while it held leases.
    pub(crate) kills: Vec<u64>,
    /// Jobs whose request, or whose end, was under way as their worker was killed.
    pub(crate) held: u64,
    pub(crate) windows: Windows,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    /// Why this is no success; empty if it is.
    pub(crate) failed: Vec<String>,
}
