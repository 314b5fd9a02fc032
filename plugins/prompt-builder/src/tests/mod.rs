//! What prompt-builder does with each of its events, as somebody outside would see it.

mod failing;
mod opening;
mod prompts;
mod retrying;
mod support;
mod timing;
mod turns;
