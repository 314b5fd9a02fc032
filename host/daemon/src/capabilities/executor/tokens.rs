//! An answer as it comes. What is told of it on the way may be missed, and told twice when a model is asked again; what is
//! recorded in the end is right, so the last piece is whatever the pieces before it lack.

use std::collections::BTreeMap;

use cofferdam_bus::{Listener, Message};
use cofferdam_sandbox::{Chunk, Completion, ExecutorError, Inference};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    super::Run,
    ask::Question,
    wait::{Begun, Ended, Following, NoAnswer},
};

/// Open at a time.
const MAX_OPEN: usize = 16;

/// The streams of one run.
#[derive(Default)]
pub(super) struct Streams {
    open: BTreeMap<u32, Stream>,
    given: u32,
}

struct Stream {
    question: Question,
    state: State,
    text: Told,
}

enum State {
    Follows(Box<Following>),
    Over(Completion),
    /// The guest has been told why.
    Failed(ExecutorError),
}

/// What is told on the way.
#[derive(Debug, Deserialize)]
struct Piece {
    /// Which asking of the model it is of.
    run: String,
    /// Bytes of the text before it.
    offset: usize,
    text: String,
}

/// The text that the guest has.
#[derive(Debug, Clone, Default)]
struct Told {
    run: Option<String>,
    size: usize,
    hash: Sha256,
}

impl Told {
    /// What the guest gets of a piece: nothing, if one before it was missed.
    fn next(&mut self, piece: Piece) -> Option<Chunk> {
        let Piece { run, offset, text } = piece;
        if text.is_empty() {
            return None;
        }
        let mut anew = false;
        if self.run.as_ref() != Some(&run) {
            if offset != 0 {
                return None;
            }
            anew = self.size > 0;
            *self = Self { run: Some(run), ..Self::default() };
        } else if offset != self.size {
            return None;
        }
        self.add(&text);
        Some(Chunk { text, anew })
    }

    /// What the guest lacks of the whole.
    fn rest(&mut self, whole: &str) -> Option<Chunk> {
        let told = whole.get(..self.size);
        let goes_on = told.is_some_and(|told| Sha256::digest(told) == self.hash.clone().finalize());
        if !goes_on {
            *self = Self::default();
        }
        let rest = &whole[self.size..];
        if rest.is_empty() && goes_on {
            return None;
        }
        self.add(rest);
        Some(Chunk { text: rest.to_owned(), anew: !goes_on })
    }

    fn add(&mut self, text: &str) {
        self.size += text.len();
        self.hash.update(text);
    }
}

impl Stream {
    /// The next piece, as long as there is one.
    async fn next(&mut self) -> Result<Option<Chunk>, NoAnswer> {
        loop {
            let following = match &mut self.state {
                State::Follows(following) => following,
                State::Over(answer) => return Ok(self.text.rest(&answer.text)),
                State::Failed(_) => return Ok(None),
            };
            let mut tokens = following.tokens.take();
            let told = tokio::select! {
                biased;
                told = hear(&mut tokens) => Some(told),
                () = following.woken() => None,
            };
            following.tokens = tokens;
            match told {
                Some(told) => {
                    let piece = serde_json::from_slice(&told.data).ok();
                    if let Some(chunk) = piece.and_then(|piece| self.text.next(piece)) {
                        return Ok(Some(chunk));
                    }
                }
                None => {
                    if let Some(ended) = following.look().await {
                        self.state = State::Over(ended?);
                    }
                }
            }
        }
    }

    async fn ended(&mut self) -> Ended {
        loop {
            let following = match &mut self.state {
                State::Follows(following) => following,
                State::Over(answer) => return Ok(answer.clone()),
                State::Failed(_) => return Ok(Completion::default()),
            };
            match following.look().await {
                Some(ended) => self.state = State::Over(ended?),
                None => following.woken().await,
            }
        }
    }
}

/// A listener that fails is heard no more.
async fn hear(listener: &mut Option<Box<dyn Listener>>) -> Message {
    if let Some(tokens) = listener {
        match tokens.next().await {
            Ok(told) => return told,
            Err(_) => *listener = None,
        }
    }
    std::future::pending().await
}

impl Run {
    pub(in crate::capabilities) async fn tokens(
        &mut self,
        inference: Inference,
    ) -> Result<u32, ExecutorError> {
        if self.inferences.streams.open.len() == MAX_OPEN {
            return Err(ExecutorError::Limit(format!(
                "{MAX_OPEN} streams of tokens are open, the limit; drop one before the next"
            )));
        }
        let asked = self.ask(inference, true)?;
        let question = asked.question;
        let asker = self.asker();
        let state = match Box::pin(asker.begin(&asked)).await {
            Ok(Begun::Follows(following)) => State::Follows(following),
            Ok(Begun::Over(answer)) => State::Over(answer),
            Err(no_answer) => {
                return Err(match self.told(question, Err(no_answer)) {
                    Err(error) => error,
                    Ok(_) => ExecutorError::Unavailable("no answer".into()),
                });
            }
        };
        let streams = &mut self.inferences.streams;
        streams.given += 1;
        streams.open.insert(streams.given, Stream { question, state, text: Told::default() });
        Ok(streams.given)
    }

    pub(in crate::capabilities) async fn next_token(
        &mut self,
        id: u32,
    ) -> Result<Option<Chunk>, ExecutorError> {
        let stream = self.inferences.streams.open.get_mut(&id).ok_or_else(|| closed(id))?;
        if let State::Failed(error) = &stream.state {
            return Err(error.clone());
        }
        let next = Box::pin(stream.next()).await;
        match next {
            Ok(chunk) => {
                self.worked();
                Ok(chunk)
            }
            Err(no_answer) => Err(self.failed(id, no_answer)),
        }
    }

    pub(in crate::capabilities) async fn finish_tokens(
        &mut self,
        id: u32,
    ) -> Result<Completion, ExecutorError> {
        let stream = self.inferences.streams.open.get_mut(&id).ok_or_else(|| closed(id))?;
        if let State::Failed(error) = &stream.state {
            return Err(error.clone());
        }
        match Box::pin(stream.ended()).await {
            Ok(answer) => {
                self.worked();
                Ok(answer)
            }
            Err(no_answer) => Err(self.failed(id, no_answer)),
        }
    }

    pub(in crate::capabilities) fn drop_tokens(&mut self, id: u32) {
        self.inferences.streams.open.remove(&id);
    }

    /// There will be nothing more of this stream.
    fn failed(&mut self, id: u32, no_answer: NoAnswer) -> ExecutorError {
        let Some(question) = self.inferences.streams.open.get(&id).map(|stream| stream.question) else {
            return closed(id);
        };
        let error = match self.told(question, Err(no_answer)) {
            Err(error) => error,
            Ok(_) => closed(id),
        };
        if let Some(stream) = self.inferences.streams.open.get_mut(&id) {
            stream.state = State::Failed(error.clone());
        }
        error
    }
}

fn closed(id: u32) -> ExecutorError {
    ExecutorError::Invalid(format!("there is no stream {id} of tokens"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(run: &str, offset: usize, text: &str) -> Piece {
        Piece { run: run.into(), offset, text: text.into() }
    }

    fn chunk(text: &str, anew: bool) -> Option<Chunk> {
        Some(Chunk { text: text.into(), anew })
    }

    #[test]
    fn pieces_that_follow_each_other_are_passed_on_and_the_record_has_the_rest() {
        let mut told = Told::default();
        assert_eq!(told.next(piece("a", 0, "On")), chunk("On", false));
        assert_eq!(told.next(piece("a", 2, "")), None);
        assert_eq!(told.next(piece("a", 2, "ce")), chunk("ce", false));
        assert_eq!(told.next(piece("a", 2, "ce")), None, "a second time");
        assert_eq!(told.rest("Once upon"), chunk(" upon", false));
        assert_eq!(told.rest("Once upon"), None);
    }

    #[test]
    fn after_a_piece_that_was_missed_all_comes_from_the_record() {
        let mut told = Told::default();
        assert_eq!(told.next(piece("a", 4, "late")), None, "heard from the middle on");
        assert_eq!(told.next(piece("a", 0, "On")), chunk("On", false));
        assert_eq!(told.next(piece("a", 4, " upon")), None);
        assert_eq!(told.rest("Once upon"), chunk("ce upon", false));
        assert_eq!(Told::default().rest("Once"), chunk("Once", false));
        assert_eq!(Told::default().rest(""), None);
    }

    #[test]
    fn a_model_that_is_asked_again_begins_anew() {
        let mut told = Told::default();
        told.next(piece("a", 0, "Once"));
        assert_eq!(told.next(piece("b", 0, "There")), chunk("There", true));
        assert_eq!(told.next(piece("a", 4, " upon")), None, "the one before is still at it");
        assert_eq!(told.next(piece("b", 5, " was")), chunk(" was", false));
        // It ended as neither had it.
        assert_eq!(told.rest("In the beginning"), chunk("In the beginning", true));
        assert_eq!(told.rest("In the beginning"), None);
        let mut told = Told::default();
        told.next(piece("a", 0, "Once"));
        assert_eq!(told.rest(""), chunk("", true), "what came is void");
    }
}
