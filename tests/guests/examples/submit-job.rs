//! Submits a job, `{"task_id", "prompt", "role", "model", "priority", "timeout", "agents" (a number),
//! "template" (of each agent), "json" (is what the answer has to be), "metadata" (all optional)}`, and publishes its id; told
//! `{"status": id}`, it publishes the phase of that job, and told `{"cancel": id}`, it cancels it.

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
    if let Some(id) = told["cancel"].as_str() {
        let seen = match executor::cancel(id) {
            Ok(()) => json!({ "cancelled": id }),
            Err(refused) => json!({ "refused": refused.to_string() }),
        };
        return report(&event, &seen);
    }
    let mut job = executor::Job::new(text("task_id"), text("role"), text("prompt"));
    for number in 1..=told["agents"].as_u64().unwrap_or(1) {
        job = job.agent(format!("agent-{number}"), text("role"));
    }
    job.timeout_seconds = told["timeout"].as_u64().unwrap_or_default() as u32;
    job.priority = match text("priority") {
        "low" => executor::Priority::Low,
        "high" => executor::Priority::High,
        _ => executor::Priority::Normal,
    };
    for agent in &mut job.agents {
        agent.prompt_template = text("template").to_owned();
    }
    for (key, value) in told["metadata"].as_object().into_iter().flatten() {
        job = job.metadata(key, value.as_str().unwrap_or_default());
    }
    if told["json"] == true {
        job.sampling.format = executor::Format::Json;
    }
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
