//! From the command line to its command.

use std::{io::Write, process::ExitCode};

use cofferdam::{
    cli::{Cli, Command, ConfigCommand, DurableCommand},
    commands,
};

/// Events are short-lived and come from one thread to another, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let told = match Cli::of_process().command {
        Command::Run(args) => commands::run(args.config).map(|()| ExitCode::SUCCESS),
        Command::Executor(args) => commands::executor(args.config).map(|()| ExitCode::SUCCESS),
        Command::Check { config, json } => commands::check(config.config, json),
        Command::Config(ConfigCommand::Show(args)) => commands::show(args.config).map(|()| ExitCode::SUCCESS),
        Command::Durable(DurableCommand::Delete { name, config }) => {
            commands::delete_durable(config.config, &name).map(|()| ExitCode::SUCCESS)
        }
        Command::Dlq(command) => commands::dlq(command),
        Command::Jobs(command) => commands::jobs(command),
        Command::Pub(args) => commands::publish(args).map(|()| ExitCode::SUCCESS),
        Command::Sub(args) => commands::subscribe(args).map(|()| ExitCode::SUCCESS),
    };
    told.unwrap_or_else(|error| {
        // Not a log line: whoever typed the command reads it, whatever the log level.
        let told = writeln!(std::io::stderr(), "cofferdam: {error:#}");
        drop(told);
        ExitCode::FAILURE
    })
}
