//! One event in, a count under its key, one message out: against a loop that writes the key with compare-and-set, its value
//! cached.

use crate::{
    dispatch::against_bare,
    outcome::Outcome,
    rig::{Isolation, Rig},
    work::{Class, Work},
};

pub(crate) async fn run(rig: &Rig) -> Vec<Outcome> {
    let name = "state/cell";
    if !rig.wants(name) {
        return Vec::new();
    }
    vec![against_bare(rig, name, Work::Count, Class::Cell, Isolation::Batch, 0.75, 1).await]
}
