//! Pressure: how far behind each durable is, told before its stream discards what nobody has handled, and when it has.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cofferdam_bus::{Backlog, Bus, Discarded, Error, Limit, Origin};
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::clock::now;

/// Between two looks. A look is three or four requests for each durable; at 400 events/s that nobody handles, the smallest
/// of the fleet's streams (10,000 messages) goes from the warning to its end in five seconds.
const EVERY: Duration = Duration::from_secs(5);
/// The part of a limit at which a durable is warned of.
const HIGH: f64 = 0.8;
/// It has passed below this: a backlog that sways around the mark is told of once.
const LOW: f64 = 0.6;

/// The numbers of every durable.
pub struct Gauges {
    events: IntGaugeVec,
    oldest: GaugeVec,
    headroom: GaugeVec,
    discarded: IntCounterVec,
}

impl Gauges {
    pub fn register(registry: &Registry) -> Result<Gauges, prometheus::Error> {
        let gauges = Gauges {
            events: IntGaugeVec::new(
                Opts::new("cofferdam_backlog_events", "Stored and not settled, by durable."),
                &["durable"],
            )?,
            oldest: GaugeVec::new(
                Opts::new("cofferdam_backlog_oldest_seconds", "Age of the oldest event that is not settled."),
                &["durable"],
            )?,
            headroom: GaugeVec::new(
                Opts::new(
                    "cofferdam_stream_headroom_ratio",
                    "How much of the nearest limit of its stream a durable has left; 0: events are discarded.",
                ),
                &["stream", "durable"],
            )?,
            discarded: IntCounterVec::new(
                Opts::new(
                    "cofferdam_discarded_events_total",
                    "Events that their stream discarded before the durable had its turn.",
                ),
                &["durable"],
            )?,
        };
        registry.register(Box::new(gauges.events.clone()))?;
        registry.register(Box::new(gauges.oldest.clone()))?;
        registry.register(Box::new(gauges.headroom.clone()))?;
        registry.register(Box::new(gauges.discarded.clone()))?;
        Ok(gauges)
    }

    fn set(&self, origin: &Origin, backlog: &Backlog, now: u64) {
        let durable = [origin.durable.as_str()];
        let old = backlog.oldest.map_or(0, |oldest| now.saturating_sub(oldest.timestamp));
        let used = backlog.used(now).iter().map(|(_, used)| *used).fold(0.0, f64::max);
        let events = i64::try_from(backlog.unsettled()).unwrap_or(i64::MAX);
        self.events.with_label_values(&durable).set(events);
        self.oldest.with_label_values(&durable).set(Duration::from_nanos(old).as_secs_f64());
        let names = [origin.stream.as_str(), origin.durable.as_str()];
        self.headroom.with_label_values(&names).set((1.0 - used).max(0.0));
    }
}

/// Where the durables are, as of now: one whose stream was made anew is another.
pub type Durables = Box<dyn Fn() -> Vec<Arc<Origin>> + Send + Sync>;

/// Looks now and then, until `stop`.
pub async fn watch(bus: Arc<dyn Bus>, metrics: Arc<Metrics>, durables: Durables, stop: CancellationToken) {
    let gauges = &metrics.backlog;
    let mut known = BTreeMap::new();
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        for origin in durables() {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = bus.backlog(&origin) => looked,
            };
            match looked {
                Ok(backlog) => {
                    let now = now();
                    gauges.set(&origin, &backlog, now);
                    let state: &mut Known = known.entry(origin.id.clone()).or_default();
                    for said in state.judge(&backlog, now) {
                        said.tell(&origin, &backlog, now, &gauges.discarded);
                    }
                }
                // Readiness tells it; the numbers stay as they were.
                Err(Error::Unavailable(reason)) => {
                    tracing::debug!(durable = origin.durable, reason, "no look at the backlog");
                    break;
                }
                Err(error) => tracing::debug!(durable = origin.durable, "no look at the backlog: {error}"),
            }
        }
    }
}

/// What was said of a durable.
#[derive(Debug, Default)]
struct Known {
    near: Vec<Limit>,
    discarded: Discarded,
}

/// What there is to say after a look.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Said {
    Near { limit: Limit, used: f64 },
    Passed { limit: Limit },
    Discarded { events: u64 },
    Unseen { messages: u64 },
}

impl Known {
    fn judge(&mut self, backlog: &Backlog, now: u64) -> Vec<Said> {
        let mut said = Vec::new();
        let used = backlog.used(now);
        for (limit, used) in &used {
            if *used >= HIGH && !self.near.contains(limit) {
                self.near.push(*limit);
                said.push(Said::Near { limit: *limit, used: *used });
            }
        }
        let over = |limit: &Limit| used.iter().any(|(of, used)| of == limit && *used >= LOW);
        let (still, passed) = self.near.iter().partition(|limit| over(limit));
        self.near = still;
        let passed: Vec<Limit> = passed;
        said.extend(passed.into_iter().map(|limit| Said::Passed { limit }));
        // A bus that had to begin anew counts from 0.
        let more = |now: u64, before: u64| if now >= before { now - before } else { now };
        let events = more(backlog.discarded.known, self.discarded.known);
        let messages = more(backlog.discarded.unseen, self.discarded.unseen);
        self.discarded = backlog.discarded;
        if events > 0 {
            said.push(Said::Discarded { events });
        }
        if messages > 0 {
            said.push(Said::Unseen { messages });
        }
        said
    }
}

impl Said {
    /// Says it once, and counts it.
    fn tell(self, origin: &Origin, backlog: &Backlog, now: u64, discarded: &IntCounterVec) {
        let Origin { stream, durable, .. } = origin;
        let unsettled = backlog.unsettled();
        match self {
            Said::Near { limit, used } => {
                let used = (used * 100.0).floor();
                let (of, remedy) = limits(limit, backlog, now);
                let then = if backlog.stream.refuses_new && limit != Limit::Age {
                    "at 100% the stream refuses new events"
                } else {
                    "at 100% events are discarded that nobody has handled"
                };
                tracing::warn!(
                    durable,
                    stream,
                    unsettled,
                    "the backlog of {durable} has reached {used}% of what stream {stream} keeps ({of}); {then}: let more \
                     hosts share the durable, make the plugin faster, or raise the stream's {remedy}"
                );
            }
            Said::Passed { limit } => {
                let (of, _) = limits(limit, backlog, now);
                tracing::info!(
                    durable,
                    stream,
                    unsettled,
                    "the backlog of {durable} is far from the limit of stream {stream} again ({of})"
                );
            }
            Said::Discarded { events } => {
                discarded.with_label_values(&[durable.as_str()]).inc_by(events);
                tracing::error!(
                    durable,
                    stream,
                    unsettled,
                    discarded = events,
                    "stream {stream} discarded {events} events by its limits before {durable} had its turn; they are lost: \
                     raise the stream's limits, or let more hosts share the durable"
                );
            }
            Said::Unseen { messages } => {
                let text = format!(
                    "stream {stream} discarded {messages} messages that {durable} never came to, between two looks or while \
                     no host was up; how many of its events were among them can't be told any more"
                );
                // Where some are left, others were very likely lost.
                if backlog.waiting > 0 {
                    tracing::error!(durable, stream, unsettled, "{text}");
                } else {
                    tracing::warn!(durable, stream, unsettled, "{text}");
                }
            }
        }
    }
}

/// Numbers for a message, and what to raise.
fn limits(limit: Limit, backlog: &Backlog, now: u64) -> (String, &'static str) {
    let stream = &backlog.stream;
    match limit {
        Limit::Messages => {
            let behind =
                backlog.oldest.map_or(0, |oldest| stream.last + 1 - oldest.sequence.max(stream.first));
            let most = stream.max_messages.unwrap_or_default();
            (format!("{} of {most} messages", behind.min(stream.messages)), "number of messages")
        }
        Limit::Bytes => {
            let most = stream.max_bytes.unwrap_or_default();
            (format!("it holds {} of {most} bytes", stream.bytes), "size")
        }
        Limit::Age => {
            let old = backlog.oldest.map_or(0, |oldest| now.saturating_sub(oldest.timestamp));
            let old = Duration::from_secs(Duration::from_nanos(old).as_secs());
            let most = stream.max_age.unwrap_or_default();
            let (old, most) = (humantime::format_duration(old), humantime::format_duration(most));
            (format!("the oldest is {old} old, of {most}"), "age")
        }
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_bus::{Holding, Oldest};

    use super::*;

    /// So many of a hundred messages are behind the oldest.
    fn backlog(behind: u64, known: u64) -> Backlog {
        let oldest = Oldest { sequence: 1001 - behind, timestamp: 0 };
        Backlog {
            waiting: behind,
            outstanding: 0,
            ack_floor: 0,
            oldest: (behind > 0).then_some(oldest),
            discarded: Discarded { known, unseen: 0 },
            stream: Holding {
                first: 901,
                last: 1000,
                messages: 100,
                bytes: 1,
                max_messages: Some(100),
                max_bytes: None,
                max_age: None,
                refuses_new: false,
            },
        }
    }

    #[test]
    fn a_limit_that_is_near_is_told_once_and_again_when_it_has_passed() {
        let mut known = Known::default();
        let limit = Limit::Messages;
        let mut judge = |behind| known.judge(&backlog(behind, 0), 0);
        assert_eq!(judge(79), []);
        assert_eq!(judge(80), [Said::Near { limit, used: 0.8 }]);
        for swaying in [79, 95, 60, 80] {
            assert_eq!(judge(swaying), [], "{swaying}");
        }
        assert_eq!(judge(59), [Said::Passed { limit }]);
        assert_eq!(judge(0), []);
        assert_eq!(judge(100), [Said::Near { limit, used: 1.0 }]);
    }

    #[test]
    fn what_was_discarded_since_the_last_look_is_told() {
        let mut known = Known::default();
        let mut judge = |count| known.judge(&backlog(1, count), 0);
        assert_eq!(judge(3), [Said::Discarded { events: 3 }]);
        assert_eq!(judge(3), []);
        assert_eq!(judge(7), [Said::Discarded { events: 4 }]);
        // The bus began anew.
        assert_eq!(judge(2), [Said::Discarded { events: 2 }]);
    }
}
