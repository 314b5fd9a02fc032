//! Whole answers through `parse` and whole events through `handle`: what a user of the plugin sees.

mod answers;
mod events;
mod hostile;
