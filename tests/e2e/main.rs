//! End-to-end tests.

mod bus;
mod sandbox;
