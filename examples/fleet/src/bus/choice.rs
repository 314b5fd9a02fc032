//! Which bus: by flag, else by the environment, else the daemon of this machine.

use clap::Args;

/// Where `cofferdam run` has its admin port.
const DAEMON: &str = "http://127.0.0.1:8080";

/// The bus that events pass on.
// The variables are read here, not by clap: one that is set in a shell must not contradict a flag.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct OnBus {
    /// Admin port of a daemon, whose bus is used [env: COFFERDAM_ADMIN] [default: http://127.0.0.1:8080, unless
    /// NATS_URL is set]
    #[arg(long, value_name = "URL", conflicts_with = "nats")]
    pub(crate) cofferdam: Option<String>,
    /// What the daemon's admin port asks for, if it does
    #[arg(long, value_name = "TOKEN", env = "COFFERDAM_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// A nats-server instead [env: NATS_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) nats: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    Cofferdam(String),
    Nats(String),
}

impl OnBus {
    pub(crate) fn choice(&self) -> Choice {
        self.among(|name| std::env::var(name).ok())
    }

    fn among(&self, variable: impl Fn(&str) -> Option<String>) -> Choice {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        if let Some(url) = self.nats.clone() {
            return Choice::Nats(url);
        }
        if let Some(url) = self.cofferdam.clone().or_else(|| variable("COFFERDAM_ADMIN")) {
            return Choice::Cofferdam(url);
        }
        variable("NATS_URL").map_or_else(|| Choice::Cofferdam(DAEMON.to_owned()), Choice::Nats)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        on: OnBus,
    }

    fn choice(flags: &[&str], variables: &[(&str, &str)]) -> Choice {
        let program = Program::parse_from(["program"].iter().chain(flags));
        program.on.among(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn flags_go_before_variables_and_a_daemon_before_nats() {
        let daemon = |url: &str| Choice::Cofferdam(url.to_owned());
        let nats = |url: &str| Choice::Nats(url.to_owned());
        let both = [("COFFERDAM_ADMIN", "http://c"), ("NATS_URL", "nats://n")];
        assert_eq!(choice(&[], &[]), daemon("http://127.0.0.1:8080"));
        assert_eq!(choice(&[], &[("NATS_URL", "")]), daemon("http://127.0.0.1:8080"));
        assert_eq!(choice(&[], &both[1..]), nats("nats://n"));
        assert_eq!(choice(&[], &both), daemon("http://c"));
        assert_eq!(choice(&["--nats", "nats://m"], &both), nats("nats://m"));
        assert_eq!(choice(&["--cofferdam", "http://d"], &both), daemon("http://d"));
    }

    #[test]
    fn one_bus_at_a_time() {
        let refused = Program::try_parse_from(["program", "--nats", "n", "--cofferdam", "c"]).unwrap_err();
        assert!(refused.to_string().contains("cannot be used with"), "{refused}");
    }
}
