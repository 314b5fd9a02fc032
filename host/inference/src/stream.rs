//! An answer as it comes, piece by piece; one that comes whole is a stream of one piece.

use std::{convert::Infallible, fmt, sync::mpsc, task::Poll};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    stream::{self, BoxStream},
};
use sse_stream::{Sse, SseByteStream};
use tokio::time::Instant;

use crate::{
    answer::{Answer, Chunk, Finish},
    body::Body,
    call::{Call, Clock},
    failure::{Failure, Kind, Late, Work},
    wire::{Choice, Frame},
};

/// An answer as it comes. To drop it is to cancel the request: the connection is closed, which servers take as a sign to
/// stop.
#[derive(Debug)]
pub struct TokenStream {
    call: Call,
    source: Source,
    gathered: Answer,
    refusal: String,
    wants_json: bool,
    started: Instant,
    max_answer: usize,
    max_raw: usize,
}

#[derive(Debug)]
enum Source {
    Events(Body, Box<Events>),
    Whole(Body),
    /// Nothing more comes.
    Over,
}

impl TokenStream {
    /// `kind` is the content type, `streamed` what was asked for; servers do as they like.
    pub(crate) fn open(
        call: Call,
        body: Body,
        kind: &str,
        wants_json: bool,
        streamed: bool,
    ) -> Result<Self, Failure> {
        let kind = kind.to_ascii_lowercase();
        let Clock { started, limits, .. } = body.clock();
        let (started, max_answer, max_raw) = (*started, limits.max_answer, limits.max_raw());
        let source = if kind.starts_with("text/html") {
            let detail = "it answered with a web page; see the URL: most end in /v1".into();
            return Err(call.failure(Kind::Malformed, Work::NotWorked, detail));
        } else if kind.starts_with("text/event-stream") || (streamed && !kind.contains("json")) {
            Source::Events(body, Box::new(Events::new()))
        } else {
            Source::Whole(body)
        };
        Ok(Self {
            call,
            source,
            gathered: Answer::default(),
            refusal: String::new(),
            wants_json,
            started,
            max_answer,
            max_raw,
        })
    }

    /// The next piece, or nothing after the last. After an error there is nothing more.
    ///
    /// # Errors
    /// Also after all pieces have come: an answer of no use is a failure.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        let next = self.step().await;
        if !matches!(next, Ok(Some(_))) {
            self.source = Source::Over;
        }
        next.map_err(|failure| Failure { usage: self.gathered.usage, ..failure })
    }

    /// All of it that has come so far.
    pub fn so_far(&self) -> &Answer {
        &self.gathered
    }

    /// All of it, once all has come. Pieces that [`TokenStream::next`] gave are in it.
    ///
    /// # Errors
    /// As [`TokenStream::next`].
    pub async fn finish(mut self) -> Result<Answer, Failure> {
        while self.next().await?.is_some() {}
        Ok(self.gathered)
    }

    async fn step(&mut self) -> Result<Option<Chunk>, Failure> {
        loop {
            let data = match &mut self.source {
                Source::Over => return Ok(None),
                Source::Whole(body) => {
                    let whole = body.whole(&self.call, self.max_raw).await?;
                    self.source = Source::Over;
                    return self.one_piece(&whole);
                }
                Source::Events(body, events) => match events.next(body, &self.call, self.max_raw).await {
                    Ok(Some(data)) => data,
                    Ok(None) => return self.ended(false),
                    // Its end was told before: what is missing is at most a count of tokens.
                    Err(Failure {
                        kind: Kind::Truncated | Kind::Timeout(Late::Idle | Late::Answer), ..
                    }) if self.gathered.finish.is_some() => {
                        return self.ended(false);
                    }
                    Err(failure) => return Err(failure),
                },
            };
            match data.trim() {
                "" => {}
                "[DONE]" => return self.ended(true),
                data => {
                    let frame = self.frame(data.as_bytes(), "an event of its stream")?;
                    let chunk = self.take(frame)?;
                    if self.gathered.finish.is_some()
                        && let Source::Events(body, _) = &mut self.source
                    {
                        body.nearly_over();
                    }
                    if chunk != Chunk::default() {
                        if self.gathered.first_token_after.is_none() {
                            self.gathered.first_token_after = Some(self.started.elapsed());
                        }
                        return Ok(Some(chunk));
                    }
                }
            }
        }
    }

    fn one_piece(&mut self, whole: &Bytes) -> Result<Option<Chunk>, Failure> {
        let frame = self.frame(whole, "its answer")?;
        let no_choices = frame.choices.as_ref().is_none_or(Vec::is_empty);
        let chunk = self.take(frame)?;
        if no_choices {
            let detail = "its answer has no choices; see its log".into();
            return Err(self.call.failure(Kind::Empty, Work::Worked, detail));
        }
        self.check()?;
        Ok(Some(chunk))
    }

    fn frame(&self, data: &[u8], what: &str) -> Result<Frame, Failure> {
        serde_json::from_slice(data).map_err(|error| {
            let said = self.call.excerpt(&String::from_utf8_lossy(data));
            let detail =
                format!("{what} can't be read ({error}): {said:?}; see whether it is OpenAI-compatible");
            self.call.failure(Kind::Malformed, Work::Worked, detail)
        })
    }

    fn take(&mut self, frame: Frame) -> Result<Chunk, Failure> {
        if let Some(complaint) = frame.complaint() {
            return Err(self.call.interrupted(&complaint));
        }
        if let Some(usage) = frame.usage.and_then(|tokens| tokens.usage()) {
            self.gathered.usage = Some(usage);
        }
        if let Some(model) = frame.model.filter(|model| !model.is_empty()) {
            self.gathered.model = Some(model);
        }
        let mut chunk = Chunk::default();
        for mut choice in frame.choices.unwrap_or_default().into_iter().filter(Choice::is_ours) {
            // Some servers say "" until they know.
            if let Some(reason) = choice.finish_reason.take().filter(|reason| !reason.is_empty()) {
                self.gathered.finish = Some(Finish::of(reason));
            }
            let mut said = choice.said();
            chunk.content.push_str(&said.content());
            chunk.reasoning.push_str(&said.reasoning());
            self.refusal.push_str(&said.refusal());
        }
        let Answer { content, reasoning, .. } = &mut self.gathered;
        let size = content.len() + reasoning.len() + self.refusal.len();
        if size + chunk.content.len() + chunk.reasoning.len() > self.max_answer {
            return Err(self.call.too_large(self.max_answer));
        }
        content.push_str(&chunk.content);
        reasoning.push_str(&chunk.reasoning);
        Ok(chunk)
    }

    /// The stream is at its end, which it said (`[DONE]`) or not.
    fn ended(&self, said: bool) -> Result<Option<Chunk>, Failure> {
        if !said && self.gathered.finish.is_none() {
            let bytes = self.gathered.content.len() + self.gathered.reasoning.len();
            let detail = format!(
                "its stream ended after {bytes} bytes of text without its end (no finish_reason, no [DONE]); see its log"
            );
            return Err(self.call.failure(Kind::Truncated, Work::Unknown, detail));
        }
        self.check().map(|()| None)
    }

    /// Whether the whole answer is of use.
    fn check(&self) -> Result<(), Failure> {
        let Answer { content, reasoning, finish, .. } = &self.gathered;
        let ended = finish.as_ref().map_or("no finish_reason", Finish::as_str);
        if content.is_empty() {
            let detail = if !self.refusal.is_empty() {
                format!("the model would not answer: {:?}", self.call.excerpt(&self.refusal))
            } else if !reasoning.is_empty() {
                format!(
                    "there are {} bytes of reasoning and no content ({ended}); raise max_tokens, or have it think less",
                    reasoning.len()
                )
            } else {
                format!("its answer has no content ({ended}); see max_tokens, stop and the prompt")
            };
            return Err(self.call.failure(Kind::Empty, Work::Worked, detail));
        }
        if self.wants_json
            && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(content.trim())
        {
            let remedy = if *finish == Some(Finish::Length) {
                "it was cut (finish_reason length): raise max_tokens"
            } else {
                "see whether the endpoint knows response_format"
            };
            let said = self.call.excerpt(content);
            let detail = format!("JSON was asked for, and its answer is none ({error}): {said:?}; {remedy}");
            return Err(self.call.failure(Kind::InvalidSchema, Work::Worked, detail));
        }
        Ok(())
    }
}

/// The events in a stream of bytes. The decoder is fed by hand, so that time and size are watched in one place.
struct Events {
    feed: mpsc::Sender<Bytes>,
    decoded: SseByteStream<BoxStream<'static, Result<Bytes, Infallible>>>,
    /// Bytes since the last event.
    unfinished: usize,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("unfinished", &self.unfinished).finish_non_exhaustive()
    }
}

impl Events {
    fn new() -> Self {
        let (feed, fed) = mpsc::channel();
        let bytes = stream::poll_fn(move |_| match fed.try_recv() {
            Ok(bytes) => Poll::Ready(Some(Ok(bytes))),
            Err(mpsc::TryRecvError::Empty) => Poll::Pending,
            Err(mpsc::TryRecvError::Disconnected) => Poll::Ready(None),
        });
        Self { feed, decoded: SseByteStream::new(bytes.boxed()), unfinished: 0 }
    }

    /// The data of the next event, or nothing where the bytes end; what is left then is half an event.
    async fn next(&mut self, body: &mut Body, call: &Call, max: usize) -> Result<Option<String>, Failure> {
        loop {
            match self.decoded.next().now_or_never() {
                Some(Some(Ok(Sse { data, .. }))) => {
                    self.unfinished = 0;
                    if data.is_some() {
                        return Ok(data);
                    }
                    continue;
                }
                Some(Some(Err(error))) => {
                    let detail = format!("its stream can't be read ({error}); see its log");
                    return Err(call.failure(Kind::Malformed, Work::Worked, detail));
                }
                Some(None) => return Ok(None),
                None => {}
            }
            let Some(bytes) = body.read(call).await? else { return Ok(None) };
            self.unfinished += bytes.len();
            if self.unfinished > max {
                return Err(call.too_large(body.clock().limits.max_answer));
            }
            if self.feed.send(bytes).is_err() {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::{collection::vec, prelude::*, sample};
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::endpoint::{Endpoint, EndpointConfig, Limits};

    fn read(
        body: &[u8],
        cuts: &[usize],
        kind: &str,
        wants_json: bool,
    ) -> (Vec<Chunk>, Result<Answer, Failure>) {
        let mut parts = Vec::new();
        let mut rest = body;
        for cut in cuts {
            let (part, more) = rest.split_at(*cut.min(&rest.len()));
            parts.push(Ok::<_, Infallible>(Bytes::copy_from_slice(part)));
            rest = more;
        }
        parts.push(Ok(Bytes::copy_from_slice(rest)));
        let call = Endpoint::new(EndpointConfig::new("e", "http://e/v1")).unwrap().call("m");
        let limits = Limits { max_answer: 256, ..Limits::default() };
        runtime().block_on(async {
            let body = Body::new(stream::iter(parts), Clock::start(limits, None));
            let mut chunks = Vec::new();
            let mut stream = match TokenStream::open(call, body, kind, wants_json, true) {
                Ok(stream) => stream,
                Err(failure) => return (chunks, Err(failure)),
            };
            loop {
                match stream.next().await {
                    Ok(Some(chunk)) => chunks.push(chunk),
                    Ok(None) => break (chunks, stream.finish().await),
                    Err(failure) => break (chunks, Err(failure)),
                }
            }
        })
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().build().unwrap()
    }

    /// Well-formed pieces, and pieces of pieces, as they come out of order or not at all.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let known: Vec<&'static [u8]> = vec![
            b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ab\xc3\xa9\"}}]}\n\n",
            b"data:{\"choices\":[{\"delta\":{\"content\":\"[1]\"},\"finish_reason\":\"stop\"}]}\r\n\r\n",
            b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
            b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n",
            b"data: {\"error\":{\"message\":\"boom\",\"code\":\"503\"}}\n\n",
            b"data: {\"choices\":[{\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"c\"}]}}]}\n\n",
            b"{\"choices\":[{\"message\":{\"content\":\"whole\"},\"finish_reason\":\"stop\"}]}",
            b"data: [DONE]\n\n",
            b": comment\n\n",
            b"event: error\n",
            b"data: ",
            b"\r",
            b"\n\n",
            b"\xf0\x9f\xa6",
            b"null",
            b"{\"choices\":[{\"delta\":{\"content\":\"",
        ];
        let piece = prop_oneof![
            8 => sample::select(known).prop_map(<[u8]>::to_vec),
            1 => vec(any::<u8>(), 0..40),
            1 => Just(vec![b'x'; 900]),
        ];
        vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn any_bytes_end_with_an_answer_or_a_named_failure(
            body in prop_oneof![pieces(), vec(any::<u8>(), 0..300)],
            cuts in vec(0_usize..50, 0..20),
            kind in sample::select(vec!["text/event-stream", "application/json", "text/plain", ""]),
            wants_json: bool,
        ) {
            let (chunks, read_in_parts) = read(&body, &cuts, kind, wants_json);
            let (_, read_at_once) = read(&body, &[], kind, wants_json);
            let gist = |read: &Result<Answer, Failure>| match read {
                Ok(answer) => Ok((answer.content.clone(), answer.finish.clone(), answer.usage)),
                Err(failure) => Err((failure.kind, failure.work, failure.usage)),
            };
            prop_assert_eq!(gist(&read_in_parts), gist(&read_at_once), "however it is cut");
            match read_in_parts {
                Ok(answer) => {
                    let content: String = chunks.iter().map(|chunk| chunk.content.as_str()).collect();
                    prop_assert!(!content.is_empty());
                    prop_assert_eq!(content, answer.content);
                }
                Err(failure) => {
                    prop_assert!(!failure.kind.as_str().is_empty());
                    prop_assert!(failure.detail.len() < 2000, "{}", failure);
                    prop_assert!(!matches!(failure.kind, Kind::Unreachable | Kind::Cancelled | Kind::Timeout(_)));
                }
            }
        }
    }
}
