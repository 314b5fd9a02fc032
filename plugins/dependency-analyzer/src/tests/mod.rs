//! Whole events through `handle`, with the plugin's own manifest and a scripted Planning.

mod events;
mod planning;
