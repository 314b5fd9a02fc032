//! The agents' memory: one SQLite file beside Planning's. This file has its tables.

use std::path::Path;

use rusqlite::Connection;

use crate::store::{Store, schema};

/// Of the tables below; a file with another number is refused rather than guessed at.
const VERSION: i64 = 1;

const TABLES: &str = "
    -- Messages that were taken in: one that comes again is no news, whatever became of its stream.
    CREATE TABLE heard (
        digest   BLOB PRIMARY KEY, -- SHA-256 of subject and data
        heard_at TEXT NOT NULL
    ) STRICT;

    CREATE TABLE tasks (
        number     INTEGER PRIMARY KEY, -- order of arrival
        task_id    TEXT NOT NULL UNIQUE,
        story_id   TEXT NOT NULL DEFAULT '',
        plan_id    TEXT NOT NULL DEFAULT '',
        assigned   INTEGER NOT NULL DEFAULT 0, -- to a developer, who has not begun yet
        dispatched INTEGER NOT NULL DEFAULT 0,
        answered   INTEGER NOT NULL DEFAULT 0, -- whoever dispatched it knows that it is built
        agent_id   TEXT NOT NULL DEFAULT '',   -- to whom it was dispatched
        agent_role TEXT NOT NULL DEFAULT '',
        acts       INTEGER NOT NULL DEFAULT 0  -- how much was told of it: part of each message's idempotency key
    ) STRICT;

    -- What somebody made of a task when they saw it for the first time.
    CREATE TABLE looks (
        task_id   TEXT NOT NULL REFERENCES tasks (task_id),
        by        TEXT NOT NULL,
        fault     INTEGER NOT NULL, -- they found one
        looked_at TEXT NOT NULL,
        PRIMARY KEY (task_id, by)
    ) STRICT;

    -- What is being done, at most one thing per task.
    CREATE TABLE work (
        number         INTEGER PRIMARY KEY AUTOINCREMENT,
        task_id        TEXT NOT NULL UNIQUE REFERENCES tasks (task_id),
        piece          TEXT NOT NULL,
        due_ms         INTEGER NOT NULL, -- when it is done, in milliseconds since the epoch
        correlation_id TEXT NOT NULL,
        causation_id   TEXT
    ) STRICT;

    CREATE TABLE stories (
        story_id TEXT PRIMARY KEY,
        state    TEXT NOT NULL -- as it was told last
    ) STRICT;

    -- Steps that the product owner makes, in this order.
    CREATE TABLE moves (
        number     INTEGER PRIMARY KEY AUTOINCREMENT,
        story_id   TEXT NOT NULL,
        from_state TEXT NOT NULL,
        to_state   TEXT NOT NULL,
        refusals   INTEGER NOT NULL DEFAULT 0, -- a call after an answer that says no is another call
        done_at    TEXT,
        UNIQUE (story_id, to_state)
    ) STRICT;
    CREATE INDEX moves_due ON moves (number) WHERE done_at IS NULL;
";

/// Opens `folder/agents.sqlite`, both created if they are missing.
pub(crate) fn open(folder: &Path) -> anyhow::Result<Store> {
    Store::open_as("agents", folder, prepare)
}

fn prepare(connection: &mut Connection) -> anyhow::Result<()> {
    schema::set_up(connection)?;
    let transaction = connection.transaction()?;
    match transaction.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
        0 => {
            for tables in [schema::OUTBOX, schema::MARKS, TABLES] {
                transaction.execute_batch(tables)?;
            }
            schema::identify(&transaction)?;
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
