//! The class `cell`, and batches of two cells.

use delivery_model::{
    cells::{ACKED_APPLIED, Ack, COUNTED_ONCE, Cells, Event, Foreign, IN_ORDER, ONE_BY_ONE, Other, Rules},
    faults::Faults,
};

use super::{Dangers, finds, holds};

const fn alone(branches: &'static [u8]) -> Event {
    Event { point: 0, other: Other::Untouched, branches }
}

/// Two events of one key; the first may take another branch.
const TWO: &[Event] = &[alone(&[2, 1]), alone(&[1])];
const THREE: &[Event] = &[alone(&[1, 1]), alone(&[1]), alone(&[1])];
/// The first may have no effects.
const NOTHING: &[Event] = &[alone(&[1, 0]), alone(&[1])];
/// Two keys; the events of one write the other's cell, too.
const BATCH: &[Event] = &[
    Event { point: 0, other: Other::Written, branches: &[1, 1] },
    Event { point: 1, other: Other::Untouched, branches: &[1] },
];
const BATCHES: &[Event] = &[
    Event { point: 0, other: Other::Written, branches: &[1] },
    Event { point: 1, other: Other::Written, branches: &[1] },
];
const READS: &[Event] = &[
    Event { point: 0, other: Other::Read, branches: &[1] },
    Event { point: 1, other: Other::Read, branches: &[1] },
];

const SOME: Faults = Faults { crashes: 1, ghosts: 1, again: 1, windows: 2, ..Faults::NONE };

fn right(name: &str, events: &'static [Event], faults: Faults, dangers: Dangers) {
    holds(name, Cells { events, rules: Rules::RIGHT, faults }, Cells::at_rest, dangers);
}

#[test]
fn a_cell_counts_two_events_once_each() {
    right("cell, two events", TWO, Faults { lost: 0, ..SOME }, Dangers::All);
}

#[test]
fn a_cell_counts_once_what_a_killed_server_delivers_again() {
    let faults = Faults { forgotten: 1, lost: 1, again: 1, crashes: 1, ..Faults::NONE };
    right("cell, two events, server killed", TWO, faults, Dangers::All);
}

#[test]
fn a_cell_counts_three_events_once_each() {
    right(
        "cell, three events",
        THREE,
        Faults { ghosts: 1, again: 1, crashes: 1, ..Faults::NONE },
        Dangers::All,
    );
}

#[test]
fn events_without_effects_are_committed_like_others() {
    let faults = Faults { crashes: 1, forgotten: 1, ghosts: 1, again: 1, ..Faults::NONE };
    right("cell, an event without effects", NOTHING, faults, Dangers::Some);
}

#[test]
fn batches_of_two_cells_are_whole() {
    right(
        "batch and a cell",
        BATCH,
        Faults { crashes: 1, again: 1, windows: 2, ..Faults::NONE },
        Dangers::All,
    );
    right("two batches", BATCHES, Faults { crashes: 1, again: 1, ghosts: 1, ..Faults::NONE }, Dangers::All);
    right(
        "two batches that read",
        READS,
        Faults { crashes: 1, again: 1, ghosts: 1, ..Faults::NONE },
        Dangers::Some,
    );
}

fn two(rules: Rules) -> Cells {
    Cells { events: TWO, rules, faults: SOME }
}

#[test]
fn without_compare_and_set_state_is_lost() {
    finds("cell, no compare-and-set", two(Rules { compare: false, ..Rules::RIGHT }), ACKED_APPLIED);
}

#[test]
fn an_ack_before_a_cells_effects_loses_them() {
    finds("cell, ack first", two(Rules { ack: Ack::First, ..Rules::RIGHT }), ACKED_APPLIED);
}

#[test]
fn effects_of_earlier_events_come_first() {
    finds("cell, earlier effects left", two(Rules { earlier_first: false, ..Rules::RIGHT }), IN_ORDER);
}

#[test]
fn a_message_id_alone_repeats_a_cells_effects() {
    finds("cell, no search", two(Rules { search: false, ..Rules::RIGHT }), IN_ORDER);
}

#[test]
fn an_ack_without_effects_leaves_another_runs_cell_unapplied() {
    let rules = Rules { commit_nothing: false, ..Rules::RIGHT };
    let model = Cells { events: NOTHING, rules, faults: SOME };
    finds("cell, no effects, no commit", model, ACKED_APPLIED);
}

#[test]
fn a_batch_that_is_not_atomic_leaves_half_of_it() {
    let rules = Rules { atomic: false, ..Rules::RIGHT };
    finds("batch, not atomic", Cells { events: BATCH, rules, faults: SOME }, COUNTED_ONCE);
}

#[test]
fn a_batch_may_not_carry_or_drop_what_another_cell_holds() {
    for foreign in [Foreign::Carried, Foreign::Dropped] {
        let rules = Rules { foreign, ..Rules::RIGHT };
        let property = if foreign == Foreign::Carried { IN_ORDER } else { ACKED_APPLIED };
        let faults = Faults { crashes: 1, again: 1, windows: 2, ..Faults::NONE };
        finds(&format!("batch, {foreign:?}"), Cells { events: BATCH, rules, faults }, property);
    }
}

#[test]
fn a_cell_that_is_only_read_needs_a_marker() {
    let rules = Rules { markers: false, ..Rules::RIGHT };
    finds("batch, no markers", Cells { events: READS, rules, faults: SOME }, ONE_BY_ONE);
}
