//! `cofferdam dlq redrive` and `drop`: one dead letter after another, oldest first, so that events of a key come to their
//! plugin's inbox in the order in which they were given up.

use std::{
    collections::BTreeMap,
    io::{BufRead, IsTerminal, Write, stderr, stdin, stdout},
    process::ExitCode,
};

use anyhow::{Context, bail};
use fleet_proto::admin::v1::{DropRequest, Filter, RedriveRequest, ShowRequest, Summary};
use serde_json::{Map, Value};
use tonic::{Code, Status};

use super::{
    super::{
        door::Door,
        lines::{note, print, shown},
    },
    ANSWER, ActArgs,
    list::{self, Letters, as_json, letters},
    table::Table,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Redrive,
    Drop,
}

impl Deed {
    fn verb(self) -> &'static str {
        match self {
            Deed::Redrive => "redrive",
            Deed::Drop => "drop",
        }
    }
}

/// What became of one of them.
enum Done {
    Now {
        summary: Summary,
        stored_as: String,
    },
    /// Somebody had redriven it.
    Before {
        summary: Summary,
        stored_as: String,
    },
    /// Somebody was faster.
    Gone(String),
    Not(String),
}

#[derive(Default)]
struct Tally {
    now: u64,
    before: u64,
    gone: u64,
    not: u64,
}

pub(super) async fn act(mut door: Door, args: ActArgs, deed: Deed) -> anyhow::Result<ExitCode> {
    let filtered = args.ids.is_empty();
    if args.dry_run {
        let count = if filtered {
            match list::rows(door, args.filters.filter(), 0, args.json).await? {
                Some(count) => count.matched,
                None => return Ok(ExitCode::SUCCESS),
            }
        } else {
            shown_rows(&mut door, &args).await?
        };
        note(&format!("would {} {}; nothing is done", deed.verb(), letters(count)));
        return Ok(ExitCode::SUCCESS);
    }
    let ids = if filtered {
        match chosen(&door, args.filters.filter()).await? {
            (ids, _) if ids.is_empty() => {
                note(&format!("there is nothing to {}: no dead letter matches", deed.verb()));
                return Ok(ExitCode::SUCCESS);
            }
            (ids, what) if !args.yes => {
                if !confirmed(deed, ids.len() as u64, &what)? {
                    note("nothing is done");
                    return Ok(ExitCode::FAILURE);
                }
                ids
            }
            (ids, _) => ids,
        }
    } else {
        let mut ids = args.ids.clone();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let (mut out, mut tally, mut read) = (stdout(), Tally::default(), true);
    for id in &ids {
        let done = match one(&mut door, *id, deed).await {
            Ok(done) => done,
            Err(error) => {
                let through = tally.now + tally.before + tally.gone + tally.not;
                let rest = ids.len() as u64 - through;
                return Err(
                    error.context(format!("stopped at dead letter {id}, with {} left", letters(rest)))
                );
            }
        };
        let (counter, code) = match &done {
            Done::Now { .. } => (&mut tally.now, true),
            Done::Before { .. } => (&mut tally.before, true),
            // Of a list that was true a moment ago.
            Done::Gone(_) => (&mut tally.gone, filtered),
            Done::Not(_) => (&mut tally.not, false),
        };
        *counter += 1;
        match (args.json, &done) {
            (true, done) => read = read && print(&mut out, &json(*id, done, deed).to_string())?,
            (false, Done::Gone(why) | Done::Not(why)) if !code => note(why),
            (false, done) => read = read && print(&mut out, &line(*id, done, deed))?,
        }
    }
    if ids.len() > 1 && !args.json {
        note(&summed(&tally, deed));
    }
    let failed = tally.not > 0 || (!filtered && tally.gone > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Their ids, and what they are, for the question. What comes while they are acted on is not among them.
async fn chosen(door: &Door, filter: Filter) -> anyhow::Result<(Vec<u64>, String)> {
    let mut found = Letters::of(door.clone(), filter, 0).await?;
    let (mut ids, mut kinds) = (Vec::new(), BTreeMap::<(String, String), u64>::new());
    while let Some(letter) = found.next().await? {
        ids.push(letter.id);
        *kinds.entry((letter.plugin, letter.outcome)).or_default() += 1;
    }
    let kinds: Vec<String> = kinds
        .iter()
        .map(|((plugin, outcome), count)| shown(format!("{plugin}: {count} {outcome}").as_bytes()))
        .collect();
    Ok((ids, kinds.join(", ")))
}

fn confirmed(deed: Deed, count: u64, what: &str) -> anyhow::Result<bool> {
    let verb = deed.verb();
    if !stdin().is_terminal() || !stderr().is_terminal() {
        bail!(
            "{} match ({what}); to {verb} them without being asked, give --yes (--dry-run lists them)",
            letters(count)
        );
    }
    let for_good = if deed == Deed::Drop { " for good" } else { "" };
    write!(stderr(), "{verb} {}{for_good} ({what})? [y/N] ", letters(count))?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer).context("the answer can't be read")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Of ids, as a list shows them.
async fn shown_rows(door: &mut Door, args: &ActArgs) -> anyhow::Result<u64> {
    let (mut out, mut table, mut count) = (stdout(), Table::new(), 0);
    for id in args.ids.iter().copied() {
        let answer = door.letters.show(ShowRequest { id }).await;
        let found = answer.map_err(|status| door.told(&status))?.into_inner().summary.unwrap_or_default();
        count += 1;
        let lines = if args.json {
            vec![as_json(&found).to_string()]
        } else {
            table.rows(std::slice::from_ref(&found))
        };
        for line in lines {
            if !print(&mut out, &line)? {
                return Ok(count);
            }
        }
    }
    Ok(count)
}

/// An error is one that all the others would meet as well.
async fn one(door: &mut Door, id: u64, deed: Deed) -> anyhow::Result<Done> {
    let mut letters = door.letters.clone();
    let asked = async {
        match deed {
            Deed::Redrive => {
                let answer = letters.redrive(RedriveRequest { id }).await?.into_inner();
                let (summary, stored_as) = (answer.summary.unwrap_or_default(), answer.stored_as);
                Ok(match answer.already {
                    false => Done::Now { summary, stored_as },
                    true => Done::Before { summary, stored_as },
                })
            }
            Deed::Drop => {
                let summary =
                    letters.drop(DropRequest { id }).await?.into_inner().summary.unwrap_or_default();
                Ok(Done::Now { summary, stored_as: String::new() })
            }
        }
    };
    let Ok(done) = tokio::time::timeout(ANSWER, asked).await else {
        bail!("no answer within {ANSWER:?}; the same command again does nothing twice");
    };
    match done {
        Ok(done) => Ok(done),
        Err(status) => refused(door, &status),
    }
}

fn refused(door: &Door, status: &Status) -> anyhow::Result<Done> {
    match status.code() {
        Code::NotFound => Ok(Done::Gone(status.message().to_owned())),
        Code::FailedPrecondition | Code::InvalidArgument | Code::ResourceExhausted => {
            Ok(Done::Not(status.message().to_owned()))
        }
        _ => Err(door.told(status)),
    }
}

fn line(id: u64, done: &Done, deed: Deed) -> String {
    let of = |summary: &Summary| {
        shown(format!("{}  {}  {}", summary.plugin, summary.subject, summary.event).as_bytes())
    };
    match done {
        Done::Now { summary, .. } if deed == Deed::Drop => format!("{id}  dropped  {}", of(summary)),
        Done::Now { summary, .. } => format!("{id}  redriven  {}", of(summary)),
        Done::Before { summary, .. } => {
            format!("{id}  had been redriven; its dead letter is deleted  {}", of(summary))
        }
        Done::Gone(_) => format!("{id}  gone: somebody else redrove or dropped it"),
        Done::Not(why) => why.clone(),
    }
}

fn json(id: u64, done: &Done, deed: Deed) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), id.into());
    let (what, told) = match done {
        Done::Now { summary, stored_as } if deed == Deed::Redrive => ("redriven", Ok((summary, stored_as))),
        Done::Now { summary, stored_as } => ("dropped", Ok((summary, stored_as))),
        Done::Before { summary, stored_as } => ("redriven-before", Ok((summary, stored_as))),
        Done::Gone(why) => ("gone", Err(why)),
        Done::Not(why) => ("failed", Err(why)),
    };
    object.insert("result".into(), what.into());
    match told {
        Ok((summary, stored_as)) => {
            object.insert("plugin".into(), summary.plugin.clone().into());
            object.insert("subject".into(), summary.subject.clone().into());
            object.insert("event".into(), summary.event.clone().into());
            if !stored_as.is_empty() {
                object.insert("stored_as".into(), stored_as.clone().into());
            }
        }
        Err(why) => drop(object.insert("error".into(), why.clone().into())),
    }
    Value::Object(object)
}

fn summed(tally: &Tally, deed: Deed) -> String {
    let done = if deed == Deed::Drop { "dropped" } else { "redriven" };
    let mut parts = vec![format!("{done}: {}", tally.now)];
    for (name, count) in
        [("redriven before", tally.before), ("gone meanwhile", tally.gone), ("failed", tally.not)]
    {
        if count > 0 {
            parts.push(format!("{name}: {count}"));
        }
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_summed_up() {
        let tally = Tally { now: 3, before: 1, gone: 0, not: 2 };
        assert_eq!(summed(&tally, Deed::Redrive), "redriven: 3; redriven before: 1; failed: 2");
        assert_eq!(summed(&Tally::default(), Deed::Drop), "dropped: 0");
    }
}
