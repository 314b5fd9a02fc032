//! Dead letters as rows for a person.

use fleet_proto::admin::v1::Summary;

use super::super::{
    lines::{shown, time},
    table,
};

const HEAD: [&str; 8] = ["ID", "STORED", "PLUGIN", "OUTCOME", "FAULT", "TRIES", "SUBJECT", "REASON"];
const NUMBERS: &[usize] = &[0, 5];

pub(super) struct Table(table::Table<8>);

impl Table {
    pub(super) fn new() -> Table {
        Table(table::Table::new(HEAD, NUMBERS))
    }

    /// The lines of some rows, after that of the heads if they are the first.
    pub(super) fn rows(&mut self, letters: &[Summary]) -> Vec<String> {
        self.0.rows(letters.iter().map(cells))
    }
}

fn cells(letter: &Summary) -> [String; 8] {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_a_row() {
        let letter = |id: u64, subject: &str, reason: &str| Summary {
            id,
            plugin: "p".into(),
            outcome: "rejected".into(),
            subject: subject.into(),
            reason: reason.into(),
            attempts: 1,
            ..Summary::default()
        };
        let mut table = Table(table::Table::for_width(HEAD, NUMBERS, None));
        assert_eq!(
            table.rows(&[letter(7, "a.b", "no"), letter(12, "a.b.c", "never\nagain")]),
            [
                "ID  STORED                PLUGIN  OUTCOME   FAULT  TRIES  SUBJECT  REASON",
                " 7  1970-01-01T00:00:00Z  p       rejected  -          1  a.b      no",
                "12  1970-01-01T00:00:00Z  p       rejected  -          1  a.b.c    never\\nagain",
            ]
        );
    }
}
