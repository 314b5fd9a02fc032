//! Allocates until it cannot; or, told `{"bytes": n}`, just that much, and publishes how much it was.

use std::hint::black_box;

use cofferdam_sdk::{Event, Failure};
use guest_fixtures::{instructions, number, report};
use serde_json::json;

const CHUNK: u64 = 1 << 20;

fn handle(event: Event) -> Result<(), Failure> {
    let wanted = number(&instructions(&event)?, "bytes", u64::MAX);
    let mut chunks = Vec::new();
    let mut held = 0;
    while held < wanted {
        chunks.push(black_box(vec![1_u8; CHUNK as usize]));
        held += CHUNK;
    }
    report(&event, &json!({ "bytes": held, "chunks": black_box(&chunks).len() }))
}

cofferdam_sdk::export!(handle);
