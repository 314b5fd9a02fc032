//! The host that a test sets up and runs handlers in.

use std::collections::BTreeMap;

use prost::Message;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Cells, Request, Run, Served,
    manifest::Manifest,
    models::Models,
    script::Rpc,
    sys::{self, Current},
};
use crate::{
    Event, Failure,
    executor::{Completion, ExecutorError, Inference, JobStatus},
    publish::EmitError,
    rpc::{Code, Status},
    service,
};

/// An in-memory host. Without a manifest everything is granted, every metric is declared, and the order key is what the
/// test says; with one, both follow from the manifest, as in production with all asks granted.
#[derive(Debug, Clone, Default)]
pub struct Host {
    pub(super) manifest: Option<std::rc::Rc<Manifest>>,
    pub(super) config: BTreeMap<String, Value>,
    pub(super) cells: Cells,
    pub(super) order_key: Option<String>,
    pub(super) attempt: u32,
    pub(super) last_attempt: bool,
    pub(super) rpc: Rpc,
    pub(super) refuse_jobs: Option<ExecutorError>,
    pub(super) job_status: BTreeMap<String, JobStatus>,
    pub(super) models: Models,
    pub(super) refuse_emit: BTreeMap<String, EmitError>,
}

impl Host {
    pub fn new() -> Self {
        Self { attempt: 1, ..Self::default() }
    }

    /// A host that grants what `plugin.toml` asks for, with its config defaults and declared metrics:
    /// `Host::from_manifest(include_str!("../plugin.toml"))`.
    ///
    /// # Panics
    /// If the manifest can't be read.
    pub fn from_manifest(manifest: &str) -> Self {
        match Manifest::read(manifest) {
            Ok(manifest) => Self { manifest: Some(manifest.into()), ..Self::new() },
            #[expect(clippy::panic, reason = "a test without its manifest has failed")]
            Err(reason) => panic!("{reason}"),
        }
    }

    /// What the operator configured.
    #[must_use]
    pub fn config(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }

    /// The order key and cell of every event, for a host without a manifest. So they are for a call without a key of its own.
    #[must_use]
    pub fn order_key(mut self, key: &str) -> Self {
        self.order_key = Some(key.into());
        self
    }

    /// Shares the state space of another plugin's host.
    #[must_use]
    pub fn sharing(mut self, cells: Cells) -> Self {
        self.cells = cells;
        self
    }

    /// Which delivery of the event the next runs are.
    #[must_use]
    pub fn attempt(mut self, attempt: u32, last: bool) -> Self {
        self.attempt = attempt;
        self.last_attempt = last;
        self
    }

    /// Answers a method with prost messages.
    #[must_use]
    pub fn answers<Req: Message + Default, Resp: Message>(
        mut self,
        upstream: &str,
        method: &str,
        answer: impl Fn(Req) -> Result<Resp, Status> + 'static,
    ) -> Self {
        self.rpc.set_typed(upstream, method, answer);
        self
    }

    /// Answers a method with bytes.
    #[must_use]
    pub fn answers_bytes(
        mut self,
        upstream: &str,
        method: &str,
        answer: impl Fn(&[u8]) -> Result<Vec<u8>, Status> + 'static,
    ) -> Self {
        self.rpc.set(upstream, method, answer);
        self
    }

    /// Lets a method fail.
    #[must_use]
    pub fn fails(mut self, upstream: &str, method: &str, code: Code, message: &str) -> Self {
        let status = Status::new(code, message);
        self.rpc.set(upstream, method, move |_| Err(status.clone()));
        self
    }

    /// Lets every `submit` and `cancel` fail; `None` lets them succeed again.
    #[must_use]
    pub fn refuses_jobs(mut self, error: impl Into<Option<ExecutorError>>) -> Self {
        self.refuse_jobs = error.into();
        self
    }

    /// What `status` answers for a job.
    #[must_use]
    pub fn job_status(mut self, job_id: &str, status: JobStatus) -> Self {
        self.job_status.insert(job_id.into(), status);
        self
    }

    /// Answers the next inference that nothing else answers; the last answer so given answers all further ones. As with the
    /// real host, another run of the same event that asks the same gets the answer that it got before.
    #[must_use]
    pub fn completes(self, answer: impl Into<Completion>) -> Self {
        self.models.next(Ok(answer.into()), Vec::new());
        self
    }

    /// The same with an answer that comes in pieces; whoever does not ask for tokens gets it whole.
    #[must_use]
    pub fn completes_in_pieces<'a>(self, pieces: impl IntoIterator<Item = &'a str>) -> Self {
        let pieces: Vec<String> = pieces.into_iter().map(str::to_owned).collect();
        self.models.next(Ok(pieces.concat().as_str().into()), pieces);
        self
    }

    /// The same with a failure of that kind.
    #[must_use]
    pub fn completes_nothing(self, kind: &str, message: &str) -> Self {
        let (kind, message) = (kind.to_owned(), message.to_owned());
        self.models.next(Err(ExecutorError::Failed { kind, message }), Vec::new());
        self
    }

    /// Answers the inferences whose prompt has these words.
    #[must_use]
    pub fn completes_prompt(self, words: &str, answer: impl Into<Completion>) -> Self {
        let (words, answer) = (words.to_owned(), answer.into());
        self.models.by(move |asked| asked.prompt.contains(&words).then(|| Ok(answer.clone())));
        self
    }

    /// Answers inferences as the function has it; it passes over what it answers with nothing.
    #[must_use]
    pub fn completes_with(
        self,
        answer: impl Fn(&Inference) -> Option<Result<Completion, ExecutorError>> + 'static,
    ) -> Self {
        self.models.by(answer);
        self
    }

    /// Lets every publish on a subject fail.
    #[must_use]
    pub fn refuses_publish(mut self, subject: &str, error: EmitError) -> Self {
        self.refuse_emit.insert(subject.into(), error);
        self
    }

    /// The state, which stays over runs.
    pub fn cells(&self) -> Cells {
        self.cells.clone()
    }

    /// A JSON value of a cell.
    pub fn value<T: DeserializeOwned>(&self, cell: &str, key: &str) -> Option<T> {
        serde_json::from_slice(&self.cells.get(cell, key)?).ok()
    }

    /// Puts a JSON value into a cell beforehand.
    pub fn set_value<T: Serialize>(&mut self, cell: &str, key: &str, value: &T) {
        let bytes = serde_json::to_vec(value).unwrap_or_default();
        self.cells.put(cell, key, bytes);
    }

    /// Runs a handler on an event, and keeps its effects and writes if it succeeds.
    ///
    /// # Panics
    /// If a manifest is set and does not subscribe to the event's subject.
    pub fn run(&mut self, handler: impl FnOnce(Event) -> Result<(), Failure>, event: Event) -> Run {
        let place = match &self.manifest {
            Some(manifest) => match manifest.cell(&event) {
                Ok(place) => place,
                #[expect(clippy::panic, reason = "a test with an event that never comes is wrong")]
                Err(reason) => panic!("{reason}"),
            },
            None => self.order_key.clone().map(|key| (key.clone(), key)),
        };
        let stateless = self.manifest.as_ref().is_some_and(|manifest| manifest.commits_by_publish(&event));
        let mut current = Current::new(self.clone(), place, &event.id, event.timestamp);
        current.stateless = stateless;
        self.keep(current, || handler(event), Clone::clone).1
    }

    /// Answers a call, and keeps its effects and writes if the answer is a message. A method that the manifest calls `read` is
    /// denied effects; one that the manifest does not list is answered without the plugin, as by the real host.
    pub fn serve(
        &mut self,
        server: impl FnOnce(service::Call) -> Result<Vec<u8>, service::Status>,
        request: impl Into<Request>,
    ) -> Served {
        let Request { call, key } = request.into();
        let mut reads = false;
        let place = match &self.manifest {
            Some(manifest) => match manifest.method(&call.method) {
                Some(method) => {
                    reads = method.reads();
                    key.and_then(|key| method.cell(key))
                }
                None => {
                    let status = service::Status::new(
                        Code::Unimplemented,
                        format!("[services] of {} does not list {}", manifest.plugin.name, call.method),
                    );
                    let nothing = Run::nothing(Err(Failure::reject(status.to_string())));
                    return Served { answer: Err(status), run: nothing };
                }
            },
            None => key.or_else(|| self.order_key.clone()).map(|key| (key.clone(), key)),
        };
        let mut current = Current::new(self.clone(), place, &call.id, call.timestamp).once();
        current.reads = reads.then(|| call.method.clone());
        let told = |answer: &Result<_, service::Status>| match answer {
            Ok(_) => Ok(()),
            Err(status) => Err(Failure::reject(status.to_string())),
        };
        let (answer, run) = self.keep(current, || server(call), told);
        Served { answer, run }
    }

    /// Runs in `current`, and keeps what was done if the result is good.
    fn keep<R>(
        &mut self,
        current: Current,
        run: impl FnOnce() -> R,
        told: impl FnOnce(&R) -> Result<(), Failure>,
    ) -> (R, Run) {
        let cell = current.own_cell();
        let (result, done) = sys::with(current, run);
        let outcome = told(&result);
        let ok = outcome.is_ok();
        let mut wrote = false;
        if let (true, Some(cell)) = (ok, cell) {
            wrote = self.cells.read(&cell) != done.cell;
            self.cells.write(&cell, done.cell);
        }
        for (cell, state) in done.others.into_iter().filter(|_| ok) {
            wrote |= self.cells.read(&cell) != state;
            self.cells.write(&cell, state);
        }
        let run = Run {
            result: outcome,
            published: if ok { done.published } else { Vec::new() },
            timers: if ok { done.timers } else { Vec::new() },
            cancelled: if ok { done.cancelled } else { Vec::new() },
            jobs: if ok { done.jobs.submitted } else { Vec::new() },
            cancelled_jobs: if ok { done.jobs.cancelled } else { Vec::new() },
            inferences: done.jobs.asked,
            wrote,
            calls: done.calls,
            logs: done.logs,
            logs_dropped: done.logs_dropped,
            metrics: done.metrics,
        };
        (result, run)
    }
}
