//! Asks a model `{"prompt", "retries", "leak", "take" (all but the prompt optional)}` for tokens, logs each piece as it
//! comes, and publishes all with the whole answer. It takes no more pieces than told, retries that often after it has them,
//! and may leave the stream open.

use cofferdam_sdk::{Event, Failure, delivery, executor::Inference, info};
use guest_fixtures::{instructions, report};
use serde_json::json;

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let mut tokens = Inference::new(told["prompt"].as_str().unwrap_or_default()).tokens()?;
    let mut pieces = Vec::new();
    let take = told["take"].as_u64().map_or(usize::MAX, |take| take as usize);
    let error = loop {
        if pieces.len() >= take {
            break None;
        }
        match tokens.next() {
            Some(Ok(chunk)) => {
                info!("a piece"; text = chunk.text, anew = chunk.anew);
                pieces.push(json!({ "text": chunk.text, "anew": chunk.anew }));
            }
            Some(Err(error)) => break Some(error.to_string()),
            None => break None,
        }
    };
    if told["leak"] == true {
        std::mem::forget(tokens);
        return report(&event, &json!({ "pieces": pieces, "error": error }));
    }
    let whole = tokens.finish().map_or_else(|error| error.to_string(), |answer| answer.text);
    if told["retries"].as_u64().is_some_and(|retries| u64::from(delivery::attempt()) <= retries) {
        return Err(Failure::retry(whole));
    }
    report(&event, &json!({ "pieces": pieces, "error": error, "whole": whole }))
}

cofferdam_sdk::export!(handle);
