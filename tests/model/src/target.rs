//! The stream that effects go to: what it holds, and which message ids it still remembers.

use std::fmt;

/// One effect of one run of an event's handler. Its message id names event and ordinal, never the run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Effect(u8);

impl Effect {
    pub fn new(event: usize, branch: u8, ordinal: u8) -> Effect {
        debug_assert!(event < 4 && branch < 4 && ordinal < 4);
        Effect(1 + ((event as u8) << 4 | branch << 2 | ordinal))
    }

    pub fn event(self) -> usize {
        usize::from((self.0 - 1) >> 4)
    }

    pub fn branch(self) -> u8 {
        (self.0 - 1) >> 2 & 3
    }

    pub fn ordinal(self) -> u8 {
        (self.0 - 1) & 3
    }

    fn id(self) -> u16 {
        1 << (self.event() * 4 + usize::from(self.ordinal()))
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let branch = char::from(b'A' + self.branch());
        write!(f, "{}{branch}{}", self.event(), self.ordinal())
    }
}

/// A short list. What does not fit takes the last place: no right run comes near.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Log([Effect; 8]);

impl Log {
    pub fn push(&mut self, effect: Effect) {
        let at = self.iter().count().min(7);
        self.0[at] = effect;
    }

    pub fn iter(&self) -> impl Iterator<Item = Effect> {
        self.0.into_iter().take_while(|e| e.0 != 0)
    }

    pub fn of(&self, event: usize) -> impl Iterator<Item = Effect> {
        self.iter().filter(move |e| e.event() == event)
    }

    /// In the order of the values: for where the order means nothing.
    pub fn sort(&mut self) {
        self.0.sort_unstable_by_key(|e| if e.0 == 0 { u8::MAX } else { e.0 });
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A stream with a duplicate window of two ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Target {
    pub log: Log,
    /// Ids taken since the last tick, and in the tick before.
    young: u16,
    old: u16,
}

impl Target {
    /// Stores it unless its id is remembered.
    pub fn publish(&mut self, effect: Effect) {
        if !self.remembers(effect) {
            self.log.push(effect);
            self.young |= effect.id();
        }
    }

    pub fn remembers(&self, effect: Effect) -> bool {
        (self.young | self.old) & effect.id() != 0
    }

    /// Whether a message with the effect's id is there, of whatever run.
    pub fn holds(&self, effect: Effect) -> bool {
        self.log.iter().any(|e| e.id() == effect.id())
    }

    /// Half the window passes.
    pub fn tick(&mut self) {
        (self.old, self.young) = (self.young, 0);
    }

    /// Whether the effects of `event` are, in order and once each, the first of one run; and which run and how many.
    pub fn single_run(&self, event: usize) -> Option<(u8, u8)> {
        let branch = self.log.of(event).next().map_or(0, Effect::branch);
        let mut count = 0;
        for effect in self.log.of(event) {
            if effect.branch() != branch || effect.ordinal() != count {
                return None;
            }
            count += 1;
        }
        Some((branch, count))
    }
}
