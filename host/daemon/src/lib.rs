//! The daemon: takes events from the bus and runs each through a sandboxed plugin, which acts on the world only through
//! capabilities that the operator granted. `main.rs` tells the story; `dispatch` is the road of an event.

pub mod admin;
pub mod app;
pub mod capabilities;
pub mod cli;
pub mod client;
mod clock;
pub mod commands;
pub mod config;
pub mod dispatch;
pub mod executor;
pub mod fault;
pub mod grants;
mod letters;
pub mod observe;
pub mod plugins;
pub mod serve;
pub mod streams;
pub mod work;
