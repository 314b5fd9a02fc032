//! What a check has to say, in bounded words: a text with ten thousand faults has fifty told, and all counted.

/// More than this helps nobody.
const TOLD: usize = 50;
/// Of one finding.
const CHARS: usize = 300;

#[derive(Debug, Default)]
pub(crate) struct Findings {
    told: Vec<String>,
    count: usize,
}

impl Findings {
    /// The words are only made if they are told.
    pub(crate) fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < TOLD {
            self.told.push(clip(&what(), CHARS));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn count(&self) -> i32 {
        i32::try_from(self.count).unwrap_or(i32::MAX)
    }

    pub(crate) fn first(&self) -> String {
        self.told.first().cloned().unwrap_or_default()
    }

    /// Those that are told, and how many are not.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let untold = self.count - self.told.len();
        if untold > 0 {
            self.told.push(format!("and {untold} more"));
        }
        self.told
    }
}

/// The beginning of a text that somebody else wrote, on one line.
pub(crate) fn clip(text: &str, chars: usize) -> String {
    let mut clipped: String =
        text.chars().take(chars).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(chars).is_some() {
        clipped.push('…');
    }
    clipped
}
