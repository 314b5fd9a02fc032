//! What workflow-router does with each of its events, as somebody outside would see it.

mod stories;
mod support;
mod tasks;
mod work;
