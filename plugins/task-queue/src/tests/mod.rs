//! What task-queue does with each of its events and calls, as somebody outside would see it. Tests are named after the section of the
//! fleet's contract that they hold it to.

mod any_order;
mod bounds;
mod calls;
mod cancelled;
mod coming;
mod dependencies;
mod going;
mod order;
mod support;
