//! Failure, retries, dead letters, redrive.

use delivery_model::{
    faults::Faults,
    inbox::{ATTEMPTS_ARE_EXACT, Failing, HAS_AN_END, Inbox, ONCE, Redrive},
};

use super::{Dangers, finds, holds};

const FAULTS: Faults = Faults { crashes: 1, ghosts: 1, again: 1, forgotten: 1, ..Faults::NONE };

#[test]
fn an_event_is_done_once_or_given_up_however_it_fails_and_is_redriven() {
    holds("inbox", Inbox::sound(FAULTS), Inbox::at_rest, Dangers::All);
}

#[test]
fn more_of_each_fault() {
    for faults in [
        Faults { crashes: 3, again: 1, ..Faults::NONE },
        Faults { forgotten: 2, again: 2, ..Faults::NONE },
        Faults { ghosts: 2, again: 2, ..Faults::NONE },
    ] {
        holds(&format!("inbox, {faults:?}"), Inbox::sound(faults), Inbox::at_rest, Dangers::All);
    }
}

#[test]
fn a_retry_without_a_commit_lets_an_event_be_done_twice() {
    let model = Inbox { failing: Failing::Stores, ..Inbox::sound(FAULTS) };
    finds("inbox, a retry is stored and not committed", model, ONCE);
}

#[test]
fn attempts_that_hosts_count_are_not_exact() {
    let model = Inbox { failing: Failing::Counts, ..Inbox::sound(FAULTS) };
    finds("inbox, hosts count", model, ATTEMPTS_ARE_EXACT);
}

#[test]
fn an_inbox_that_forgets_at_once_lets_an_event_be_done_twice() {
    finds("inbox, not kept", Inbox { kept: false, ..Inbox::sound(FAULTS) }, ONCE);
}

#[test]
fn a_redrive_that_does_not_look_at_the_inbox_lets_an_event_be_done_twice() {
    let model = Inbox { redrive: Redrive::StoresThenDeletes, ..Inbox::sound(FAULTS) };
    finds("inbox, redriven without looking", model, ONCE);
}

#[test]
fn a_redrive_that_deletes_first_loses_the_event() {
    let model = Inbox { redrive: Redrive::DeletesThenCreates, ..Inbox::sound(FAULTS) };
    finds("inbox, deleted before it is redriven", model, HAS_AN_END);
}

#[test]
fn a_second_life_at_the_places_of_the_first_loses_the_event() {
    finds("inbox, lives share places", Inbox { lives: false, ..Inbox::sound(FAULTS) }, HAS_AN_END);
}
