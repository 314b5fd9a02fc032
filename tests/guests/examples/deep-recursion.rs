//! Recurses without end.
#![allow(unconditional_recursion, reason = "that is what this guest is for")]

use std::hint::black_box;

use cofferdam_sdk::{Event, Failure};

fn deeper(depth: u64) -> u64 {
    black_box(deeper(black_box(depth + 1))) + 1
}

fn handle(_: Event) -> Result<(), Failure> {
    Err(Failure::reject(format!("came back from depth {}", deeper(0))))
}

cofferdam_sdk::export!(handle);
