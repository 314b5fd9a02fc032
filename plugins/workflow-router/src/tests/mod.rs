//! What workflow-router does with each of its events and calls, as somebody outside would see it. Tests are named after the section
//! of the fleet's contract that they hold it to.

mod alerts;
mod any_order;
mod boards;
mod bounds;
mod calls;
mod events;
mod lists;
mod moves;
mod opening;
mod outcomes;
mod stories;
mod support;
mod versions;
