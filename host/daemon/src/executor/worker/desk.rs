//! Decides which job is begun next, here. It asks the queues for no more jobs than it has places for, and what came all the same and
//! can't be begun within a moment it hands back, so that another worker has it.
//!
//! When a place is free, several queues are asked at once, and the one that answers first is not for that the one whose turn it is. So
//! somebody with a better claim who was asked a moment ago is waited for, some milliseconds; queues that have been asked for longer
//! have nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Taken, Worker,
    pull::{Want, pull},
};
use crate::{
    dispatch::hand_back,
    executor::{
        job::Queue,
        queues::fair::{Fair, Line, Next},
    },
};

/// A queue that has a job answers within this time, mostly.
const ANSWERS: Duration = Duration::from_millis(40);
/// The same of one that had more the last time.
const HAS_MORE: Duration = Duration::from_millis(250);
/// Until a queue that was just found is asked at all.
const OPENS: Duration = Duration::from_secs(1);
/// Between looks at what was asked for in vain, or is held in vain.
const TICK: Duration = Duration::from_millis(250);
/// So long a job is held that can't be begun.
const HELD: Duration = Duration::from_millis(500);
/// So long nobody serves a model before its jobs are given up.
const UNSERVED: Duration = Duration::from_secs(30);
/// Jobs that only have to be told as ended, or split, at a time: they need no model's place.
const SPARE: usize = 8;
/// Where all places are taken for long, the oldest job of each queue is looked at so often: its time may be over.
const LOOKS: Duration = Duration::from_secs(5);
/// Bytes of jobs that are held and not begun, over all queues.
const MAX_HELD: usize = 32 << 20;
/// Asked for of each queue, though enough was asked for.
const FEW: usize = 2;
/// Ticks without anything to do, after which what plugins have had does not count any more.
const REST: u32 = 8;

/// Something that the desk hears of.
pub(super) enum Event {
    /// There is such a queue.
    Queue(Queue),
    /// It can be asked now.
    Opened(usize),
    /// A job came, or another copy of one that is in hand. `word` of the desk's is the one it was wanted by.
    Arrived { lane: usize, word: u64, taken: Option<Box<Taken>> },
    /// A job ended here, or was handed back.
    Left { lane: usize, spare: bool, charged: f64, used: u64 },
}

/// One queue, here.
struct Lane {
    queue: Queue,
    /// Its own, or the default one.
    model: String,
    /// Where it takes deliveries, once it does.
    wants: Option<watch::Sender<Want>>,
    /// Asked for and not here.
    wanted: usize,
    word: u64,
    /// When it last was asked, or answered.
    asked: Instant,
    /// When it last was empty-handed for want of places, and looked at all the same.
    looked: Option<Instant>,
    found: Instant,
    opened: bool,
    /// It had more then.
    more: bool,
    /// More is asked for than there are places, since the last tick.
    over: bool,
    held: VecDeque<Box<Taken>>,
    serves: Serves,
    running: usize,
}

/// Who works the jobs of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    We,
    Others,
    /// Nobody does, since.
    Nobody(Instant),
    /// Nobody did for so long that we tell its jobs as failed.
    GivenUp,
}

pub(super) struct Desk {
    worker: Arc<Worker>,
    lanes: Vec<Lane>,
    by_queue: HashMap<Queue, usize>,
    fair: Fair,
    /// Jobs that are worked, by model.
    running: HashMap<String, usize>,
    all: usize,
    spare: usize,
    idle: u32,
    events: mpsc::UnboundedSender<Event>,
    jobs: TaskTracker,
    tasks: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
    pulls: TaskTracker,
}

impl Desk {
    pub(super) fn new(
        worker: Arc<Worker>,
        events: mpsc::UnboundedSender<Event>,
        jobs: TaskTracker,
        tasks: TaskTracker,
        stop: CancellationToken,
        abort: CancellationToken,
    ) -> Self {
        let weights = worker.config.shares.iter().map(|(plugin, share)| (plugin.clone(), share.weight));
        Self {
            fair: Fair::new(weights),
            worker,
            lanes: Vec::new(),
            by_queue: HashMap::new(),
            running: HashMap::new(),
            all: 0,
            spare: 0,
            idle: 0,
            events,
            jobs,
            tasks,
            stop,
            abort,
            pulls: TaskTracker::new(),
        }
    }

    /// Until `stop`.
    pub(super) async fn run(
        mut self,
        mut arriving: mpsc::UnboundedReceiver<Event>,
        mut heard: watch::Receiver<bool>,
        taking: watch::Sender<bool>,
    ) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => return,
            _ = heard.wait_for(|heard| *heard) => {}
        }
        taking.send_replace(true);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // First: who is asked and may have something has a say in who begins.
            self.ask();
            let waits = self.begin();
            tokio::select! {
                () = stop.cancelled() => break,
                event = arriving.recv() => {
                    event.into_iter().for_each(|event| self.note(event));
                    while let Ok(event) = arriving.try_recv() {
                        self.note(event);
                    }
                }
                () = tokio::time::sleep_until(waits.unwrap_or_else(Instant::now)), if waits.is_some() => {}
                _ = tick.tick() => self.tick().await,
            }
        }
        taking.send_replace(false);
        self.pulls.close();
        self.pulls.wait().await;
        while let Ok(event) = arriving.try_recv() {
            self.note(event);
        }
        for taken in self.lanes.iter_mut().flat_map(|lane| lane.held.drain(..)) {
            give_back(*taken).await;
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Queue(queue) => self.open(queue),
            Event::Opened(lane) => {
                let lane = &mut self.lanes[lane];
                (lane.opened, lane.asked) = (true, Instant::now());
            }
            Event::Arrived { lane, word, taken } => {
                let lane = &mut self.lanes[lane];
                if lane.word == word {
                    lane.wanted = lane.wanted.saturating_sub(1);
                }
                lane.asked = Instant::now();
                lane.more = taken.as_ref().is_some_and(|taken| taken.delivery.behind > 0);
                lane.held.extend(taken);
            }
            Event::Left { lane, spare, charged, used } => {
                let lane = &mut self.lanes[lane];
                lane.running -= 1;
                if spare {
                    self.spare -= 1;
                    return;
                }
                self.all -= 1;
                if let Some(running) = self.running.get_mut(&lane.model) {
                    *running -= 1;
                }
                self.fair.ended(&lane.queue.plugin, charged, used);
            }
        }
    }

    fn open(&mut self, queue: Queue) {
        if self.by_queue.contains_key(&queue) {
            return;
        }
        self.by_queue.insert(queue.clone(), self.lanes.len());
        let model = if queue.model.is_empty() { &self.worker.config.model } else { &queue.model }.clone();
        let serves = if self.worker.backend.serves(&model) { Serves::We } else { Serves::Others };
        self.lanes.push(Lane {
            queue,
            model,
            wants: None,
            wanted: 0,
            word: 0,
            asked: Instant::now(),
            looked: Some(Instant::now()),
            found: Instant::now(),
            opened: false,
            more: false,
            over: false,
            held: VecDeque::new(),
            serves,
            running: 0,
        });
        if serves == Serves::We {
            self.want(self.lanes.len() - 1, 0);
        }
    }

    /// How many jobs of this lane may be begun now.
    fn free(&self, lane: &Lane) -> usize {
        match lane.serves {
            Serves::We => {
                let all = (self.worker.config.concurrency as usize).saturating_sub(self.all);
                let model = self.places(&lane.model);
                all.min(model.saturating_sub(self.running.get(&lane.model).copied().unwrap_or_default()))
            }
            Serves::GivenUp => SPARE - self.spare.min(SPARE),
            Serves::Others | Serves::Nobody(_) => 0,
        }
    }

    fn places(&self, model: &str) -> usize {
        match self.worker.backend.models() {
            None => usize::MAX,
            Some(models) => {
                models.iter().find(|places| places.model == model).map_or(0, |places| places.concurrency)
            }
        }
    }

    /// Begins what can be begun. Until when somebody is waited for.
    fn begin(&mut self) -> Option<Instant> {
        let now = Instant::now();
        for index in 0..self.lanes.len() {
            let given_up = self.lanes[index].serves == Serves::GivenUp;
            while self.spare < SPARE {
                let lane = &mut self.lanes[index];
                let brief = |taken: &Taken| given_up || self.worker.is_brief(taken);
                let Some(taken) = lane.held.pop_front_if(|taken| brief(taken)) else { break };
                // There may be more of the kind.
                lane.looked = None;
                self.start(index, taken, true);
            }
        }
        loop {
            let candidates = self.lanes.iter().filter(|lane| lane.serves == Serves::We);
            let active = candidates.filter(|lane| !lane.held.is_empty() || lane.is_asked(now)).count();
            let lines = self.lanes.iter().enumerate().filter(|(_, lane)| lane.serves == Serves::We);
            let lines = lines.filter_map(|(key, lane)| {
                let free = self.free(lane);
                let submitted = match lane.held.front() {
                    _ if free == 0 => return None,
                    Some(taken) => Some(taken.delivery.stored.timestamp),
                    // Where there is room for all, nobody takes another's place.
                    None if lane.is_asked(now) && free < active => None,
                    None => return None,
                };
                let Queue { plugin, priority, .. } = &lane.queue;
                Some(Line { key, plugin, priority: *priority, submitted })
            });
            match self.fair.next(lines) {
                Next::Begin(lane) => {
                    let taken = self.lanes[lane].held.pop_front()?;
                    self.start(lane, taken, false);
                }
                Next::Wait => {
                    let asked = self.lanes.iter().filter(|lane| lane.held.is_empty() && lane.is_asked(now));
                    return asked.map(Lane::answers_by).min();
                }
                Next::Nothing => return None,
            }
        }
    }

    /// `spare`: in no model's place.
    fn start(&mut self, index: usize, taken: Box<Taken>, spare: bool) {
        let lane = &mut self.lanes[index];
        let served = lane.serves != Serves::GivenUp;
        lane.running += 1;
        self.idle = 0;
        let charged = if spare {
            self.spare += 1;
            0.0
        } else {
            self.all += 1;
            *self.running.entry(lane.model.clone()).or_default() += 1;
            self.fair.begun(&lane.queue.plugin, taken.cost)
        };
        let place = Place { events: self.events.clone(), lane: index, spare, charged, used: 0 };
        let (worker, abort) = (self.worker.clone(), self.abort.clone());
        let job = async move {
            // All of it, to be dropped in the end.
            let mut place = place;
            let used = tokio::select! {
                biased;
                () = abort.cancelled() => None,
                used = worker.work(&taken, served) => Some(used),
            };
            match used {
                Some(used) => place.used = used,
                None => {
                    tracing::warn!(
                        event = taken.delivery.id(),
                        "stopped while it was worked; it is handed back"
                    );
                    give_back(*taken).await;
                }
            }
        };
        self.tasks.spawn(self.jobs.track_future(Box::pin(job)));
    }

    /// Jobs that were asked for and are not begun, and the bytes of those that are here.
    fn out(&self) -> (usize, usize) {
        let held = |lane: &Lane| lane.held.iter().map(|taken| taken.bytes).sum::<usize>();
        self.lanes
            .iter()
            .fold((0, 0), |(jobs, bytes), lane| (jobs + lane.wanted + lane.held.len(), bytes + held(lane)))
    }

    /// Wants as many jobs of each queue as could be begun. Those of all queues together are no more than twice the places, or a few
    /// of each: not all of them can be begun.
    fn ask(&mut self) {
        let (mut out, bytes) = self.out();
        if bytes > MAX_HELD {
            return;
        }
        let most = 2 * self.worker.config.concurrency as usize;
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            let free = self.free(lane);
            let room = free.saturating_sub(lane.held.len());
            if free == 0 && lane.serves == Serves::We && lane.wanted == 0 && lane.is_to_be_looked_at() {
                self.lanes[index].looked = Some(Instant::now());
                self.want(index, 1);
                continue;
            }
            if free > 0 {
                self.lanes[index].looked = Some(Instant::now());
            }
            let lane = &self.lanes[index];
            let count = room.min(most.saturating_sub(out).max(FEW));
            // Not for every place that becomes free where many are.
            if count > lane.wanted && lane.wanted * 2 <= count {
                out += count - lane.wanted;
                self.want(index, count);
            }
        }
    }

    fn want(&mut self, index: usize, count: usize) {
        let lane = &mut self.lanes[index];
        lane.word += 1;
        (lane.wanted, lane.asked, lane.over) = (count, Instant::now(), false);
        let want = (count, lane.word);
        if let Some(wants) = &lane.wants {
            wants.send_replace(want);
            return;
        }
        let (wants, wanted) = watch::channel(want);
        lane.wants = Some(wants);
        let (worker, queue) = (self.worker.clone(), lane.queue.clone());
        self.pulls.spawn(pull(worker, index, queue, wanted, self.events.clone(), self.stop.clone()));
    }

    async fn tick(&mut self) {
        self.look_who_serves();
        let mut back = Vec::new();
        let (_, bytes) = self.out();
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            let room = self.free(lane).saturating_sub(lane.held.len());
            if lane.wanted > room && lane.over {
                self.want(index, room);
            } else {
                self.lanes[index].over = lane.wanted > room;
            }
            let lane = &mut self.lanes[index];
            // Somebody else had it.
            lane.more &= lane.wanted == 0 || lane.asked.elapsed() < HAS_MORE;
            let before = back.len();
            while lane.held.front().is_some_and(|taken| taken.arrived.elapsed() >= HELD) {
                back.extend(lane.held.pop_front());
            }
            if (back.len() > before || bytes > MAX_HELD) && self.lanes[index].wanted > 0 {
                // It would come straight back, or be too much.
                self.want(index, 0);
            }
        }
        for taken in back {
            give_back(*taken).await;
        }
        let busy = self.all > 0 || self.lanes.iter().any(|lane| !lane.held.is_empty());
        self.idle = if busy { 0 } else { self.idle.saturating_add(1) };
        if self.idle == REST {
            self.fair.rest();
        }
    }

    /// Finds the queues that nobody works.
    fn look_who_serves(&mut self) {
        if self.lanes.iter().all(|lane| lane.serves == Serves::We) {
            return;
        }
        let hears = self.worker.others.are_heard();
        let models = self.worker.others.models();
        let now = Instant::now();
        for lane in self.lanes.iter_mut().filter(|lane| lane.serves != Serves::We) {
            let served = models.as_ref().is_none_or(|models| models.contains(&lane.model));
            lane.serves = match lane.serves {
                _ if served || !hears => Serves::Others,
                Serves::Nobody(since) if now - since >= UNSERVED => {
                    let model = lane.model.as_str();
                    tracing::warn!(
                        model,
                        plugin = lane.queue.plugin,
                        "no worker serves this model; its jobs fail"
                    );
                    Serves::GivenUp
                }
                Serves::Others => Serves::Nobody(now),
                as_before => as_before,
            };
        }
    }
}

impl Lane {
    /// It was asked a moment ago, and may have something.
    fn is_asked(&self, now: Instant) -> bool {
        self.wanted > 0 && now < self.answers_by()
    }

    fn answers_by(&self) -> Instant {
        if self.opened { self.asked + self.patience() } else { self.found + OPENS }
    }

    fn is_to_be_looked_at(&self) -> bool {
        self.looked.is_none_or(|at| at.elapsed() >= LOOKS)
    }

    fn patience(&self) -> Duration {
        if self.more { HAS_MORE } else { ANSWERS }
    }
}

/// A job's place, until it is dropped.
struct Place {
    events: mpsc::UnboundedSender<Event>,
    lane: usize,
    spare: bool,
    charged: f64,
    used: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Place { lane, spare, charged, used, .. } = *self;
        drop(self.events.send(Event::Left { lane, spare, charged, used }));
    }
}

/// For others to have it at once.
async fn give_back(taken: Taken) {
    let Taken { delivery, entry, .. } = taken;
    drop(entry);
    hand_back(&delivery, None).await;
}
