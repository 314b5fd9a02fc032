//! Submits a job, `{"task_id", "prompt", "role", "model" (optional)}`, and publishes its id; told `{"status": id}`, it
//! publishes the phase of that job.

use cofferdam_sdk::{Event, Failure, executor};
use guest_fixtures::{instructions, report};
use serde_json::json;

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let text = |name: &str| told[name].as_str().unwrap_or_default();
    if let Some(id) = told["status"].as_str() {
        let status = executor::status(id)?;
        let seen = json!({
            "phase": format!("{:?}", status.phase), "execution_id": status.execution_id, "error": status.error,
        });
        return report(&event, &seen);
    }
    let mut job =
        executor::Job::new(text("task_id"), text("role"), text("prompt")).agent("agent-1", text("role"));
    if let Some(model) = told["model"].as_str() {
        job = job.model(model);
    }
    let seen = match job.submit() {
        Ok(id) => json!({ "job": id }),
        Err(refused) => json!({ "refused": refused.to_string() }),
    };
    report(&event, &seen)
}

cofferdam_sdk::export!(handle);
