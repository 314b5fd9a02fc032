//! Whole events through `handle`, with the plugin's own manifest and a scripted Planning; and what holds of any batch.

mod any_batch;
mod events;
mod planning;
