//! Whole events through `handle`, and whatever else may stand in a plan.

mod events;
mod hostile;
