//! Accounts, one to a cell, each with 100 at first. `{"from", "to", "amount"}` moves an amount and publishes that;
//! `{"count": [account], "sum"}` adds them up, rejects any other sum, and publishes it. Told `{"end": "ok"}` it does nothing
//! more after a `get` that failed, told `{"fail": n}` it asks for a retry on the first n attempts.

use cofferdam_sdk::{
    Event, Failure, delivery,
    state::{self, StateError},
};
use guest_fixtures::{instructions, number, report};
use serde_json::{Value, json};

fn load(account: &Value) -> Result<(state::Cell, i64), StateError> {
    let cell = state::cell(account.as_str().unwrap_or_default());
    let amount = cell.load("amount")?.unwrap_or(100);
    Ok((cell, amount))
}

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    if let Some(accounts) = told["count"].as_array() {
        let mut sum = 0;
        for account in accounts {
            match load(account) {
                Ok((_, amount)) => sum += amount,
                Err(_) if told["end"] == "ok" => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        if told["sum"].as_i64().is_some_and(|expected| expected != sum) {
            return Err(Failure::reject(format!("the sum is {sum}")));
        }
        return report(&event, &json!({ "sum": sum }));
    }
    let amount = number(&told, "amount", 1) as i64;
    let ((from, before), (to, after)) = (load(&told["from"])?, load(&told["to"])?);
    from.save("amount", &(before - amount))?;
    to.save("amount", &(after + amount))?;
    if u64::from(delivery::attempt()) <= number(&told, "fail", 0) {
        return Err(Failure::retry("as told"));
    }
    report(&event, &json!({ "moved": amount, "event": event.id }))
}

cofferdam_sdk::export!(handle);
