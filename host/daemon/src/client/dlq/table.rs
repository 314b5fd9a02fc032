//! Dead letters as rows for a person: as wide as the terminal, where there is one.

use std::{
    io::{IsTerminal, stdout},
    process::{Command, Stdio},
};

use fleet_proto::admin::v1::Summary;

use super::super::lines::{shown, time};

const COLUMNS: usize = 8;
const HEAD: [&str; COLUMNS] = ["ID", "STORED", "PLUGIN", "OUTCOME", "FAULT", "TRIES", "SUBJECT", "REASON"];
/// Of a reason on a terminal, however narrow.
const LEAST: usize = 20;

/// Columns are as wide as what came so far needs.
pub(super) struct Table {
    widths: [usize; COLUMNS - 1],
    /// `None`: no terminal, nothing is cut.
    terminal: Option<usize>,
    headed: bool,
}

impl Table {
    pub(super) fn new() -> Table {
        Table::for_width(width())
    }

    fn for_width(terminal: Option<usize>) -> Table {
        Table { widths: [0; COLUMNS - 1], terminal, headed: false }
    }

    /// The lines of some rows, after that of the heads if they are the first.
    pub(super) fn rows(&mut self, letters: &[Summary]) -> Vec<String> {
        let head = (!std::mem::replace(&mut self.headed, true)).then(|| HEAD.map(str::to_owned));
        let rows: Vec<[String; COLUMNS]> = head.into_iter().chain(letters.iter().map(cells)).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[String; COLUMNS]) -> String {
        let mut line = String::new();
        for (n, (cell, width)) in row.iter().zip(self.widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            // Numbers stand under each other's last digits.
            let (before, after) = if n == 0 || n == 5 { (pad.as_str(), "") } else { ("", pad.as_str()) };
            line.push_str(before);
            line.push_str(cell);
            line.push_str(after);
            line.push_str("  ");
        }
        let reason = &row[COLUMNS - 1];
        let room = self
            .terminal
            .map_or(usize::MAX, |terminal| terminal.saturating_sub(line.chars().count()).max(LEAST));
        if reason.chars().count() > room {
            line.extend(reason.chars().take(room - 1));
            line.push('…');
        } else {
            line.push_str(reason);
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn cells(letter: &Summary) -> [String; COLUMNS] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { shown(text.as_bytes()) };
    let stored = humantime::format_rfc3339_seconds(time(letter.stored_at.as_ref()));
    [
        letter.id.to_string(),
        stored.to_string(),
        or_dash(&letter.plugin),
        or_dash(&letter.outcome),
        or_dash(&letter.fault),
        letter.attempts.to_string(),
        or_dash(&letter.subject),
        shown(letter.reason.as_bytes()),
    ]
}

/// Of the terminal on standard output.
fn width() -> Option<usize> {
    if !stdout().is_terminal() {
        return None;
    }
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let asked = || {
        // The system's own way to ask wants code that we don't allow ourselves.
        let output =
            Command::new("stty").arg("size").stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
        String::from_utf8(output.stdout).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    told.or_else(asked).filter(|width| *width > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: u64, subject: &str, reason: &str) -> Summary {
        Summary {
            id,
            plugin: "p".into(),
            outcome: "rejected".into(),
            subject: subject.into(),
            reason: reason.into(),
            attempts: 1,
            ..Summary::default()
        }
    }

    #[test]
    fn columns_stand_under_each_other_and_what_comes_later_may_widen_them() {
        let mut table = Table::for_width(None);
        let lines = table.rows(&[letter(7, "a.b", "no"), letter(12, "a.b.c", "never\nagain")]);
        assert_eq!(
            lines,
            [
                "ID  STORED                PLUGIN  OUTCOME   FAULT  TRIES  SUBJECT  REASON",
                " 7  1970-01-01T00:00:00Z  p       rejected  -          1  a.b      no",
                "12  1970-01-01T00:00:00Z  p       rejected  -          1  a.b.c    never\\nagain",
            ]
        );
        let later = table.rows(&[letter(100, "a.b", "no")]);
        assert_eq!(later, ["100  1970-01-01T00:00:00Z  p       rejected  -          1  a.b      no"]);
    }

    #[test]
    fn a_reason_is_cut_to_the_terminal() {
        let long = "ü".repeat(200);
        let mut table = Table::for_width(Some(100));
        let lines = table.rows(&[letter(7, "a.b", &long)]);
        assert_eq!(lines[1].chars().count(), 100);
        assert!(lines[1].ends_with("ü…"), "{}", lines[1]);
        let narrow = Table::for_width(Some(10)).rows(&[letter(7, "a.b", &long)]);
        assert!(narrow[1].chars().filter(|c| *c == 'ü').count() == LEAST - 1, "{}", narrow[1]);
    }
}
