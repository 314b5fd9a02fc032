//! The numbers: Cofferdam's own under `cofferdam_*`, and those that plugins declare under their exact names.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::{backlog::Gauges, executor::Executor};
use crate::config::{MetricKind, MetricSpec};

/// From a millisecond to a minute.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0];

pub struct Metrics {
    registry: Registry,
    /// Events by what became of them. `fault` is empty where nobody is to blame.
    pub events: IntCounterVec,
    seconds: HistogramVec,
    /// CPU microseconds that guests used; microseconds, because counters are whole.
    cpu: IntCounterVec,
    instances: IntCounterVec,
    in_flight: IntGaugeVec,
    /// Messages, jobs and state writes that were committed.
    pub effects: IntCounterVec,
    pub denials: IntCounterVec,
    pub dead_letters: IntCounterVec,
    pub conflicts: IntCounterVec,
    pub calls: IntCounterVec,
    /// Calls that the host sent again by itself.
    pub call_retries: IntCounterVec,
    /// Calls that an earlier run made, answered from the record.
    pub calls_recalled: IntCounterVec,
    /// Calls that clients made here, by plugin, method and gRPC status number.
    pub served: IntCounterVec,
    pub served_seconds: HistogramVec,
    pub jobs: IntCounterVec,
    pub executor: Executor,
    pub log_dropped: IntCounterVec,
    pub plugin_info: IntGaugeVec,
    pub bus_up: IntGauge,
    pub backlog: Gauges,
    /// When a gauge of a guest was set last, by metric: of several hosts, whose value is the newest.
    gauge_set: GaugeVec,
    guests: BTreeMap<String, Guest>,
    /// Label values that were seen, by guest metric.
    series: Mutex<HashMap<String, HashSet<String>>>,
}

/// One plugin's own, of what is counted with each event: to look them up by their labels takes longer than to count.
pub struct Meters {
    /// Of `events`, those that are done.
    pub done: IntCounter,
    pub seconds: Histogram,
    pub cpu: IntCounter,
    pub instances: IntCounter,
    pub in_flight: IntGauge,
    /// Of `effects`.
    pub publishes: IntCounter,
}

/// Of one metric of a guest.
const MAX_SERIES: usize = 200;

enum Guest {
    Counter(IntCounterVec),
    Histogram(HistogramVec),
    Gauge(GaugeVec),
}

/// What a guest counted, observed or set; added once its event is settled.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    Count {
        name: String,
        labels: Vec<(String, String)>,
        delta: u64,
    },
    Observe {
        name: String,
        labels: Vec<(String, String)>,
        value: f64,
    },
    /// Labels in the order of their names.
    Set {
        name: String,
        labels: Vec<(String, String)>,
        value: f64,
    },
}

impl Sample {
    /// Whether it counts though the run failed: a gauge tells what is, and nothing came of what such a run did.
    pub fn outlives_failure(&self) -> bool {
        !matches!(self, Self::Set { .. })
    }
}

impl Metrics {
    pub fn of_plugin(&self, plugin: &str) -> Meters {
        Meters {
            done: self.events.with_label_values(&[plugin, "done", ""]),
            seconds: self.seconds.with_label_values(&[plugin]),
            cpu: self.cpu.with_label_values(&[plugin]),
            instances: self.instances.with_label_values(&[plugin]),
            in_flight: self.in_flight.with_label_values(&[plugin]),
            publishes: self.effects.with_label_values(&[plugin, "publish"]),
        }
    }

    /// Registers everything; the specs are known to agree where plugins share a name.
    pub fn new<'a>(specs: impl Iterator<Item = &'a MetricSpec>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let seconds = HistogramVec::new(
            HistogramOpts::new("cofferdam_event_seconds", "From an event's admission to its end.")
                .buckets(SECONDS.into()),
            &["plugin"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let served_seconds = HistogramVec::new(
            HistogramOpts::new("cofferdam_served_seconds", "From a call's arrival to its answer.")
                .buckets(SECONDS.into()),
            &["plugin", "method"],
        )?;
        registry.register(Box::new(served_seconds.clone()))?;
        let gauge_set = GaugeVec::new(
            Opts::new(
                "cofferdam_gauge_set_timestamp_seconds",
                "When an event that set a plugin's gauge was settled here last, in seconds since 1970.",
            ),
            &["metric"],
        )?;
        registry.register(Box::new(gauge_set.clone()))?;
        let bus_up = IntGauge::new("cofferdam_bus_up", "1 while the bus is in reach.")?;
        registry.register(Box::new(bus_up.clone()))?;
        let mut guests = BTreeMap::new();
        for spec in specs {
            if guests.contains_key(&spec.name) {
                continue;
            }
            let labels: Vec<&str> = spec.labels.iter().map(String::as_str).collect();
            let guest = match &spec.kind {
                MetricKind::Counter => {
                    let metric = counter(&spec.name, &spec.help, &labels)?;
                    if labels.is_empty() {
                        metric.with_label_values::<&str>(&[]).inc_by(0);
                    }
                    Guest::Counter(metric)
                }
                MetricKind::Gauge => {
                    // Not 0 from the start: nobody has said so.
                    let metric = GaugeVec::new(Opts::new(&spec.name, &spec.help), &labels)?;
                    registry.register(Box::new(metric.clone()))?;
                    Guest::Gauge(metric)
                }
                MetricKind::Histogram(buckets) => {
                    let opts = HistogramOpts::new(&spec.name, &spec.help).buckets(buckets.clone());
                    let metric = HistogramVec::new(opts, &labels)?;
                    registry.register(Box::new(metric.clone()))?;
                    Guest::Histogram(metric)
                }
            };
            guests.insert(spec.name.clone(), guest);
        }
        Ok(Self {
            events: counter(
                "cofferdam_events_total",
                "Events by plugin, outcome and whose fault it was.",
                &["plugin", "outcome", "fault"],
            )?,
            cpu: counter("cofferdam_guest_cpu_microseconds_total", "CPU time of handlers.", &["plugin"])?,
            instances: counter("cofferdam_instances_total", "Instances made.", &["plugin"])?,
            in_flight: gauge("cofferdam_events_in_flight", "Events taken and not settled.", &["plugin"])?,
            effects: counter("cofferdam_effects_total", "Effects that were committed.", &["plugin", "kind"])?,
            denials: counter("cofferdam_denials_total", "Things that no grant covers.", &["plugin", "kind"])?,
            dead_letters: counter("cofferdam_dead_letters_total", "Events given up.", &["plugin"])?,
            conflicts: counter(
                "cofferdam_commit_conflicts_total",
                "Runs repeated because another host changed the cell.",
                &["plugin"],
            )?,
            calls: counter(
                "cofferdam_rpc_calls_total",
                "Calls to upstreams by their gRPC status number.",
                &["plugin", "upstream", "code"],
            )?,
            call_retries: counter(
                "cofferdam_rpc_retries_total",
                "Calls to upstreams that the host sent again.",
                &["plugin", "upstream"],
            )?,
            calls_recalled: counter(
                "cofferdam_rpc_recalled_total",
                "Calls answered from the record of an earlier run, without asking the upstream.",
                &["plugin", "upstream"],
            )?,
            served: counter(
                "cofferdam_served_calls_total",
                "Calls of clients by plugin, method and gRPC status number.",
                &["plugin", "method", "code"],
            )?,
            served_seconds,
            jobs: counter(
                "cofferdam_jobs_total",
                "Executor jobs by how they ended.",
                &["backend", "outcome"],
            )?,
            log_dropped: counter(
                "cofferdam_log_lines_dropped_total",
                "Guest log lines over the limit.",
                &["plugin"],
            )?,
            plugin_info: gauge(
                "cofferdam_plugin_info",
                "1 for each plugin.",
                &["plugin", "version", "digest"],
            )?,
            seconds,
            bus_up,
            backlog: Gauges::register(&registry)?,
            executor: Executor::register(&registry)?,
            gauge_set,
            guests,
            series: Mutex::default(),
            registry,
        })
    }

    /// Is there such a metric, of this kind and with these labels?
    pub fn declared(&self, name: &str, labels: &[(String, String)], kind: &str, spec: &[MetricSpec]) -> bool {
        let Some(spec) = spec.iter().find(|s| s.name == name) else { return false };
        let mut given: Vec<&str> = labels.iter().map(|(k, _)| k.as_str()).collect();
        let mut wanted: Vec<&str> = spec.labels.iter().map(String::as_str).collect();
        given.sort_unstable();
        wanted.sort_unstable();
        given == wanted && spec.kind.name() == kind && self.guests.contains_key(name)
    }

    /// Adds a sample to its series. Past [`MAX_SERIES`] of a metric, new label values are counted as `other`: a guest that
    /// labels by plan or by chance must not fill the host's memory.
    pub fn add(&self, sample: &Sample) {
        let (name, labels) = match sample {
            Sample::Count { name, labels, .. }
            | Sample::Observe { name, labels, .. }
            | Sample::Set { name, labels, .. } => (name, labels),
        };
        let mut labels: HashMap<&str, &str> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        if !self.has_room(name, &labels) {
            labels.values_mut().for_each(|value| *value = "other");
        }
        match (self.guests.get(name), sample) {
            (Some(Guest::Counter(metric)), Sample::Count { delta, .. }) => {
                if let Ok(metric) = metric.get_metric_with(&labels) {
                    metric.inc_by(*delta);
                }
            }
            (Some(Guest::Histogram(metric)), Sample::Observe { value, .. }) => {
                if let Ok(metric) = metric.get_metric_with(&labels) {
                    metric.observe(*value);
                }
            }
            (Some(Guest::Gauge(metric)), Sample::Set { value, .. }) => {
                if let Ok(metric) = metric.get_metric_with(&labels) {
                    metric.set(*value);
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    self.gauge_set.with_label_values(&[name]).set(now.as_secs_f64());
                }
            }
            _ => tracing::debug!(name, "a sample of an undeclared metric was dropped"),
        }
    }

    fn has_room(&self, name: &str, labels: &HashMap<&str, &str>) -> bool {
        let mut values: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        values.sort_unstable();
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let known = series.entry(name.to_owned()).or_default();
        let series = values.join(",");
        known.contains(&series) || (known.len() < MAX_SERIES && known.insert(series))
    }

    /// Prometheus text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
