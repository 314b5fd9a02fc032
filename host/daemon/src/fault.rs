//! Whose fault something was: a field of the outcome, of the log line and of the metric.

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Guest,
    Host,
    Upstream,
    /// Config: a grant, a stream, an address.
    Operator,
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::Guest => "guest",
            Fault::Host => "host",
            Fault::Upstream => "upstream",
            Fault::Operator => "operator",
        }
    }
}
