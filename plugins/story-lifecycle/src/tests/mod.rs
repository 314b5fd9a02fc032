//! What story-lifecycle does with each of its events and calls, as somebody outside would see it.

mod any_order;
mod calls;
mod opening;
mod others;
mod steps;
mod support;
mod triggers;
