//! Buckets of keys.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::{handle::Handle, op::Op, rows::KeyRow, stream::MAX_MESSAGE};
use crate::{
    api::{Bucket, Entry, Watch},
    error::Error,
    names,
};

pub(super) struct LocalBucket {
    handle: Arc<Handle>,
    name: String,
}

impl LocalBucket {
    pub(super) fn new(handle: Arc<Handle>, name: &str) -> LocalBucket {
        LocalBucket { handle, name: name.to_owned() }
    }

    async fn write(&self, key: &str, value: Option<Bytes>, expected: Option<u64>) -> Result<u64, Error> {
        names::check_key(&self.name, key)?;
        let size = value.as_ref().map_or(0, |v| v.len() as u64);
        if size > MAX_MESSAGE {
            let subject = names::key_subject(&self.name, key);
            return Err(Error::TooLarge { subject, size, max: MAX_MESSAGE });
        }
        let (bucket, key) = (self.name.clone(), key.to_owned());
        self.handle.ask(|answer| Op::PutKey { bucket, key, value, expected, answer }).await?
    }
}

#[async_trait]
impl Bucket for LocalBucket {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        names::check_key(&self.name, key)?;
        let found = self.handle.shared.view()?.key(&self.name, key)?;
        Ok(found.map(|row| entry(key.to_owned(), row)))
    }

    async fn put(&self, key: &str, value: Bytes, expected: Option<u64>) -> Result<u64, Error> {
        self.write(key, Some(value), expected).await
    }

    async fn delete(&self, key: &str, expected: Option<u64>) -> Result<(), Error> {
        self.write(key, None, expected).await.map(drop)
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        let keys = self.handle.shared.view()?.keys(&self.name)?;
        Ok(keys.into_iter().filter(|(_, row)| row.value.is_some()).map(|(key, _)| key).collect())
    }

    async fn watch(&self) -> Result<Box<dyn Watch>, Error> {
        let writes = self.handle.shared.keys();
        let handle = self.handle.clone();
        Ok(Box::new(LocalWatch { handle, bucket: self.name.clone(), writes, seen: 0, found: Vec::new() }))
    }
}

fn entry(key: String, row: KeyRow) -> Entry {
    Entry { key, value: row.value, revision: row.revision }
}

struct LocalWatch {
    handle: Arc<Handle>,
    bucket: String,
    writes: watch::Receiver<u64>,
    /// The last revision that was given out.
    seen: u64,
    /// What was found and not given out, the newest first.
    found: Vec<Entry>,
}

#[async_trait]
impl Watch for LocalWatch {
    async fn next(&mut self) -> Result<Entry, Error> {
        loop {
            if let Some(entry) = self.found.pop() {
                self.seen = entry.revision;
                return Ok(entry);
            }
            self.writes.mark_unchanged();
            match self.handle.shared.view().and_then(|view| view.keys(&self.bucket)).map_err(Error::from) {
                Ok(keys) => {
                    let new = keys.into_iter().filter(|(_, row)| row.revision > self.seen);
                    self.found = new.map(|(key, row)| entry(key, row)).collect();
                    self.found.sort_by_key(|entry| std::cmp::Reverse(entry.revision));
                }
                // It goes on once the data is in reach again.
                Err(Error::Unavailable(_)) => {
                    self.handle.shared.up().await?;
                    continue;
                }
                Err(e) => return Err(e),
            }
            if self.found.is_empty() && self.writes.changed().await.is_err() {
                return Err(self.handle.shared.down());
            }
        }
    }
}
