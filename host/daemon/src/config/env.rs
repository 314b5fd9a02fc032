//! The environment variables of the fleet, which override the file.

use std::collections::BTreeMap;

/// The variables that count, by name. Taken once at start, so that tests can bring their own.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// Addresses of upstreams, by the variable that sets them.
pub(super) const UPSTREAMS: [(&str, &str); 3] = [
    ("PLANNING_SERVICE_ADDRESS", "planning"),
    ("CONTEXT_SERVICE_ADDRESS", "context"),
    ("RAY_EXECUTOR_ADDRESS", "ray"),
];

impl Environment {
    pub fn of_process() -> Self {
        Self(std::env::vars().collect())
    }

    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        Self(variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// An empty variable counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

/// `host:port` as the fleet writes it, or a URL.
pub(super) fn as_url(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}
