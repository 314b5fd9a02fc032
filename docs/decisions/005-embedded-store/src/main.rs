//! The measurement behind decision 005: redb and fjall under the load of the local bus, side by side.
//!
//! `embedded-store <directory>` runs everything there, an estimated six minutes on a quiet disk;
//! `embedded-store <directory> commits` runs one part of `commits`, `million`, `retention`, `torn`. Without `/proc`, memory and bytes written read 0.

mod child;
mod commits;
mod fjall_store;
mod load;
mod machine;
mod million;
mod redb_store;
mod retention;
mod store;
mod torn;

use std::{fs, path::Path};

use store::{Result, Variant};

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args[..] {
        // The parent's own children.
        ["million", variant, dir] => million::child(Variant::from_name(variant)?, Path::new(dir)),
        ["retention", variant, dir] => retention::child(Variant::from_name(variant)?, Path::new(dir)),
        ["reopen", variant, dir] => child::reopen(Variant::from_name(variant)?, Path::new(dir)),
        [dir] => all(Path::new(dir), &["commits", "million", "retention", "torn"]),
        [dir, part] => all(Path::new(dir), &[part]),
        _ => Err("give a directory on the disk to measure, and a part if not all of it".into()),
    }
}

fn all(dir: &Path, parts: &[&str]) -> Result<()> {
    let dir = dir.join("embedded-store-data");
    fs::create_dir_all(&dir)?;
    let micros = machine::sync_micros(&dir, 500)?;
    println!("fdatasync of 4 KiB: {} us", machine::spread(&micros, |n| format!("{n:.0}")));
    for part in parts {
        let dir = dir.join(part);
        match *part {
            "commits" => commits::run(&dir)?,
            "million" => million::run(&dir)?,
            "retention" => retention::run(&dir)?,
            "torn" => torn::run(&dir)?,
            _ => return Err(format!("there is no part {part}: commits, million, retention or torn").into()),
        }
    }
    Ok(fs::remove_dir_all(dir)?)
}
