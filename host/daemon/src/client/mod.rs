//! `cofferdam pub`, `sub` and `dlq`: a running daemon's bus from the command line, by way of its admin port. They know
//! the protocol and nothing else of the daemon.

mod dlq;
mod door;
mod lines;
mod publish;
mod resume;
mod subscribe;
mod words;

pub use dlq::{DlqCommand, dlq};
pub use door::Reach;
pub use publish::{PubArgs, publish};
pub use subscribe::{SubArgs, subscribe};
