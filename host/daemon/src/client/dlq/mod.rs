//! `cofferdam dlq`: dead letters, by way of a running daemon's admin port.

mod act;
mod args;
mod list;
mod show;
mod table;

use std::{process::ExitCode, time::Duration};

pub use args::DlqCommand;
use args::{ActArgs, ListArgs, ShowArgs};

use super::door::Door;

/// What is asked of one dead letter takes milliseconds; a bus that is out of reach is not waited for.
const ANSWER: Duration = Duration::from_secs(30);

/// The code is a failure if something that was asked for could not be done, and said so.
pub async fn dlq(command: DlqCommand) -> anyhow::Result<ExitCode> {
    let door = Door::open(command.reach()).await?;
    match command {
        DlqCommand::List(args) => list::list(door, args).await.map(|()| ExitCode::SUCCESS),
        DlqCommand::Show(args) => show::show(door, args).await.map(|()| ExitCode::SUCCESS),
        DlqCommand::Redrive(args) => act::act(door, args.act, act::Deed::Redrive).await,
        DlqCommand::Drop(args) => act::act(door, args, act::Deed::Drop).await,
    }
}
