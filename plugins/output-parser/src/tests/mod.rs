//! Whole events through `handle`: what a user of the plugin sees.

mod events;
