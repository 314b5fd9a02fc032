//! `cofferdam pub`, `sub`, `dlq` and `jobs`: a running daemon's bus from the command line, by way of its admin port. They know
//! the protocol and nothing else of the daemon.

mod dlq;
mod door;
mod jobs;
mod lines;
mod publish;
mod resume;
mod subscribe;
mod table;
mod words;

pub use dlq::{DlqCommand, dlq};
pub use door::Reach;
pub use jobs::{JobsCommand, jobs};
pub use publish::{PubArgs, publish};
pub use subscribe::{SubArgs, subscribe};
