//! One soak from start to report: feed and faults side by side, then rest, then a look at everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    time::Duration,
};

use harness::dice::Dice;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    collect::{Collected, Fed},
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

/// Events fed and not begun, at least and at most: what is to go on while something is down. Enough that events without a key
/// reach the next fault while those with a key still wait for another host's turn: then that is hit, too.
const BACKLOG: [u64; 2] = [256, 2048];
const POLL: Duration = Duration::from_millis(20);
/// Nothing new for so long means that nothing will come. Longer than any wait of the product that is not cut short.
const QUIET: Duration = Duration::from_secs(25);
/// Streams of the fleet's contract keep their newest 10,000 messages.
const COLLECT: Duration = Duration::from_secs(3);

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
    soak.collected.refresh_recorded(&soak.place.plain).await.expect("a readable stream");
    soak.report(seed, began.elapsed())
}

impl Soak {
    /// Steps at their places in the feed, which goes no further before they are done.
    async fn faults(&mut self, steps: &[Step]) {
        let (events, count) = (self.options.events, steps.len() as u64 + 1);
        let backlog = (4 * events / count).clamp(BACKLOG[0], BACKLOG[1]);
        let mut collected_at = Instant::now();
        let mut took = Duration::ZERO;
        let told_every = (steps.len() / 20).max(1);
        for (number, step) in steps.iter().enumerate() {
            let due = events * (number as u64 + 1) / count;
            self.allowed.send_replace((due + backlog).min(events));
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
            let began = Instant::now();
            self.kills.extend(inject(&mut self.place, step, self.tap.as_ref()).await);
            took += began.elapsed();
            self.collect_now_and_then(&mut collected_at).await;
        }
        self.allowed.send_replace(events);
        say(&format!("the faults took {} s", took.as_secs()));
    }

    async fn collect_now_and_then(&mut self, last: &mut Instant) {
        if self.place.is_local() && last.elapsed() > COLLECT {
            *last = Instant::now();
            drop(self.collected.refresh(&self.place.plain).await);
        }
    }

    /// Waits until all is through, then lets every host come again to whatever it may think is not.
    async fn rest(&mut self) {
        self.quiet(true).await;
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
            let called = std::mem::replace(&mut calls, self.journal.calls()) != self.journal.calls();
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

    fn report(self, seed: u64, took: Duration) -> Report {
        let events = self.options.events;
        let mut verdict = Verdict::of(&self.collected, &self.journal);
        let plain = |event: &u64| self.collected.events.get(event).is_some_and(Fed::is_plain);
        let outs = self.collected.outs.iter().filter(|(_, mark, out)| out.attempt == 1 && plain(&mark.event));
        let runs: BTreeMap<u64, u64> = outs.map(|(_, mark, _)| (mark.event, mark.run)).collect();
        let windows = match &self.tap {
            Some(tap) => Windows::by_ear(&self.kills, &self.journal, &tap.heard(), &runs),
            None => Windows::by_calls(&self.kills, &self.journal, &runs),
        };
        let fed: BTreeSet<u64> = self.collected.events.values().map(|fed| fed.n).collect();
        let kills =
            Kind::ALL.iter().filter(|kind| kind.kills()).filter_map(|k| self.faults.get(k.name())).sum();
        // Each was acknowledged.
        verdict.lost += (0..events).filter(|n| !fed.contains(n)).count() as u64;
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
        let (keys, effects) = (verdict.misordered_keys, verdict.misordered_effects);
        check(misordered > 0, format!("misordered: {keys} events of a key, effects of {effects} events"));
        check(verdict.once_repeated > 0, format!("once_calls_repeated: {}", verdict.once_repeated));
        check(verdict.once_unrecorded > 0, format!("answers not recorded: {}", verdict.once_unrecorded));
        check(verdict.unjust > 0, format!("dead letters that nobody asked for: {}", verdict.unjust));
        let cuts_off = self.options.kills > 0 && self.options.kinds().into_iter().any(Kind::cuts_off);
        for window in windows.missed() {
            check(cuts_off, format!("no kill hit the window {window}"));
        }
        verdict.told.iter().for_each(|told| say(told));
        Report {
            bus: self.options.bus.name(),
            hosts: self.options.hosts(),
            nodes: (!self.place.is_local()).then_some(self.options.nodes()),
            events: self.collected.events.len() as u64,
            kills,
            faults: self.faults,
            reruns: verdict.reruns,
            lost: verdict.lost,
            repeated_effects: verdict.repeated_effects,
            misordered,
            once_calls_repeated: verdict.once_repeated,
            once_calls_resent: verdict.once_resent,
            windows,
            seed,
            seconds: took.as_secs(),
            failed,
        }
    }
}

/// Progress, for whoever watches.
fn say(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}
