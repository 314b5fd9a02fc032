//! What the operator sees: log lines, metrics, traces, advisories.

pub mod advisory;
pub mod backlog;
mod endpoints;
pub mod executor;
pub mod logs;
pub mod metrics;
pub mod text;
pub mod trace;
