//! What a run does and how it ends, with guests written by hand. The fixtures of `tests/guests` are not needed here.

mod cache;
mod isolation;
mod limits;
mod runs;
mod serving;
mod wasi;

use bytes::Bytes;

use crate::testing::{Recorder, event, small};
use crate::{Ending, Limits, Plugin, Run, Sandbox};

async fn load(guest: Vec<u8>) -> Plugin {
    Sandbox::new(small()).unwrap().load(Bytes::from(guest)).await.unwrap()
}

async fn run(plugin: &Plugin, limits: &Limits) -> Run {
    plugin.handle(Box::<Recorder>::default(), event(), limits).await
}

/// Runs a guest once, under the default limits; gives the ending, and the host with what it saw.
async fn once(guest: Vec<u8>) -> (Ending, Recorder) {
    let run = run(&load(guest).await, &Limits::default()).await;
    let ending = run.ending.clone();
    (ending, *run.into_host::<Recorder>().expect("the host that was given"))
}
