//! Order and the take-over barrier.

use delivery_model::{
    faults::Faults,
    order::{Barrier, Order, STREAM_ORDER},
};

use super::{Dangers, finds, holds};

const FAULTS: Faults = Faults { crashes: 1, again: 2, lost: 1, ..Faults::NONE };

#[test]
fn events_commit_in_stream_order_whoever_is_active() {
    holds("order", Order { barrier: Barrier::Proven, faults: FAULTS }, Order::at_rest, Dangers::All);
}

#[test]
fn events_commit_in_stream_order_whatever_the_server_forgets() {
    let faults = Faults { crashes: 1, forgotten: 1, again: 1, ..Faults::NONE };
    holds("order", Order { barrier: Barrier::Proven, faults }, Order::at_rest, Dangers::All);
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

#[test]
fn so_does_one_that_believes_in_what_it_held_when_it_was_told_the_number() {
    let model = Order { barrier: Barrier::KeepsHeld, faults: FAULTS };
    finds("order, held copies not asked for again", model, STREAM_ORDER);
}

#[test]
fn a_barrier_is_needed_after_each_lost_connection_though_the_pin_stays() {
    let model = Order { barrier: Barrier::OncePerPin, faults: FAULTS };
    finds("order, a barrier only with a new pin", model, STREAM_ORDER);
}
