//! One event in, ten messages out.

use crate::{
    dispatch::against_bare,
    outcome::Outcome,
    rig::{Isolation, Rig},
    work::{Class, Work},
};

pub(crate) async fn run(rig: &Rig) -> Vec<Outcome> {
    let name = "fanout/record";
    if !rig.wants(name) {
        return Vec::new();
    }
    // Fewer, since each costs more, but many times what is in flight.
    let part = 3;
    vec![against_bare(rig, name, Work::Fan, Class::Record, Isolation::Batch, 0.75, part).await]
}
