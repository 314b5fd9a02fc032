//! What holds between the tasks of one text: repeated titles, references to other tasks, how many there are.

use std::collections::{HashMap, HashSet};

use cofferdam_sdk::fleet::{Dropped, ParsedTask, Rejection as Kind};
use serde_json::Value;

use crate::{
    amounts,
    entry::{Entry, Key},
    fields,
    parse::{Parsed, Rejection, Settings},
    titles,
};

/// More notes than this say nothing more; the rest is counted.
const MAX_NOTES: usize = 50;
/// More names than this in one task's dependencies are not read.
const MAX_REFERENCES: usize = 64;

/// The tasks that the entries amount to, or why there are none.
pub fn settle(entries: Vec<Entry>, settings: &Settings) -> Result<Parsed, Rejection> {
    let mut notes = Notes::default();
    let batch = Batch::new(entries, &mut notes);
    let count = batch.drafts.len();
    if count == 0 {
        let detail = match notes.dropped_count {
            0 => "the answer holds no task in any known form".into(),
            count => format!("the answer holds {count} entries, none with a title"),
        };
        return Err(Rejection { kind: Kind::NoTasks, detail });
    }
    if count > settings.max_tasks {
        let detail = format!("{count} tasks, max_tasks is {}", settings.max_tasks);
        return Err(Rejection { kind: Kind::TooManyTasks, detail });
    }
    let below_min = count < settings.min_tasks;
    if below_min {
        notes.warn(format!("{count} tasks, fewer than min_tasks ({})", settings.min_tasks));
    }
    let tasks = batch.drafts.iter().map(|draft| batch.task(draft, settings, &mut notes)).collect();
    let (dropped, warnings) = notes.finish();
    Ok(Parsed { tasks, dropped, warnings, below_min })
}

/// An entry with a title that no entry before it has.
struct Draft {
    entry: Entry,
    full_title: String,
    title: String,
    key: String,
    /// Its own id in the answer, else its title.
    reference: String,
}

/// The drafts of an answer, and which of them an id or a title means: the first entry that has it or, where that
/// repeats an earlier one, the earlier one.
#[derive(Default)]
struct Batch {
    drafts: Vec<Draft>,
    titles: HashMap<String, usize>,
    ids: HashMap<String, usize>,
    /// As `ids`, but without those of entries that are dropped: what a reader of the result sees.
    kept_ids: HashMap<String, usize>,
}

impl Batch {
    fn new(entries: Vec<Entry>, notes: &mut Notes) -> Self {
        let mut batch = Self::default();
        for entry in entries {
            let Some(full_title) = fields::full_title(entry.get(Key::Title)) else {
                let name = fields::id(&entry).unwrap_or_else(|| "an entry".into());
                notes.drop_entry("", || format!("{name} has no title"));
                continue;
            };
            batch.add(entry, full_title, notes);
        }
        batch
    }

    fn add(&mut self, entry: Entry, full_title: String, notes: &mut Notes) {
        let title = titles::cut(&full_title).to_owned();
        let key = titles::key(&title);
        let own_id = fields::id(&entry);
        let id = own_id.as_deref().map(id_key);
        if let Some(first) = self.titles.get(&key).copied() {
            notes.drop_entry(&title, || format!("repeats the title of {}", self.drafts[first].reference));
            if let Some(id) = id {
                self.ids.entry(id).or_insert(first);
            }
            return;
        }
        let index = self.drafts.len();
        if let Some(id) = id {
            self.ids.entry(id.clone()).or_insert(index);
            self.kept_ids.entry(id).or_insert(index);
        }
        self.titles.insert(key.clone(), index);
        // Where the title is cut, it may be referred to in full.
        self.titles.entry(titles::key(&full_title)).or_insert(index);
        let reference = own_id.unwrap_or_else(|| title.clone());
        self.drafts.push(Draft { entry, full_title, title, key, reference });
    }

    fn find(&self, name: &str) -> Option<usize> {
        let by_id = self.ids.get(&id_key(name));
        by_id.or_else(|| self.titles.get(&titles::key(name))).copied()
    }

    fn task(&self, draft: &Draft, settings: &Settings, notes: &mut Notes) -> ParsedTask {
        let role = draft.entry.get(Key::Role);
        let role = fields::role(role).unwrap_or_else(|| {
            let fallback = settings.fallback_role();
            if let Value::String(unknown) = role {
                let unknown: String = unknown.chars().take(titles::LONGEST).collect();
                notes.warn(format!(
                    "{}: role {unknown:?} is none a task may have, {fallback} instead",
                    draft.reference
                ));
            }
            fallback
        });
        ParsedTask {
            reference: draft.reference.clone(),
            title: draft.title.clone(),
            description: fields::description(draft.entry.get(Key::Description), &draft.full_title),
            role: role.to_owned(),
            estimated_hours: amounts::hours(draft.entry.get(Key::EstimatedHours), settings.max_hours),
            priority: amounts::priority(draft.entry.get(Key::Priority)),
            keywords: fields::keywords(draft.entry.get(Key::Keywords)),
            // Always written, so that what is there is what was declared.
            depends_on: Some(self.depends_on(draft, notes)),
        }
    }

    /// The references of a task, each as it was written where that finds the right task among those kept, else in a
    /// form that does. Names of no task stay as they are: who orders the tasks says so.
    fn depends_on(&self, draft: &Draft, notes: &mut Notes) -> Vec<String> {
        let phrases = fields::references(draft.entry.get(Key::DependsOn));
        let mut found: Vec<&str> = phrases.iter().flat_map(|phrase| self.split(phrase)).collect();
        if found.len() > MAX_REFERENCES {
            notes.warn(format!("{}: only the first {MAX_REFERENCES} dependencies are read", draft.reference));
            found.truncate(MAX_REFERENCES);
        }
        let mut seen = HashSet::new();
        let written = found.into_iter().map(|name| match self.find(name) {
            Some(index) => self.written_for(index, name),
            None => name,
        });
        written.filter(|name| seen.insert(*name)).map(str::to_owned).collect()
    }

    /// `name` if among the kept tasks it means this draft, else the draft's reference, else its title.
    fn written_for<'a>(&'a self, index: usize, name: &'a str) -> &'a str {
        let draft = &self.drafts[index];
        let means = |name: &str| match self.kept_ids.get(&id_key(name)) {
            Some(kept) => *kept == index,
            None => titles::key(name) == draft.key,
        };
        [name, &draft.reference].into_iter().find(|name| means(name)).unwrap_or(&draft.title)
    }

    /// A phrase as one name if it is one, else split at commas and the like. A title may hold commas itself: the
    /// longest run of pieces that is a name counts as one.
    fn split<'a>(&self, phrase: &'a str) -> Vec<&'a str> {
        let mut names = Vec::new();
        let mut rest = phrase.trim();
        while !rest.is_empty() && names.len() <= MAX_REFERENCES {
            let mut ends: Vec<usize> =
                rest.match_indices([',', ';']).map(|(at, _)| at).take(MAX_REFERENCES).collect();
            if ends.len() < MAX_REFERENCES {
                ends.push(rest.len());
            }
            let first = ends.first().copied().unwrap_or(rest.len());
            let known = ends.iter().rev().find(|end| self.find(&rest[..**end]).is_some());
            let end = known.copied().unwrap_or(first);
            let name = rest[..end].trim();
            match name.split_once(" and ").filter(|_| known.is_none()) {
                Some((one, other)) if self.find(one).is_some() && self.find(other).is_some() => {
                    names.extend([one.trim(), other.trim()]);
                }
                _ if name.is_empty() => {}
                _ => names
                    .push(name.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'))),
            }
            rest = rest[end..].trim_start_matches([',', ';']).trim_start();
        }
        names
    }
}

fn id_key(id: &str) -> String {
    id.trim().to_lowercase()
}

#[derive(Default)]
struct Notes {
    dropped: Vec<Dropped>,
    dropped_count: usize,
    warnings: Vec<String>,
    warning_count: usize,
}

impl Notes {
    fn drop_entry(&mut self, title: &str, why: impl FnOnce() -> String) {
        self.dropped_count += 1;
        if self.dropped.len() < MAX_NOTES {
            self.dropped.push(Dropped { title: title.to_owned(), why: why() });
        }
    }

    fn warn(&mut self, warning: String) {
        self.warning_count += 1;
        if self.warnings.len() < MAX_NOTES {
            self.warnings.push(warning);
        }
    }

    fn finish(mut self) -> (Vec<Dropped>, Vec<String>) {
        let untold = self.warning_count - self.warnings.len();
        if untold > 0 {
            self.warnings.push(format!("and {untold} more warnings"));
        }
        let untold = self.dropped_count - self.dropped.len();
        if untold > 0 {
            self.warnings.push(format!("and {untold} more entries dropped"));
        }
        (self.dropped, self.warnings)
    }
}
