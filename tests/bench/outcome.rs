//! What a benchmark comes to: one figure, what it is held against, and the goal.

use serde::{Serialize, Serializer};

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    /// The median of the ratios of neighbouring rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<&'static str>,
    /// The bare thing's, in the same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) baseline: Option<f64>,
    /// The least and the greatest ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spread: Option<[f64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<Goal>,
    /// Why it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) void: Option<String>,
}

/// A bound of the ratio, or of the value where there is no ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub(crate) fn text(self) -> String {
        match self {
            Goal::AtLeast(bound) => format!(">= {bound:.2}"),
            Goal::AtMost(bound) => format!("<= {bound:.2}"),
        }
    }

    fn allows(self, figure: f64) -> bool {
        match self {
            Goal::AtLeast(bound) => figure >= bound,
            Goal::AtMost(bound) => figure <= bound,
        }
    }
}

impl Serialize for Goal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl Outcome {
    pub(crate) fn void(name: &str, why: impl Into<String>) -> Outcome {
        Outcome { name: name.to_owned(), void: Some(why.into()), ..Outcome::default() }
    }

    /// Nothing where there is no goal, or nothing was measured.
    pub(crate) fn met(&self) -> Option<bool> {
        if self.void.is_some() {
            return None;
        }
        Some(self.goal?.allows(self.ratio.or(self.value)?))
    }
}

/// The middle one; the mean of the two in the middle where they are even.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => f64::midpoint(sorted[half - 1], sorted[half]),
        _ => sorted[half],
    }
}

/// The least and the greatest.
pub(crate) fn spread(values: &[f64]) -> Option<[f64; 2]> {
    let least = values.iter().copied().reduce(f64::min)?;
    Some([least, values.iter().copied().reduce(f64::max)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_held_against_the_ratio_before_the_value() {
        let outcome = |goal, ratio, value| Outcome { goal: Some(goal), ratio, value, ..Outcome::default() };
        assert_eq!(outcome(Goal::AtLeast(0.8), Some(0.8), Some(0.1)).met(), Some(true));
        assert_eq!(outcome(Goal::AtMost(1.5), None, Some(1.6)).met(), Some(false));
        assert_eq!(outcome(Goal::AtMost(1.5), None, None).met(), None);
        assert_eq!(
            Outcome { void: Some("slow".into()), ..outcome(Goal::AtMost(1.5), Some(1.0), None) }.met(),
            None
        );
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some([1.0, 3.0]));
    }
}
