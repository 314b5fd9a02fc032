//! Calls under an idempotency key.

use delivery_model::{
    calls::{Calls, NOT_IN_VAIN, ONCE, ONE_CALL},
    faults::Faults,
};

use super::{Dangers, finds, holds};

const FAULTS: Faults = Faults { ghosts: 1, again: 1, windows: 1, leases: 1, ..Faults::NONE };

#[test]
fn a_call_is_done_once_under_its_key_and_everybody_is_told() {
    holds("calls", Calls::sound(FAULTS), Calls::at_rest, Dangers::All);
}

#[test]
fn more_of_each_fault() {
    for faults in [
        Faults { crashes: 2, windows: 2, leases: 1, ..Faults::NONE },
        Faults { crashes: 2, ghosts: 3, again: 1, ..Faults::NONE },
        Faults { again: 2, windows: 3, leases: 1, ..Faults::NONE },
    ] {
        holds(&format!("calls, {faults:?}"), Calls::sound(faults), Calls::at_rest, Dangers::Some);
    }
}

#[test]
fn a_key_that_is_written_over_lets_a_call_be_two() {
    finds("calls, keys are not compared", Calls { compared: false, ..Calls::sound(FAULTS) }, ONE_CALL);
}

#[test]
fn another_life_before_the_answer_of_the_last_lets_a_call_be_done_twice() {
    let model = Calls { after_its_answer: false, ..Calls::sound(FAULTS) };
    finds("calls, a life begins while another goes on", model, ONCE);
}

#[test]
fn lives_that_share_an_answer_let_a_call_be_done_twice() {
    finds("calls, lives share an answer", Calls { apart: false, ..Calls::sound(FAULTS) }, ONCE);
}

#[test]
fn an_answer_that_goes_before_the_key_leaves_its_client_waiting() {
    let model = Calls { answers_outlive: false, ..Calls::sound(FAULTS) };
    finds("calls, answers go first", model, NOT_IN_VAIN);
}

#[test]
fn an_inbox_that_forgets_before_the_key_expired_lets_a_call_be_done_twice() {
    finds("calls, the inbox forgets first", Calls { inbox_outlives: false, ..Calls::sound(FAULTS) }, ONCE);
}
