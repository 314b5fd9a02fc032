//! gRPC that plugins serve: clients call the host, and a plugin answers. What reads is run here and now; what writes is
//! stored in the plugin's inbox, runs as an event does, and is answered by what its commit stores.
//!
//! ```text
//! listener -> front (which method) -> incoming (what comes along) -> read
//!                                                                 -> write: keys -> inbox ... dispatch ... -> answers
//! ```

pub(crate) mod answers;
mod bound;
mod codec;
pub mod descriptors;
mod front;
mod identity;
mod incoming;
pub(crate) mod keys;
mod listener;
mod read;
pub(crate) mod status;
mod write;

pub use bound::{Bound, EXECUTOR, PLUGINS, Port, Tls};
pub use front::{Front, Tokens};
pub(crate) use incoming::Incoming;
pub(crate) use listener::follow_health;
pub use listener::{Listeners, Ready};
