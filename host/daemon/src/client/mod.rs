//! `cofferdam pub` and `cofferdam sub`: a running daemon's bus from the command line, by way of its admin port. They know
//! the protocol and nothing else of the daemon.

mod door;
mod lines;
mod publish;
mod resume;
mod subscribe;
mod words;

pub use door::Reach;
pub use publish::{PubArgs, publish};
pub use subscribe::{SubArgs, subscribe};
