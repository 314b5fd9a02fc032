//! `fleet watch`: a plain subscription, so that anybody can see what passes.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{self, Bus, Passing, Watch as Messages},
    cli::Watch,
    output,
    store::now,
    trouble::Trouble,
};

/// Before a bus that is gone is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Prints one line per message until `shutdown`. The bus has to be there at first; later losses are waited out.
pub(crate) async fn run(args: Watch, shutdown: CancellationToken) -> anyhow::Result<()> {
    let bus = bus::connect(&args.on, "fleet-watch").await?;
    let everything = args.subjects.is_empty();
    let subjects = if everything { vec![">".to_owned()] } else { args.subjects };
    let mut messages = bus.watch(&subjects).await?;
    if args.json {
        output::json(&json!({"ready": true}))?;
    }
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = shutdown.cancelled() => return Ok(()),
        };
        match message {
            Some(Ok(message)) if everything && is_plumbing(&message) => {}
            Some(Ok(message)) => print(&message, args.json)?,
            ended => {
                let error = ended.and_then(Result::err).map(|error| format!("{error:#}"));
                tracing::warn!(error, "watching no more; what passes until the bus is back is missed");
                messages = tokio::select! {
                    messages = again(bus.as_ref(), &subjects) => messages,
                    () = shutdown.cancelled() => return Ok(()),
                };
            }
        }
    }
}

async fn again(bus: &dyn Bus, subjects: &[String]) -> Messages {
    let mut trouble = Trouble::default();
    loop {
        tokio::time::sleep(PAUSE).await;
        match bus.watch(subjects).await {
            Ok(messages) => {
                tracing::info!("watching again");
                return messages;
            }
            Err(error) if trouble.is_news(&error) => tracing::warn!("{error:#}; trying again"),
            Err(_) => {}
        }
    }
}

/// The bus's own: on NATS, requests to the server and the answers.
fn is_plumbing(message: &Passing) -> bool {
    message.subject.starts_with('$') || message.subject.starts_with('_')
}

fn print(message: &Passing, as_json: bool) -> std::io::Result<()> {
    if as_json {
        output::json(&document(message))
    } else {
        output::line(&format!("{}  {}  {}", now(), message.subject, String::from_utf8_lossy(&message.data)))
    }
}

fn document(message: &Passing) -> Value {
    let data = serde_json::from_slice(&message.data)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&message.data)));
    json!({"time": now(), "subject": message.subject, "headers": message.headers, "data": data})
}
