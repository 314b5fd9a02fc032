//! What a test's upstreams answer.

use std::{collections::BTreeMap, rc::Rc};

use prost::Message;

use crate::rpc::{Code, Status};

type Answer = Rc<dyn Fn(&[u8]) -> Result<Vec<u8>, Status>>;

/// Answers by upstream and method. A call that is not scripted is answered as by an upstream that is not there.
#[derive(Clone, Default)]
pub struct Rpc(BTreeMap<(String, String), Answer>);

impl Rpc {
    pub(super) fn set(
        &mut self,
        upstream: &str,
        method: &str,
        answer: impl Fn(&[u8]) -> Result<Vec<u8>, Status> + 'static,
    ) {
        self.0.insert((upstream.into(), method.into()), Rc::new(answer));
    }

    pub(super) fn set_typed<Req: Message + Default, Resp: Message>(
        &mut self,
        upstream: &str,
        method: &str,
        answer: impl Fn(Req) -> Result<Resp, Status> + 'static,
    ) {
        self.set(upstream, method, move |bytes| {
            let request = Req::decode(bytes).map_err(|error| {
                Status::new(Code::Internal, format!("the request can't be decoded: {error}"))
            })?;
            answer(request).map(|response| response.encode_to_vec())
        });
    }

    pub(super) fn answer(&self, upstream: &str, method: &str, request: &[u8]) -> Result<Vec<u8>, Status> {
        match self.0.get(&(upstream.to_owned(), method.to_owned())) {
            Some(answer) => answer(request),
            None => {
                Err(Status::new(Code::Unavailable, format!("the test has no answer for {upstream}/{method}")))
            }
        }
    }
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
