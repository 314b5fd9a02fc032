//! Runs components: engine, artifacts, limits, instances, bindings. Knows nothing of the bus.

mod seam;

pub use seam::*;
