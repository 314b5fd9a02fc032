//! The functions of the SDK, natively: they act on the run in progress of this thread, or, outside of one (a test that
//! calls a helper directly), on an empty host with nothing to keep.

use std::{cell::RefCell, collections::BTreeMap};

pub(crate) use super::jobs::{Tokens, cancel_job, infer, job_status, submit, tokens};

use sha2::{Digest, Sha256};

use super::{Call, Host, LogLine, Metric, Published, Scheduled, cells::Cell, jobs::Jobs, limits, refused};
use crate::{
    Pairs,
    log::Level,
    metrics::MetricError,
    publish::EmitError,
    rpc::{Code, Options, Status},
    state::StateError,
};

/// One run: the host as it was set up, and what has been done so far.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) host: Host,
    /// Order key and cell.
    place: Option<(String, String)>,
    pub(super) event_id: String,
    clock: u64,
    random: u64,
    pub(super) cell: Cell,
    /// Other cells that were reached, by name.
    pub(super) others: BTreeMap<String, Cell>,
    /// The event commits by `publish`.
    pub(super) stateless: bool,
    /// The method that is called, if it only reads.
    pub(super) reads: Option<String>,
    pub(super) published: Vec<Published>,
    pub(super) timers: Vec<Scheduled>,
    timers_given: usize,
    pub(super) cancelled: Vec<String>,
    pub(super) jobs: Jobs,
    pub(super) calls: Vec<Call>,
    pub(super) logs: Vec<LogLine>,
    pub(super) logs_dropped: u64,
    log_bytes: usize,
    pub(super) metrics: Vec<Metric>,
}

impl Current {
    pub(super) fn new(host: Host, place: Option<(String, String)>, id: &str, timestamp: u64) -> Self {
        let cell = place.as_ref().map(|(_, cell)| host.cells.read(cell)).unwrap_or_default();
        Self {
            host,
            place,
            event_id: id.to_owned(),
            clock: timestamp,
            random: 0,
            cell,
            others: BTreeMap::new(),
            stateless: false,
            reads: None,
            published: Vec::new(),
            timers: Vec::new(),
            timers_given: 0,
            cancelled: Vec::new(),
            jobs: Jobs::default(),
            calls: Vec::new(),
            logs: Vec::new(),
            logs_dropped: 0,
            log_bytes: 0,
            metrics: Vec::new(),
        }
    }

    fn idle() -> Self {
        Self::new(Host::new(), None, "none", super::EPOCH)
    }

    /// The only attempt there is: that of a call.
    pub(super) fn once(mut self) -> Self {
        (self.host.attempt, self.host.last_attempt) = (1, true);
        self
    }

    pub(super) fn own_cell(&self) -> Option<String> {
        self.place.as_ref().map(|(_, cell)| cell.clone())
    }

    /// Why there is no effect, if there is to be none.
    pub(super) fn denied(&self) -> Result<(), String> {
        match &self.reads {
            Some(method) => Err(format!("{method} is a method of kind \"read\", which has no effects")),
            None => Ok(()),
        }
    }

    /// May this be published, now or later?
    fn publishable(&self, subject: &str, headers: &Pairs, data: &[u8]) -> Result<(), EmitError> {
        self.denied().map_err(EmitError::Denied)?;
        limits::subject(subject)?;
        limits::headers(headers)?;
        if self.host.manifest.as_ref().is_some_and(|manifest| !manifest.may_publish(subject)) {
            return Err(EmitError::Denied(format!("[asks] publish does not cover {subject}")));
        }
        if data.len() > limits::MESSAGE {
            return Err(EmitError::TooLarge(format!("{} bytes for {subject}", data.len())));
        }
        let published = self.published.iter().map(|message| message.data.len());
        let scheduled = self.timers.iter().map(|timer| timer.data.len());
        if published.chain(scheduled).sum::<usize>() + data.len() > limits::MESSAGES_TOGETHER {
            return Err(EmitError::TooLarge("all messages of the event together".into()));
        }
        self.one_more()?;
        match self.host.refuse_emit.get(subject) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn one_more(&self) -> Result<(), EmitError> {
        if self.published.len() + self.timers.len() + self.cancelled.len() == limits::MESSAGES {
            return Err(EmitError::Limit(format!("more than {} messages", limits::MESSAGES)));
        }
        Ok(())
    }

    /// The plugin's name.
    pub(super) fn plugin(&self) -> &str {
        self.host.manifest.as_ref().map_or("test", |manifest| &manifest.plugin.name)
    }

    /// The event's own cell, or the one of this name.
    fn state(&mut self, name: Option<&str>) -> Result<&mut Cell, StateError> {
        if self.host.manifest.as_ref().is_some_and(|manifest| !manifest.may_keep_state()) {
            return Err(StateError::Denied("the manifest does not ask for [state]".into()));
        }
        if self.stateless {
            return Err(StateError::NoCell("the event commits by publish".into()));
        }
        match (name, &self.place) {
            (None, Some(_)) => Ok(&mut self.cell),
            (None, None) => Err(StateError::NoCell("the event has no order key".into())),
            (Some(name), Some((_, own))) if name == own => Ok(&mut self.cell),
            (Some(name), _) => self.other(name),
        }
    }

    /// The same, to write to.
    fn writable(&mut self, name: Option<&str>) -> Result<&mut Cell, StateError> {
        self.denied().map_err(StateError::Denied)?;
        self.state(name)
    }

    fn other(&mut self, name: &str) -> Result<&mut Cell, StateError> {
        if name.is_empty() || name.len() > limits::CELL_NAME {
            return Err(StateError::Limit(format!("a cell's name of {} bytes", name.len())));
        }
        if !self.others.contains_key(name) {
            let read = self.host.cells.read(name);
            let bytes: usize = self.others.values().chain([&read]).map(limits::size).sum();
            if self.others.len() == limits::OTHER_CELLS || bytes > limits::OTHER_CELLS_TOGETHER {
                return Err(StateError::Limit(format!("{name:?} would be one other cell too many")));
            }
            self.others.insert(name.to_owned(), read);
        }
        Ok(self.others.entry(name.to_owned()).or_default())
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Runs `f` inside `current` and hands it back. A panic inside leaves no run behind for the next test of the thread.
pub(super) fn with<T>(current: Current, f: impl FnOnce() -> T) -> (T, Current) {
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            CURRENT.with_borrow_mut(Option::take);
        }
    }
    CURRENT.set(Some(current));
    let clear = Clear;
    let result = f();
    let done = CURRENT.take().unwrap_or_else(Current::idle);
    drop(clear);
    (result, done)
}

pub(super) fn current<T>(f: impl FnOnce(&mut Current) -> T) -> T {
    CURRENT.with_borrow_mut(|current| match current {
        Some(current) => f(current),
        None => f(&mut Current::idle()),
    })
}

fn owned(labels: &[(&str, &str)]) -> Pairs {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn attempt() -> u32 {
    current(|c| c.host.attempt)
}

pub(crate) fn last_attempt() -> bool {
    current(|c| c.host.last_attempt)
}

pub(crate) fn deadline_ms() -> u64 {
    60_000
}

pub(crate) fn order_key() -> Option<String> {
    current(|c| c.place.as_ref().map(|(key, _)| key.clone()))
}

pub(crate) fn emit(subject: &str, headers: &[(String, String)], data: &[u8]) -> Result<String, EmitError> {
    current(|c| {
        let headers = headers.to_vec();
        c.publishable(subject, &headers, data)?;
        let id = format!("{}.{}", c.event_id, c.published.len());
        c.published.push(Published { id: id.clone(), subject: subject.into(), headers, data: data.to_vec() });
        Ok(id)
    })
}

pub(crate) fn schedule(
    at: u64,
    subject: &str,
    headers: &[(String, String)],
    data: &[u8],
) -> Result<String, EmitError> {
    current(|c| {
        let headers = headers.to_vec();
        c.publishable(subject, &headers, data)?;
        let id = format!("{}.{}.{}", c.plugin(), c.event_id, c.timers_given);
        c.timers_given += 1;
        let (subject, data) = (subject.to_owned(), data.to_vec());
        c.timers.push(Scheduled { id: id.clone(), at, subject, headers, data });
        Ok(id)
    })
}

pub(crate) fn cancel(timer_id: &str) -> Result<(), EmitError> {
    current(|c| {
        c.denied().map_err(EmitError::Denied)?;
        // What the ids of the plugin's timers begin with.
        let plugin = format!("{}.", c.plugin());
        if !timer_id.starts_with(&plugin) {
            return Err(EmitError::Denied(format!(
                "the timer {timer_id:?} is not the plugin's own; the ids of its own begin with {plugin:?}"
            )));
        }
        limits::timer(timer_id)?;
        if timer_id.starts_with(&format!("{plugin}{}.", c.event_id)) {
            c.timers.retain(|timer| timer.id != timer_id);
        } else if !c.cancelled.iter().any(|id| id == timer_id) {
            c.one_more()?;
            c.cancelled.push(timer_id.to_owned());
        }
        Ok(())
    })
}

pub(crate) fn call(
    upstream: &str,
    method: &str,
    request: &[u8],
    options: &Options,
) -> Result<Vec<u8>, Status> {
    let (rpc, granted) = current(|c| {
        let granted = c.host.manifest.as_ref().is_none_or(|manifest| manifest.may_call(upstream, method));
        (c.host.rpc.clone(), granted)
    });
    let of_host = |name: &str| {
        matches!(name, "authorization" | "traceparent")
            || name.starts_with("grpc-")
            || name.starts_with("cofferdam-")
    };
    let answer = if !granted {
        Err(refused(Code::PermissionDenied, format!("[asks] rpc does not name {upstream}/{method}")))
    } else if options.metadata.iter().any(|(name, _)| of_host(&name.to_ascii_lowercase())) {
        Err(refused(Code::InvalidArgument, "the metadata holds a name of the host's"))
    } else if request.len() > limits::RPC {
        Err(refused(Code::ResourceExhausted, format!("the request has {} bytes", request.len())))
    } else {
        rpc.answer(upstream, method, request)
    };
    current(|c| {
        c.calls.push(Call {
            upstream: upstream.into(),
            method: method.into(),
            request: request.to_vec(),
            error: answer.as_ref().err().cloned(),
        });
    });
    answer
}

pub(crate) fn state_get(cell: Option<&str>, key: &str) -> Result<Option<Vec<u8>>, StateError> {
    current(|c| Ok(c.state(cell)?.get(key).cloned()))
}

pub(crate) fn state_put(cell: Option<&str>, key: &str, value: &[u8]) -> Result<(), StateError> {
    current(|c| {
        let cell = c.writable(cell)?;
        if key.len() > limits::KEY {
            return Err(StateError::Limit(format!("a key of {} bytes", key.len())));
        }
        let others: usize = cell.iter().filter(|(k, _)| *k != key).map(|(k, v)| k.len() + v.len()).sum();
        if others + key.len() + value.len() > limits::CELL {
            return Err(StateError::Limit(format!("the cell would be over {} bytes", limits::CELL)));
        }
        if !cell.contains_key(key) && cell.len() == limits::KEYS {
            return Err(StateError::Limit(format!("the cell has {} keys", limits::KEYS)));
        }
        cell.insert(key.into(), value.to_vec());
        Ok(())
    })
}

pub(crate) fn state_delete(cell: Option<&str>, key: &str) -> Result<(), StateError> {
    current(|c| {
        c.writable(cell)?.remove(key);
        Ok(())
    })
}

pub(crate) fn state_keys(cell: Option<&str>, prefix: &str) -> Result<Vec<String>, StateError> {
    current(|c| Ok(c.state(cell)?.keys().filter(|key| key.starts_with(prefix)).cloned().collect()))
}

pub(crate) fn config(key: &str) -> Option<String> {
    current(|c| {
        if c.host.manifest.as_ref().is_some_and(|manifest| !manifest.names_config(key)) {
            return None;
        }
        let default = || c.host.manifest.as_ref().and_then(|manifest| manifest.default(key));
        c.host.config.get(key).or_else(default).map(ToString::to_string)
    })
}

pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
    current(|c| {
        let size = message.len() + fields.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        if c.log_bytes + size > limits::LOG {
            c.logs_dropped += 1;
            return;
        }
        c.log_bytes += size;
        c.logs.push(LogLine { level, message: message.into(), fields: fields.to_vec() });
    });
}

pub(crate) fn count(name: &str, labels: &[(&str, &str)], delta: u64) -> Result<(), MetricError> {
    measure(name, "counter", labels, delta as f64)
}

pub(crate) fn observe(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), MetricError> {
    measure(name, "histogram", labels, value)
}

/// The last of a series takes the place of the one before; one that is no number is passed over.
pub(crate) fn set(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), MetricError> {
    let mut labels = labels.to_vec();
    labels.sort_unstable();
    let owned = owned(&labels);
    let earlier = current(|c| c.metrics.iter().position(|m| m.name == name && m.labels == owned));
    measure(name, "gauge", &labels, value)?;
    current(|c| match earlier {
        _ if !value.is_finite() => drop(c.metrics.pop()),
        Some(earlier) => drop(c.metrics.swap_remove(earlier)),
        None => {}
    });
    Ok(())
}

fn measure(name: &str, kind: &str, labels: &[(&str, &str)], value: f64) -> Result<(), MetricError> {
    current(|c| {
        if c.host.manifest.as_ref().is_some_and(|manifest| !manifest.declares(name, kind, labels)) {
            return Err(MetricError::Undeclared(format!("{kind} {name} with {labels:?}")));
        }
        c.metrics.push(Metric { name: name.into(), labels: owned(labels), value });
        Ok(())
    })
}

pub(crate) fn now() -> u64 {
    current(|c| {
        c.clock += 1_000;
        c.clock
    })
}

pub(crate) fn random(len: u32) -> Vec<u8> {
    let len = len.min(limits::RANDOM) as usize;
    current(|c| {
        let mut bytes = Vec::with_capacity(len + 32);
        while bytes.len() < len {
            bytes.extend(Sha256::digest(format!("{}:{}", c.event_id, c.random)));
            c.random += 1;
        }
        bytes.truncate(len);
        bytes
    })
}
