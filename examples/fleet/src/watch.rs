//! `fleet watch`: a plain subscription, so that anybody can see what passes.

use async_nats::{HeaderMap, Message};
use futures_util::{StreamExt as _, stream};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::{cli::Watch, nats, output, store::now};

/// Prints one line per message until `shutdown`.
pub(crate) async fn run(args: Watch, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = nats::connect(&args.nats, "fleet-watch").await?;
    let everything = args.subjects.is_empty();
    let subjects = if everything { vec![">".to_owned()] } else { args.subjects };
    let mut subscriptions = Vec::new();
    for subject in subjects {
        subscriptions.push(client.subscribe(subject).await?);
    }
    client.flush().await?;
    if args.json {
        output::json(&json!({"ready": true}))?;
    }
    let mut messages = stream::select_all(subscriptions);
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = shutdown.cancelled() => None,
        };
        let Some(message) = message else { return Ok(()) };
        if is_delivery(&message) || (everything && is_plumbing(&message)) {
            continue;
        }
        if args.json {
            output::json(&document(&message))?;
        } else {
            output::line(&format!(
                "{}  {}  {}",
                now(),
                message.subject,
                String::from_utf8_lossy(&message.payload)
            ))?;
        }
    }
}

/// A copy on its way to a consumer: wildcards catch these as well, once per delivery.
fn is_delivery(message: &Message) -> bool {
    message.reply.as_ref().is_some_and(|reply| reply.starts_with("$JS.ACK."))
}

/// Requests to NATS itself and the answers.
fn is_plumbing(message: &Message) -> bool {
    message.subject.starts_with('$') || message.subject.starts_with('_')
}

fn document(message: &Message) -> Value {
    let data = serde_json::from_slice(&message.payload)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&message.payload)));
    json!({
        "time": now(),
        "subject": message.subject.as_str(),
        "headers": message.headers.as_ref().map(headers).unwrap_or_default(),
        "data": data,
    })
}

/// A repeated name keeps its last value.
fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let pairs =
        headers.iter().filter_map(|(name, values)| Some((name.to_string(), json!(values.last()?.as_str()))));
    pairs.collect()
}
