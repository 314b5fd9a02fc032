//! What can be told of jobs without working them: how one stands, who works what, how much waits. Everything here only reads.

mod depth;
mod list;
mod whole;
mod workers;

pub(crate) use depth::{ahead, depth};
pub(crate) use list::{MAX_NEWEST, Wanted, newest};
pub(crate) use whole::{Standing, Whole, word};
pub(crate) use workers::Crew;
