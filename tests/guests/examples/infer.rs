//! Asks a model `{"ask": [{"prompt", "system", "model", "seed", "priority", "timeout" (all but the prompt optional)}],
//! "retries", "patient" (both optional)}`, all at once, and publishes the answers. It retries that often after it has them; a
//! patient one does so, too, where an answer may come yet.

use cofferdam_sdk::{
    Event, Failure, delivery,
    executor::{Inference, Priority, infer_all},
    info,
};
use guest_fixtures::{instructions, report};
use serde_json::{Value, json};

fn inference(told: &Value) -> Inference {
    let mut asked = Inference::new(told["prompt"].as_str().unwrap_or_default());
    asked.system = told["system"].as_str().map(str::to_owned);
    asked.model = told["model"].as_str().map(str::to_owned);
    asked.sampling.seed = told["seed"].as_i64();
    asked.timeout_seconds = told["timeout"].as_u64().unwrap_or_default() as u32;
    asked.priority = match told["priority"].as_str() {
        Some("low") => Priority::Low,
        Some("high") => Priority::High,
        _ => Priority::Normal,
    };
    asked
}

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let asked: Vec<_> = told["ask"].as_array().into_iter().flatten().map(inference).collect();
    let mut seen = Vec::new();
    for answer in infer_all(&asked) {
        seen.push(match answer {
            Ok(answer) => json!({
                "text": answer.text, "model": answer.model, "finish": answer.finish, "cached": answer.cached,
                "tokens": [answer.tokens_in, answer.tokens_out],
            }),
            Err(error) if told["patient"] == true && error.is_transient() => return Err(error.into()),
            Err(error) => json!({ "error": error.to_string(), "transient": error.is_transient() }),
        });
    }
    info!("answered"; attempt = delivery::attempt(), answers = seen.len());
    if told["retries"].as_u64().is_some_and(|retries| u64::from(delivery::attempt()) <= retries) {
        return Err(Failure::retry(format!("after {seen:?}")));
    }
    report(&event, &json!({ "answers": seen, "attempt": delivery::attempt() }))
}

cofferdam_sdk::export!(handle);
