//! What can be known to be wrong with a change from the change alone, whatever the bus.

use std::collections::BTreeSet;

use crate::{
    api::{Change, MAX_OTHERS, Point, Write},
    error::CommitError,
    subject,
};

/// Of a key of a cell's state, in bytes.
const MAX_KEY: usize = 512;
/// Of a timer's id, in bytes: part of a subject.
const MAX_TIMER: usize = 512;

pub(crate) fn check(point: &Point, change: &Change) -> Result<(), CommitError> {
    let unfit = |why: String| Err(CommitError::Unfit(why));
    if !matches!(point, Point::Cell { .. }) && !change.writes.is_empty() {
        return unfit(
            "state is written, but the event has no cell: its subscription needs an order key".into(),
        );
    }
    if *point == Point::Publish && change.effects.len() > 1 {
        return unfit(format!(
            "{} messages are published; with commit = \"publish\" an event may publish one",
            change.effects.len()
        ));
    }
    if *point == Point::Publish && !(change.timers.is_empty() && change.cancels.is_empty()) {
        return unfit(
            "timers are set or cancelled; with commit = \"publish\" an event may only publish a message"
                .into(),
        );
    }
    check_others(point, change)?;
    let ids = change.timers.iter().map(|timer| timer.id.as_str());
    let plain = |id: &str| id.len() <= MAX_TIMER && id.split('.').all(subject::is_plain_token);
    if let Some(id) = ids.clone().chain(change.cancels.iter().map(String::as_str)).find(|id| !plain(id)) {
        return unfit(format!(
            "timer {id:?}: an id has up to {MAX_TIMER} letters, digits, - and _, with single dots between them"
        ));
    }
    let mut known = BTreeSet::new();
    if let Some(id) = ids.clone().find(|id| !known.insert(*id)) {
        return unfit(format!("timer {id:?} is set twice; each needs an id of its own"));
    }
    for write in change.writes.iter().chain(change.others.iter().flat_map(|other| &other.writes)) {
        let (Write::Put { key, .. } | Write::Delete { key }) = write;
        if key.is_empty() || key.len() > MAX_KEY {
            return unfit(format!("a state key has 1 to {MAX_KEY} bytes, not {}", key.len()));
        }
    }
    Ok(())
}

fn check_others(point: &Point, change: &Change) -> Result<(), CommitError> {
    let unfit = |why: String| Err(CommitError::Unfit(why));
    let count = change.others.len();
    if *point == Point::Publish && count > 0 {
        return unfit(
            "other cells are read or written; with commit = \"publish\" an event may only publish a message"
                .into(),
        );
    }
    if count > MAX_OTHERS {
        return unfit(format!("{count} other cells are read or written, over the limit of {MAX_OTHERS}"));
    }
    let mut known = BTreeSet::new();
    if let Point::Cell { space, cell } = point {
        known.insert((space.as_str(), cell.as_str()));
    }
    match change.others.iter().find(|other| !known.insert((&other.space, &other.cell))) {
        Some(twice) => unfit(format!(
            "the cell {:?} of space {:?} is there twice; an event has each cell once, its own among them",
            twice.cell, twice.space
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::api::{CellState, Message, OtherCell, Timer};

    fn effects(count: usize) -> Change {
        let effect = Message { subject: "a".into(), headers: Vec::new(), data: Bytes::new() };
        Change { effects: vec![effect; count], ..Change::default() }
    }

    fn deletes(key: &str) -> Change {
        Change { writes: vec![Write::Delete { key: key.to_owned() }], ..Change::default() }
    }

    fn cell() -> Point {
        Point::Cell { space: "s".into(), cell: "c".into() }
    }

    #[track_caller]
    fn unfit(point: Point, change: &Change) {
        assert!(matches!(check(&point, change), Err(CommitError::Unfit(_))), "{point:?} {change:?}");
    }

    #[test]
    fn state_needs_a_cell() {
        assert_eq!(check(&cell(), &deletes("k")), Ok(()));
        unfit(Point::Record, &deletes("k"));
        unfit(Point::Publish, &deletes("k"));
    }

    #[test]
    fn the_publish_class_takes_one_message() {
        assert_eq!(check(&Point::Publish, &effects(1)), Ok(()));
        assert_eq!(check(&Point::Record, &effects(2)), Ok(()));
        unfit(Point::Publish, &effects(2));
    }

    fn timers(ids: &[&str]) -> Change {
        let message = Message { subject: "a".into(), headers: Vec::new(), data: Bytes::new() };
        let timer = |id: &&str| Timer { id: (*id).into(), at: 0, message: message.clone() };
        Change { timers: ids.iter().map(timer).collect(), ..Change::default() }
    }

    fn cancels(id: &str) -> Change {
        Change { cancels: vec![id.to_owned()], ..Change::default() }
    }

    #[test]
    fn timers_have_ids_of_their_own_made_of_plain_tokens() {
        for fine in ["a", "a.b-1_C.2", &"a".repeat(MAX_TIMER)] {
            assert_eq!(check(&Point::Record, &timers(&[fine])), Ok(()), "{fine}");
            assert_eq!(check(&cell(), &cancels(fine)), Ok(()), "{fine}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "*", "a.>", "ä", "a/b", &"a".repeat(MAX_TIMER + 1)] {
            unfit(cell(), &timers(&["a", bad]));
            unfit(Point::Record, &cancels(bad));
        }
        assert_eq!(check(&cell(), &timers(&["a", "b"])), Ok(()));
        unfit(cell(), &timers(&["a", "b", "a"]));
    }

    #[test]
    fn the_publish_class_has_no_timers() {
        unfit(Point::Publish, &timers(&["a"]));
        unfit(Point::Publish, &cancels("a"));
    }

    fn others(cells: &[String]) -> Change {
        let other = |cell: &String| OtherCell {
            space: "s".into(),
            cell: cell.clone(),
            state: CellState::default(),
            writes: Vec::new(),
            revision: 0,
            notes: None,
        };
        Change { others: cells.iter().map(other).collect(), ..Change::default() }
    }

    #[test]
    fn other_cells_are_others_and_not_too_many() {
        let many: Vec<String> = (0..=MAX_OTHERS).map(|n| n.to_string()).collect();
        let fine = others(&many[..MAX_OTHERS]);
        assert_eq!(check(&cell(), &fine), Ok(()));
        assert_eq!(check(&Point::Record, &fine), Ok(()));
        unfit(Point::Publish, &others(&many[..1]));
        unfit(Point::Record, &others(&many));
        unfit(Point::Record, &others(&["a".into(), "b".into(), "a".into()]));
        unfit(cell(), &others(&["a".into(), "c".into()]));
        assert!(!fine.is_empty(), "what was read is checked");
    }

    #[test]
    fn keys_have_a_size() {
        assert_eq!(check(&cell(), &deletes(&"k".repeat(MAX_KEY))), Ok(()));
        unfit(cell(), &deletes(""));
        unfit(cell(), &deletes(&"k".repeat(MAX_KEY + 1)));
        let mut other = others(&["a".into()]);
        other.others[0].writes = deletes("").writes;
        unfit(cell(), &other);
    }
}
