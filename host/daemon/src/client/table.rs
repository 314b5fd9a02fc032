//! Rows for a person: columns stand under each other, and the last one is as wide as the terminal leaves it, where there is one.

use std::{
    io::{IsTerminal, stdout},
    process::{Command, Stdio},
};

/// Of the last column on a terminal, however narrow.
const LEAST: usize = 20;

/// Columns are as wide as what came so far needs.
pub(super) struct Table<const COLUMNS: usize> {
    head: [&'static str; COLUMNS],
    /// Numbers, which stand under each other's last digits.
    numbers: &'static [usize],
    widths: [usize; COLUMNS],
    /// `None`: no terminal, nothing is cut.
    terminal: Option<usize>,
    headed: bool,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(super) fn new(head: [&'static str; COLUMNS], numbers: &'static [usize]) -> Self {
        Self::for_width(head, numbers, width())
    }

    pub(super) fn for_width(
        head: [&'static str; COLUMNS],
        numbers: &'static [usize],
        terminal: Option<usize>,
    ) -> Self {
        Self { head, numbers, widths: [0; COLUMNS], terminal, headed: false }
    }

    /// The lines of some rows, after that of the heads if they are the first.
    pub(super) fn rows(&mut self, rows: impl IntoIterator<Item = [String; COLUMNS]>) -> Vec<String> {
        let head = (!std::mem::replace(&mut self.headed, true)).then(|| self.head.map(str::to_owned));
        let rows: Vec<[String; COLUMNS]> = head.into_iter().chain(rows).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[String; COLUMNS]) -> String {
        let Some((last, cells)) = row.split_last() else { return String::new() };
        let mut line = String::new();
        for (n, (cell, width)) in cells.iter().zip(self.widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            let (before, after) =
                if self.numbers.contains(&n) { (pad.as_str(), "") } else { ("", pad.as_str()) };
            line.push_str(before);
            line.push_str(cell);
            line.push_str(after);
            line.push_str("  ");
        }
        let room = self
            .terminal
            .map_or(usize::MAX, |terminal| terminal.saturating_sub(line.chars().count()).max(LEAST));
        line.push_str(&cut(last, room));
        line.truncate(line.trim_end().len());
        line
    }
}

/// At most so many letters.
pub(super) fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// Of the terminal on standard output.
pub(super) fn width() -> Option<usize> {
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

    fn row(id: u64, why: &str) -> [String; 3] {
        [id.to_string(), "p".to_owned(), why.to_owned()]
    }

    fn table(terminal: Option<usize>) -> Table<3> {
        Table::for_width(["ID", "PLUGIN", "WHY"], &[0], terminal)
    }

    #[test]
    fn columns_stand_under_each_other_and_what_comes_later_may_widen_them() {
        let mut table = table(None);
        let lines = table.rows([row(7, "no"), row(12, "never")]);
        assert_eq!(lines, ["ID  PLUGIN  WHY", " 7  p       no", "12  p       never"]);
        assert_eq!(table.rows([row(100, "")]), ["100  p"]);
    }

    #[test]
    fn the_last_column_is_cut_to_the_terminal() {
        let long = "ü".repeat(200);
        let lines = table(Some(100)).rows([row(7, &long)]);
        assert_eq!(lines[1].chars().count(), 100);
        assert!(lines[1].ends_with("ü…"), "{}", lines[1]);
        let narrow = table(Some(10)).rows([row(7, &long)]);
        assert_eq!(narrow[1].chars().filter(|c| *c == 'ü').count(), LEAST - 1, "{}", narrow[1]);
    }
}
