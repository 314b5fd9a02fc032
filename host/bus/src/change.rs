//! What can be known to be wrong with a change from the change alone, whatever the bus.

use crate::{
    api::{Change, Point, Write},
    error::CommitError,
};

/// Of a key of a cell's state, in bytes.
const MAX_KEY: usize = 512;

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
    for write in &change.writes {
        let (Write::Put { key, .. } | Write::Delete { key }) = write;
        if key.is_empty() || key.len() > MAX_KEY {
            return unfit(format!("a state key has 1 to {MAX_KEY} bytes, not {}", key.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::api::Message;

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

    #[test]
    fn keys_have_a_size() {
        assert_eq!(check(&cell(), &deletes(&"k".repeat(MAX_KEY))), Ok(()));
        unfit(cell(), &deletes(""));
        unfit(cell(), &deletes(&"k".repeat(MAX_KEY + 1)));
    }
}
