//! Metrics that the manifest declares. Samples wait until the event is settled, so that a run that is repeated does not
//! count; what a gauge is set to waits for the run's effects, and is dropped with them.

use cofferdam_sandbox::{MetricError, Pairs};

use super::Run;
use crate::observe::{metrics::Sample, text};

/// Of one event.
const MAX_SAMPLES: usize = 1_000;
/// Of a label's value, in bytes.
const MAX_LABEL: usize = 128;

impl Run {
    pub(super) fn count(&mut self, name: String, labels: Pairs, delta: u64) -> Result<(), MetricError> {
        self.declared(&name, &labels, "counter")?;
        self.sample(Sample::Count { name, labels: Self::short(labels), delta });
        Ok(())
    }

    pub(super) fn observe(&mut self, name: String, labels: Pairs, value: f64) -> Result<(), MetricError> {
        self.declared(&name, &labels, "histogram")?;
        // One of these would spoil the sum for good.
        if value.is_finite() {
            self.sample(Sample::Observe { name, labels: Self::short(labels), value });
        }
        Ok(())
    }

    pub(super) fn set(&mut self, name: String, labels: Pairs, value: f64) -> Result<(), MetricError> {
        self.declared(&name, &labels, "gauge")?;
        if !value.is_finite() {
            return Ok(());
        }
        let mut labels = Self::short(labels);
        labels.sort_unstable();
        // The last of a series counts, so an earlier one makes room for it.
        let same = |s: &&mut Sample| matches!(s, Sample::Set { name: n, labels: l, .. } if *n == name && *l == labels);
        match self.samples.iter_mut().find(same) {
            Some(Sample::Set { value: earlier, .. }) => *earlier = value,
            _ => self.sample(Sample::Set { name, labels, value }),
        }
        Ok(())
    }

    fn sample(&mut self, sample: Sample) {
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push(sample);
        }
    }

    fn short(labels: Pairs) -> Pairs {
        labels
            .into_iter()
            .map(|(name, value)| (name, text::excerpt(&value, MAX_LABEL).into_owned()))
            .collect()
    }

    fn declared(&self, name: &str, labels: &Pairs, kind: &str) -> Result<(), MetricError> {
        if self.services.metrics.declared(name, labels, kind, &self.plugin.metrics) {
            return Ok(());
        }
        let labels: Vec<&str> = labels.iter().map(|(k, _)| k.as_str()).collect();
        Err(MetricError::Undeclared(format!(
            "plugin.toml of {:?} declares no {kind} {name:?} with the labels {labels:?}; add [metrics.{name}] with kind = {kind:?}",
            self.plugin.name
        )))
    }
}
