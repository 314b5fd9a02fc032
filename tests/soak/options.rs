//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "soak")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Runs the workload under faults and prints what came of it.
    Run(Options),
    /// Works jobs with workers that are killed, and prints what came of them.
    Jobs(crate::jobs::Options),
    /// Answers the workers' requests, each after a while.
    Endpoint {
        /// Each request is a line here, and each answer.
        #[arg(long)]
        journal: PathBuf,
    },
    /// Counts calls, by idempotency key.
    Ledger {
        #[arg(long)]
        listen: String,
        /// Each call is a line here before it is answered.
        #[arg(long)]
        journal: PathBuf,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[arg(long, value_enum, default_value = "local")]
    pub(crate) bus: BusKind,
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    #[arg(long, default_value_t = 20)]
    pub(crate) kills: u64,
    /// Another each time unless it is given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Only this kind of fault; may be repeated. Default: all that the bus knows.
    #[arg(long = "fault", value_enum)]
    pub(crate) faults: Vec<Kind>,
    /// Nodes of the NATS cluster.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Hosts that share the durables. Default: 2 on NATS; the embedded bus has one.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) daemons: Option<u8>,
    /// Where data and logs are left; default: a temporary folder, gone at the end.
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BusKind {
    Nats,
    Local,
}

impl BusKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            BusKind::Nats => "nats",
            BusKind::Local => "local",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// A daemon is killed, and started again.
    Daemon,
    /// A daemon is killed, and its file is left as a power loss might leave it.
    Torn,
    /// A daemon is stopped for longer than the ack wait, and goes on.
    Pause,
    /// nats-server is killed, and started again.
    Server,
    /// A daemon's connections to NATS are cut.
    Cut,
    /// What goes between a daemon and NATS takes long.
    Delay,
    /// The gRPC server is killed, and started again.
    Upstream,
}

impl Kind {
    pub(crate) const ALL: [Kind; 7] =
        [Kind::Daemon, Kind::Torn, Kind::Pause, Kind::Server, Kind::Cut, Kind::Delay, Kind::Upstream];
    pub(crate) const LOCAL: [Kind; 3] = [Kind::Daemon, Kind::Torn, Kind::Upstream];
    pub(crate) const NATS: [Kind; 6] =
        [Kind::Daemon, Kind::Pause, Kind::Server, Kind::Cut, Kind::Delay, Kind::Upstream];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Daemon => "daemon",
            Kind::Torn => "torn",
            Kind::Pause => "pause",
            Kind::Server => "server",
            Kind::Cut => "cut",
            Kind::Delay => "delay",
            Kind::Upstream => "upstream",
        }
    }

    /// Does it end a process?
    pub(crate) fn kills(self) -> bool {
        matches!(self, Kind::Daemon | Kind::Torn | Kind::Server | Kind::Upstream)
    }

    /// Does it cut off what a host does with its events?
    pub(crate) fn cuts_off(self) -> bool {
        matches!(self, Kind::Daemon | Kind::Torn | Kind::Server)
    }
}

impl Options {
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let known: &[Kind] = match self.bus {
            BusKind::Nats => &Kind::NATS,
            BusKind::Local => &Kind::LOCAL,
        };
        if self.faults.is_empty() {
            return known.to_vec();
        }
        for kind in &self.faults {
            let (kind, bus) = (kind.name(), self.bus.name());
            assert!(
                known.iter().any(|k| k.name() == kind),
                "there is no fault {kind:?} on the bus {bus:?}; it knows {:?}",
                known.iter().map(|k| k.name()).collect::<Vec<_>>()
            );
        }
        self.faults.clone()
    }

    pub(crate) fn nodes(&self) -> usize {
        let nodes = usize::from(self.nodes);
        assert!(nodes % 2 == 1, "a stream has 1, 3 or 5 replicas, and each node is to have one: --nodes 3");
        assert!(nodes == 1 || self.bus == BusKind::Nats, "the embedded bus has no nodes: --bus nats");
        nodes
    }

    pub(crate) fn hosts(&self) -> usize {
        match self.bus {
            BusKind::Nats => self.daemons.unwrap_or(2).into(),
            BusKind::Local => {
                assert!(self.daemons.is_none_or(|n| n == 1), "the embedded bus has one daemon: --daemons 1");
                1
            }
        }
    }
}
