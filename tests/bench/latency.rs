//! From the moment an event was to be sent to the moment its output was stored, at a tenth, a half and nine tenths of what our
//! side can do at most. Both sides get the same events a second.

use serde_json::Value;

use crate::{
    bare::Program,
    feed::{Batch, feed},
    outcome::{Goal, Outcome, median, spread},
    outputs::Output,
    pace::{Schedule, pace},
    report::say,
    rig::{Isolation, Rig, Route},
    track::{Track, drain},
    work::{Class, Work},
};

const WORK: Work = Work::Publish;
/// Shares of the peak, and their names.
const SHARES: [(&str, f64); 3] = [("tenth", 0.1), ("half", 0.5), ("most", 0.9)];
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];
/// The share that has a goal is measured more often.
const ROUNDS: u64 = 3;
const ROUNDS_HALF: u64 = 5;
/// What a side does to begin is not counted: this share of a round's events.
const BEGIN: f64 = 0.1;
/// The feeder fell behind if it sent less than this share of what it was to.
const KEPT: f64 = 0.97;

pub(crate) async fn run(rig: &Rig) -> Vec<Outcome> {
    let shares = SHARES.map(|(share, _)| PERCENTILES.map(|(p, _)| name(p, share)));
    if !shares.iter().flatten().any(|name| rig.wants(name)) {
        return Vec::new();
    }
    let mut bare = Line::of_bare(rig).await;
    let (mut ours, mut daemon, _setup) = Line::of_daemon(rig).await;
    let outcomes = match measure(rig, &mut bare, &mut ours).await {
        Ok(outcomes) => outcomes,
        Err(why) => vec![Outcome::void("latency/p99-half", why)],
    };
    daemon.stop().await;
    for line in [bare, ours] {
        rig.end(&line.route).await;
    }
    outcomes.into_iter().filter(|outcome| rig.wants(&outcome.name)).collect()
}

fn name(percentile: &str, share: &str) -> String {
    format!("latency/{percentile}-{share}")
}

async fn measure(rig: &Rig, bare: &mut Line<'_>, ours: &mut Line<'_>) -> Result<Vec<Outcome>, String> {
    // The first goes to warming up.
    ours.peak().await?;
    let peak = ours.peak().await?;
    say(&format!("latency: our side's peak, fed at the same time, is {peak:.0} events/s"));
    bare.peak().await?;
    let mut outcomes = Vec::new();
    for (share, part) in SHARES {
        if !PERCENTILES.iter().any(|(p, _)| rig.wants(&name(p, share))) {
            continue;
        }
        let rate = peak * part;
        let mut rounds = Vec::new();
        for _ in 0..if share == "half" { ROUNDS_HALF } else { ROUNDS } {
            rounds.push([bare.at(rate).await?, ours.at(rate).await?]);
        }
        for (place, (percentile, _)) in PERCENTILES.into_iter().enumerate() {
            let of = |side: usize| rounds.iter().map(|round| round[side][place]).collect::<Vec<f64>>();
            let (bares, owns) = (of(0), of(1));
            let ratios: Vec<f64> = bares.iter().zip(&owns).map(|(bare, ours)| ours / bare).collect();
            let name = name(percentile, share);
            let outcome = Outcome {
                goal: (name == "latency/p99-half").then_some(Goal::AtMost(2.5)),
                name,
                ratio: Some(median(&ratios)),
                value: Some(median(&owns)),
                unit: Some("ms"),
                baseline: Some(median(&bares)),
                spread: spread(&ratios),
                void: None,
            };
            say(&format!(
                "{} ({rate:.0} events/s): {:.2} ms against {:.2}",
                outcome.name,
                median(&owns),
                median(&bares)
            ));
            outcomes.push(outcome);
        }
    }
    Ok(outcomes)
}

/// One side with its streams.
struct Line<'a> {
    rig: &'a Rig,
    route: Route,
    durable: String,
    /// The loop that has to be told how many events come; a daemon takes what there is.
    program: Option<Program>,
    /// Number of the next event.
    next: u64,
}

impl<'a> Line<'a> {
    async fn of_bare(rig: &'a Rig) -> Line<'a> {
        let route = rig.route("bare").await;
        let program = Program::start(rig, &route, WORK).await;
        Line::new(rig, route, Some(program)).await
    }

    async fn of_daemon(rig: &'a Rig) -> (Line<'a>, harness::daemon::Daemon, harness::setup::Setup) {
        let route = rig.route("ours").await;
        let setup = rig.setup(&route.input, &route.output, Class::Publish, Isolation::Batch);
        let daemon = setup.start().await;
        (Line::new(rig, route, None).await, daemon, setup)
    }

    async fn new(rig: &'a Rig, route: Route, program: Option<Program>) -> Line<'a> {
        let durable = Track::only_durable(rig, &route).await;
        Line { rig, route, durable, program, next: 0 }
    }

    /// Events a second from the first publish to the last output, fed as fast as one publisher can: what the machine has
    /// to give to the feeder is part of it, as it is at any other rate.
    async fn peak(&mut self) -> Result<f64, String> {
        let batch = self.batch(self.rig.options.events);
        let working = self.work(batch.events);
        let began = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        let began = began.expect("a clock that is set").as_nanos().cast_signed();
        let Route { input, output, .. } = &self.route;
        feed(&self.rig.jetstream, input, output, batch, self.rig.options.in_flight).await;
        let outputs = self.finish(batch, working).await?;
        let last = outputs.iter().map(|output| output.at).max().unwrap_or_default();
        Ok(batch.events as f64 / ((last - began) as f64 / 1e9))
    }

    /// The percentiles at so many events a second, in milliseconds.
    async fn at(&mut self, rate: f64) -> Result<[f64; 3], String> {
        let seconds = self.rig.options.events as f64 / 7500.0;
        let batch = self.batch(((rate * seconds) as u64).max(500));
        let working = self.work(batch.events);
        let Route { input, output, .. } = &self.route;
        let schedule = pace(&self.rig.jetstream, input, output, batch, rate).await;
        let outputs = self.finish(batch, working).await?;
        if schedule.rate < rate * KEPT {
            return Err(format!("the feeder sent {:.0} events/s instead of {rate:.0}", schedule.rate));
        }
        Ok(percentiles(&outputs, &schedule, batch))
    }

    fn batch(&mut self, events: u64) -> Batch {
        let first = self.next;
        self.next += events;
        Batch { first, events, work: WORK, size: self.rig.options.payload }
    }

    fn work(&self, events: u64) -> Option<tokio::task::JoinHandle<()>> {
        let program = self.program.clone()?;
        Some(tokio::spawn(async move { program.run(events).await }))
    }

    /// Every output, if each is there once; the streams are empty then.
    async fn finish(
        &self,
        batch: Batch,
        working: Option<tokio::task::JoinHandle<()>>,
    ) -> Result<Vec<Output>, String> {
        let outputs = drain(self.rig, &self.route, &self.durable, batch).await?;
        if let Some(working) = working {
            working.await.expect("the bare loop");
        }
        Ok(outputs)
    }
}

fn percentiles(outputs: &[Output], schedule: &Schedule, batch: Batch) -> [f64; 3] {
    let begin = batch.first + (batch.events as f64 * BEGIN) as u64;
    let mut waits: Vec<f64> = outputs
        .iter()
        .filter_map(|output| {
            let told: Value = serde_json::from_slice(&output.data).ok()?;
            let id = told["id"].as_u64().filter(|id| *id >= begin)?;
            Some((output.at - schedule.due(id)) as f64 / 1e6)
        })
        .collect();
    waits.sort_unstable_by(f64::total_cmp);
    PERCENTILES.map(|(_, share)| {
        let place = ((waits.len() as f64 * share) as usize).min(waits.len().saturating_sub(1));
        waits.get(place).copied().unwrap_or(f64::NAN)
    })
}
