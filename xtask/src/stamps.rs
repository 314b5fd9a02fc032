//! Remembers what a step made from what, so that it is skipped when nothing changed; and writes files whole or not
//! at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// Reads a stamp; one that is missing or unreadable is as none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

pub(crate) fn write<T: Serialize>(path: &Path, stamp: &T) -> Result<()> {
    write_whole(path, &serde_json::to_vec_pretty(stamp)?)
}

/// Writes beside the file and renames: a reader sees the old content or the new.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = folder.join(name);
    let written = std::fs::File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("can't write {}", path.display()))
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn sha256_of_file(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).with_context(|| format!("can't read {}", path.display()))?;
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of everything a step reads: files by path below `root` and content, and free words.
#[derive(Debug)]
pub(crate) struct Inputs {
    root: PathBuf,
    hash: Sha256,
}

impl Inputs {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), hash: Sha256::new() }
    }

    pub(crate) fn word(&mut self, word: &str) {
        self.hash.update((word.len() as u64).to_le_bytes());
        self.hash.update(word);
    }

    /// A file, or a folder with all that is in it. What is not there counts as such.
    pub(crate) fn path(&mut self, path: &Path) -> Result<()> {
        if path.is_dir() {
            let entries =
                std::fs::read_dir(path).with_context(|| format!("can't read {}", path.display()))?;
            let mut entries = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            entries.sort();
            for entry in entries {
                if !entry.file_name().is_some_and(|name| name == "target" || name == ".git") {
                    self.path(&entry)?;
                }
            }
            return Ok(());
        }
        self.word(&path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy());
        match std::fs::read(path) {
            Ok(bytes) => self.word(&sha256(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.word("absent"),
            Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
        }
        Ok(())
    }

    pub(crate) fn digest(self) -> String {
        hex(&self.hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(root: &Path) -> String {
        let mut inputs = Inputs::new(root);
        inputs.path(root).unwrap();
        inputs.digest()
    }

    #[test]
    fn the_digest_follows_names_and_contents_but_not_the_place() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [one.path(), two.path()] {
            write_whole(&folder.join("a/b"), b"text").unwrap();
        }
        let before = digest(one.path());
        assert_eq!(before, digest(two.path()));
        write_whole(&two.path().join("a/b"), b"other").unwrap();
        assert_ne!(before, digest(two.path()));
        write_whole(&one.path().join("a/c"), b"").unwrap();
        assert_ne!(before, digest(one.path()));
    }

    #[test]
    fn a_broken_stamp_is_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stamp");
        assert_eq!(read::<Vec<u8>>(&path), None);
        write(&path, &vec![1_u8, 2]).unwrap();
        assert_eq!(read::<Vec<u8>>(&path), Some(vec![1, 2]));
        std::fs::write(&path, "[1,").unwrap();
        assert_eq!(read::<Vec<u8>>(&path), None);
    }
}
