//! What `/metrics` said, and what moved between two scrapes.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape of Prometheus text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape(BTreeMap<Series, f64>);

/// A sample's name and labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
}

impl Scrape {
    pub fn parse(text: &str) -> Scrape {
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Scrape(samples.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line:?}"))).collect())
    }

    /// The sum over all samples of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |series: &Series| {
            labels.iter().all(|(k, v)| series.labels.iter().any(|(name, value)| name == k && value == v))
        };
        self.0
            .iter()
            .filter(|(series, _)| series.name == name && has(series))
            .fold(0.0, |sum, (_, value)| sum + value)
    }

    /// What is more now than it was `before`, sample by sample; what did not move is left out.
    pub fn since(&self, before: &Scrape) -> Scrape {
        let moved = self.0.iter().filter_map(|(series, value)| {
            let by = value - before.0.get(series).unwrap_or(&0.0);
            (by != 0.0).then(|| (series.clone(), by))
        });
        Scrape(moved.collect())
    }

    /// The samples of one name as `label values -> value`, a dash for an empty label: `"p retry guest" -> 2`.
    pub fn counts(&self, name: &str, labels: &[&str]) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (series, value) in self.0.iter().filter(|(series, _)| series.name == name) {
            let value_of = |label: &&str| {
                let found = series.labels.iter().find(|(name, _)| name == label);
                let value = found.map_or("", |(_, value)| value.as_str());
                if value.is_empty() { "-".to_owned() } else { value.to_owned() }
            };
            let key = labels.iter().map(value_of).collect::<Vec<_>>().join(" ");
            *counts.entry(key).or_default() += *value as u64;
        }
        counts
    }

    /// Events as `"<plugin> <outcome> <fault>" -> count`.
    pub fn events(&self) -> BTreeMap<String, u64> {
        self.counts("cofferdam_events_total", &["plugin", "outcome", "fault"])
    }

    /// The metrics with a sample that is not zero. A histogram goes by its own name.
    pub fn nonzero(&self) -> BTreeSet<String> {
        let nonzero = self.0.iter().filter(|(_, value)| **value != 0.0);
        nonzero
            .map(|(series, _)| series.name.strip_suffix("_count").unwrap_or(&series.name).to_owned())
            .collect()
    }
}

/// The expected side of a comparison with [`Scrape::events`] or [`Scrape::counts`].
pub fn counts<const N: usize>(expected: [(&str, u64); N]) -> BTreeMap<String, u64> {
    expected.into_iter().map(|(key, count)| (key.to_owned(), count)).collect()
}

/// `name{label="value",..} number`
fn sample(line: &str) -> Option<(Series, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = series.split_once('{') else {
        return Some((Series { name: series.to_owned(), labels: Vec::new() }, value));
    };
    let mut labels = Vec::new();
    let mut rest = rest.strip_suffix('}')?;
    while !rest.is_empty() {
        let (label, quoted) = rest.split_once("=\"")?;
        let (content, length) = unquote(quoted)?;
        labels.push((label.to_owned(), content));
        rest = quoted[length..].trim_start_matches(',');
    }
    Some((Series { name: name.to_owned(), labels }, value))
}

/// Up to the closing quote: what it stands for, and its length with the quote.
fn unquote(text: &str) -> Option<(String, usize)> {
    let mut content = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((content, at + 1)),
            '\\' => match chars.next()?.1 {
                'n' => content.push('\n'),
                other => content.push(other),
            },
            other => content.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total Things.\n# TYPE a_total counter\na_total{fault=\"\",plugin=\"p\"} 2\n\
        a_total{fault=\"x \\\"y\\\"\",plugin=\"p\"} 3\nup 1\nms_bucket{le=\"+Inf\"} 4\nms_sum 7.5\nms_count 4\n";

    #[test]
    fn what_moved_is_told_by_its_labels() {
        let before = Scrape::parse("a_total{fault=\"\",plugin=\"p\"} 2\nup 1\n");
        let moved = Scrape::parse(TEXT).since(&before);
        assert_eq!(moved.counts("a_total", &["plugin", "fault"]), counts([("p x \"y\"", 3)]));
        assert_eq!(moved.sum("up", &[]), 0.0);
    }

    #[test]
    fn sums_and_names_go_over_all_samples() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.sum("a_total", &[("plugin", "p")]), 5.0);
        assert_eq!(scrape.sum("a_total", &[("fault", "")]), 2.0);
        assert!(scrape.nonzero().contains("ms") && scrape.nonzero().contains("a_total"));
    }
}
