//! The tables, and how a file comes to have them.

use rusqlite::Connection;

/// Of the tables below; a file with another number is refused rather than guessed at.
const VERSION: i64 = 3;

/// Which database it is, and what it owes to the bus: in each of the fleet's files.
pub(crate) const OUTBOX: &str = "
    -- One row: tells this database from any other that talks to the same bus (see outbox.rs).
    CREATE TABLE identity (id TEXT NOT NULL) STRICT;

    CREATE TABLE outbox (
        number        INTEGER PRIMARY KEY AUTOINCREMENT, -- order of sending; never used twice
        message_id    TEXT NOT NULL UNIQUE,
        subject       TEXT NOT NULL,
        data          TEXT NOT NULL, -- JSON
        created_at    TEXT NOT NULL,
        first_sent_at TEXT, -- written before the first attempt
        stored_at     TEXT, -- written when the bus has confirmed it
        stream        TEXT,
        sequence      INTEGER
    ) STRICT;
    CREATE INDEX outbox_waiting ON outbox (number) WHERE stored_at IS NULL;
";

const TABLES: &str = "
    CREATE TABLE stories (
        story_id    TEXT PRIMARY KEY,
        title       TEXT NOT NULL,
        state       TEXT NOT NULL,
        transitions INTEGER NOT NULL DEFAULT 0, -- how many there were: part of each transition's idempotency key
        created_at  TEXT NOT NULL,
        updated_at  TEXT NOT NULL
    ) STRICT;

    CREATE TABLE plans (
        plan_id             TEXT PRIMARY KEY,
        story_id            TEXT NOT NULL REFERENCES stories (story_id),
        title               TEXT NOT NULL,
        description         TEXT NOT NULL,
        acceptance_criteria TEXT NOT NULL, -- JSON array of strings
        technical_notes     TEXT NOT NULL,
        roles               TEXT NOT NULL, -- JSON array of strings
        approvals           INTEGER NOT NULL DEFAULT 0,
        created_at          TEXT NOT NULL
    ) STRICT;

    CREATE TABLE tasks (
        number          INTEGER PRIMARY KEY, -- order of creation
        task_id         TEXT NOT NULL UNIQUE,
        plan_id         TEXT NOT NULL REFERENCES plans (plan_id),
        story_id        TEXT NOT NULL REFERENCES stories (story_id),
        title           TEXT NOT NULL,
        description     TEXT NOT NULL,
        estimated_hours INTEGER NOT NULL,
        priority        INTEGER NOT NULL,
        assigned_role   TEXT NOT NULL,
        created_at      TEXT NOT NULL,
        announced_at    TEXT -- when planning.task.created went to the outbox
    ) STRICT;
    CREATE INDEX tasks_by_plan ON tasks (plan_id);
    CREATE INDEX tasks_by_story ON tasks (story_id);

    CREATE TABLE dependencies (
        from_task_id TEXT NOT NULL REFERENCES tasks (task_id), -- the task that waits
        to_task_id   TEXT NOT NULL REFERENCES tasks (task_id), -- the task it waits for
        reason       TEXT NOT NULL,
        created_at   TEXT NOT NULL,
        PRIMARY KEY (from_task_id, to_task_id)
    ) STRICT;

    CREATE TABLE answers (
        key        TEXT PRIMARY KEY, -- the caller's cofferdam-idempotency-key
        method     TEXT NOT NULL,
        request    BLOB NOT NULL, -- SHA-256
        answer     BLOB NOT NULL, -- the response message
        created_at TEXT NOT NULL
    ) STRICT;
";

/// Came with version 2.
pub(crate) const MARKS: &str = "
    CREATE TABLE marks (
        subject    TEXT PRIMARY KEY,
        stream     TEXT NOT NULL,
        sequence   INTEGER NOT NULL, -- of the last message that was taken in
        stored_at  INTEGER NOT NULL, -- that message's time, in nanoseconds: another one there means another stream
        updated_at TEXT NOT NULL
    ) STRICT;
";

/// Came with version 3.
const KNOWLEDGE: &str = "
    -- What Context was told, as it came; see knowledge.rs.
    CREATE TABLE changes (
        number      INTEGER PRIMARY KEY, -- order of coming
        story_id    TEXT NOT NULL,
        task_id     TEXT NOT NULL,
        role        TEXT NOT NULL,
        operation   TEXT NOT NULL, -- CREATE, UPDATE, DELETE
        entity_type TEXT NOT NULL,
        entity_id   TEXT NOT NULL,
        fields      TEXT NOT NULL, -- JSON object
        reason      TEXT NOT NULL,
        made_at     INTEGER NOT NULL, -- microseconds since the epoch, by whoever made it
        created_at  TEXT NOT NULL
    ) STRICT;
    CREATE INDEX changes_by_story ON changes (story_id);

    CREATE TABLE contexts (
        story_id   TEXT PRIMARY KEY,
        version    INTEGER NOT NULL,
        hash       TEXT NOT NULL,
        updated_at TEXT NOT NULL
    ) STRICT;
";

/// How any of the fleet's files is used.
pub(crate) fn set_up(connection: &Connection) -> anyhow::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // An answer promises that the data is there, so each commit is synced.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

/// Names a new file.
pub(crate) fn identify(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute("INSERT INTO identity (id) VALUES (lower(hex(randomblob(6))))", [])
}

/// Sets the connection up and creates the tables in a new file.
pub(super) fn prepare(connection: &mut Connection) -> anyhow::Result<()> {
    set_up(connection)?;
    let transaction = connection.transaction()?;
    match transaction.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
        0 => {
            transaction.execute_batch(OUTBOX)?;
            transaction.execute_batch(TABLES)?;
            transaction.execute_batch(MARKS)?;
            transaction.execute_batch(KNOWLEDGE)?;
            identify(&transaction)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        1 => {
            transaction.execute_batch(MARKS)?;
            transaction.execute_batch(KNOWLEDGE)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        2 => {
            transaction.execute_batch(KNOWLEDGE)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        VERSION => {}
        other => anyhow::bail!(
            "its tables are of version {other} and this program knows version {VERSION}; use the program that wrote \
             it, or another folder with --data"
        ),
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_an_earlier_version_gets_what_is_new_and_keeps_the_rest() {
        for (version, further) in [(1, ""), (2, MARKS)] {
            let mut connection = Connection::open_in_memory().unwrap();
            for tables in [OUTBOX, TABLES, further] {
                connection.execute_batch(tables).unwrap();
            }
            connection.execute("INSERT INTO identity (id) VALUES ('kept')", []).unwrap();
            connection.pragma_update(None, "user_version", version).unwrap();
            for _ in 0..2 {
                prepare(&mut connection).unwrap();
                let id: String =
                    connection.query_row("SELECT id FROM identity", [], |row| row.get(0)).unwrap();
                assert_eq!(id, "kept");
                for table in ["marks", "changes", "contexts"] {
                    let rows = format!("SELECT count(*) FROM {table}");
                    assert_eq!(connection.query_row(&rows, [], |row| row.get(0)), Ok(0), "{table}");
                }
            }
        }
    }
}
