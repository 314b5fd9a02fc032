//! What context-updater does with each of its events, as somebody outside would see it.

mod decided;
mod refusals;
mod repeats;
mod said;
mod support;
