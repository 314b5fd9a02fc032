//! What is fed to the daemons: events of hundreds of keys and events without, as far as is allowed by now.

use std::{sync::Arc, time::Duration};

use harness::dice::Dice;
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};

use crate::plain::Plain;

pub(crate) const SUBJECTS: &str = "planning.soak.>";
pub(crate) const CELL: &str = "planning.soak.cell";
pub(crate) const RECORD: &str = "planning.soak.record";

const KEYS: u64 = 300;
const AT_ONCE: usize = 48;
const PAUSE: Duration = Duration::from_millis(50);

/// Most are simply done. See [`Fate`](crate::collect::Fate).
fn fate(dice: &mut Dice) -> Option<&'static str> {
    match dice.below(100) {
        0..4 => Some("retry"),
        4..6 => Some("reject"),
        6..14 => Some("later"),
        _ => None,
    }
}

/// Publishes events 0 to below `allowed`, as that grows, up to `events`.
pub(crate) async fn feed(plain: Plain, seed: u64, events: u64, mut allowed: watch::Receiver<u64>) {
    let (plain, mut dice) = (Arc::new(plain), Dice::of(seed ^ 0xfeed));
    let mut under_way = JoinSet::new();
    for n in 0..events {
        allowed.wait_for(|allowed| n < *allowed).await.expect("the soak");
        while under_way.len() >= AT_ONCE {
            under_way.join_next().await.expect("one under way").expect("a publish");
        }
        let (class, mut data) = if dice.percent(60) {
            let key = format!("k{}", dice.below(KEYS));
            (CELL, json!({ "n": n, "key": key, "subject": key }))
        } else {
            (RECORD, json!({ "n": n, "subject": format!("r{}", dice.below(KEYS)) }))
        };
        if let Some(fate) = fate(&mut dice) {
            data["fate"] = fate.into();
        }
        let plain = plain.clone();
        under_way.spawn(async move {
            let (id, data) = (format!("soak-{n}"), data.to_string());
            while plain.publish(class, &id, &data).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    while let Some(published) = under_way.join_next().await {
        published.expect("a publish");
    }
}
