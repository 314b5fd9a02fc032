//! `cofferdam pub` and `cofferdam sub`: what `client` does, on a thread of its own.

use crate::client::{self, PubArgs, SubArgs};

pub fn publish(args: PubArgs) -> anyhow::Result<()> {
    block_on(client::publish(args))
}

pub fn subscribe(args: SubArgs) -> anyhow::Result<()> {
    block_on(client::subscribe(args))
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
