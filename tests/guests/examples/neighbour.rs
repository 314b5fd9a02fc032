//! Reaches for what may not be its own: `{"emit": subject, "rpc": {"upstream", "method"}, "state": key, "model": name,
//! "count": metric}`, each optional. Logs each refusal and publishes them all.

use cofferdam_sdk::{Event, Failure, executor::Job, metrics, publish, rpc, state, warn};
use guest_fixtures::{instructions, outcome, report};
use serde_json::{Map, Value};

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let mut seen = Map::new();
    if let Some(subject) = told["emit"].as_str() {
        seen.insert("emit".to_owned(), outcome(publish::emit(subject, "not mine")));
    }
    if let (Some(upstream), Some(method)) = (told["rpc"]["upstream"].as_str(), told["rpc"]["method"].as_str())
    {
        let called = rpc::call(upstream, method, &[], &rpc::Options::default());
        seen.insert("rpc".to_owned(), outcome(called));
    }
    if let Some(key) = told["state"].as_str() {
        seen.insert("state".to_owned(), outcome(state::put(key, "not mine")));
    }
    if let Some(model) = told["model"].as_str() {
        let job = Job::new("reaching-out", "DEV", "a prompt").model(model).agent("agent-1", "DEV");
        seen.insert("model".to_owned(), outcome(job.submit()));
    }
    if let Some(metric) = told["count"].as_str() {
        seen.insert("count".to_owned(), outcome(metrics::count(metric, &[])));
    }
    for (what, how) in seen.iter().filter(|(_, how)| **how != "ok") {
        warn!("{what} refused: {how}");
    }
    report(&event, &Value::Object(seen))
}

cofferdam_sdk::export!(handle);
