//! Timers.

use delivery_model::{
    faults::Faults,
    timers::{Create, FIRES_ONCE, Timers},
};

use super::{Dangers, finds, holds};

const FAULTS: Faults = Faults { crashes: 3, forgotten: 3, again: 3, windows: 4, ..Faults::NONE };

#[test]
fn a_timer_whose_creation_looks_at_the_inbox_itself_fires_once() {
    let model = Timers { create: Create::Guarded, faults: FAULTS };
    holds("timer", model, Timers::at_rest, Dangers::All);
}

#[test]
fn a_look_before_the_creation_is_enough_while_the_server_stays_up() {
    let faults = Faults { forgotten: 0, ..FAULTS };
    let model = Timers { create: Create::AfterLook, faults };
    holds("timer, looked for, no restart of the server", model, Timers::at_rest, Dangers::All);
}

#[test]
fn a_fired_timer_created_again_fires_again() {
    finds("timer, id alone", Timers { create: Create::ById, faults: FAULTS }, FIRES_ONCE);
    finds("timer, looked for", Timers { create: Create::AfterLook, faults: FAULTS }, FIRES_ONCE);
}
