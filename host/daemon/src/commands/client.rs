//! `cofferdam pub`, `sub`, `dlq` and `jobs`: what `client` does, on a thread of its own.

use std::process::ExitCode;

use crate::client::{self, DlqCommand, JobsCommand, PubArgs, SubArgs};

pub fn publish(args: PubArgs) -> anyhow::Result<()> {
    block_on(client::publish(args))
}

pub fn subscribe(args: SubArgs) -> anyhow::Result<()> {
    block_on(client::subscribe(args))
}

pub fn dlq(command: DlqCommand) -> anyhow::Result<ExitCode> {
    block_on(client::dlq(command))
}

pub fn jobs(command: JobsCommand) -> anyhow::Result<ExitCode> {
    block_on(client::jobs(command))
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
