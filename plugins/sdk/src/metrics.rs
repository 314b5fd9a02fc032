//! Metrics that the manifest declares, served under their exact names. They count once the event is
//! settled, as done or as a dead letter: a run that is repeated does not.

use crate::sys;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// The manifest does not declare this metric, or with another kind or other labels.
    #[error("undeclared: {0}")]
    Undeclared(String),
}

/// Adds one to a counter.
pub fn count(name: &str, labels: &[(&str, &str)]) -> Result<(), MetricError> {
    add(name, labels, 1)
}

/// Adds to a counter.
pub fn add(name: &str, labels: &[(&str, &str)], delta: u64) -> Result<(), MetricError> {
    sys::count(name, labels, delta)
}

/// Observes a value of a histogram.
pub fn observe(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), MetricError> {
    sys::observe(name, labels, value)
}

/// Sets a gauge: a number that tells how things are, such as how many wait. Of several values of one series in one run the last
/// counts, and it counts when the run's effects do: a run that fails leaves the gauge as it was.
///
/// Every host tells the value of the last event that it settled itself.
pub fn set(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), MetricError> {
    sys::set(name, labels, value)
}
