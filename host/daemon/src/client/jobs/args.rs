//! What `cofferdam jobs` can be told.

use std::time::Duration;

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use fleet_proto::admin::v1::JobFilter;

use super::super::{door::Reach, words};

/// As whoever is asked names them.
const STATES: [&str; 5] = ["queued", "running", "done", "failed", "cancelled"];

#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// Lists jobs, the newest first.
    List(ListArgs),
    /// Shows all that is known of one.
    Show(ShowArgs),
    /// Ends jobs: what is worked is dropped, and what waits never begins.
    Cancel(CancelArgs),
    /// Tells how things stand, again and again: what waits, what is worked, what has ended.
    Watch(WatchArgs),
}

impl JobsCommand {
    pub(super) fn reach(&self) -> &Reach {
        match self {
            JobsCommand::List(args) => &args.reach,
            JobsCommand::Show(args) => &args.reach,
            JobsCommand::Cancel(args) => &args.reach,
            JobsCommand::Watch(args) => &args.reach,
        }
    }
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// That stand so.
    #[arg(long, help_heading = "Filters", value_name = "STATE", value_parser = PossibleValuesParser::new(STATES))]
    pub state: Option<String>,
    /// That this plugin submitted; `clients` for whoever calls the executor's own service.
    #[arg(long, help_heading = "Filters", value_name = "PLUGIN", value_parser = words::plugin)]
    pub plugin: Option<String>,
    /// For this model.
    #[arg(long, help_heading = "Filters", value_name = "MODEL")]
    pub model: Option<String>,
    /// Only the newest N.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Prints JSON, an object a line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

impl ListArgs {
    pub(super) fn filter(&self) -> JobFilter {
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        JobFilter { state: text(&self.state), plugin: text(&self.plugin), model: text(&self.model) }
    }
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// As `cofferdam jobs list` shows it; of a part, as `show` of the whole does.
    #[arg(value_name = "ID")]
    pub id: String,
    /// With the prompt and what was answered.
    #[arg(long)]
    pub text: bool,
    /// Prints one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Debug, Args)]
pub struct CancelArgs {
    /// Which, as `cofferdam jobs list` shows them.
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// How long to wait for the end of each.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = wait)]
    pub wait: Duration,
    /// Prints JSON, an object a line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Between two looks.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Prints JSON, an object a line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

fn wait(text: &str) -> Result<Duration, String> {
    duration(text, Duration::ZERO, Duration::from_secs(30))
}

fn interval(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(200), Duration::from_secs(60))
}

fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let wanted = || format!("a duration such as \"5s\" is wanted, from {least:?} to {most:?}");
    let duration = humantime::parse_duration(text).map_err(|_| wanted())?;
    if duration < least || duration > most { Err(wanted()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: JobsCommand,
    }

    fn parse(line: &[&str]) -> Result<JobsCommand, String> {
        let line = Line::try_parse_from(["jobs"].iter().chain(line)).map_err(|error| error.to_string())?;
        Ok(line.command)
    }

    #[test]
    fn what_cannot_be_is_refused_before_anybody_is_asked() {
        for fine in [
            &["list"][..],
            &[
                "list", "--state", "queued", "--plugin", "clients", "--model", "Qwen/x", "--limit", "7",
                "--json",
            ],
            &["show", "p_normal_aa_1", "--text"],
            &["cancel", "a", "b", "--wait", "0s"],
            &["watch", "--interval", "500ms"],
        ] {
            assert!(parse(fine).is_ok(), "{fine:?}");
        }
        for (wrong, why) in [
            (&["list", "--state", "sleeping"][..], "cancelled"),
            (&["list", "--plugin", "a.b"], "letters, digits"),
            (&["list", "--limit", "0"], "0"),
            (&["show"], "ID"),
            (&["cancel"], "ID"),
            (&["cancel", "a", "--wait", "1h"], "from 0ns to 30s"),
            (&["watch", "--interval", "1ms"], "from 200ms to 60s"),
        ] {
            let told = parse(wrong).unwrap_err();
            assert!(told.contains(why), "{wrong:?}: {told}");
        }
    }
}
