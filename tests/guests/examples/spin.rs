//! Computes for ever.

use std::hint::black_box;

use cofferdam_sdk::{Event, Failure};

fn handle(event: Event) -> Result<(), Failure> {
    let mut turns = event.timestamp;
    loop {
        turns = black_box(turns).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
}

cofferdam_sdk::export!(handle);
