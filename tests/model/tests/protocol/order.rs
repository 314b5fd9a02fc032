//! Order and the take-over barrier.

use delivery_model::{
    faults::Faults,
    order::{Barrier, Order, STREAM_ORDER},
};

use super::{Dangers, finds, holds};

const FAULTS: Faults = Faults { crashes: 2, forgotten: 2, again: 2, ..Faults::NONE };

#[test]
fn events_commit_in_stream_order_whoever_is_active() {
    holds("order", Order { barrier: Barrier::Looked, faults: FAULTS }, Order::at_rest, Dangers::All);
}

#[test]
fn a_host_that_takes_over_at_once_commits_out_of_order() {
    finds("order, no barrier", Order { barrier: Barrier::None, faults: FAULTS }, STREAM_ORDER);
}

#[test]
fn a_barrier_that_only_counts_takes_copies_that_others_have_acked_for_outstanding_ones() {
    let model = Order { barrier: Barrier::Counted, faults: FAULTS };
    finds("order, deliveries only counted", model, STREAM_ORDER);
}
