//! `cofferdam dlq list`.

use anyhow::bail;
use fleet_proto::admin::v1::{Count, Filter, ListRequest, ListResponse, Summary, list_response::Item};
use serde_json::{Value, json};
use tonic::Streaming;

use super::{
    super::{
        door::Door,
        lines::{note, print, time},
    },
    ListArgs,
    table::Table,
};

/// What fits on a screen or two.
const NEWEST: u32 = 50;
/// Rows that columns are fitted to at a time.
const ROWS: usize = 100;

pub(super) async fn list(door: Door, args: ListArgs) -> anyhow::Result<()> {
    let newest = args.limit.unwrap_or(if args.json { 0 } else { NEWEST });
    let filter = args.filters.filter();
    let count = rows(door, filter.clone(), newest, args.json).await?;
    if let Some(count) = count {
        note(&counted(&filter, count, newest));
    }
    Ok(())
}

/// Prints what matches; `None` if whoever reads the output has left.
pub(super) async fn rows(
    door: Door,
    filter: Filter,
    newest: u32,
    json: bool,
) -> anyhow::Result<Option<Count>> {
    let mut letters = Letters::of(door, filter, newest).await?;
    let (mut out, mut table, mut rows) = (std::io::stdout(), Table::new(), Vec::new());
    loop {
        let next = letters.next().await?;
        let over = next.is_none();
        match next {
            Some(letter) if !json => rows.push(letter),
            // Whoever reads the output may have left.
            Some(letter) if !print(&mut out, &as_json(&letter).to_string())? => return Ok(None),
            _ => {}
        }
        if !rows.is_empty() && (over || rows.len() == ROWS) {
            for line in table.rows(&std::mem::take(&mut rows)) {
                if !print(&mut out, &line)? {
                    return Ok(None);
                }
            }
        }
        if over {
            return Ok(Some(letters.count));
        }
    }
}

/// What a list has, one after another.
pub(super) struct Letters {
    door: Door,
    items: Streaming<ListResponse>,
    /// Once there are no more.
    pub(super) count: Count,
}

impl Letters {
    pub(super) async fn of(mut door: Door, filter: Filter, newest: u32) -> anyhow::Result<Letters> {
        let request = ListRequest { filter: Some(filter), newest };
        let answer = door.letters.list(request).await.map_err(|status| door.told(&status))?;
        Ok(Letters { door, items: answer.into_inner(), count: Count::default() })
    }

    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Summary>> {
        match self.items.message().await {
            Ok(Some(ListResponse { item: Some(Item::Letter(letter)) })) => Ok(Some(letter)),
            Ok(Some(ListResponse { item: Some(Item::Count(count)) })) => {
                self.count = count;
                Ok(None)
            }
            Ok(_) => bail!("the list ended before it was whole; try again"),
            Err(status) => bail!("the list is not whole: {}", self.door.lost(&status)),
        }
    }
}

pub(super) fn as_json(letter: &Summary) -> Value {
    let given = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    json!({
        "id": letter.id,
        "time": humantime::format_rfc3339_nanos(time(letter.stored_at.as_ref())).to_string(),
        "plugin": letter.plugin,
        "outcome": letter.outcome,
        "fault": given(&letter.fault),
        "attempts": letter.attempts,
        "subject": letter.subject,
        "order_key": given(&letter.order_key),
        "reason": letter.reason,
        "event": given(&letter.event),
    })
}

/// How many there are, for whoever watches; the output itself stays clean.
fn counted(filter: &Filter, count: Count, newest: u32) -> String {
    let Count { matched, seen } = count;
    let mut of = letters(seen);
    if !filter.plugin.is_empty() {
        of.push_str(&format!(" of {}", filter.plugin));
    }
    if filter.since.is_some() || filter.until.is_some() {
        of.push_str(" of that time");
    }
    if seen == 0 {
        return format!("there are no dead letters{}", of.trim_start_matches("0 dead letters"));
    }
    let matches = if matched == seen { of } else { format!("{matched} of {of} match") };
    match u64::from(newest) {
        newest if newest != 0 && newest < matched => {
            format!("{matches}; these are the newest {newest} (--limit 0 shows all)")
        }
        _ => matches,
    }
}

pub(super) fn letters(count: u64) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} dead letter{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_how_many_there_are_and_how_many_of_them_match() {
        let all = Filter::default();
        let of_p = Filter { plugin: "p".into(), ..Filter::default() };
        let since = Filter { since: Some(prost_types::Timestamp::default()), ..of_p.clone() };
        for (filter, matched, seen, newest, expected) in [
            (&all, 0, 0, 50, "there are no dead letters"),
            (&since, 0, 0, 50, "there are no dead letters of p of that time"),
            (&all, 1, 1, 50, "1 dead letter"),
            (&of_p, 3, 7, 50, "3 of 7 dead letters of p match"),
            (&all, 70, 70, 50, "70 dead letters; these are the newest 50 (--limit 0 shows all)"),
            (&all, 60, 70, 0, "60 of 70 dead letters match"),
        ] {
            assert_eq!(counted(filter, Count { matched, seen }, newest), expected);
        }
    }
}
