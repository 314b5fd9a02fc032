//! A killed daemon's file as a power loss would leave it: what was written since the last sync is there, gone, or there in
//! part. The daemon has noted that (debug builds, `COFFERDAM_UNSYNCED`); a kill alone would lose none of it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

use harness::{
    dice::Dice,
    disk::{Change, survivors},
};

/// A change, and what undoes it.
struct Note {
    before: Before,
    change: Change,
}

enum Before {
    Bytes(Vec<u8>),
    Length(u64),
}

/// Tells what was lost, and of how many writes.
pub(crate) fn tear(data: &Path, notes: &Path, dice: &mut Dice) -> (&'static str, usize) {
    let noted = parse(&fs::read(notes).unwrap_or_default());
    let count = noted.len();
    let file = File::options().read(true).write(true).open(data).expect("the bus's file");
    let mut length = file.metadata().expect("a length").len();
    for note in noted.iter().rev() {
        match (&note.before, &note.change) {
            (Before::Bytes(bytes), Change::Write { offset, .. }) => {
                file.write_all_at(bytes, *offset as u64).expect("a write");
            }
            (Before::Length(before), _) => length = *before,
            (Before::Bytes(_), Change::Length(_)) => unreachable!("a length has a length before it"),
        }
    }
    let (kept, lost) = survivors(dice, noted.into_iter().map(|note| note.change).collect());
    for change in kept {
        match change {
            Change::Write { offset, data } => file.write_all_at(&data, offset as u64).expect("a write"),
            Change::Length(to) => length = to as u64,
        }
    }
    file.set_len(length).expect("a length");
    fs::write(notes, b"").expect("no notes");
    (lost, count)
}

/// A note that the kill cut off was of a change that had not begun.
fn parse(mut text: &[u8]) -> Vec<Note> {
    let mut notes = Vec::new();
    while let Some(note) = next(&mut text) {
        notes.push(note);
    }
    notes
}

fn next(text: &mut &[u8]) -> Option<Note> {
    let kind = *take(text, 1)?.first()?;
    let mut number = || Some(u64::from_le_bytes(take(text, 8)?.try_into().ok()?) as usize);
    let (at, before, after) = (number()?, number()?, number()?);
    let before = take(text, before)?.to_vec();
    let data = take(text, after)?.to_vec();
    Some(match kind {
        b'w' => Note { before: Before::Bytes(before), change: Change::Write { offset: at, data } },
        b'l' => {
            let before = u64::from_le_bytes(before.try_into().ok()?);
            Note { before: Before::Length(before), change: Change::Length(at) }
        }
        other => panic!("notes of another kind: {other}"),
    })
}

fn take<'a>(text: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = text.split_at_checked(count)?;
    *text = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(kind: u8, at: u64, before: &[u8], after: &[u8]) -> Vec<u8> {
        let mut note = vec![kind];
        for number in [at, before.len() as u64, after.len() as u64] {
            note.extend(number.to_le_bytes());
        }
        [note, before.to_vec(), after.to_vec()].concat()
    }

    #[test]
    fn every_loss_leaves_each_byte_as_it_was_or_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (data, notes) = (folder.path().join("data"), folder.path().join("notes"));
        let mut lengths = Vec::new();
        for seed in 0..200 {
            // "aaaa" was synced; then it grew, "b" was written over it, and "c" over that.
            let grown = note(b'l', 1024, &4u64.to_le_bytes(), &[]);
            let first = note(b'w', 1, b"aaa", &[b'b'; 3]);
            let second = note(b'w', 2, b"bb", &[b'c'; 2]);
            let cut_off = note(b'w', 0, b"a", b"x");
            let whole = [grown, first, second, cut_off[..20].to_vec()].concat();
            fs::write(&notes, whole).unwrap();
            let mut now = b"abcc".to_vec();
            now.resize(1024, 0);
            fs::write(&data, now).unwrap();
            assert_eq!(tear(&data, &notes, &mut Dice::of(seed)).1, 3);
            let left = fs::read(&data).unwrap();
            assert_eq!(left[0], b'a');
            assert!(left[1] == b'a' || left[1] == b'b', "{left:?}");
            assert!(left[2..4].iter().all(|byte| b"abc".contains(byte)), "{left:?}");
            assert_eq!(fs::read(&notes).unwrap(), b"");
            lengths.push(left.len());
        }
        assert!(lengths.contains(&4) && lengths.contains(&1024), "{lengths:?}");
    }
}
