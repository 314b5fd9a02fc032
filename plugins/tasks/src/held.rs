//! Which JSON in a text is no list of tasks but belongs to a field of the block format: an example in a description.

use crate::{
    entry::Key,
    lines::{Line, is_rule},
};

/// A line `KEY: value` of the block format.
struct FieldLine {
    start: usize,
    end: usize,
    key: Key,
    is_empty: bool,
    /// Where the next rule after it ends its task, if one does.
    closed: Option<usize>,
}

/// The field lines of a text, in order, except for those inside its values.
pub(crate) struct Fields {
    lines: Vec<FieldLine>,
    titles: usize,
    /// There is more to the blocks than titles and descriptions.
    detailed: bool,
}

impl Fields {
    /// `values` are where JSON stands in the text, from and to, in order.
    pub(crate) fn around(text: &str, values: &[(usize, usize)]) -> Self {
        let mut fields = Self { lines: Vec::new(), titles: 0, detailed: false };
        let mut values = values.iter().peekable();
        let mut start = 0;
        for raw in text.split_inclusive('\n') {
            let end = start + raw.len();
            while values.next_if(|(_, end)| *end <= start).is_some() {}
            let inside = values.peek().is_some_and(|(begin, _)| *begin < start);
            if let Some((key, value)) = Line::read(raw).field().filter(|_| !inside) {
                fields.titles += usize::from(key == Key::Title);
                fields.detailed |= !matches!(key, Key::Title | Key::Description);
                fields.lines.push(FieldLine { start, end, key, is_empty: value.is_empty(), closed: None });
            } else if !inside
                && is_rule(raw)
                && let Some(last) = fields.lines.last_mut()
            {
                last.closed.get_or_insert(start);
            }
            start = end;
        }
        fields
    }

    /// Whether the value between `start` and `end` is a field's text. It is on the field's own line; or if the blocks
    /// go on after it; or if it is a lone object at the end of the last description.
    pub(crate) fn hold(&self, start: usize, end: usize, is_lone: bool) -> bool {
        let before = self.lines.partition_point(|line| line.start <= start);
        let Some(last) = before.checked_sub(1).map(|at| &self.lines[at]) else { return false };
        if start < last.end {
            return true;
        }
        if self.titles == 0 || last.closed.is_some_and(|at| at < start) {
            return false;
        }
        let in_description = last.key == Key::Description;
        let goes_on = self.lines.last().is_some_and(|line| line.start >= end);
        // One title may be that of a whole plan; two are of blocks.
        let in_blocks = self.titles > 1;
        (goes_on && (in_description || last.is_empty || in_blocks))
            || (is_lone && in_description && (in_blocks || self.detailed))
    }
}

#[cfg(test)]
mod tests {
    use crate::{entry::Key, json};

    /// The titles of the tasks that the JSON in a text is.
    fn check(text: &str, expect: &[&str]) {
        let found = json::entries(text);
        let titles: Vec<&str> = found.iter().filter_map(|entry| entry.get(Key::Title).as_str()).collect();
        assert_eq!(titles, expect, "text:\n{text}");
    }

    const LONE: &str = "{\"title\": \"x\"}";
    const LIST: &str = "[{\"title\": \"x\"}]";

    #[test]
    fn a_lone_object_ends_a_description_of_blocks() {
        // Two titles are of blocks; one is, if there is more to it than a description.
        check(&format!("TITLE: A\nTITLE: B\nDESCRIPTION: send\n{LONE}"), &[]);
        check(&format!("TITLE: A\nROLE: DEV\nDESCRIPTION: send\n{LONE}"), &[]);
        check(&format!("TITLE: A\nDESCRIPTION: send\n{LONE}"), &["x"]);
        check(&format!("TITLE: A\nROLE: DEV\nDESCRIPTION: send\n{LIST}"), &["x"]);
        check(&format!("TITLE: A\nROLE: DEV\n{LONE}"), &["x"]);
    }

    #[test]
    fn what_blocks_go_on_after_is_a_field_s() {
        check(&format!("TITLE: A\nKEYWORDS:\n{LIST}\nROLE: DEV"), &[]);
        check(&format!("TITLE: A\nTITLE: B\nPRIORITY: 1\n{LIST}\nROLE: DEV"), &[]);
        check(&format!("[ ] TITLE: A\nDESCRIPTION: send\n{LIST}\nROLE: DEV"), &[]);
        check(&format!("TITLE: A\nPRIORITY: 1\n{LIST}\nROLE: DEV"), &["x"]);
    }

    #[test]
    fn a_rule_ends_a_task_before_json_and_not_after_it() {
        let task = "TITLE: A\nROLE: DEV\nDESCRIPTION: send\n";
        check(&format!("{task}---\n{LONE}"), &["x"]);
        check(&format!("{task}{LONE}\n---\nTITLE: B"), &[]);
    }

    #[test]
    fn lines_within_a_value_are_none_of_the_blocks() {
        check(
            "Description: the plan\n{\"title\": \"x\",\n\"description\": \"like\nTITLE: y\nROLE: DEV\"}",
            &["x"],
        );
        let rule = "{\"a\": \"\n---\n\"}";
        check(&format!("TITLE: A\nROLE: DEV\nDESCRIPTION: send {rule} or\n{LONE}"), &[]);
    }
}
