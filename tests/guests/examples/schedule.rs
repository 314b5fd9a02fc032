//! Sets timers, `{"set": [{"after_ms", "data", "subject" (default: where it reports), "times" (default: 1)}]}`, then takes
//! some back, `{"cancel": [timer id, or how many were set before it]}`, and publishes what came of each. Told `{"fail": n}`
//! it asks for a retry on the first n attempts, told `{"reject": true}` it rejects, both after it set its timers.

use cofferdam_sdk::{Event, Failure, clock, delivery, publish};
use guest_fixtures::{instructions, number, outcome, report, target};
use serde_json::{Value, json};

const MILLISECOND: u64 = 1_000_000;

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let list = |name: &str| told[name].as_array().cloned().unwrap_or_default();
    let (target, now) = (target(&event)?, clock::now());
    let mut set = Vec::new();
    let times = |timer: Value| vec![timer.clone(); number(&timer, "times", 1) as usize];
    for timer in list("set").into_iter().flat_map(times) {
        let at = now + number(&timer, "after_ms", 0) * MILLISECOND;
        let subject = timer["subject"].as_str().unwrap_or(&target);
        let data = json!({ "timer": timer["data"], "at": at, "attempt": delivery::attempt() });
        set.push(match publish::schedule_json(at, subject, &data) {
            Ok(id) => json!({ "id": id, "at": at }),
            Err(refused) => json!({ "refused": refused.to_string() }),
        });
    }
    let cancelled: Vec<Value> = list("cancel")
        .iter()
        .map(|which| {
            let place = which.as_u64().and_then(|place| usize::try_from(place).ok());
            let own = place.and_then(|place| set.get(place)?["id"].as_str());
            outcome(publish::cancel(own.or(which.as_str()).unwrap_or_default()))
        })
        .collect();
    if told["reject"] == true {
        return Err(Failure::reject("as told"));
    }
    if u64::from(delivery::attempt()) <= number(&told, "fail", 0) {
        return Err(Failure::retry("as told"));
    }
    report(&event, &json!({ "set": set, "cancelled": cancelled }))
}

cofferdam_sdk::export!(handle);
