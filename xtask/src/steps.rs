//! Progress: what runs now, how far it is, and what each phase took. On a terminal a bar, elsewhere a line every ten
//! seconds, always on stderr. What the steps do lives elsewhere.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal;

/// How often a watcher without a terminal hears of a long step.
const QUIET: Duration = Duration::from_secs(10);

/// A finished step.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) took: Duration,
    /// "unchanged", "nats-server 2.15.1 on PATH".
    pub(crate) note: String,
    pub(crate) ok: bool,
}

/// All steps of one invocation.
#[derive(Debug)]
pub(crate) struct Steps {
    watched: bool,
    phases: RefCell<Vec<Phase>>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { watched: terminal::is_watched(), phases: RefCell::default() }
    }

    /// Runs one step under its name. It names the thing: "wasm toolchain", not "installing".
    pub(crate) fn run<T>(&self, name: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
        let step = Step::begin(name, self.watched);
        let result = work(&step);
        let phase = step.end(result.is_ok());
        self.phases.borrow_mut().push(phase);
        result
    }

    pub(crate) fn phases(&self) -> Vec<Phase> {
        self.phases.borrow().clone()
    }
}

/// A step that runs.
#[derive(Debug)]
pub(crate) struct Step {
    name: String,
    begun: Instant,
    said: Cell<Instant>,
    bar: Option<ProgressBar>,
    doing: RefCell<String>,
    note: RefCell<String>,
}

impl Step {
    fn begin(name: &str, watched: bool) -> Self {
        let bar = watched.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(spinner());
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let now = Instant::now();
        Self {
            name: name.to_owned(),
            begun: now,
            said: Cell::new(now),
            bar,
            doing: RefCell::default(),
            note: RefCell::default(),
        }
    }

    /// What the step does at this moment; nothing means that it still does the same. Elsewhere than on a terminal
    /// most of it is not shown.
    pub(crate) fn at(&self, what: &str) {
        if !what.is_empty() {
            what.clone_into(&mut self.doing.borrow_mut());
        }
        let what = self.doing.borrow();
        match &self.bar {
            Some(bar) => bar.set_message(clip(&what, 60)),
            None => self.line_if_due(|| clip(&what, 100)),
        }
    }

    /// How far the step is.
    pub(crate) fn bytes(&self, done: u64, all: u64, what: &str) {
        match &self.bar {
            Some(bar) => {
                if bar.length() != Some(all) {
                    bar.set_style(bytes_bar());
                    bar.set_length(all);
                }
                bar.set_position(done);
                bar.set_message(clip(what, 40));
            }
            None => self.line_if_due(|| format!("{what}, {} of {}", mebibytes(done), mebibytes(all))),
        }
    }

    /// The bar becomes a spinner again.
    pub(crate) fn spin(&self) {
        if let Some(bar) = &self.bar {
            bar.unset_length();
            bar.set_style(spinner());
        }
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| terminal::err(line)),
            None => terminal::err(line),
        }
    }

    /// Prints something between two frames of the bar.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// How the step ended, in a few words.
    pub(crate) fn note(&self, note: impl Into<String>) {
        *self.note.borrow_mut() = note.into();
    }

    fn line_if_due(&self, what: impl FnOnce() -> String) {
        if self.said.get().elapsed() >= QUIET {
            self.said.set(Instant::now());
            let what = what();
            let what = if what.is_empty() { "working" } else { &what };
            terminal::err(&format!("{}: {}: {what}", self.name, seconds(self.begun.elapsed())));
        }
    }

    fn end(self, ok: bool) -> Phase {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let took = self.begun.elapsed();
        let note = self.note.into_inner();
        let end = match (ok, note.as_str()) {
            (true, "") => String::new(),
            (true, note) => format!(", {note}"),
            (false, _) => ", failed".to_owned(),
        };
        terminal::err(&format!("{}: {}{end}", self.name, seconds(took)));
        Phase { name: self.name, took, note, ok }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix}: {elapsed} {msg:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn bytes_bar() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix}: {bar:30} {bytes}/{total_bytes} {msg:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn clip(text: &str, width: usize) -> String {
    let text = text.trim();
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 3).chain("...".chars()).collect()
}

/// `0.4 s`, `12.3 s`, `4 min 05 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 100 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// Sizes as downloads and disks are counted.
pub(crate) fn mebibytes(bytes: u64) -> String {
    if bytes < 10 << 20 { format!("{} KiB", bytes.div_ceil(1 << 10)) } else { format!("{} MiB", bytes >> 20) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!(seconds(Duration::from_millis(40)), "0.0 s");
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(245)), "4 min 05 s");
    }

    #[test]
    fn long_lines_are_cut_at_characters() {
        assert_eq!(clip("  short ", 10), "short");
        assert_eq!(clip("äöüäöüäöüäöü", 10), "äöüäöüä...");
    }

    #[test]
    fn a_failed_step_is_a_phase_too() {
        let steps = Steps { watched: false, phases: RefCell::default() };
        assert_eq!(steps.run("one", |_| Ok(1)).unwrap(), 1);
        assert!(steps.run("two", |_| -> Result<()> { anyhow::bail!("no") }).is_err());
        let phases = steps.phases();
        assert_eq!(
            phases.iter().map(|phase| (phase.name.as_str(), phase.ok)).collect::<Vec<_>>(),
            [("one", true), ("two", false)]
        );
    }
}
