//! A model of the commit protocol, for a model checker. It is about the protocol, not about the code: nothing of the
//! workspace is used here. Each module is one machine that takes every step a host, the server, the network or time can
//! take, in every order, within a budget of faults; its `Rules` say how the hosts behave, so that a test can break one.
//!
//! Time goes in ticks, of two sorts that know nothing of each other: half a duplicate window of the target stream, and
//! one lease L. What happens between two ticks has no age. Hosts are interchangeable, and a state keeps them sorted: in
//! a trace, a host's number may change from step to step.

pub mod calls;
pub mod cells;
pub mod faults;
pub mod inbox;
pub mod order;
pub mod paths;
pub mod records;
pub mod target;
pub mod timers;
