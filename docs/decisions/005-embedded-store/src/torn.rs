//! Power loss during a sync: any of the pages that were on their way may have arrived, and the others not.
//!
//! A store is copied after a synced group and again after the next one. Each image is the first copy with a random
//! choice of the pages in which the two differ; opened, it must show the first group alone or both, whole.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    child::{Appender, GROUP, STREAM},
    load::{MESSAGE, Rng},
    store::{Result, Variant},
};

/// A message of several pages; the bus takes up to a megabyte.
const LONG_MESSAGE: usize = 12_000;

const IMAGES: usize = 100;
const PAGE: usize = 4096;
const GROUPS_BEFORE: usize = 4;

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn read_all(root: &Path, dir: &Path, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(root, &path, files)?;
        } else {
            files.insert(path.strip_prefix(root)?.to_owned(), fs::read(&path)?);
        }
    }
    Ok(())
}

fn snapshot(dir: &Path) -> Result<Files> {
    let mut files = Files::new();
    read_all(dir, dir, &mut files)?;
    Ok(files)
}

/// The pages of `after` that differ from `before`.
fn changed_pages(before: &Files, after: &Files) -> Vec<(PathBuf, usize)> {
    let mut pages = Vec::new();
    for (path, new) in after {
        let old = before.get(path).map(Vec::as_slice).unwrap_or_default();
        for start in (0..new.len()).step_by(PAGE) {
            let end = (start + PAGE).min(new.len());
            if old.get(start..end) != Some(&new[start..end]) {
                pages.push((path.clone(), start));
            }
        }
    }
    pages
}

/// A file with holes where there are zeros: journals are pre-allocated.
fn write_sparse(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = File::create(path)?;
    file.set_len(bytes.len() as u64)?;
    for (index, page) in bytes.chunks(PAGE).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start((index * PAGE) as u64))?;
            file.write_all(page)?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Found {
    pages: usize,
    first: usize,
    both: usize,
    broken: usize,
    refused: BTreeMap<String, usize>,
}

fn images(variant: Variant, bytes: usize, dir: &Path) -> Result<Found> {
    let live = dir.join("live");
    let store = variant.open(&live)?;
    let mut appender = Appender::new(store.as_ref(), None, bytes);
    for _ in 0..GROUPS_BEFORE {
        appender.group()?;
    }
    store.settle();
    let before = snapshot(&live)?;
    let old_last = appender.next - 1;
    appender.group()?;
    let after = snapshot(&live)?;
    drop(store);
    let pages = changed_pages(&before, &after);
    let mut found = Found { pages: pages.len(), ..Found::default() };
    let mut rng = Rng::new(5);
    for number in 0..IMAGES {
        let image = dir.join("image");
        for (path, bytes) in &before {
            write_sparse(&image.join(path), bytes)?;
        }
        // Half the images lack a page or two, the others have from almost none of the pages to almost all of them.
        let lost: Vec<_> = if number % 2 == 0 {
            (0..1 + rng.next() % 2).map(|_| (rng.next() as usize) % pages.len()).collect()
        } else {
            let share = 1 + rng.next() % 31;
            (0..pages.len()).filter(|_| rng.next() % 32 < share).collect()
        };
        for (_, (path, start)) in pages.iter().enumerate().filter(|(index, _)| !lost.contains(index)) {
            let file = File::options().write(true).create(true).truncate(false).open(image.join(path))?;
            let new = &after[path];
            file.write_all_at(&new[*start..(start + PAGE).min(new.len())], *start as u64)?;
        }
        match variant.open(&image).and_then(|store| store.bounds(STREAM)) {
            Ok(Some((1, last))) if last == old_last => found.first += 1,
            Ok(Some((1, last))) if last == old_last + GROUP => found.both += 1,
            Ok(_) => found.broken += 1,
            Err(error) => *found.refused.entry(error.to_string()).or_default() += 1,
        }
        fs::remove_dir_all(image)?;
    }
    fs::remove_dir_all(dir)?;
    Ok(found)
}

pub fn run(dir: &Path) -> Result<()> {
    println!("\n## Power loss during the sync of a group of {GROUP}, {IMAGES} images\n");
    println!(
        "| setting, bytes of a message | pages on their way | without the group | with it | part of it | does not open |"
    );
    println!("|---|---|---|---|---|---|");
    // Two-phase commit and quick repair sync twice, which one choice of pages does not model.
    for variant in [Variant::Redb, Variant::Fjall] {
        for bytes in [MESSAGE, LONG_MESSAGE] {
            let found = images(variant, bytes, &dir.join(variant.name()))?;
            let Found { pages, first, both, broken, refused } = &found;
            let why: Vec<_> = refused.iter().map(|(error, times)| format!("{times}: {error}")).collect();
            println!(
                "| {}, {bytes} | {pages} | {first} | {both} | {broken} | {} |",
                variant.name(),
                why.join("; ")
            );
        }
    }
    Ok(())
}
