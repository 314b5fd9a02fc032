//! A TOML text while it is read: whose it is, the faults found in it so far, and the settings taken from it.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{
    fault::{Fault, Faults},
    settings::{Origin, Settings},
};

pub(super) struct Source {
    /// For messages.
    file: PathBuf,
    built_in: bool,
    text: String,
    faults: RefCell<Vec<Fault>>,
    settings: RefCell<Settings>,
}

/// What came of reading a text.
#[derive(Default)]
pub(super) struct Parsed<T> {
    pub value: T,
    pub faults: Vec<Fault>,
    pub settings: Settings,
    /// It is no TOML: what could be made out of it says little of what was meant.
    pub broken: bool,
}

impl Source {
    pub(super) fn read(file: &Path) -> Result<Self, Faults> {
        let text = std::fs::read_to_string(file).map_err(|e| {
            Faults(vec![Fault {
                file: file.to_owned(),
                line: None,
                message: format!("can't be read: {e}; name another file, or create it"),
            }])
        })?;
        Ok(Self::new(file, text))
    }

    pub(super) fn new(file: &Path, text: String) -> Self {
        Self {
            file: file.to_owned(),
            built_in: false,
            text,
            faults: RefCell::default(),
            settings: RefCell::default(),
        }
    }

    /// A text that came with the program.
    pub(super) fn built_in(name: &str, text: &str) -> Self {
        Self { built_in: true, ..Self::new(Path::new(name), text.to_owned()) }
    }

    /// Hands the top table to `read` and returns what it made, along with all that was wrong.
    pub(super) fn parse<T>(&self, read: impl FnOnce(&DeTable<'_>) -> T) -> Parsed<T> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        let broken = !errors.is_empty();
        for error in errors {
            let at = error.span().map_or(0, |s| s.start);
            self.fault(at, format!("this is no TOML: {}", error.message()));
        }
        let syntax = self.faults.take();
        let value = read(table.get_ref());
        let mut faults = self.faults.take();
        if broken {
            // One slip makes several errors behind it, and faults that are none.
            faults = syntax;
        }
        faults.sort_by_key(|f| f.line);
        if broken {
            faults.dedup_by_key(|f| f.line);
        }
        Parsed { value, faults, settings: self.settings.take(), broken }
    }

    pub(super) fn fault(&self, at: usize, message: String) {
        let line = Some(self.line(at));
        self.faults.borrow_mut().push(Fault { file: self.file.clone(), line, message });
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count()
    }

    /// Where a value of this text comes from.
    pub(super) fn origin(&self, at: usize) -> Origin {
        if self.built_in {
            Origin::BuiltIn { line: self.line(at) }
        } else {
            Origin::File { file: self.file.clone(), line: self.line(at) }
        }
    }

    pub(super) fn settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings.borrow_mut());
    }
}
