//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{agents, bus::OnBus, events::Style, lifecycle::Manner};

/// A fleet to run against: stand-ins for the services around Cofferdam.
#[derive(Debug, Parser)]
#[command(name = "fleet", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// What to log on standard error: error, warn, info, debug, or a filter such as `fleet=debug`
    #[arg(long, global = true, env = "LOG_LEVEL", default_value = "info")]
    pub(crate) log: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Planning and Context, on one SQLite file
    Serve(Serve),
    /// Work with plans, through a running Planning
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Look at what Context tells
    #[command(subcommand)]
    Context(ContextCommand),
    /// Print the events that pass on the bus
    Watch(Watch),
    /// A Ray Executor that answers with a prepared text
    Ray(Ray),
    /// Agents of all roles and a product owner, who do what the workflow asks for
    Agents(Agents),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address of the Planning service; port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    pub(crate) planning: String,
    /// Address of the Context service; port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50053")]
    pub(crate) context: String,
    #[command(flatten)]
    pub(crate) on: OnBus,
    /// Folder of the database, created if it is missing
    #[arg(long, value_name = "DIR", default_value = "target/fleet")]
    pub(crate) data: PathBuf,
    /// How events are written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) envelope: Style,
    /// Leave stories to another service: tell that there is one, and neither move it nor tell of steps
    #[arg(long)]
    pub(crate) leave_stories: bool,
    /// Text that Context answers with instead of its own, for all roles or for one; may be repeated
    #[arg(long = "context-file", value_name = "[ROLE=]FILE")]
    pub(crate) context_files: Vec<String>,
    /// Let every call of Planning's contract wait this long first, for example 3s
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub(crate) planning_delay: humantime::Duration,
    /// Answer the first N calls of Planning's contract with UNAVAILABLE, undone
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) planning_fail: u32,
    /// Do the first N calls of Planning's contract, but answer UNAVAILABLE: the answer is lost
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) planning_lose: u32,
    /// Answer every call of Context with UNAVAILABLE
    #[arg(long)]
    pub(crate) context_down: bool,
    /// Answer the first N calls of Context with UNAVAILABLE, undone
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) context_fail: u32,
    /// Do the first N calls of Context, but answer UNAVAILABLE: the answer is lost
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) context_lose: u32,
    /// Do every update of Context at once, but answer this much later, for example 3s
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub(crate) context_lag: humantime::Duration,
}

impl Serve {
    pub(crate) fn manner(&self) -> Manner {
        Manner { envelope: self.envelope, moves_stories: !self.leave_stories }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Store a plan from a TOML or JSON file
    Add {
        file: PathBuf,
        #[command(flatten)]
        planning: Planning,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Approve a plan: Planning publishes planning.plan.approved
    Approve {
        plan_id: String,
        #[command(flatten)]
        planning: Planning,
        /// Who approves
        #[arg(long, value_name = "NAME", default_value = "product-owner")]
        by: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a plan, its story's state and its tasks
    Show {
        plan_id: String,
        #[command(flatten)]
        planning: Planning,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List all plans
    List {
        #[command(flatten)]
        planning: Planning,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Show what an agent would be told of a story, with what was decided
    Show {
        story_id: String,
        /// The role that is told
        #[arg(long, value_name = "ROLE", default_value = "DEVELOPER")]
        role: String,
        /// Address of a running Context
        #[arg(
            long = "context",
            value_name = "ADDR",
            env = "CONTEXT_SERVICE_ADDRESS",
            default_value = "127.0.0.1:50053"
        )]
        address: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Planning {
    /// Address of a running Planning
    #[arg(
        long = "planning",
        value_name = "ADDR",
        env = "PLANNING_SERVICE_ADDRESS",
        default_value = "127.0.0.1:50051"
    )]
    pub(crate) address: String,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) on: OnBus,
    /// Subjects to watch, wildcards allowed; may be repeated. Default: all but the bus's own
    #[arg(long = "subject", value_name = "SUBJECT")]
    pub(crate) subjects: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ray {
    /// Address of the service; port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50056")]
    pub(crate) listen: String,
    #[command(flatten)]
    pub(crate) on: OnBus,
    /// The text that every agent answers with, instead of the built-in sample
    #[arg(long, value_name = "FILE")]
    pub(crate) answer: Option<PathBuf>,
    /// How long every agent thinks
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub(crate) delay: humantime::Duration,
    /// Let every deliberation fail: agent.response.failed
    #[arg(long)]
    pub(crate) fail: bool,
    /// Refuse every deliberation with this gRPC status
    #[arg(long, value_enum, value_name = "STATUS", num_args = 0..=1, require_equals = true, default_missing_value = "resource-exhausted")]
    pub(crate) refuse: Option<Refusal>,
    /// How events are written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) envelope: Style,
}

#[derive(Debug, Args)]
pub(crate) struct Agents {
    #[command(flatten)]
    pub(crate) on: OnBus,
    /// Where the product owner moves stories: a server of fleet.planning.v2.PlanningService, such as a daemon's [grpc]
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50056")]
    pub(crate) stories: String,
    /// Folder of the database, created if it is missing
    #[arg(long, value_name = "DIR", default_value = "target/fleet")]
    pub(crate) data: PathBuf,
    /// How many tasks the architect sends back at the first look
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) architect_rejects: u32,
    /// How many tasks QA sends back at the first look
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) qa_rejects: u32,
    /// How many tasks are started over once, by RETRY
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) retries: u32,
    /// How many tasks an agent gives up: agent.response.failed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) fail: u32,
    /// How long each piece of work takes
    #[arg(long, value_name = "TIME", default_value = "50ms")]
    pub(crate) think: humantime::Duration,
    /// How events are written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) envelope: Style,
}

impl Agents {
    pub(crate) fn manner(&self) -> agents::Manner {
        agents::Manner {
            envelope: self.envelope,
            think: self.think.into(),
            architect_rejects: self.architect_rejects,
            qa_rejects: self.qa_rejects,
            retries: self.retries,
            fail: self.fail,
        }
    }
}

/// The gRPC status of a refusal.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Refusal {
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Unavailable,
}
