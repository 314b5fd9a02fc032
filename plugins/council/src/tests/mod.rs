//! The plugin in the in-memory host, with models that say what a test has them say and a scoring stage that goes by their texts.

mod asking;
mod councils;
mod failing;
mod odd_answers;
mod orchestrating;
mod phases;
mod plans;
mod queue;
mod redelivery;
mod sizes;
mod support;
mod timing;
