//! `cofferdam pub`: stores one message.

use std::{io::Read, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use fleet_proto::bus::v1::{Header, Message, PublishRequest};
use serde_json::json;

use super::{
    door::{Door, Reach},
    lines, words,
};

/// A synced write takes milliseconds; a bus that is out of reach is not waited for.
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct PubArgs {
    /// What to publish under, such as planning.plan.approved.
    #[arg(value_name = "SUBJECT", value_parser = words::subject)]
    pub subject: String,
    /// The message; `-` is standard input, '' an empty message.
    #[arg(value_name = "DATA", required_unless_present = "file")]
    pub data: Option<String>,
    /// Takes the message from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub file: Option<PathBuf>,
    /// A header; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = words::header)]
    pub headers: Vec<(String, String)>,
    /// The message's id: within the stream's duplicate window it is stored once, however often it is sent.
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Stores it only if the subject's last message has this sequence; 0: if there is none.
    #[arg(long, value_name = "SEQUENCE")]
    pub expect_last: Option<u64>,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

/// Publishes, and prints where the message is stored.
pub async fn publish(args: PubArgs) -> anyhow::Result<()> {
    let data = data(&args)?;
    let mut door = Door::open(&args.reach).await?;
    let headers = args.headers.into_iter().map(|(name, value)| Header { name, value }).collect();
    let request = PublishRequest {
        message: Some(Message { subject: args.subject, headers, data: data.into() }),
        message_id: args.id.unwrap_or_default(),
        expected_last_subject_sequence: args.expect_last,
    };
    let Ok(answer) = tokio::time::timeout(ANSWER, door.bus.publish(request)).await else {
        bail!("no answer within {ANSWER:?}: whether it is stored is unknown; with --id it can be sent again");
    };
    let stored = answer.map_err(|status| door.told(&status))?.into_inner();
    let text = if args.json {
        let (stream, sequence, duplicate) = (stored.stream, stored.sequence, stored.duplicate);
        json!({ "stream": stream, "sequence": sequence, "duplicate": duplicate }).to_string()
    } else {
        let how = if stored.duplicate { "was stored already" } else { "stored" };
        format!("{how} in {} at {}", stored.stream, stored.sequence)
    };
    lines::print(&mut std::io::stdout(), &text).map(drop)
}

fn data(args: &PubArgs) -> anyhow::Result<Vec<u8>> {
    match (&args.file, &args.data) {
        (Some(file), _) => std::fs::read(file).with_context(|| format!("{} can't be read", file.display())),
        (None, Some(text)) if text == "-" => {
            let mut data = Vec::new();
            std::io::stdin().read_to_end(&mut data).context("standard input can't be read")?;
            Ok(data)
        }
        (None, Some(text)) => Ok(text.clone().into_bytes()),
        (None, None) => bail!("there is nothing to publish; give DATA, --file FILE, or - for standard input"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: PubArgs,
    }

    fn parse(line: &[&str]) -> Result<PubArgs, String> {
        let line = Line::try_parse_from(["pub"].iter().chain(line));
        line.map(|line| line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn data_comes_from_one_place() {
        let args =
            parse(&["a.b", "{}", "--header", "x=1=2", "--header", "x=", "--expect-last", "0"]).unwrap();
        assert_eq!(data(&args).unwrap(), b"{}");
        assert_eq!(args.headers, [("x".to_owned(), "1=2".to_owned()), ("x".to_owned(), String::new())]);
        assert_eq!(args.expect_last, Some(0));
        assert_eq!(data(&parse(&["a.b", ""]).unwrap()).unwrap(), b"");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data");
        std::fs::write(&file, [0, 159]).unwrap();
        let args = parse(&["a.b", "--file", file.to_str().unwrap()]).unwrap();
        assert_eq!(data(&args).unwrap(), [0, 159]);
        for wrong in [&["a.b"][..], &["a.b", "x", "--file", "y"], &["a.b", "x", "--header", "=1"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = data(&parse(&["a.b", "--file", "/no/such/file"]).unwrap()).unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/file can't be read"), "{error:#}");
    }
}
