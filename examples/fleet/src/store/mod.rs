//! Planning's memory: one SQLite file in WAL mode that any SQLite tool may read while the stand-in runs. This file
//! holds the handle and its errors; what is stored is said in the files below, one per kind of thing.

pub(crate) mod answers;
pub(crate) mod knowledge;
pub(crate) mod marks;
pub(crate) mod outbox;
pub(crate) mod plans;
pub(crate) mod schema;
pub(crate) mod tasks;

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::Notify;

/// How long a write waits for another process that holds the file, such as a person's SQLite shell.
const BUSY: Duration = Duration::from_secs(5);

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what} {id:?} does not exist")]
    Unknown { what: &'static str, id: String },
    #[error("{what} {id:?} exists already")]
    Exists { what: &'static str, id: String },
    /// The caller's fault.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("the database holds what it should not: {0}")]
    Damaged(String),
}

/// The fleet's database. Cheap to clone; one writer at a time.
#[derive(Clone)]
pub(crate) struct Store {
    connection: Arc<Mutex<Connection>>,
    outbox: Arc<Notify>,
    path: PathBuf,
    /// Held as long as the store is: a second process in the same folder would publish everything twice.
    _lock: Arc<File>,
}

impl Store {
    /// Opens `folder/fleet.sqlite`, both created if they are missing.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Store> {
        Store::open_as("fleet", folder, schema::prepare)
    }

    /// The same for a file with other tables, which `prepare` sees to.
    pub(crate) fn open_as(
        name: &str,
        folder: &Path,
        prepare: impl FnOnce(&mut Connection) -> anyhow::Result<()>,
    ) -> anyhow::Result<Store> {
        use anyhow::Context as _;
        std::fs::create_dir_all(folder).with_context(|| {
            format!("can't create the data folder {}; choose another with --data", folder.display())
        })?;
        let lock = folder.join(format!("{name}.lock"));
        let file = File::create(&lock).with_context(|| format!("can't write {}", lock.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "another fleet uses the data folder {}; stop it or choose another folder with --data",
                folder.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("can't lock {}", lock.display()));
            }
        }
        let path = folder.join(format!("{name}.sqlite"));
        let mut connection =
            Connection::open(&path).with_context(|| format!("can't open the database {}", path.display()))?;
        connection.busy_timeout(BUSY)?;
        prepare(&mut connection).with_context(|| format!("can't use the database {}", path.display()))?;
        Ok(Store {
            connection: Arc::new(Mutex::new(connection)),
            outbox: Arc::new(Notify::new()),
            path,
            _lock: Arc::new(file),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Told after every change, since any may have put something into the outbox.
    pub(crate) fn outbox(&self) -> &Notify {
        &self.outbox
    }

    /// Runs `work` in a transaction of its own: all of it or, if it fails, nothing.
    pub(crate) async fn change<T, E>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let done = self.transact(TransactionBehavior::Immediate, work).await;
        self.outbox.notify_one();
        done
    }

    /// Reads one consistent state.
    pub(crate) async fn read<T, E>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.transact(TransactionBehavior::Deferred, work).await
    }

    async fn transact<T, E>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let connection = self.connection.clone();
        tokio::task::spawn_blocking(move || {
            // A panic in a transaction rolled it back; the connection is as good as before.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(behavior).map_err(Error::from)?;
            let value = work(&transaction)?;
            transaction.commit().map_err(Error::from)?;
            Ok(value)
        })
        .await
        .unwrap_or_else(|failure| Err(Error::Damaged(failure.to_string()).into()))
    }
}

/// RFC3339 in UTC with milliseconds: how times are stored and sent.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// `prefix-` and twelve random hex digits.
pub(crate) fn new_id(transaction: &Transaction<'_>, prefix: &str) -> Result<String, Error> {
    Ok(transaction.query_row("SELECT ?1 || '-' || lower(hex(randomblob(6)))", [prefix], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_fleet_in_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(folder.path()).unwrap();
        let refusal = Store::open(folder.path()).err().unwrap().to_string();
        assert!(refusal.contains("--data"), "{refusal}");
        drop(first);
        Store::open(folder.path()).unwrap();
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        let path = folder.path().join("fleet.sqlite");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let refusal = format!("{:#}", Store::open(folder.path()).err().unwrap());
        assert!(refusal.contains("99"), "{refusal}");
    }

    #[tokio::test]
    async fn a_failed_transaction_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let failed: Result<(), Error> = store
            .change(|transaction| {
                plans::add(transaction, plans::NewPlan { title: "T".to_owned(), ..Default::default() })?;
                Err(Error::Invalid("no".to_owned()))
            })
            .await;
        assert!(failed.is_err());
        let plans = store.read(plans::list).await.unwrap();
        assert!(plans.is_empty());
    }
}
