//! Several endpoints as one: who is asked, how many at a time, and what is done when it fails.

mod breaker;
mod config;
mod gate;
mod statistics;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use breaker::{Breaker, BreakerState};
pub use config::{BackOff, Member, ModelConfig, PoolConfig, Repeat, Served};
pub use statistics::{Counters, EndpointStatistics, FIRST_TOKEN_BUCKETS, ModelStatistics, Statistics};
use tokio::time::{Instant, sleep};

use self::gate::{Gate, NoPlace, Past, Place, Verdict};
use crate::{
    answer::{Answer, Chunk},
    endpoint::{Endpoint, Faults},
    failure::{Failure, Kind, Late, Work},
    request::ChatRequest,
    stream::TokenStream,
};

/// Whoever asks to be left alone for longer is asked again all the same: a wrong clock must not cost an endpoint.
const MAX_REST: Duration = Duration::from_secs(60 * 60);

/// Endpoints and the models they serve. Clones are the same pool.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    gate: Arc<Gate>,
    endpoints: Vec<(String, Endpoint)>,
    models: Vec<Model>,
    by_name: HashMap<String, usize>,
    attempts: u32,
    back_off: BackOff,
    repeat: Repeat,
    patience: Duration,
    whole: Duration,
    silence: Duration,
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Model {
    name: String,
    /// What an endpoint calls it, where that is another name.
    names: HashMap<usize, String>,
    endpoints: Vec<usize>,
}

#[derive(Debug)]
struct Counted {
    endpoints: Vec<Counters>,
    models: Vec<Counters>,
    /// For what each endpoint is left alone.
    ails: Vec<Option<Failure>>,
}

impl Pool {
    /// Nothing is connected before the first request.
    ///
    /// # Errors
    /// All that is wrong with `config`.
    pub fn new(config: PoolConfig) -> Result<Self, Faults> {
        let mut faults = config.faults();
        let PoolConfig {
            endpoints: members,
            models: configs,
            attempts,
            back_off,
            breaker,
            repeat,
            patience,
            whole,
        } = config;
        let concurrency: Vec<usize> = members.iter().map(|member| member.concurrency).collect();
        let mut endpoints = Vec::new();
        for member in members {
            let name = member.endpoint.name.clone();
            match Endpoint::new(member.endpoint) {
                Ok(endpoint) => endpoints.push((name, endpoint)),
                Err(Faults(more)) => faults.extend(more),
            }
        }
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        let (mut models, mut queues, mut by_name) = (Vec::new(), Vec::new(), HashMap::new());
        for config in configs {
            let (mut names, mut at) = (HashMap::new(), Vec::new());
            for served in config.served {
                let Some(index) = endpoints.iter().position(|(name, _)| *name == served.endpoint) else {
                    continue;
                };
                at.push(index);
                names.extend(served.model.map(|model| (index, model)));
            }
            by_name.insert(config.name.clone(), models.len());
            queues.push((config.concurrency, at.clone()));
            models.push(Model { name: config.name, names, endpoints: at });
        }
        let counted = Counted {
            endpoints: vec![Counters::default(); endpoints.len()],
            models: vec![Counters::default(); models.len()],
            ails: vec![None; endpoints.len()],
        };
        Ok(Self(Arc::new(Shared {
            gate: Gate::new(&concurrency, &breaker, queues),
            endpoints,
            models,
            by_name,
            attempts,
            back_off,
            repeat,
            patience,
            whole,
            silence: breaker.silence,
            counted: Mutex::new(counted),
        })))
    }

    /// The answer, in one piece, from whichever endpoint has it first.
    ///
    /// # Errors
    /// That of the last try; see [`Kind`].
    pub async fn complete(&self, request: &ChatRequest) -> Result<Answer, Failure> {
        let (answer, ticket) =
            self.tried(request, async |endpoint, request| endpoint.complete(&request).await).await?;
        ticket.answered(&answer);
        Ok(answer)
    }

    /// The answer as it comes. Up to its first piece, which has come when this returns, another endpoint may be tried;
    /// from then on a failure is the stream's.
    ///
    /// # Errors
    /// That of the last try; see [`Kind`].
    pub async fn stream(&self, request: &ChatRequest) -> Result<PooledStream, Failure> {
        let begin = async |endpoint: Endpoint, request: ChatRequest| {
            let mut stream = endpoint.stream(&request).await?;
            let first = stream.next().await?;
            Ok((stream, first))
        };
        let ((stream, first), mut ticket) = self.tried(request, begin).await?;
        ticket.begun = true;
        Ok(PooledStream { stream, first, ticket: Some(ticket) })
    }

    /// Whoever waits for a place gets [`Kind::Cancelled`], and so does whoever comes. What is being worked goes on.
    pub fn close(&self) {
        self.0.gate.close();
    }

    /// What it has done and is doing.
    pub fn statistics(&self) -> Statistics {
        let (loads, demands) = self.0.gate.loads();
        let counted = self.0.counted();
        let endpoints = self.0.endpoints.iter().zip(loads).zip(&counted.endpoints);
        let models = self.0.models.iter().zip(demands).zip(&counted.models);
        Statistics {
            endpoints: endpoints
                .map(|(((name, _), load), counted)| EndpointStatistics {
                    name: name.clone(),
                    outstanding: load.outstanding,
                    breaker: load.breaker,
                    rests_for: load.rests_for,
                    counted: counted.clone(),
                })
                .collect(),
            models: models
                .map(|((model, demand), counted)| ModelStatistics {
                    name: model.name.clone(),
                    running: demand.running,
                    waiting: demand.waiting,
                    oldest: demand.oldest,
                    counted: counted.clone(),
                })
                .collect(),
        }
    }

    async fn tried<T>(
        &self,
        request: &ChatRequest,
        ask: impl AsyncFn(Endpoint, ChatRequest) -> Result<T, Failure>,
    ) -> Result<(T, Ticket), Failure> {
        let shared = &self.0;
        let Some(&model) = shared.by_name.get(&request.model) else {
            let detail = format!("no endpoint serves it; there are {}", shared.known());
            return Err(pool_failure(request, Kind::ModelMissing, detail));
        };
        let latest = Instant::now() + shared.whole;
        let deadline = request.deadline.map_or(latest, |deadline| deadline.min(latest));
        let mut past = Past::default();
        let mut pauses = shared.back_off.pauses();
        let mut last: Option<Failure> = None;
        for attempt in 1.. {
            let place = match shared.gate.enter(model, &past, deadline, shared.patience).await {
                Ok(place) => place,
                Err(no_place) => return Err(shared.without_place(request, model, no_place, last)),
            };
            if let Some(failure) = &last {
                shared.count_retry(&place, failure);
            }
            let ticket =
                Ticket { shared: shared.clone(), place: Some(place), asked: Instant::now(), begun: false };
            let (at, endpoint, asked) = ticket.request(request, deadline);
            let failure = match ask(endpoint, asked).await {
                Ok(answer) => return Ok((answer, ticket)),
                Err(failure) => failure,
            };
            let pause = pauses.next().unwrap_or_default();
            ticket.failed(&failure, pause);
            if attempt >= shared.attempts || !shared.repeat.allows(&failure) || !failure.may_do_elsewhere() {
                return Err(failure);
            }
            let tried = if failure.may_pass() { &mut past.tried } else { &mut past.barred };
            tried.push(at);
            if shared.models[model].endpoints.iter().all(|at| past.barred.contains(at)) {
                return Err(failure);
            }
            if !shared.gate.has_untried(model, &past) {
                past.tried.clear();
                // An endpoint that is too busy is left alone by all, so that a pause of ours would only come on top.
                if failure.kind != Kind::Overloaded {
                    if Instant::now() + pause >= deadline {
                        return Err(failure);
                    }
                    sleep(pause).await;
                }
            }
            last = Some(failure);
        }
        unreachable!("attempts have an end")
    }
}

impl Shared {
    fn known(&self) -> String {
        let mut names: Vec<String> = self.models.iter().map(|model| format!("{:?}", model.name)).collect();
        names.sort();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    fn without_place(
        &self,
        request: &ChatRequest,
        model: usize,
        no_place: NoPlace,
        last: Option<Failure>,
    ) -> Failure {
        let failure = match (no_place, last) {
            (NoPlace::Closed, _) => {
                let detail = "nothing is sent any more: it is being stopped".into();
                pool_failure(request, Kind::Cancelled, detail)
            }
            // It says more than that there was no other try.
            (_, Some(last)) => return last,
            (NoPlace::Late, None) => {
                let detail =
                    "no endpoint had a place for it by its deadline; add endpoints, or give it more time";
                pool_failure(request, Kind::Timeout(Late::Deadline), detail.into())
            }
            (NoPlace::AllRest, None) => self.all_rest(request, model),
        };
        self.counted().models[model].ended(failure.kind.as_str());
        failure
    }

    /// Told by the endpoint that is asked again first.
    fn all_rest(&self, request: &ChatRequest, model: usize) -> Failure {
        let (loads, _) = self.gate.loads();
        let first = self.models[model].endpoints.iter().copied().min_by_key(|at| loads[*at].rests_for);
        let first = first.unwrap_or_default();
        let rests_for = loads[first].rests_for;
        let ail = self.counted().ails[first].clone();
        let (kind, because) = match &ail {
            Some(ail) => (ail.kind, ail.detail.as_str()),
            None => (Kind::Overloaded, "it is being tried"),
        };
        let detail = format!(
            "nothing was sent: all its endpoints are left alone, {} the shortest, for {rests_for:.1?}: {because}",
            self.endpoints[first].0
        );
        Failure { retry_after: Some(rests_for), ..pool_failure(request, kind, detail) }
    }

    fn count_retry(&self, place: &Place, failed: &Failure) {
        let mut counted = self.counted();
        let Counted { endpoints, models, .. } = &mut *counted;
        for counters in [&mut endpoints[place.endpoint], &mut models[place.model]] {
            counters.retries += 1;
            counters.repeats += u64::from(!failed.is_safe_to_retry());
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pool_failure(request: &ChatRequest, kind: Kind, detail: String) -> Failure {
    Failure {
        kind,
        work: Work::NotSent,
        status: None,
        retry_after: None,
        endpoint: "no endpoint".into(),
        model: request.model.clone(),
        detail,
        usage: None,
    }
}

/// A place, and what has to be counted as it is left.
#[derive(Debug)]
struct Ticket {
    shared: Arc<Shared>,
    place: Option<Place>,
    asked: Instant,
    /// Something of the answer has come.
    begun: bool,
}

impl Ticket {
    /// The endpoint, and the request as it is sent there.
    fn request(&self, request: &ChatRequest, deadline: Instant) -> (usize, Endpoint, ChatRequest) {
        let (model, at) = self.place.as_ref().map_or((0, 0), |place| (place.model, place.endpoint));
        let mut asked = request.clone();
        asked.deadline = Some(deadline);
        if let Some(name) = self.shared.models[model].names.get(&at) {
            asked.model.clone_from(name);
        }
        (at, self.shared.endpoints[at].1.clone(), asked)
    }

    fn answered(mut self, answer: &Answer) {
        self.count(|counters| counters.answered(answer));
        if let Some(place) = self.place.take() {
            place.settle(Verdict::Healthy, None);
        }
    }

    /// `pause`: how long an endpoint is left alone that is busy and does not say how long.
    fn failed(mut self, failure: &Failure, pause: Duration) {
        self.count(|counters| counters.failed(failure));
        let silent = failure.kind == Kind::Timeout(Late::Deadline)
            && failure.work == Work::Unknown
            && !self.begun
            && self.asked.elapsed() >= self.shared.silence;
        let verdict = match failure.kind {
            _ if failure.is_breakdown() || silent => Verdict::BrokeDown,
            // There was an answer: of no use, but the endpoint works.
            Kind::Empty | Kind::TooLarge | Kind::InvalidSchema => Verdict::Healthy,
            _ => Verdict::Nothing,
        };
        let overloaded = failure.kind == Kind::Overloaded;
        let rest = overloaded.then(|| failure.retry_after.unwrap_or(pause).min(MAX_REST));
        if let Some(place) = &self.place
            && (rest.is_some() || verdict == Verdict::BrokeDown)
        {
            let kind = if silent { Kind::Timeout(Late::Answer) } else { failure.kind };
            self.shared.counted().ails[place.endpoint] = Some(Failure { kind, ..failure.clone() });
        }
        if let Some(place) = self.place.take() {
            place.settle(verdict, rest);
        }
    }

    fn count(&self, count: impl Fn(&mut Counters)) {
        if let Some(place) = &self.place {
            let mut counted = self.shared.counted();
            count(&mut counted.endpoints[place.endpoint]);
            count(&mut counted.models[place.model]);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.count(|counters| counters.ended(Kind::Cancelled.as_str()));
    }
}

/// An answer as it comes, from an endpoint of a pool. It holds its place there until it has ended or is dropped, which
/// cancels the request.
#[derive(Debug)]
pub struct PooledStream {
    stream: TokenStream,
    first: Option<Chunk>,
    ticket: Option<Ticket>,
}

impl PooledStream {
    /// As [`TokenStream::next`].
    ///
    /// # Errors
    /// As [`TokenStream::next`].
    pub async fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let next = self.stream.next().await;
        if !matches!(next, Ok(Some(_)))
            && let Some(ticket) = self.ticket.take()
        {
            match &next {
                Ok(_) => ticket.answered(self.stream.so_far()),
                Err(failure) => {
                    let pause = ticket.shared.back_off.first;
                    ticket.failed(failure, pause);
                }
            }
        }
        next
    }

    /// As [`TokenStream::finish`].
    ///
    /// # Errors
    /// As [`TokenStream::next`].
    pub async fn finish(mut self) -> Result<Answer, Failure> {
        while self.next().await?.is_some() {}
        Ok(self.stream.so_far().clone())
    }
}
