//! Questions to models, several at once: asked here and now, and answered by what is recorded of their jobs.

use std::time::Duration;

use cofferdam_sandbox::{Completion, ExecutorError, Inference};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    super::Run,
    ask::{Question, Questions},
    tokens::Streams,
    wait::{Asker, Ended, NoAnswer},
};
use crate::fault::Fault;

/// In one call.
const MAX_AT_ONCE: usize = 16;
/// What is left of an event's time when it is given up, for the guest to say so: a tenth, and no more than this.
const SPARED: Duration = Duration::from_millis(200);

/// What one run has asked.
#[derive(Default)]
pub(in crate::capabilities) struct Inferences {
    pub(super) questions: Questions,
    pub(super) streams: Streams,
}

impl Run {
    /// All are asked before any is waited for.
    pub(in crate::capabilities) async fn infer(
        &mut self,
        inferences: Vec<Inference>,
    ) -> Vec<Result<Completion, ExecutorError>> {
        let count = inferences.len();
        if count > MAX_AT_ONCE {
            let over = format!("{count} questions at once, more than {MAX_AT_ONCE}; ask them by parts");
            return vec![Err(ExecutorError::Limit(over)); count];
        }
        let asked: Vec<_> = inferences.into_iter().map(|inference| self.ask(inference, false)).collect();
        let asker = self.asker();
        let answers = asked.into_iter().map(|asked| async {
            let asked = asked?;
            Ok((asked.question, asker.answer(&asked).await))
        });
        let answers: Vec<Result<(Question, Ended), ExecutorError>> = Box::pin(join_all(answers)).await;
        // Before what failed among them.
        self.worked();
        let told = answers.into_iter().map(|answer| {
            let (question, ended) = answer?;
            self.told(question, ended)
        });
        told.collect()
    }

    pub(super) fn asker(&self) -> Asker {
        let left = self.remaining();
        Asker {
            services: self.services.clone(),
            trace: self.occasion.trace.header(),
            until: Instant::now() + left - SPARED.min(left / 10),
            lease: self.services.executor.as_ref().map_or(Duration::ZERO, |executor| executor.lease),
        }
    }

    /// The executor has worked since whatever failed.
    pub(super) fn worked(&mut self) {
        if self.blame == Some(Fault::Upstream) {
            self.blame = None;
        }
    }

    /// What the guest gets of it.
    pub(super) fn told(&mut self, question: Question, ended: Ended) -> Result<Completion, ExecutorError> {
        let no_answer = match ended {
            Ok(answer) => return Ok(answer),
            Err(no_answer) => no_answer,
        };
        self.inferences.questions.give_back(question);
        Err(match no_answer {
            NoAnswer::Failed { kind, message } => {
                self.blame = Some(fault(&kind));
                ExecutorError::Failed { kind, message }
            }
            NoAnswer::OutOfTime { why, asked_before } => {
                self.blame = Some(Fault::Upstream);
                if asked_before {
                    // It is answered within its own time, so waiting is no attempt of the event.
                    self.let_go = Some(why.clone());
                }
                ExecutorError::Unavailable(why)
            }
            NoAnswer::Limit(why) => ExecutorError::Limit(why),
            NoAnswer::Bus(error) => self.unavailable(&error),
        })
    }
}

/// Whose it is to see to a failure of that kind.
fn fault(kind: &str) -> Fault {
    match kind {
        "unknown_model" | "model_missing" | "unauthorized" | "budget_exhausted" => Fault::Operator,
        "refused" => Fault::Guest,
        _ => Fault::Upstream,
    }
}
