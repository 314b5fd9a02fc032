//! `cargo xtask`: from a fresh clone to plugins, a running demo and green tests. This file is the story; each step
//! lives in the module of its name. No host crate is used here.

mod bench;
mod binaries;
mod burst;
mod cargo;
mod ci;
mod cli;
mod crash;
mod demo;
mod disk;
mod docs;
mod guests;
mod interrupt;
mod lock;
mod profile;
mod repo;
mod stamps;
mod steps;
mod sys;
mod terminal;
mod test;
mod tool;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::cli::{Cli, Command};
use crate::guests::Selection;
use crate::interrupt::Interrupted;
use crate::repo::Repo;
use crate::steps::{Steps, mebibytes};

/// A failure that was told already, where something else must be the last line.
#[derive(Debug, thiserror::Error)]
#[error("told already")]
struct Told;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            terminal::err("interrupted");
            ExitCode::from(130)
        }
        Err(error) if error.is::<Told>() => ExitCode::FAILURE,
        Err(error) => {
            terminal::err(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    interrupt::install()?;
    let repo = Repo::find()?;
    let steps = Steps::new();
    match cli.command {
        Command::Setup { wasm } => {
            tools::setup(&repo, &steps, wasm)?;
            tools::python(&repo, &steps)
        }
        Command::Plugins { names, fixtures, wasm } => {
            let wasm = tools::wasm(&repo, &steps, wasm)?;
            let components = guests::build(&repo, &steps, &wasm, Selection { names: &names, fixtures })?;
            for component in components {
                terminal::out(&format!(
                    "{:<24} {:>9}  sha256:{}",
                    component.name,
                    mebibytes(component.size),
                    component.sha256
                ));
            }
            Ok(())
        }
        Command::Docs => docs::run(&repo),
        Command::Demo(args) => demo::run(&repo, &steps, &args),
        Command::Bench(args) => bench::run(&repo, &steps, &args),
        Command::Profile(args) => profile::run(&repo, &steps, &args),
        Command::Burst(args) => burst::run(&repo, &steps, &args),
        Command::Crash(args) => crash::run(&repo, &steps, &args),
        Command::Test { filter, with_llm } => test::run(&repo, &steps, &filter, with_llm),
        Command::Ci => ci::run(&repo, &steps),
    }
}
