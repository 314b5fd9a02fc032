//! The class `record`.

use delivery_model::{
    faults::Faults,
    records::{ACKED_APPLIED, Ack, Forget, Lease, Nothing, ONE_RUN, Records, Rules, Search},
};

use super::{Dangers, finds, holds};

/// One event, three branches.
const ONE: &[&[u8]] = &[&[2, 1, 0]];
const TWO: &[&[u8]] = &[&[1, 1], &[1]];

const WINDOWS: Faults = Faults { crashes: 2, lost: 1, ghosts: 1, again: 1, windows: 2, ..Faults::NONE };
const LEASES: Faults = Faults { crashes: 2, forgotten: 1, ghosts: 1, again: 1, leases: 2, ..Faults::NONE };
/// Enough for each of the broken rules.
const FEW: Faults = Faults { lost: 1, again: 1, windows: 2, leases: 2, ..Faults::NONE };

fn one(rules: Rules) -> Records {
    Records { events: ONE, rules, faults: FEW }
}

#[test]
fn a_record_commits_one_run_over_expired_windows() {
    let model = Records { events: ONE, rules: Rules::RIGHT, faults: WINDOWS };
    holds("record, windows expire", model, Records::at_rest, Dangers::Some);
}

#[test]
fn a_record_commits_one_run_though_it_is_forgotten_later() {
    let model = Records { events: ONE, rules: Rules::RIGHT, faults: LEASES };
    holds("record, leases expire", model, Records::at_rest, Dangers::Some);
}

#[test]
fn a_record_commits_one_run_when_windows_and_leases_expire() {
    let model = Records { events: ONE, rules: Rules::RIGHT, faults: Faults { ghosts: 1, ..FEW } };
    holds("record, both expire", model, Records::at_rest, Dangers::All);
}

#[test]
fn records_commit_two_events_once_each() {
    for (name, faults) in [
        ("record, two events, late writes", Faults { ghosts: 1, again: 1, leases: 2, ..Faults::NONE }),
        ("record, two events, a crash", Faults { crashes: 1, forgotten: 1, again: 1, ..Faults::NONE }),
    ] {
        let model = Records { events: TWO, rules: Rules::RIGHT, faults };
        holds(name, model, Records::at_rest, Dangers::Some);
    }
}

#[test]
fn without_the_lease_a_late_write_commits_a_second_run() {
    finds("record, no lease", one(Rules { lease: Lease::Never, ..Rules::RIGHT }), ONE_RUN);
}

#[test]
fn a_repeated_write_needs_the_lease_like_the_first() {
    let rules = Rules { lease: Lease::FirstWrite, ..Rules::RIGHT };
    finds("record, lease before the first write only", one(rules), ONE_RUN);
}

#[test]
fn a_write_later_than_a_lease_commits_a_second_run() {
    finds("record, writes two leases late", one(Rules { latest_write: 2, ..Rules::RIGHT }), ONE_RUN);
}

#[test]
fn records_deleted_after_the_ack_let_a_second_run_in() {
    finds("record, deleted at once", one(Rules { forget: Forget::AtOnce, ..Rules::RIGHT }), ONE_RUN);
}

#[test]
fn one_lease_is_too_short_to_keep_a_record() {
    finds("record, kept one lease", one(Rules { forget: Forget::Leases(1), ..Rules::RIGHT }), ONE_RUN);
}

#[test]
fn a_message_id_alone_repeats_effects() {
    finds("record, no search", one(Rules { search: Search::Never, ..Rules::RIGHT }), ONE_RUN);
}

#[test]
fn an_ack_before_the_effects_loses_them() {
    finds("record, ack first", one(Rules { ack: Ack::First, ..Rules::RIGHT }), ACKED_APPLIED);
}

#[test]
fn a_record_that_replaces_another_mixes_two_runs() {
    finds("record, not create-only", one(Rules { create_only: false, ..Rules::RIGHT }), ONE_RUN);
}

#[test]
fn an_ack_without_effects_leaves_another_run_unapplied() {
    for nothing in [Nothing::Ack, Nothing::Look] {
        finds("record, no effects, no commit", one(Rules { nothing, ..Rules::RIGHT }), ACKED_APPLIED);
    }
}
