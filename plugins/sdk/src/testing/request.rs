//! A call as a client makes it, for a test to hand to the host.

use prost::Message;

use super::next;
use crate::service::Call;

/// A call, and what the host finds out about it besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub call: Call,
    /// What the field of the request holds that the manifest names as the method's `key`. The host reads it by the service's
    /// descriptors; a test says it. Of a method without `key` it has no meaning.
    pub key: Option<String>,
}

/// A call of `method` (`package.Service/Method`), with an id and a second of its own, and without a key.
pub fn call(method: &str, request: &impl Message) -> Request {
    let (id, timestamp) = next();
    let (method, request) = (method.to_owned(), request.encode_to_vec());
    Request { call: Call { id, method, metadata: Vec::new(), request, timestamp }, key: None }
}

impl Request {
    /// What the request's key is; empty is none, as for the host.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = (!key.is_empty()).then(|| key.to_owned());
        self
    }

    /// More metadata. It is sorted by name, as the host has it.
    #[must_use]
    pub fn metadata(mut self, name: &str, value: &str) -> Self {
        self.call.metadata.push((name.to_ascii_lowercase(), value.to_owned()));
        self.call.metadata.sort_by(|(one, _), (other, _)| one.cmp(other));
        self
    }
}

impl From<Call> for Request {
    fn from(call: Call) -> Self {
        Self { call, key: None }
    }
}
