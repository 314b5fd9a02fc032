//! From a request to its answer: which plugin serves the method, whether the request is one, and what is told of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::Request as HttpRequest,
    http::{StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use bytes::Bytes;
use cofferdam_bus::Bus;
use futures_util::future::BoxFuture;
use prost_reflect::DynamicMessage;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    server::{Grpc, UnaryService},
};

use super::{
    answers::Answers,
    codec::Plain,
    identity,
    incoming::Incoming,
    read, status, write,
    write::{Asked, Written},
};
use crate::{
    capabilities::{Caller, Within},
    config::{GrpcConfig, Method, MethodKind},
    dispatch::{self, DEPTH, Dispatch, Outcome},
    fault::Fault,
    observe::text,
    plugins::Plugin,
};

/// Of a status's message, in bytes, in a line of the log.
const MAX_REASON: usize = 512;
/// How much later than its deadline a call is cut off that did not see to that itself.
const GRACE: Duration = Duration::from_secs(1);

/// A method and who serves it.
pub(super) struct Target {
    pub(super) plugin: Arc<Plugin>,
    pub(super) method: Arc<Method>,
}

/// What ends a host's serving, step by step.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// No more calls are taken.
    pub stop: CancellationToken,
    /// What runs is ended.
    pub abort: CancellationToken,
    /// Answers are waited for no more.
    pub give_up: CancellationToken,
}

/// All that this host serves.
pub struct Front {
    dispatch: Arc<Dispatch>,
    /// By path.
    targets: BTreeMap<String, Arc<Target>>,
    answers: Answers,
    config: GrpcConfig,
    room: Semaphore,
    /// Of each plugin: the callers of one that is slow don't keep all others out.
    shares: BTreeMap<String, Semaphore>,
    tokens: Tokens,
    /// Calls that are not answered.
    calls: TaskTracker,
}

impl Front {
    pub fn new(dispatch: Arc<Dispatch>, plugins: &[Arc<Plugin>], config: GrpcConfig, tokens: Tokens) -> Self {
        let methods =
            plugins.iter().flat_map(|plugin| plugin.methods.iter().map(move |method| (plugin, method)));
        let targets = methods.map(|(plugin, method)| {
            let target = Target { plugin: plugin.clone(), method: method.clone() };
            (method.path.clone(), Arc::new(target))
        });
        let serving = plugins.iter().filter(|plugin| !plugin.methods.is_empty());
        let serving = serving.map(|plugin| plugin.name.as_str()).collect();
        Self {
            answers: Answers::new(dispatch.services.bus.clone()),
            targets: targets.collect(),
            room: Semaphore::new(config.max_calls as usize),
            shares: shares(&serving, config.max_calls as usize),
            dispatch,
            config,
            tokens,
            calls: TaskTracker::new(),
        }
    }

    pub(super) fn dispatch(&self) -> &Arc<Dispatch> {
        &self.dispatch
    }

    pub(super) fn bus(&self) -> &dyn Bus {
        self.dispatch.services.bus.as_ref()
    }

    pub(super) fn answers(&self) -> &Answers {
        &self.answers
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.tokens.stop
    }

    pub(super) fn given_up(&self) -> &CancellationToken {
        &self.tokens.give_up
    }

    /// The names of the services.
    pub(super) fn services(&self) -> BTreeSet<&str> {
        self.targets.keys().filter_map(|path| Some(path.split_once('/')?.0)).collect()
    }

    /// Plugins whose answers come by the bus.
    fn writers(&self) -> BTreeSet<&str> {
        let writes = |target: &&Arc<Target>| target.method.kind == MethodKind::Write;
        self.targets.values().filter(writes).map(|target| target.plugin.name.as_str()).collect()
    }

    /// Hears the answers of all plugins until the end. `listening` is called once it does.
    pub async fn listen(&self, listening: impl FnOnce(), end: CancellationToken) {
        let all: Vec<_> =
            self.writers().into_iter().map(|plugin| (plugin, CancellationToken::new())).collect();
        let listen =
            all.iter().map(|(plugin, begun)| self.answers.listen(plugin, begun.clone(), end.clone()));
        let begun = async {
            for (_, begun) in &all {
                begun.cancelled().await;
            }
            listening();
        };
        tokio::join!(futures_util::future::join_all(listen), async {
            tokio::select! {
                () = begun => {}
                () = end.cancelled() => {}
            }
        });
    }

    /// Waits until every call is answered that was taken before the stop.
    pub async fn answered(&self) {
        self.calls.close();
        self.calls.wait().await;
    }

    /// What is told of a run that failed, and of which no event tells.
    pub(super) fn tell_of_failure(&self, target: &Target, call: &str, failure: &Outcome) {
        // A status of the guest is told as any answer.
        if let (Some(fault), Some(reason)) = (failure.fault(), failure.reason()) {
            let (plugin, method, outcome) = (&target.plugin.name, &target.method.path, failure.name());
            tracing::error!(
                plugin,
                method,
                call,
                outcome,
                fault = Fault::name(fault),
                "a call failed: {reason}"
            );
        }
    }

    async fn serve(
        &self,
        target: &Target,
        incoming: &Incoming,
        request: Bytes,
        told: &Told,
    ) -> Result<Bytes, Status> {
        let method = &target.method;
        let message = DynamicMessage::decode(method.input.clone(), request.clone()).map_err(|error| {
            Status::invalid_argument(format!("the request is no {}: {error}", method.input.full_name()))
        })?;
        let order_key = method.key.as_ref().and_then(|key| key.of(&message));
        let asked = Asked {
            request,
            identity: incoming.key.as_ref().map_or([0; 32], |_| identity::of(&message)),
            cell: order_key.as_ref().map(|key| dispatch::cell(&method.cell, key)),
            order_key,
        };
        drop(message);
        if let Some(within) = &incoming.within {
            has_its_turn(within, target, &asked)?;
        }
        let (call, reply) = match method.kind {
            MethodKind::Read => tokio::select! {
                read = read::read(self, target, incoming, asked) => read,
                () = self.tokens.abort.cancelled() => {
                    return Err(Status::unavailable("the host stops, and the call took longer than it waits; ask another"));
                }
            },
            MethodKind::Write => {
                let Written { call, reply } = write::write(self, target, incoming, asked).await;
                (call, reply)
            }
        };
        told.end().call = call;
        reply?.map_err(status::of)
    }

    fn target(&self, path: &str) -> Result<&Arc<Target>, Status> {
        let path = path.trim_start_matches('/');
        if let Some(target) = self.targets.get(path) {
            return Ok(target);
        }
        let service = path.split_once('/').map_or(path, |(service, _)| service);
        let methods: Vec<&str> =
            self.targets.keys().filter_map(|known| known.strip_prefix(service)?.strip_prefix('/')).collect();
        Err(Status::unimplemented(if methods.is_empty() {
            let services: Vec<&str> = self.services().into_iter().collect();
            let served = if services.is_empty() { "nothing".to_owned() } else { services.join(", ") };
            format!("{service:?} is not served here; what is: {served}, health and server reflection")
        } else {
            format!("{path:?} is not served here; of this service these are: {}", methods.join(", "))
        }))
    }
}

/// Whatever is no health check and no reflection.
pub(super) async fn answer(front: Arc<Front>, request: HttpRequest) -> HttpResponse {
    let began = Instant::now();
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "this port speaks gRPC\n").into_response();
    }
    let _answered_by_then = front.calls.token();
    let target = match front.target(request.uri().path()) {
        Ok(target) => target.clone(),
        Err(status) => {
            // The name is the client's: no label, and no line that somebody could repeat for ever.
            let number = (status.code() as i32).to_string();
            front.dispatch.services.metrics.served.with_label_values(&["", "", &number]).inc();
            tracing::debug!(path = request.uri().path(), "a call of what is not served");
            return status.into_http();
        }
    };
    let within = request.extensions().get::<Within>().cloned();
    let told = Arc::new(Told {
        front: front.clone(),
        target,
        within: within.is_some(),
        began,
        end: Mutex::default(),
    });
    let incoming = match taken(&front, &told.target.method, request.headers(), began, within) {
        Ok(incoming) => incoming,
        Err(status) => return told.with(status),
    };
    let _room = match room(&front, &told.target.plugin.name, &incoming) {
        Ok(room) => room,
        Err(status) => return told.with(status),
    };
    let latest = incoming.deadline + GRACE;
    let unary = Unary { told: told.clone(), incoming };
    let mut grpc = Grpc::new(Plain)
        .max_decoding_message_size(front.config.max_request)
        .max_encoding_message_size(usize::MAX);
    let answer = tokio::time::timeout_at(latest.into(), grpc.unary(unary, request.map(Body::new))).await;
    match answer {
        Ok(response) => told.checked(response),
        // A client that does not send what it announced; else the time has been kept.
        Err(_) => told.with(Status::deadline_exceeded("the request did not come in its time")),
    }
}

/// Half of all places for each plugin that serves, unless there is only one.
fn shares(serving: &BTreeSet<&str>, places: usize) -> BTreeMap<String, Semaphore> {
    let share = if serving.len() > 1 { places.div_ceil(2) } else { places };
    serving.iter().map(|plugin| ((*plugin).to_owned(), Semaphore::new(share))).collect()
}

/// Whether one more is taken.
fn taken(
    front: &Front,
    method: &Method,
    headers: &http::HeaderMap,
    began: Instant,
    within: Option<Within>,
) -> Result<Incoming, Status> {
    if let Some(within) = &within {
        sound(within, method)?;
    }
    // A run that is let come to its end may read on the way there. What it writes would wait for the next start.
    let goes_on = within.is_some() && method.kind == MethodKind::Read;
    if front.tokens.stop.is_cancelled() && !goes_on {
        return Err(Status::unavailable(
            "the host stops, and takes no more calls; ask another, or this one once it is back",
        ));
    }
    let longest = method.timeout.unwrap_or(front.config.timeout);
    Ok(Incoming { within, ..Incoming::new(headers, began, longest)? })
}

/// A place among the calls that are answered at a time, and among the plugin's. What calls from within has the place of whoever
/// called from without, or is an event's.
fn room<'a>(
    front: &'a Front,
    plugin: &str,
    incoming: &Incoming,
) -> Result<Option<(SemaphorePermit<'a>, Option<SemaphorePermit<'a>>)>, Status> {
    if incoming.within.is_some() {
        return Ok(None);
    }
    let Ok(room) = front.room.try_acquire() else {
        let most = front.config.max_calls;
        return Err(Status::unavailable(format!(
            "the host answers {most} calls already, its [grpc] max-calls; call again, or another"
        )));
    };
    let share = front.shares.get(plugin).map(Semaphore::try_acquire).transpose().map_err(|_| {
        Status::unavailable(format!(
            "half of the calls that the host may answer at a time, its [grpc] max-calls, are {plugin}'s already; call again, or \
             another"
        ))
    })?;
    Ok(Some((room, share)))
}

/// Whether a run of this host, which waits meanwhile, can be answered at all.
fn sound(within: &Within, method: &Method) -> Result<(), Status> {
    let path = &method.path;
    if within.depth > DEPTH {
        return Err(Status::resource_exhausted(format!(
            "the call of {path:?} lies within {DEPTH} others that plugins of this host made of each other, and more are not \
             taken; look for plugins that call one another in a circle"
        )));
    }
    // It would have another key whenever the read is repeated, and places kept for reads would wait for those of writes.
    if method.kind == MethodKind::Write && within.caller == Caller::Read {
        return Err(Status::failed_precondition(format!(
            "{path:?} is a method of kind \"write\", and the run that calls it answers one of kind \"read\", which has no \
             effects; call it from an event, or from a method that writes"
        )));
    }
    Ok(())
}

/// Whether the call has not to wait for its caller.
fn has_its_turn(within: &Within, target: &Target, asked: &Asked) -> Result<(), Status> {
    let Caller::Event(Some((space, cell))) = &within.caller else { return Ok(()) };
    if target.method.kind != MethodKind::Write
        || *space != target.plugin.space
        || asked.cell.as_ref() != Some(cell)
    {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "the call of {:?} would wait for the turn of the cell {cell:?} in {space:?}, which the run that makes it has until it is \
         through; change the cell in that run, or publish an event that changes it later",
        target.method.path
    )))
}

/// One call of one method, once its request is there.
struct Unary {
    told: Arc<Told>,
    incoming: Incoming,
}

impl UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (told, incoming) = (self.told.clone(), self.incoming.clone());
        Box::pin(async move {
            let answer = told.front.serve(&told.target, &incoming, request.into_inner(), &told).await;
            told.note(answer.as_ref().err());
            answer.map(Response::new)
        })
    }
}

/// What is told of a call when it is over.
struct Told {
    front: Arc<Front>,
    target: Arc<Target>,
    /// A plugin of this host called.
    within: bool,
    began: Instant,
    end: Mutex<End>,
}

#[derive(Default)]
struct End {
    /// `None`: its client did not wait for the answer.
    code: Option<Code>,
    why: String,
    call: String,
}

impl Told {
    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended; none is well.
    fn note(&self, status: Option<&Status>) {
        let mut end = self.end();
        end.code = Some(status.map_or(Code::Ok, Status::code));
        end.why =
            status.map(|status| text::excerpt(status.message(), MAX_REASON).into_owned()).unwrap_or_default();
    }

    /// The answer that there is no answer.
    fn with(&self, status: Status) -> HttpResponse {
        self.note(Some(&status));
        status.into_http()
    }

    /// What did not come as far as the method has a status by itself.
    fn checked(&self, response: http::Response<Body>) -> HttpResponse {
        if self.end().code.is_none()
            && let Some(status) = Status::from_header_map(response.headers())
        {
            if let Some(over) = status::over(&status, self.front.config.max_request, "the host's [grpc]") {
                return self.with(over);
            }
            self.note(Some(&status));
        }
        response.map(axum::body::Body::new)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let (plugin, method) = (self.target.plugin.name.as_str(), self.target.method.path.as_str());
        let End { code, why, call } = std::mem::take(&mut *self.end());
        let took = self.began.elapsed();
        let metrics = &self.front.dispatch.services.metrics;
        let number = (code.unwrap_or(Code::Cancelled) as i32).to_string();
        metrics.served.with_label_values(&[plugin, method, &number]).inc();
        metrics.served_seconds.with_label_values(&[plugin, method]).observe(took.as_secs_f64());
        let ms = took.as_millis() as u64;
        match code {
            // Whoever polls asks often; what writes is told as an event where it runs.
            Some(Code::Ok) => tracing::debug!(plugin, method, call, code = 0, ms, "a call was answered"),
            // Its caller knows, and may make thousands.
            _ if self.within => {
                tracing::debug!(plugin, method, call, ?code, ms, "a plugin's call was over: {why}")
            }
            None => tracing::info!(plugin, method, call, ms, "a call's client did not wait for the answer"),
            Some(code) => {
                tracing::info!(
                    plugin,
                    method,
                    call,
                    code = code as i32,
                    ms,
                    "a call was answered: {code:?}: {why}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_of_one_plugin_leave_half_of_the_places_to_all_others() {
        let of = |serving: &[&str], places| {
            let shares = shares(&serving.iter().copied().collect(), places);
            shares.values().map(Semaphore::available_permits).collect::<Vec<_>>()
        };
        assert_eq!(of(&["a"], 5), [5]);
        assert_eq!(of(&["a", "b", "c"], 5), [3, 3, 3]);
        assert_eq!(of(&["a", "b"], 1), [1, 1]);
    }
}
