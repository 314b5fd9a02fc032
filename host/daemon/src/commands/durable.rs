//! `cofferdam durable delete`: the remedy where a durable exists with other settings than the configuration wants.

use std::path::PathBuf;

use anyhow::{Context, bail};
use cofferdam_bus::Error;

use crate::{
    app,
    config::{Config, Environment, Location},
};

/// `name` is `STREAM/DURABLE`, as messages show it. On the embedded bus the daemon must not be running.
pub fn delete_durable(file: Option<PathBuf>, name: &str) -> anyhow::Result<()> {
    let Some((stream, durable)) = name.split_once('/') else {
        bail!("{name:?} names no durable; write STREAM/DURABLE, as the message about it does");
    };
    let config = Config::load(&Location::find(file), &Environment::of_process())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bus = app::connect(&config).await?;
        match bus.delete_durable(stream, durable).await {
            Ok(()) => {
                super::print(&format!(
                    "deleted {name}: made anew, it begins with all that {stream} holds\n"
                ))?;
                Ok(())
            }
            Err(Error::Gone { .. }) => bail!("there is no durable {name:?} on this bus"),
            Err(error) => Err(error).with_context(|| format!("the durable {name:?} can't be deleted")),
        }
    })
}
