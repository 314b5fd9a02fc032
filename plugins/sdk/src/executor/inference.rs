//! Questions that are asked here and now, one or several at once.

use serde::de::DeserializeOwned;

use super::{ExecutorError, Priority, Sampling, sampling::how_to_answer, tokens::Tokens};
use crate::{Failure, sys};

/// One question to a model. Its answer is recorded before the guest sees it, and paid for once: another run of the event that asks
/// the same gets it again.
///
/// ```
/// use cofferdam_sdk::{Event, Failure, executor::Inference, publish, testing::{Host, event}};
///
/// fn handle(event: Event) -> Result<(), Failure> {
///     let text = String::from_utf8_lossy(&event.data);
///     let asked = Inference::new(format!("In five words: {text}")).system("You are terse.").temperature(0.0);
///     publish::emit("texts.short", asked.infer()?.text)?;
///     Ok(())
/// }
///
/// let mut host = Host::new().completes("a short one");
/// let run = host.run(handle, event("texts.long", "a long one"));
/// assert_eq!(run.published[0].data, b"a short one");
/// assert_eq!(run.inferences[0].prompt, "In five words: a long one");
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inference {
    /// Without it the executor's default model. The grant names the models.
    pub model: Option<String>,
    /// What the model is told before the prompt.
    pub system: Option<String>,
    pub prompt: String,
    pub sampling: Sampling,
    pub priority: Priority,
    /// From when it is first asked, over all runs of the event. 0: the executor's default (300).
    pub timeout_seconds: u32,
}

impl Inference {
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), ..Self::default() }
    }

    /// What the model is told before the prompt.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.system = Some(text.into());
        self
    }

    /// Asks, and waits for the answer.
    pub fn infer(&self) -> Result<Completion, ExecutorError> {
        let mut answers = sys::infer(std::slice::from_ref(self));
        answers.pop().unwrap_or_else(|| Err(ExecutorError::Unavailable("the host gave no answer".into())))
    }

    /// Asks, and gives the answer as it comes.
    pub fn tokens(&self) -> Result<Tokens, ExecutorError> {
        sys::tokens(self).map(Tokens::new)
    }
}

how_to_answer!(Inference);

/// Asks up to 16 questions at once and waits for all answers, which come in the order of the questions.
///
/// ```
/// # use cofferdam_sdk::{Failure, executor::{Inference, infer_all}};
/// # fn handle() -> Result<(), Failure> {
/// let reviewers = ["security", "speed", "style"];
/// let asked = reviewers.map(|of| Inference::new("...").system(format!("You review {of}.")));
/// let reviews = infer_all(&asked).into_iter().collect::<Result<Vec<_>, _>>()?;
/// # Ok(())
/// # }
/// ```
pub fn infer_all(inferences: &[Inference]) -> Vec<Result<Completion, ExecutorError>> {
    sys::infer(inferences)
}

/// A model's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completion {
    pub text: String,
    /// What the model thought before, where the endpoint tells it apart from the text. Otherwise empty.
    pub reasoning: String,
    /// As the endpoint names it.
    pub model: String,
    /// Why it ended, as the endpoint says: `stop`, `length`.
    pub finish: Option<String>,
    pub tokens_in: u64,
    pub tokens_out: u64,
    /// It is the answer to an identical question, from the executor's cache.
    pub cached: bool,
}

impl Completion {
    /// The text read as JSON; what is not of that shape is rejected, for the same question has the same answer.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.text)
            .map_err(|error| Failure::reject(format!("the answer of {} can't be read: {error}", self.model)))
    }
}

impl From<&str> for Completion {
    /// An answer with this text, for tests.
    fn from(text: &str) -> Self {
        Self { text: text.into(), finish: Some("stop".into()), ..Self::default() }
    }
}
