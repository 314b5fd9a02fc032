//! What a test's models answer, and what of it is recorded.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fmt,
    rc::Rc,
};

use crate::executor::{Completion, ExecutorError, Inference};

type Outcome = Result<Completion, ExecutorError>;
type Script = Rc<dyn Fn(&Inference) -> Option<Outcome>>;

/// Answers, and which events got them. A clone is the same.
#[derive(Clone, Default)]
pub(super) struct Models(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    scripts: Vec<Script>,
    /// In order, each with the pieces that it comes in.
    next: VecDeque<(Outcome, Vec<String>)>,
    recorded: BTreeMap<Question, Completion>,
}

/// Event and priority, what is asked, and how often the event has asked the same before.
pub(super) type Question = (String, String, u32);

/// What came of a question.
pub(super) struct Answered {
    pub(super) outcome: Outcome,
    pub(super) pieces: Vec<String>,
    /// An earlier run got this answer.
    pub(super) recalled: bool,
}

impl Models {
    pub(super) fn by(&self, answer: impl Fn(&Inference) -> Option<Outcome> + 'static) {
        self.0.borrow_mut().scripts.push(Rc::new(answer));
    }

    pub(super) fn next(&self, outcome: Outcome, pieces: Vec<String>) {
        self.0.borrow_mut().next.push_back((outcome, pieces));
    }

    pub(super) fn answer(&self, question: Question, asked: &Inference) -> Answered {
        if let Some(answer) = self.0.borrow().recorded.get(&question) {
            let pieces = vec![answer.text.clone()];
            return Answered { outcome: Ok(answer.clone()), pieces, recalled: true };
        }
        // Apart, for a script may add to them.
        let scripts = self.0.borrow().scripts.clone();
        let scripted = scripts.iter().find_map(|script| script(asked)).map(|outcome| (outcome, Vec::new()));
        let mut inner = self.0.borrow_mut();
        let (outcome, mut pieces) = scripted.unwrap_or_else(|| inner.in_order());
        if let Ok(answer) = &outcome {
            inner.recorded.insert(question, answer.clone());
            if pieces.is_empty() && !answer.text.is_empty() {
                pieces.push(answer.text.clone());
            }
        }
        Answered { outcome, pieces, recalled: false }
    }
}

impl Inner {
    /// The last one stays.
    fn in_order(&mut self) -> (Outcome, Vec<String>) {
        let next = match self.next.len() {
            0 | 1 => self.next.front().cloned(),
            _ => self.next.pop_front(),
        };
        next.unwrap_or_else(|| {
            let none = "the test has no answer for this inference; say Host::completes";
            (Err(ExecutorError::Unavailable(none.into())), Vec::new())
        })
    }
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models").field("next", &self.0.borrow().next).finish_non_exhaustive()
    }
}
