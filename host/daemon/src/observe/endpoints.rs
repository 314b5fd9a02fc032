//! What endpoints and models have done, as their pool counts it: looked up when somebody scrapes, kept nowhere else.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use cofferdam_inference::{BreakerState, Counters, FIRST_TOKEN_BUCKETS};
use prometheus::{
    core::{Collector, Desc},
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use super::executor::Asked;

/// By endpoint, and by model, each with this in the name.
const BOTH: [(&str, &str, MetricType); 8] = [
    ("answers_total", "Requests that were answered.", MetricType::COUNTER),
    ("failures_total", "Tries that failed, by kind.", MetricType::COUNTER),
    ("retries_total", "Requests that were sent again after a try that failed.", MetricType::COUNTER),
    (
        "repeats_total",
        "Those of which the failed try may have been worked, and paid for.",
        MetricType::COUNTER,
    ),
    ("tokens_in_total", "Tokens of prompts.", MetricType::COUNTER),
    ("tokens_out_total", "Tokens of answers.", MetricType::COUNTER),
    ("uncounted_answers_total", "Answers whose tokens the endpoint did not count.", MetricType::COUNTER),
    ("first_token_seconds", "From a request to the first token of its stream.", MetricType::HISTOGRAM),
];
const OF_ENDPOINTS: [(&str, &str, MetricType); 3] = [
    ("requests_running", "Requests that it works for this process.", MetricType::GAUGE),
    ("breaker", "Whether it is asked: 0 yes, 1 one request to see, 2 no.", MetricType::GAUGE),
    ("rests_seconds", "How long it is left alone from now.", MetricType::GAUGE),
];
const OF_MODELS: [(&str, &str, MetricType); 3] = [
    ("requests_running", "Requests that are being worked.", MetricType::GAUGE),
    ("requests_waiting", "Requests that wait for a place at an endpoint.", MetricType::GAUGE),
    ("oldest_request_seconds", "How long the first of them has waited.", MetricType::GAUGE),
];

#[derive(Clone)]
pub(super) struct Endpoints {
    asked: Arc<OnceLock<Asked>>,
    descriptions: Vec<Desc>,
}

impl Endpoints {
    pub(super) fn new(asked: Arc<OnceLock<Asked>>) -> Result<Self, prometheus::Error> {
        let all = [("endpoint", &OF_ENDPOINTS), ("model", &OF_MODELS)];
        let all = all.into_iter().flat_map(|(of, own)| {
            BOTH.iter().chain(own).map(move |(what, help, _)| {
                let labels = labels(of, what).into_iter().map(str::to_owned).collect();
                Desc::new(name(of, what), (*help).to_owned(), labels, HashMap::new())
            })
        });
        Ok(Self { asked, descriptions: all.collect::<Result<_, _>>()? })
    }

    pub(super) fn follow(&self, asked: Asked) {
        if self.asked.set(asked).is_err() {
            tracing::debug!("the endpoints' statistics are followed already");
        }
    }
}

impl Collector for Endpoints {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(asked) = self.asked.get() else { return Vec::new() };
        let statistics = asked();
        let mut families = Families::default();
        for endpoint in &statistics.endpoints {
            let mut of = families.of("endpoint", &endpoint.name);
            of.counted(&endpoint.counted);
            of.value("requests_running", endpoint.outstanding as f64);
            of.value(
                "breaker",
                match endpoint.breaker {
                    BreakerState::Closed => 0.0,
                    BreakerState::HalfOpen => 1.0,
                    BreakerState::Open => 2.0,
                },
            );
            of.value("rests_seconds", endpoint.rests_for.as_secs_f64());
        }
        for model in &statistics.models {
            let mut of = families.of("model", &model.name);
            of.counted(&model.counted);
            of.value("requests_running", model.running as f64);
            of.value("requests_waiting", model.waiting as f64);
            of.value("oldest_request_seconds", model.oldest.as_secs_f64());
        }
        families.0
    }
}

fn name(of: &str, what: &str) -> String {
    format!("cofferdam_executor_{of}_{what}")
}

fn labels<'a>(of: &'a str, what: &str) -> Vec<&'a str> {
    if what == "failures_total" { vec![of, "kind"] } else { vec![of] }
}

/// What is collected so far.
#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    fn of<'a>(&'a mut self, of: &'static str, name: &'a str) -> Of<'a> {
        Of { families: self, of, name }
    }
}

/// One endpoint or one model.
struct Of<'a> {
    families: &'a mut Families,
    of: &'static str,
    name: &'a str,
}

impl Of<'_> {
    fn counted(&mut self, counted: &Counters) {
        let numbers = [
            ("answers_total", counted.answers),
            ("retries_total", counted.retries),
            ("repeats_total", counted.repeats),
            ("tokens_in_total", counted.tokens_in),
            ("tokens_out_total", counted.tokens_out),
            ("uncounted_answers_total", counted.without_usage),
        ];
        for (what, number) in numbers {
            self.value(what, number as f64);
        }
        for (kind, count) in &counted.failures {
            self.add("failures_total", Some(kind), |metric, _| {
                let mut counter = Counter::default();
                counter.set_value(*count as f64);
                metric.set_counter(counter);
            });
        }
        let mut cumulative = 0;
        let buckets = FIRST_TOKEN_BUCKETS.iter().zip(&counted.first_token).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(counted.first_token.iter().sum());
        histogram.set_sample_sum(counted.first_token_sum.as_secs_f64());
        self.add("first_token_seconds", None, |metric, _| metric.set_histogram(histogram));
    }

    /// Of a counter or a gauge.
    fn value(&mut self, what: &str, value: f64) {
        self.add(what, None, |metric, kind| {
            if kind == MetricType::GAUGE {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            } else {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
        });
    }

    fn add(&mut self, what: &str, kind: Option<&str>, set: impl FnOnce(&mut Metric, MetricType)) {
        let own = if self.of == "endpoint" { &OF_ENDPOINTS } else { &OF_MODELS };
        let Some((_, help, sort)) = BOTH.iter().chain(own).find(|(known, ..)| *known == what) else { return };
        let values = std::iter::once(self.name).chain(kind);
        let labels = labels(self.of, what).into_iter().zip(values).map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name(name.to_owned());
            label.set_value(value.to_owned());
            label
        });
        let mut metric = Metric::from_label(labels.collect());
        set(&mut metric, *sort);
        let name = name(self.of, what);
        let families = &mut self.families.0;
        match families.iter_mut().find(|family| family.name() == name) {
            Some(family) => family.mut_metric().push(metric),
            None => {
                let mut family = MetricFamily::default();
                family.set_name(name);
                family.set_help((*help).to_owned());
                family.set_field_type(*sort);
                family.set_metric(vec![metric]);
                families.push(family);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use cofferdam_inference::{EndpointStatistics, ModelStatistics, Statistics};
    use prometheus::{Registry, TextEncoder};

    use super::*;

    fn counted() -> Counters {
        let mut first_token = [0; FIRST_TOKEN_BUCKETS.len() + 1];
        (first_token[0], first_token[2], first_token[FIRST_TOKEN_BUCKETS.len()]) = (2, 1, 1);
        Counters {
            answers: 4,
            failures: BTreeMap::from([("overloaded", 2), ("timeout", 1)]),
            retries: 3,
            repeats: 1,
            tokens_in: 100,
            tokens_out: 20,
            without_usage: 1,
            first_token,
            first_token_sum: Duration::from_millis(40_100),
        }
    }

    fn scraped(asked: Option<Asked>) -> String {
        let registry = Registry::new();
        let endpoints = Endpoints::new(Arc::default()).unwrap();
        registry.register(Box::new(endpoints.clone())).unwrap();
        asked.into_iter().for_each(|asked| endpoints.follow(asked));
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn a_scrape_shows_what_the_pool_counts_by_endpoint_and_by_model() {
        let endpoint = |name: &str, breaker| EndpointStatistics {
            name: name.into(),
            outstanding: 2,
            breaker,
            rests_for: Duration::from_millis(1500),
            counted: counted(),
        };
        let statistics = Statistics {
            endpoints: vec![endpoint("a", BreakerState::Closed), endpoint("b", BreakerState::Open)],
            models: vec![ModelStatistics {
                name: "m".into(),
                running: 3,
                waiting: 5,
                oldest: Duration::from_secs(7),
                counted: counted(),
            }],
        };
        let text = scraped(Some(Box::new(move || statistics.clone())));
        for line in [
            "cofferdam_executor_endpoint_answers_total{endpoint=\"a\"} 4",
            "cofferdam_executor_endpoint_failures_total{endpoint=\"a\",kind=\"overloaded\"} 2",
            "cofferdam_executor_endpoint_breaker{endpoint=\"a\"} 0",
            "cofferdam_executor_endpoint_breaker{endpoint=\"b\"} 2",
            "cofferdam_executor_endpoint_rests_seconds{endpoint=\"b\"} 1.5",
            "cofferdam_executor_model_tokens_in_total{model=\"m\"} 100",
            "cofferdam_executor_model_requests_waiting{model=\"m\"} 5",
            "cofferdam_executor_model_oldest_request_seconds{model=\"m\"} 7",
            "cofferdam_executor_model_first_token_seconds_bucket{model=\"m\",le=\"0.025\"} 2",
            "cofferdam_executor_model_first_token_seconds_bucket{model=\"m\",le=\"0.1\"} 3",
            "cofferdam_executor_model_first_token_seconds_bucket{model=\"m\",le=\"30\"} 3",
            "cofferdam_executor_model_first_token_seconds_bucket{model=\"m\",le=\"+Inf\"} 4",
            "cofferdam_executor_model_first_token_seconds_sum{model=\"m\"} 40.1",
            "cofferdam_executor_model_first_token_seconds_count{model=\"m\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nin\n{text}");
        }
        let families = BOTH.len() * 2 + OF_ENDPOINTS.len() + OF_MODELS.len();
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE")).count(), families);
    }

    #[test]
    fn a_process_without_endpoints_shows_none() {
        assert_eq!(scraped(None), "");
    }
}
