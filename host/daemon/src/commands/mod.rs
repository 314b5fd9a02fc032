//! What the program can be told to do, one file a command.

mod check;
mod client;
mod durable;
mod executor;
mod life;
mod run;
mod show;

use std::io::{self, Write};

pub use check::check;
pub use client::{dlq, jobs, publish, subscribe};
pub use durable::delete_durable;
pub use executor::executor;
pub use run::run;
pub use show::show;

/// What a command was asked for, on stdout. A reader that has seen enough is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
