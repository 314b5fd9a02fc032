//! One soak from start to report: feed and faults side by side, then rest, then a look at everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use harness::dice::Dice;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    collect::Collected,
    faults::{Kill, inject},
    feed::feed,
    journal::Journal,
    options::{Kind, Options},
    place::{ACK_WAIT, Place},
    plain::Plain,
    report::Report,
    schedule::{Step, schedule},
    tap::Tap,
    verdict::Verdict,
    windows::Windows,
};

/// Events fed and not begun.
const BACKLOG: u64 = 256;
const POLL: Duration = Duration::from_millis(20);
/// Nothing new for so long means that nothing will come. Longer than any wait of the product that is not cut short.
const QUIET: Duration = Duration::from_secs(25);
/// Streams of the fleet's contract keep their newest 10,000 messages.
const COLLECT: Duration = Duration::from_secs(3);
/// What the product gives its executor's durable.
const EXECUTORS: Duration = Duration::from_secs(30);
/// Kills after which each window must have been hit.
const MANY: u64 = 100;

struct Soak {
    options: Options,
    place: Place,
    journal: Journal,
    collected: Collected,
    tap: Option<Tap>,
    allowed: watch::Sender<u64>,
    kills: Vec<Kill>,
    faults: BTreeMap<&'static str, u64>,
    unfinished: Option<String>,
}

pub(crate) async fn run(options: Options) -> Report {
    let seed = options.seed.unwrap_or_else(|| Dice::new().seed());
    say(&format!("seed {seed}"));
    let steps = schedule(&options, seed);
    let place = Place::start(&options).await;
    let tap = match &place.plain {
        Plain::Nats { client, .. } => Some(Tap::on(client.clone()).await),
        Plain::Local { .. } => None,
    };
    let (allowed, told) = watch::channel(0);
    let feed = tokio::spawn(feed(place.plain.clone(), seed, options.events, told));
    let began = Instant::now();
    let journal = Journal::of(&place.journal());
    let (collected, kills, faults, unfinished) = Default::default();
    let mut soak = Soak { options, place, journal, collected, tap, allowed, kills, faults, unfinished };
    soak.faults(&steps).await;
    feed.await.expect("the feed");
    say("all is fed");
    soak.rest().await;
    soak.report(seed, began.elapsed())
}

impl Soak {
    /// Steps at their places in the feed, which goes no further before they are done.
    async fn faults(&mut self, steps: &[Step]) {
        let (events, count) = (self.options.events, steps.len() as u64 + 1);
        let mut collected_at = Instant::now();
        let told_every = (steps.len() / 20).max(1);
        for (number, step) in steps.iter().enumerate() {
            let due = events * (number as u64 + 1) / count;
            self.allowed.send_replace((due + BACKLOG).min(events));
            loop {
                self.journal.refresh();
                if self.journal.events() >= due {
                    break;
                }
                sleep(POLL).await;
                self.collect_now_and_then(&mut collected_at).await;
            }
            if number % told_every == 0 {
                say(&format!("{due} events, {number} of {} faults", steps.len()));
            }
            *self.faults.entry(step.kind.name()).or_default() += 1;
            self.kills.extend(inject(&mut self.place, step, self.tap.as_ref()).await);
            self.collect_now_and_then(&mut collected_at).await;
        }
        self.allowed.send_replace(events);
    }

    async fn collect_now_and_then(&mut self, last: &mut Instant) {
        if self.place.is_local() && last.elapsed() > COLLECT {
            *last = Instant::now();
            drop(self.collected.refresh(&self.place.plain).await);
        }
    }

    /// Waits until all is through, then lets every host come again to whatever it may think is not.
    async fn rest(&mut self) {
        self.place.plain.executors_ack_wait(ACK_WAIT).await.expect("the executor's durable");
        self.quiet(true).await;
        self.place.plain.executors_ack_wait(EXECUTORS).await.expect("the executor's durable");
        self.place.stop_hosts().await;
        for number in 0..self.place.hosts.len() {
            self.place.start_host(number).await;
        }
        sleep(ACK_WAIT).await;
        self.quiet(false).await;
    }

    /// Until every event has all it should have and nothing is owed, or nothing new comes any more.
    async fn quiet(&mut self, patiently: bool) {
        let mut news = Instant::now();
        let (mut calls, mut owed_before) = (0, 0);
        self.unfinished = None;
        loop {
            self.journal.refresh();
            let any = self.collected.refresh(&self.place.plain).await.expect("readable streams");
            let owed = self.place.plain.unsettled().await.expect("durables");
            let called = std::mem::replace(&mut calls, self.journal.calls.len()) != self.journal.calls.len();
            if any || called || owed != owed_before {
                news = Instant::now();
            }
            owed_before = owed;
            let complete = self.collected.is_complete(self.options.events);
            if complete && owed == 0 && !any && !called {
                return;
            }
            let patience = if patiently && self.place.is_local() || owed > 0 { QUIET } else { ACK_WAIT };
            if news.elapsed() > patience {
                if owed > 0 {
                    self.unfinished =
                        Some(format!("{owed} deliveries are owed, and nothing happens any more"));
                }
                return;
            }
            sleep(10 * POLL).await;
        }
    }

    /// Whether the order of a key is promised here: on NATS events that a dead or frozen host held come again after those that
    /// nobody held.
    fn keeps_order(&self) -> bool {
        let lets_go = |kind: &Kind| matches!(kind, Kind::Daemon | Kind::Pause);
        self.place.is_local() || (self.options.hosts() == 1 && !self.options.kinds().iter().any(lets_go))
    }

    fn report(self, seed: u64, took: Duration) -> Report {
        let events = self.options.events;
        let verdict = Verdict::of(&self.collected, &self.journal, &failed(&self.place.logs()));
        let runs: BTreeMap<u64, u64> =
            self.collected.outs.iter().map(|(_, mark, _)| (mark.event, mark.run)).collect();
        let windows = match &self.tap {
            Some(tap) => Windows::by_ear(&self.kills, &self.journal, &tap.heard(), &runs),
            None => Windows::by_calls(&self.kills, &self.journal),
        };
        let fed: BTreeSet<u64> = self.collected.events.values().map(|fed| fed.n).collect();
        let kills =
            Kind::NATS.iter().filter(|kind| kind.kills()).filter_map(|k| self.faults.get(k.name())).sum();
        let misordered = verdict.misordered_keys + verdict.misordered_effects;

        let mut failed = Vec::new();
        let mut check = |bad: bool, why: String| {
            if bad {
                failed.push(why);
            }
        };
        check(self.unfinished.is_some(), self.unfinished.clone().unwrap_or_default());
        check(fed.len() as u64 != events, format!("{} of {events} events were stored", fed.len()));
        check(verdict.lost > 0, format!("lost: {}", verdict.lost));
        check(verdict.repeated_effects > 0, format!("repeated_effects: {}", verdict.repeated_effects));
        check(
            verdict.misordered_effects > 0,
            format!("misordered within events: {}", verdict.misordered_effects),
        );
        let ordered = self.keeps_order();
        check(ordered && verdict.misordered_keys > 0, format!("misordered: {}", verdict.misordered_keys));
        check(verdict.calls_rekeyed > 0, format!("calls with several keys: {}", verdict.calls_rekeyed));
        check(!self.collected.dead.is_empty(), format!("dead letters: {}", self.collected.dead.len()));
        let hit = self.kills.len() as u64;
        for window in windows.missed() {
            check(hit >= MANY, format!("no kill hit the window {window}"));
        }
        let of_keys = verdict.told_of_keys.iter().filter(|_| ordered);
        for told in verdict.told.iter().chain(of_keys).chain(self.collected.dead.iter().take(5)) {
            say(told);
        }
        Report {
            bus: self.options.bus.name(),
            hosts: self.options.hosts(),
            events: self.collected.events.len() as u64,
            kills,
            faults: self.faults,
            reruns: verdict.reruns,
            lost: verdict.lost,
            repeated_effects: verdict.repeated_effects,
            misordered,
            calls_resent: verdict.calls_resent,
            windows,
            seed,
            seconds: took.as_secs(),
            failed,
        }
    }
}

/// Events that failed or were handed back, by what the hosts logged.
fn failed(logs: &[PathBuf]) -> BTreeSet<u64> {
    let mut failed = BTreeSet::new();
    for log in logs {
        for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            let event: Option<u64> =
                line["event"].as_str().and_then(|id| id.rsplit('.').next()?.parse().ok());
            failed.extend(event);
        }
    }
    failed
}

/// Progress, for whoever watches.
fn say(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}
