//! Every setting that was asked for while the config was read, with its value and where that comes from. The reader
//! records them as they are taken, so none can be forgotten; `show` writes them out.

use std::path::PathBuf;

use toml::Value;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it, and nothing stands for it.
    Unset,
    Default,
    BuiltIn {
        line: usize,
    },
    File {
        file: PathBuf,
        line: usize,
    },
    /// Of the environment.
    Variable(String),
    /// The file's, and a variable stands in its way.
    Overridden {
        by: String,
        origin: Box<Origin>,
    },
    /// A plugin that came with the program.
    Bundled,
    /// A plugin's manifest.
    Manifest {
        file: PathBuf,
        line: usize,
    },
}

impl Origin {
    /// In the text that it was read from, if it was.
    pub fn line(&self) -> Option<usize> {
        match self {
            Origin::BuiltIn { line } | Origin::File { line, .. } => Some(*line),
            Origin::Overridden { origin, .. } => origin.line(),
            Origin::Unset
            | Origin::Default
            | Origin::Variable(_)
            | Origin::Bundled
            | Origin::Manifest { .. } => None,
        }
    }

    /// The same for who reads the config: a manifest's own text.
    pub(super) fn of_manifest(self) -> Self {
        match self {
            Origin::File { file, line } => Origin::Manifest { file, line },
            other => other,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The path of its table, such as `plugins.echo.grants`; empty at the top.
    pub table: String,
    pub key: String,
    pub value: Option<Value>,
    pub origin: Origin,
}

/// Settings in the order in which they were asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    all: Vec<Setting>,
    /// Tables that the text has, with their lines.
    tables: Vec<(String, usize)>,
}

impl Settings {
    /// Records a setting. What was recorded before counts no more.
    pub(super) fn set(&mut self, setting: Setting) {
        match self.all.iter_mut().find(|s| s.table == setting.table && s.key == setting.key) {
            Some(known) => *known = setting,
            None => self.all.push(setting),
        }
    }

    pub(super) fn has_table(&mut self, table: &str, line: usize) {
        if self.table(table).is_none() {
            self.tables.push((table.to_owned(), line));
        }
    }

    pub fn get(&self, table: &str, key: &str) -> Option<&Setting> {
        self.all.iter().find(|s| s.table == table && s.key == key)
    }

    /// The line of a table in the text, if it is there.
    pub fn table(&self, table: &str) -> Option<usize> {
        self.tables.iter().find(|(name, _)| name == table).map(|(_, line)| *line)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.all.iter()
    }
}
