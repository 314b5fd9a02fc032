//! Who goes where, and when: a place at an endpoint for each request, first come first served, within what endpoints and
//! models take at a time. Knows nothing of what is sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use super::breaker::{Breaker, BreakerState, Guard};

/// The state of all, behind one lock that is never held across an await.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    /// An endpoint rests from now on: whoever waits looks again how long.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    endpoints: Vec<Slot>,
    models: Vec<Queue>,
    /// Of requests, and of grants: what is first.
    next: u64,
    closed: bool,
}

#[derive(Debug)]
struct Slot {
    concurrency: usize,
    outstanding: usize,
    guard: Guard,
    /// What it asked for itself (`Retry-After`).
    left_alone_until: Option<Instant>,
    last_granted: u64,
}

#[derive(Debug)]
struct Queue {
    concurrency: usize,
    running: usize,
    endpoints: Vec<usize>,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    since: Instant,
    past: Past,
    granted: oneshot::Sender<Place>,
}

/// What a request has been through.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    /// Failed there, of late: another is better, if there is one in order.
    pub(super) tried: Vec<usize>,
    /// Will never do there.
    pub(super) barred: Vec<usize>,
}

/// No place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// None by the deadline.
    Late,
    /// Every endpoint of the model is left alone for longer than there is patience, or time.
    AllRest,
    Closed,
}

/// What became of a request, as far as the endpoint's health goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Healthy,
    BrokeDown,
    /// It says nothing: refused, busy, or cancelled.
    Nothing,
}

/// Of an endpoint, for statistics.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) outstanding: usize,
    pub(super) breaker: BreakerState,
    pub(super) rests_for: Duration,
}

/// Of a model, for statistics.
#[derive(Debug)]
pub(super) struct Demand {
    pub(super) running: usize,
    pub(super) waiting: usize,
    pub(super) oldest: Duration,
}

impl Gate {
    /// `endpoints` by concurrency; `models` by concurrency and where they are.
    pub(super) fn new(endpoints: &[usize], breaker: &Breaker, models: Vec<(usize, Vec<usize>)>) -> Arc<Self> {
        let endpoints = endpoints.iter().map(|concurrency| Slot {
            concurrency: *concurrency,
            outstanding: 0,
            guard: Guard::new(breaker.clone()),
            left_alone_until: None,
            last_granted: 0,
        });
        let models = models.into_iter().map(|(concurrency, endpoints)| Queue {
            concurrency,
            running: 0,
            endpoints,
            waiting: VecDeque::new(),
        });
        let state =
            State { endpoints: endpoints.collect(), models: models.collect(), next: 0, closed: false };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new() })
    }

    /// A place, in turn.
    pub(super) async fn enter(
        self: &Arc<Self>,
        model: usize,
        past: &Past,
        deadline: Instant,
        patience: Duration,
    ) -> Result<Place, NoPlace> {
        let patient_until = deadline.min(Instant::now() + patience);
        let (granted, mut place) = oneshot::channel();
        let number = {
            let mut state = self.lock();
            if state.closed {
                return Err(NoPlace::Closed);
            }
            state.next += 1;
            let waiter = Waiter { number: state.next, since: Instant::now(), past: past.clone(), granted };
            let number = waiter.number;
            state.models[model].waiting.push_back(waiter);
            number
        };
        let _leave = Leave { gate: self, model, number };
        loop {
            // Made before looking, so that no change is missed.
            let changed = self.changed.notified();
            self.grant();
            let (wakes, all_rest) = self.lock().wakes(model, past);
            if all_rest && wakes.is_some_and(|at| at > patient_until) {
                return place.try_recv().map_err(|_| NoPlace::AllRest);
            }
            tokio::select! {
                biased;
                granted = &mut place => return granted.map_err(|_| NoPlace::Closed),
                () = changed => {}
                () = sleep_until(wakes.unwrap_or(deadline)), if wakes.is_some() => {}
                () = sleep_until(deadline) => return Err(NoPlace::Late),
            }
        }
    }

    /// Gives out all places that there are.
    fn grant(self: &Arc<Self>) {
        let mut granted = Vec::new();
        {
            let mut state = self.lock();
            let now = Instant::now();
            while let Some((waiter, model, endpoint)) = state.first(now) {
                let trial = state.take(model, endpoint);
                let place = Place { gate: self.clone(), model, endpoint, trial, settled: false };
                granted.push((waiter.granted, place));
            }
        }
        // Whoever has gone gives its place back as it is dropped, which takes the lock.
        for (waiter, place) in granted {
            drop(waiter.send(place));
        }
    }

    fn give_back(
        self: &Arc<Self>,
        model: usize,
        endpoint: usize,
        trial: bool,
        verdict: Verdict,
        rest: Option<Duration>,
    ) {
        let rests = {
            let mut state = self.lock();
            let now = Instant::now();
            state.models[model].running -= 1;
            let slot = &mut state.endpoints[endpoint];
            slot.outstanding -= 1;
            let before = slot.rests_until(now);
            match verdict {
                Verdict::Healthy => slot.guard.succeeded(),
                Verdict::BrokeDown => slot.guard.broke_down(trial, now),
                Verdict::Nothing => slot.guard.says_nothing(trial, now),
            }
            if let Some(rest) = rest {
                slot.left_alone_until = slot.left_alone_until.max(now.checked_add(rest));
            }
            slot.rests_until(now) != before
        };
        if rests {
            self.changed.notify_waiters();
        }
        self.grant();
    }

    /// Whether the model is anywhere where this request may be asked without delay.
    pub(super) fn has_untried(&self, model: usize, past: &Past) -> bool {
        self.lock().healthy_untried(model, past, Instant::now())
    }

    /// Nobody gets a place any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for model in &mut state.models {
            model.waiting.clear();
        }
    }

    pub(super) fn loads(&self) -> (Vec<Load>, Vec<Demand>) {
        let (state, now) = (self.lock(), Instant::now());
        let loads = state.endpoints.iter().map(|slot| Load {
            outstanding: slot.outstanding,
            breaker: slot.guard.state(now),
            rests_for: slot.rests_until(now).map_or(Duration::ZERO, |until| until - now),
        });
        let demands = state.models.iter().map(|queue| Demand {
            running: queue.running,
            waiting: queue.waiting.len(),
            oldest: queue.waiting.front().map_or(Duration::ZERO, |waiter| now - waiter.since),
        });
        (loads.collect(), demands.collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn rests_until(&self, now: Instant) -> Option<Instant> {
        let left_alone = self.left_alone_until.filter(|until| *until > now);
        self.guard.rests_until(now).max(left_alone)
    }

    fn is_asked(&self, now: Instant) -> bool {
        self.rests_until(now).is_none() && self.guard.lets_pass(now)
    }

    fn has_place(&self, now: Instant) -> bool {
        self.outstanding < self.concurrency && self.is_asked(now)
    }
}

impl State {
    /// The first in the order of coming who can have a place, taken out of its queue.
    fn first(&mut self, now: Instant) -> Option<(Waiter, usize, usize)> {
        let mut first: Option<(u64, usize, usize, usize)> = None;
        for (model, queue) in self.models.iter().enumerate() {
            let free = |endpoint: &usize| self.endpoints[*endpoint].has_place(now);
            if queue.running >= queue.concurrency || !queue.endpoints.iter().any(free) {
                continue;
            }
            // Mostly the first of them; another only where the first waits for an endpoint that it has not tried.
            let found = queue.waiting.iter().enumerate().find_map(|(position, waiter)| {
                Some((waiter.number, model, position, self.pick(queue, &waiter.past, now)?))
            });
            if let Some(found) = found
                && first.is_none_or(|first| found.0 < first.0)
            {
                first = Some(found);
            }
        }
        let (_, model, position, endpoint) = first?;
        Some((self.models[model].waiting.remove(position)?, model, endpoint))
    }

    /// The endpoint with the least to do; of equals, the one that was asked longest ago.
    fn pick(&self, queue: &Queue, past: &Past, now: Instant) -> Option<usize> {
        let better = self.untried(queue, past, now).next().is_some();
        let may = |endpoint: &usize| {
            let slot = &self.endpoints[*endpoint];
            slot.has_place(now)
                && !past.barred.contains(endpoint)
                && !(better && past.tried.contains(endpoint))
        };
        let rank = |endpoint: &usize| {
            let slot = &self.endpoints[*endpoint];
            (slot.outstanding, slot.last_granted)
        };
        queue.endpoints.iter().copied().filter(may).min_by_key(rank)
    }

    /// Endpoints in order, busy or not, where the request has not failed.
    fn untried(&self, queue: &Queue, past: &Past, now: Instant) -> impl Iterator<Item = usize> {
        queue.endpoints.iter().copied().filter(move |endpoint| {
            self.endpoints[*endpoint].is_asked(now)
                && !past.barred.contains(endpoint)
                && !past.tried.contains(endpoint)
        })
    }

    fn healthy_untried(&self, model: usize, past: &Past, now: Instant) -> bool {
        self.untried(&self.models[model], past, now).next().is_some()
    }

    fn take(&mut self, model: usize, endpoint: usize) -> bool {
        self.next += 1;
        self.models[model].running += 1;
        let slot = &mut self.endpoints[endpoint];
        slot.outstanding += 1;
        slot.last_granted = self.next;
        slot.guard.pass()
    }

    /// When the first endpoint of the model that rests is asked again, and whether all of them rest.
    fn wakes(&self, model: usize, past: &Past) -> (Option<Instant>, bool) {
        let now = Instant::now();
        let endpoints =
            self.models[model].endpoints.iter().filter(|endpoint| !past.barred.contains(endpoint));
        let rests: Vec<_> = endpoints.map(|endpoint| self.endpoints[*endpoint].rests_until(now)).collect();
        (rests.iter().flatten().min().copied(), rests.iter().all(Option::is_some))
    }
}

/// Takes a waiter out of its queue, however its wait ends.
struct Leave<'a> {
    gate: &'a Arc<Gate>,
    model: usize,
    number: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        let waiting = &mut state.models[self.model].waiting;
        // In order, so that the search is short.
        if let Ok(position) = waiting.binary_search_by_key(&self.number, |waiter| waiter.number) {
            drop(waiting.remove(position));
        }
    }
}

/// A place at an endpoint, until it is settled or dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    pub(super) model: usize,
    pub(super) endpoint: usize,
    trial: bool,
    settled: bool,
}

impl Place {
    /// The request is over. `rest`: how long the endpoint is left alone, beside what its breaker says.
    pub(super) fn settle(mut self, verdict: Verdict, rest: Option<Duration>) {
        self.settled = true;
        self.gate.give_back(self.model, self.endpoint, self.trial, verdict, rest);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.settled {
            self.gate.give_back(self.model, self.endpoint, self.trial, Verdict::Nothing, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);
    const LATER: Duration = Duration::from_secs(10_000);

    /// Endpoints by concurrency; the models are at all of them.
    fn gate(endpoints: &[usize], models: &[usize]) -> Arc<Gate> {
        let all: Vec<usize> = (0..endpoints.len()).collect();
        let breaker = Breaker { failures: 2, pause: PAUSE, max_pause: PAUSE, ..Breaker::default() };
        Gate::new(endpoints, &breaker, models.iter().map(|concurrency| (*concurrency, all.clone())).collect())
    }

    async fn enter(gate: &Arc<Gate>, model: usize) -> Place {
        gate.enter(model, &Past::default(), Instant::now() + LATER, LATER).await.unwrap()
    }

    fn waits(gate: &Arc<Gate>, model: usize, past: Past) -> tokio::task::JoinHandle<Result<Place, NoPlace>> {
        let gate = gate.clone();
        tokio::spawn(async move { gate.enter(model, &past, Instant::now() + LATER, LATER).await })
    }

    async fn waiting(gate: &Arc<Gate>, model: usize, count: usize) {
        while gate.loads().1[model].waiting != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn equals_are_asked_by_turns_and_the_least_busy_first() {
        let gate = gate(&[3, 3], &[9]);
        let places = [enter(&gate, 0).await, enter(&gate, 0).await, enter(&gate, 0).await];
        assert_eq!(places.each_ref().map(|place| place.endpoint), [0, 1, 0]);
        let [first, second, third] = places;
        drop((first, third));
        assert_eq!(enter(&gate, 0).await.endpoint, 0, "the other has one");
        drop(second);
        assert_eq!(enter(&gate, 0).await.endpoint, 1, "longest ago");
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_first_is_served_first_over_all_models_but_nobody_waits_for_a_model_that_is_full() {
        let gate = gate(&[2], &[1, 2]);
        let (full, other) = (enter(&gate, 0).await, enter(&gate, 1).await);
        let mut asked = Vec::new();
        for (number, model) in [0, 1, 0, 1].into_iter().enumerate() {
            asked.push(waits(&gate, model, Past::default()));
            waiting(&gate, model, number / 2 + 1).await;
        }
        let [first, second, third, fourth] = <[_; 4]>::try_from(asked).unwrap();
        // The first model is full, so that its first has to wait although it came before.
        drop(other);
        let second = second.await.unwrap().unwrap();
        assert!(!first.is_finished());
        drop(full);
        let first = first.await.unwrap().unwrap();
        assert!(!third.is_finished() && !fourth.is_finished());
        drop(first);
        let third = third.await.unwrap().unwrap();
        assert!(!fourth.is_finished(), "it came last");
        drop(second);
        drop((fourth.await.unwrap().unwrap(), third));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_an_endpoint_that_rests_goes_on_when_its_rest_ends() {
        let gate = gate(&[1], &[9]);
        let start = Instant::now();
        enter(&gate, 0).await.settle(Verdict::Nothing, Some(PAUSE));
        assert_eq!(enter(&gate, 0).await.endpoint, 0);
        assert_eq!(start.elapsed(), PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_that_begins_while_somebody_waits_is_waited_for_too() {
        let gate = gate(&[1, 1], &[9]);
        let (first, second) = (enter(&gate, 0).await, enter(&gate, 0).await);
        let waits = waits(&gate, 0, Past::default());
        waiting(&gate, 0, 1).await;
        let start = Instant::now();
        first.settle(Verdict::Nothing, Some(PAUSE));
        let granted = waits.await.unwrap().unwrap();
        assert_eq!((granted.endpoint, start.elapsed()), (0, PAUSE), "the other is still busy");
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_tries_an_endpoint_that_broke_down_and_the_others_wait_for_it() {
        let gate = gate(&[5], &[9]);
        for _ in 0..2 {
            enter(&gate, 0).await.settle(Verdict::BrokeDown, None);
        }
        assert_eq!(gate.loads().0[0].breaker, BreakerState::Open);
        let (one, other) = (waits(&gate, 0, Past::default()), waits(&gate, 0, Past::default()));
        waiting(&gate, 0, 2).await;
        let start = Instant::now();
        let trial = one.await.unwrap().unwrap();
        assert!(start.elapsed() >= PAUSE && start.elapsed() <= 2 * PAUSE);
        assert!(!other.is_finished());
        // Nobody waits for its answer any more: the next one tries.
        drop(trial);
        let trial = other.await.unwrap().unwrap();
        assert_eq!(gate.loads().0[0].breaker, BreakerState::HalfOpen);
        let more = waits(&gate, 0, Past::default());
        waiting(&gate, 0, 1).await;
        trial.settle(Verdict::Healthy, None);
        assert!(more.await.unwrap().is_ok());
        assert_eq!(gate.loads().0[0].breaker, BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_failed_somewhere_waits_for_another_that_is_in_order_and_for_no_other() {
        let gate = gate(&[2, 1], &[9]);
        let past = Past { tried: vec![0], barred: vec![] };
        let busy = [enter(&gate, 0).await, enter(&gate, 0).await];
        assert_eq!(busy[1].endpoint, 1);
        let asked = waits(&gate, 0, past.clone());
        waiting(&gate, 0, 1).await;
        // Somebody who has not failed there takes the free place meanwhile.
        assert_eq!(enter(&gate, 0).await.endpoint, 0);
        let [first, second] = busy;
        second.settle(Verdict::Nothing, Some(PAUSE));
        assert_eq!(asked.await.unwrap().unwrap().endpoint, 0, "the other rests now");
        drop(first);
        let barred = Past { tried: vec![], barred: vec![0] };
        let start = Instant::now();
        let granted = gate.enter(0, &barred, start + LATER, LATER).await.unwrap();
        assert_eq!((granted.endpoint, start.elapsed()), (1, PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_past_the_deadline_or_all_patience_is_not_waited_for() {
        let gate = gate(&[1], &[9]);
        enter(&gate, 0).await.settle(Verdict::Nothing, Some(PAUSE));
        let start = Instant::now();
        for (deadline, patience) in [(PAUSE / 2, LATER), (LATER, PAUSE / 2)] {
            let refused = gate.enter(0, &Past::default(), start + deadline, patience).await;
            assert_eq!((refused.unwrap_err(), start.elapsed()), (NoPlace::AllRest, Duration::ZERO));
        }
        assert_eq!(gate.loads().1[0].waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn however_requests_come_and_go_places_are_neither_lost_nor_made() {
        let gate = gate(&[2, 1], &[2, 2]);
        let mut state = 1_u64;
        let mut random = move |below: u64| {
            // A linear congruential generator: the same each time.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut all = Vec::new();
        for _ in 0..2000 {
            let (model, hold, verdict, given_up) = (random(2), random(50), random(5), random(60));
            let gate = gate.clone();
            all.push(tokio::spawn(async move {
                let asked = async {
                    let place = enter(&gate, model as usize).await;
                    tokio::time::sleep(Duration::from_millis(hold)).await;
                    let (loads, demands) = gate.loads();
                    assert!(loads[0].outstanding <= 2 && loads[1].outstanding <= 1);
                    assert!(demands.iter().all(|demand| demand.running <= 2));
                    match verdict {
                        0 => place.settle(Verdict::BrokeDown, None),
                        1 => place.settle(Verdict::Nothing, Some(Duration::from_millis(5))),
                        2 => drop(place),
                        _ => place.settle(Verdict::Healthy, None),
                    }
                };
                if given_up < 20 {
                    // Gone while it waits, or while it is worked.
                    drop(tokio::time::timeout(Duration::from_millis(given_up), asked).await);
                } else {
                    asked.await;
                }
            }));
        }
        for one in all {
            one.await.unwrap();
        }
        let (loads, demands) = gate.loads();
        assert!(loads.iter().all(|load| load.outstanding == 0));
        assert!(demands.iter().all(|demand| demand.running == 0 && demand.waiting == 0));
    }
}
