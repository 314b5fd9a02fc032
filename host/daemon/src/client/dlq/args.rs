//! What `cofferdam dlq` can be told.

use std::time::SystemTime;

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use fleet_proto::admin::v1::Filter;

use super::super::{door::Reach, subscribe::since, words};

/// As the daemon names them; `retry` is a handler that asked for another try until there was none left.
const OUTCOMES: [&str; 8] =
    ["rejected", "trapped", "timed-out", "limited", "unfit", "deadly", "retry", "undeliverable"];
const FAULTS: [&str; 4] = ["guest", "upstream", "operator", "host"];

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Lists dead letters, the newest last.
    List(ListArgs),
    /// Shows all of one, its payload included.
    Show(ShowArgs),
    /// Gives events back to their plugins, for that plugin alone and exactly once, and deletes their dead letters.
    #[command(override_usage = "cofferdam dlq redrive [OPTIONS] <ID>...\n       \
                                cofferdam dlq redrive [OPTIONS] <FILTERS | --all>")]
    Redrive(RedriveArgs),
    /// Deletes dead letters for good.
    #[command(override_usage = "cofferdam dlq drop [OPTIONS] <ID>...\n       \
                                cofferdam dlq drop [OPTIONS] <FILTERS | --all>")]
    Drop(ActArgs),
}

impl DlqCommand {
    /// What no argument is wrong with by itself; with the name of the command.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match self {
            DlqCommand::Redrive(args) => args.act.check().map_err(|wrong| ("redrive", wrong)),
            DlqCommand::Drop(args) => args.check().map_err(|wrong| ("drop", wrong)),
            DlqCommand::List(_) | DlqCommand::Show(_) => Ok(()),
        }
    }

    pub(super) fn reach(&self) -> &Reach {
        match self {
            DlqCommand::List(args) => &args.reach,
            DlqCommand::Show(args) => &args.reach,
            DlqCommand::Redrive(args) => &args.act.reach,
            DlqCommand::Drop(args) => &args.reach,
        }
    }
}

/// Which dead letters. All that is given has to match.
#[derive(Debug, Clone, Args)]
pub struct FilterArgs {
    /// Of this plugin.
    #[arg(long, help_heading = "Filters", value_name = "PLUGIN", value_parser = words::plugin)]
    pub plugin: Option<String>,
    /// That ended so.
    #[arg(long, help_heading = "Filters", value_name = "OUTCOME", value_parser = PossibleValuesParser::new(OUTCOMES))]
    pub outcome: Option<String>,
    /// Whose fault it was.
    #[arg(long, help_heading = "Filters", value_name = "FAULT", value_parser = PossibleValuesParser::new(FAULTS))]
    pub fault: Option<String>,
    /// Of events on this subject; `*` stands for one token, a last `>` for one or more.
    #[arg(long, help_heading = "Filters", value_name = "SUBJECT", value_parser = words::filter)]
    pub subject: Option<String>,
    /// Of events with this order key.
    #[arg(long, help_heading = "Filters", value_name = "ORDER-KEY")]
    pub key: Option<String>,
    /// Stored then or later: a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h.
    #[arg(long, help_heading = "Filters", value_name = "TIME", value_parser = since)]
    pub since: Option<SystemTime>,
    /// Stored before then; written likewise.
    #[arg(long, help_heading = "Filters", value_name = "TIME", value_parser = since)]
    pub until: Option<SystemTime>,
}

impl FilterArgs {
    fn is_empty(&self) -> bool {
        let texts = [&self.plugin, &self.outcome, &self.fault, &self.subject, &self.key];
        texts.iter().all(|text| text.is_none()) && self.since.is_none() && self.until.is_none()
    }

    pub(super) fn filter(&self) -> Filter {
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        Filter {
            plugin: text(&self.plugin),
            outcome: text(&self.outcome),
            fault: text(&self.fault),
            subject: text(&self.subject),
            order_key: text(&self.key),
            since: self.since.map(Into::into),
            until: self.until.map(Into::into),
        }
    }
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub filters: FilterArgs,
    /// Only the newest N; 0 is all. Default: 50, and with --json all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub limit: Option<u32>,
    /// Prints JSON, an object a line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// As `cofferdam dlq list` shows it.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    pub id: u64,
    /// Prints the dead letter as it is stored, as JSON, with `id` and `time`.
    #[arg(long, conflicts_with = "payload")]
    pub json: bool,
    /// Prints the payload alone, byte for byte.
    #[arg(long)]
    pub payload: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Debug, Args)]
pub struct RedriveArgs {
    #[command(flatten)]
    pub act: ActArgs,
}

#[derive(Debug, Args)]
pub struct ActArgs {
    /// Which, as `cofferdam dlq list` shows them.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    pub ids: Vec<u64>,
    #[command(flatten)]
    pub filters: FilterArgs,
    /// All there are.
    #[arg(long)]
    pub all: bool,
    /// Does nothing, and lists what it would be done to.
    #[arg(long)]
    pub dry_run: bool,
    /// Does not ask.
    #[arg(long)]
    pub yes: bool,
    /// Prints JSON, an object a line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

impl ActArgs {
    fn check(&self) -> Result<(), String> {
        match (self.ids.is_empty(), self.filters.is_empty(), self.all) {
            (true, true, false) => Err("which dead letters? Give their ids, filters, or --all".to_owned()),
            (false, _, true) | (false, false, _) => {
                Err("ids are given, and filters or --all as well; give one of them".to_owned())
            }
            (true, false, true) => {
                Err("--all is every dead letter, and filters are given as well; give one of them".to_owned())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: DlqCommand,
    }

    fn parse(line: &[&str]) -> Result<DlqCommand, String> {
        let line = Line::try_parse_from(["dlq"].iter().chain(line)).map_err(|error| error.to_string())?;
        line.command.check().map_err(|(_, wrong)| wrong)?;
        Ok(line.command)
    }

    #[test]
    fn what_is_acted_on_is_said_in_one_way() {
        for fine in [
            &["redrive", "1", "2"][..],
            &["redrive", "--all", "--yes"],
            &["redrive", "--plugin", "p", "--since", "2h", "--dry-run"],
            &["drop", "7", "--json"],
            &["drop", "--outcome", "timed-out", "--fault", "guest"],
            &["list", "--limit", "0"],
            &["list", "--subject", "a.>", "--key", "k", "--until", "2026-01-31T12:00:00Z"],
            &["show", "7"],
        ] {
            assert!(parse(fine).is_ok(), "{fine:?}");
        }
        for (wrong, why) in [
            (&["redrive"][..], "Give their ids"),
            (&["drop", "--yes"], "Give their ids"),
            (&["drop", "1", "--all"], "give one of them"),
            (&["redrive", "1", "--plugin", "p"], "give one of them"),
            (&["redrive", "--all", "--key", "k"], "give one of them"),
            (&["redrive", "0"], "0"),
            (&["show", "x"], "invalid"),
            (&["show", "1", "--json", "--payload"], "cannot be used with"),
            (&["list", "--outcome", "reject"], "rejected"),
            (&["list", "--fault", "me"], "operator"),
            (&["list", "--plugin", "a.b"], "letters, digits"),
            (&["list", "--subject", "a.b*"], "whole token"),
            (&["list", "--since", "yesterday"], "10m"),
            (&["list", "--limit", "10001"], "10001"),
        ] {
            let told = parse(wrong).unwrap_err();
            assert!(told.contains(why), "{wrong:?}: {told}");
        }
    }
}
