//! Reading what a stream stores, and hearing what is published.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::{handle::Handle, shared::Account, stream::Facts};
use crate::{
    api::{Listener, Message, Reader, Start, Stored},
    error::Error,
    subject,
};

/// Messages looked at in one go, and bytes kept of them.
const LOOKS: usize = 1024;
const BATCH_BYTES: usize = 1024 * 1024;

pub(super) struct LocalReader {
    handle: Arc<Handle>,
    groups: watch::Receiver<u64>,
    stream: Facts,
    filter: String,
    next: u64,
    found: VecDeque<Stored>,
}

impl LocalReader {
    pub(super) fn start(
        handle: Arc<Handle>,
        stream: Facts,
        filter: &str,
        start: Start,
    ) -> Result<LocalReader, Error> {
        let groups = handle.shared.groups();
        let next = match start {
            Start::Sequence(sequence) => sequence,
            Start::Time(time) => handle.shared.view()?.since(stream.id, time, stream.first, stream.last)?,
            Start::End => stream.last + 1,
        };
        Ok(LocalReader { handle, groups, stream, filter: filter.to_owned(), next, found: VecDeque::new() })
    }

    /// Looks for more up to `last`; tells whether all of that has been looked at.
    async fn look(&mut self, last: u64) -> Result<bool, Error> {
        let view = self.handle.shared.view()?;
        let (stream, from, filter) = (self.stream.id, self.next.max(1), self.filter.clone());
        let scanned = tokio::task::spawn_blocking(move || {
            let (mut found, mut bytes, mut looks, mut next) = (VecDeque::new(), 0, 0, from);
            view.scan(stream, from, |stored| {
                if stored.sequence > last {
                    return false;
                }
                next = stored.sequence + 1;
                looks += 1;
                if subject::covers(&filter, &stored.message.subject) {
                    bytes += stored.message.data.len();
                    found.push_back(stored);
                }
                looks < LOOKS && bytes < BATCH_BYTES
            })?;
            let all = looks < LOOKS && bytes < BATCH_BYTES;
            Ok::<_, super::fault::Fault>((found, if all { next.max(last + 1) } else { next }))
        });
        let (found, next) = scanned.await.map_err(|e| Error::Unavailable(e.to_string()))??;
        (self.found, self.next) = (found, next);
        Ok(next > last)
    }

    /// The stream as it is now.
    fn facts(&self) -> Result<Facts, Error> {
        let now = self.handle.shared.named(&self.stream.info.name).filter(|s| s.id == self.stream.id);
        now.ok_or_else(|| Error::Gone { what: "stream", name: self.stream.info.name.clone() })
    }
}

#[async_trait]
impl Reader for LocalReader {
    async fn next(&mut self) -> Result<Stored, Error> {
        loop {
            self.groups.mark_unchanged();
            match self.stored().await {
                Ok(Some(stored)) => return Ok(stored),
                Ok(None) => {
                    if self.groups.changed().await.is_err() {
                        return Err(self.handle.shared.down());
                    }
                }
                Err(Error::Unavailable(_)) => self.handle.shared.up().await?,
                Err(e) => return Err(e),
            }
        }
    }

    async fn stored(&mut self) -> Result<Option<Stored>, Error> {
        if let Some(stored) = self.found.pop_front() {
            return Ok(Some(stored));
        }
        let last = self.facts()?.last;
        while self.next <= last {
            self.look(last).await?;
            if let Some(stored) = self.found.pop_front() {
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }
}

pub(super) struct LocalListener {
    handle: Arc<Handle>,
    messages: mpsc::Receiver<Message>,
    account: Arc<Account>,
    filter: String,
}

impl LocalListener {
    pub(super) fn start(handle: Arc<Handle>, filter: &str) -> LocalListener {
        let (messages, account) = handle.shared.listen(filter);
        LocalListener { handle, messages, account, filter: filter.to_owned() }
    }
}

#[async_trait]
impl Listener for LocalListener {
    async fn next(&mut self) -> Result<Message, Error> {
        let missed = self.account.missed();
        if missed > 0 {
            tracing::warn!(
                filter = self.filter,
                missed,
                "a listener is too slow; what it missed can be read"
            );
        }
        let message = self.messages.recv().await.ok_or_else(|| self.handle.shared.down())?;
        self.account.taken(&message);
        Ok(message)
    }
}
