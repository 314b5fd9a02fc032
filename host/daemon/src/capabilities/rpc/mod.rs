//! Unary gRPC calls of a guest: what is checked before, which key a call carries, what the guest gets.

mod fence;
mod once;
mod own;
mod retry;
mod upstreams;

use std::time::Duration;

use bytes::Bytes;
use cofferdam_sandbox::{RpcRequest, RpcStatus};
use fence::Fence;
use once::{Entry, Known, Record, Trouble};
pub use own::{Caller, Door, Within};
use retry::Rule;
use sha2::{Digest, Sha256};
use tonic::{
    Code, Status,
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
};
use upstreams::{Failed, MAX_MESSAGE, Reached};
pub use upstreams::{Outgoing, Upstreams};

use super::Run;
use crate::{
    config::{UnknownOutcome, Upstream, is_method},
    fault::Fault,
    grants::Kind,
    observe::{
        text,
        trace::{self, hex},
    },
};

/// Of a call's metadata: entries, and bytes of their names and values together.
const MAX_METADATA: usize = 64;
const MAX_METADATA_SIZE: usize = 8 << 10;

/// A call that this run may send.
struct Claim {
    known: Known,
    fence: Fence,
    first: bool,
}

enum Claimed {
    Ours(Claim),
    /// It was made before, and this came of it.
    Over(Result<Bytes, RpcStatus>),
}

/// Which call of its event this is.
struct Identity {
    /// The same for equal requests.
    base: [u8; 32],
    /// What the upstream knows it by.
    key: String,
}

impl Run {
    pub(super) async fn rpc(&mut self, request: RpcRequest) -> Result<Bytes, RpcStatus> {
        self.check(&request)?;
        let identity = self.identity(&request);
        let once =
            self.services.upstreams.config(&request.upstream).and_then(|upstream| {
                upstream.once.covers(&request.method).then_some(upstream.unknown_outcome)
            });
        if once.is_some() {
            // What is recorded of such a call is kept with an event.
            self.may_have_effects().map_err(|why| {
                let call = format!("{}/{}", request.upstream, request.method);
                refusal(Code::PermissionDenied, format!("{why}; {call} is called once, which is one"))
            })?;
        }
        let answer = match once {
            Some(unknown) => self.once(&request, &identity.key, unknown == UnknownOutcome::Ask).await,
            None => {
                let twice = self
                    .services
                    .upstreams
                    .config(&request.upstream)
                    .is_some_and(|upstream| upstream.idempotent.covers(&request.method));
                let sent = self.send(&request, &identity.key, twice, None).await;
                sent.map_err(|failed| upstreams_word(&failed.status))
            }
        };
        if answer.is_ok() {
            // The next equal request is another call. One that brought no answer is made again under its key.
            *self.calls_made.entry(identity.base).or_insert(0) += 1;
        }
        answer
    }

    fn check(&mut self, request: &RpcRequest) -> Result<(), RpcStatus> {
        if self.services.upstreams.config(&request.upstream).is_none() {
            let name = text::excerpt(&request.upstream, 64);
            self.blame = Some(Fault::Operator);
            return Err(refusal(
                Code::FailedPrecondition,
                format!("no upstream {name:?} is configured; add [upstreams.{name}] with its address"),
            ));
        }
        if !is_method(&request.method) {
            let method = text::excerpt(&request.method, 128);
            return Err(refusal(
                Code::InvalidArgument,
                format!("{method:?} is not a method; write \"package.Service/Method\""),
            ));
        }
        let thing = format!("{}/{}", request.upstream, request.method);
        self.granted(Kind::Rpc, &thing)
            .map_err(|denial| refusal(Code::PermissionDenied, denial.to_string()))?;
        if request.request.len() > MAX_MESSAGE {
            let size = request.request.len();
            return Err(refusal(
                Code::ResourceExhausted,
                format!("the request has {size} bytes, more than {MAX_MESSAGE}"),
            ));
        }
        check_metadata(&request.metadata)
    }

    /// The same for the same call of every run of this event: hash of event, upstream, method, request, and how many equal
    /// requests were answered before.
    fn identity(&self, request: &RpcRequest) -> Identity {
        let mut hash = Sha256::new();
        for part in [
            self.occasion.event_id.as_bytes(),
            request.upstream.as_bytes(),
            request.method.as_bytes(),
            &request.request,
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let base: [u8; 32] = hash.clone().finalize().into();
        let occurrence = self.calls_made.get(&base).copied().unwrap_or(0);
        hash.update(occurrence.to_be_bytes());
        Identity { base, key: hex(&hash.finalize()) }
    }

    /// Sends a call, and again where that is safe.
    async fn send(
        &mut self,
        request: &RpcRequest,
        key: &str,
        twice: bool,
        fence: Option<Fence>,
    ) -> Result<Bytes, Failed> {
        let left = self.remaining();
        let wanted = request.timeout_ms.map(|ms| Duration::from_millis(ms.into()));
        let config = self.services.upstreams.config(&request.upstream);
        let timeout = wanted.or(config.map(|u| u.timeout)).map_or(left, |t| t.min(left));
        let rule = Rule { twice, retries: config.map_or(0, |u| u.retries) };
        let traceparent = self.occasion.trace.header();
        let outgoing = Outgoing {
            upstream: &request.upstream,
            method: &request.method,
            request: request.request.clone(),
            timeout: None,
            metadata: &request.metadata,
            idempotency_key: key,
            traceparent: &traceparent,
            fence,
            within: self.occasion.within.deeper(),
        };
        let labels = [self.plugin.name.as_str(), request.upstream.as_str()];
        let retries = self.services.metrics.call_retries.with_label_values(&labels);
        let answer = retry::call(&self.services.upstreams, outgoing, timeout, rule, |status| {
            retries.inc();
            tracing::debug!(
                plugin = self.plugin.name,
                event = self.occasion.event_id,
                upstream = request.upstream,
                method = request.method,
                "the call is repeated: {:?}: {}",
                status.code(),
                status.message()
            );
        })
        .await;
        let code = answer.as_ref().map_or_else(|failed| failed.status.code(), |_| Code::Ok);
        let number = (code as i32).to_string();
        self.services.metrics.calls.with_label_values(&[labels[0], labels[1], number.as_str()]).inc();
        match &answer {
            Ok(_) if self.blame == Some(Fault::Upstream) => self.blame = None,
            Err(failed) if is_upstreams_fault(failed.status.code()) => self.blame = Some(Fault::Upstream),
            _ => {}
        }
        if let Err(failed) = &answer
            && matches!(failed.status.code(), Code::Unavailable | Code::DeadlineExceeded)
            && self.services.stop.is_cancelled()
            && self.services.upstreams.config(&request.upstream).is_some_and(Upstream::is_own)
        {
            // Who would answer is there again when the event is, so it is no attempt of the event.
            self.let_go = Some(format!(
                "{} was called while the host stops: {}",
                request.method,
                failed.status.message()
            ));
        }
        answer
    }

    /// A call whose answer is recorded before the guest sees it, and is the answer from then on. Before it is sent it is
    /// claimed, so that two runs at one time don't both send it.
    async fn once(&mut self, request: &RpcRequest, key: &str, ask: bool) -> Result<Bytes, RpcStatus> {
        let call = format!("{}/{}", request.upstream, request.method);
        let bus = self.services.bus.clone();
        let record = Record::new(bus, &self.occasion.event_id, key, call.clone(), self.occasion.deadline);
        let record = record.map_err(|trouble| self.hosts_word("is not made", &trouble))?;
        // Whoever has claimed it for longer has died over it.
        let config = self.services.upstreams.config(&request.upstream);
        let patience = config.map_or(Duration::ZERO, |upstream| upstream.timeout);
        let mut begun = Known::nothing();
        let (claim, sent) = loop {
            let claim = match self.claim(&record, request, begun, ask, patience).await? {
                Claimed::Ours(claim) => claim,
                Claimed::Over(answer) => return answer,
            };
            let sent = self.send(request, key, !ask, Some(claim.fence.clone())).await;
            if !matches!(sent, Err(Failed { reached: Reached::Withheld, .. })) {
                break (claim, sent);
            }
            if !self.occasion.held.is_sure() {
                if !ask || claim.first {
                    take_back(&record, claim.known.revision, &self.occasion.event_id).await;
                }
                let why = "this host was away for longer than the ack wait: another may have the event";
                self.let_go = Some(why.to_owned());
                return Err(refusal(Code::Unavailable, format!("{call} was not called: {why}")));
            }
            begun = claim.known;
        };
        let revision = claim.known.revision;
        let outcome = match sent {
            Ok(answer) => Entry::Answer(answer),
            Err(Failed { status, reached: Reached::Done }) => {
                Entry::Unrecordable(status.message().to_owned())
            }
            Err(failed) => {
                if !ask || (claim.first && is_undone(&failed)) {
                    take_back(&record, revision, &self.occasion.event_id).await;
                }
                return Err(upstreams_word(&failed.status));
            }
        };
        match conclude(&record, revision, outcome).await {
            Ok(known) => self.recorded(&known, request).unwrap_or_else(|| Err(unknown_outcome(request))),
            Err(trouble) => {
                Err(self.hosts_word("was answered, and the answer can't be recorded now", &trouble))
            }
        }
    }

    /// Claims a call, from what is known of it, unless it is over.
    async fn claim(
        &mut self,
        record: &Record,
        request: &RpcRequest,
        mut known: Known,
        ask: bool,
        patience: Duration,
    ) -> Result<Claimed, RpcStatus> {
        let mine = Entry::Intent(mark());
        // Only who began it first may say that it was not done: of the runs before nobody knows.
        let mut first = known.entry == Entry::Nothing;
        loop {
            let fence = Fence::now(&self.occasion.held);
            known = match record.replace(known.revision, &mine).await {
                Ok(known) => known,
                Err(trouble) => return Err(self.hosts_word("was not made", &trouble)),
            };
            if known.entry == mine {
                return Ok(Claimed::Ours(Claim { known, fence, first }));
            }
            if let Some(answer) = self.recalled(&known, request) {
                return Ok(Claimed::Over(answer));
            }
            if known.entry == Entry::Nothing {
                continue;
            }
            first = false;
            if ask && !request.repeat {
                return Err(unknown_outcome(request));
            }
            known = match record.outwait(known, patience).await {
                Ok(known) => known,
                Err(trouble) => {
                    // Whoever died over it has used up this run's time, which is no attempt of the event.
                    self.let_go = Some(format!("{}: {trouble}", request.method));
                    return Err(self.hosts_word("was not made", &trouble));
                }
            };
            if let Some(answer) = self.recalled(&known, request) {
                return Ok(Claimed::Over(answer));
            }
        }
    }

    /// What is recorded, which costs the upstream nothing.
    fn recalled(&mut self, known: &Known, request: &RpcRequest) -> Option<Result<Bytes, RpcStatus>> {
        let answer = self.recorded(known, request)?;
        let labels = [self.plugin.name.as_str(), request.upstream.as_str()];
        self.services.metrics.calls_recalled.with_label_values(&labels).inc();
        if answer.is_ok() && self.blame == Some(Fault::Upstream) {
            self.blame = None;
        }
        Some(answer)
    }

    /// What the guest gets of a record that says how the call ended.
    fn recorded(&self, known: &Known, request: &RpcRequest) -> Option<Result<Bytes, RpcStatus>> {
        let answer = match &known.entry {
            Entry::Nothing | Entry::Intent(_) => return None,
            Entry::Answer(answer) => Ok(answer.clone()),
            Entry::Unrecordable(why) => Err(refusal(
                Code::ResourceExhausted,
                format!(
                    "{}/{} was done, and its answer is too large to be recorded, as once asks: {why}",
                    request.upstream, request.method
                ),
            )),
        };
        Some(answer)
    }

    /// The record is out of order, so the guest gets no answer.
    fn hosts_word(&mut self, what: &str, trouble: &Trouble) -> RpcStatus {
        self.blame = Some(Fault::Host);
        let code = match trouble {
            Trouble::OutOfReach(_) => Code::Unavailable,
            Trouble::TooLarge(_) | Trouble::Bus(_) => Code::Internal,
        };
        refusal(code, format!("the call {what}: {trouble}"))
    }
}

/// Records how a call ended, unless another run has; gives what is recorded.
async fn conclude(record: &Record, revision: u64, outcome: Entry) -> Result<Known, Trouble> {
    let (mut revision, mut outcome) = (revision, outcome);
    loop {
        match record.replace(revision, &outcome).await {
            // Another run began the call, or took its beginning back; how it ended is known here.
            Ok(Known { entry: Entry::Nothing | Entry::Intent(_), revision: now, .. }) => revision = now,
            Ok(known) => return Ok(known),
            Err(Trouble::TooLarge(error)) if matches!(outcome, Entry::Answer(_)) => {
                outcome = Entry::Unrecordable(error.to_string());
            }
            Err(trouble) => return Err(trouble),
        }
    }
}

/// Whoever calls again need not wait for what becomes of this claim, or ask.
async fn take_back(record: &Record, claim: u64, event: &str) {
    if let Err(trouble) = record.replace(claim, &Entry::Nothing).await {
        tracing::debug!(event, "a claim stays: {trouble}");
    }
}

/// Tells one intent from another.
fn mark() -> String {
    format!("{:016x}{:016x}", retry::random(), retry::random())
}

/// Nothing was done, for certain: nothing was sent, or the upstream itself refused.
fn is_undone(failed: &Failed) -> bool {
    let refused = matches!(
        failed.status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated
    );
    failed.reached == Reached::Nobody || (failed.reached == Reached::Perhaps && refused)
}

fn unknown_outcome(request: &RpcRequest) -> RpcStatus {
    refusal(
        Code::Unknown,
        format!(
            "{}/{} was begun by an earlier run of this event, and what became of it is unknown; find out, or ask for a repeat",
            request.upstream, request.method
        ),
    )
}

fn upstreams_word(status: &Status) -> RpcStatus {
    RpcStatus { code: status.code() as u8, message: status.message().to_owned(), local: false }
}

fn refusal(code: Code, message: String) -> RpcStatus {
    RpcStatus { code: code as u8, message, local: true }
}

/// Whether it can be sent. More names than it takes make a map of headers panic, and upstreams refuse much less.
fn check_metadata(metadata: &[(String, String)]) -> Result<(), RpcStatus> {
    let (count, size) = (metadata.len(), metadata.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>());
    if count > MAX_METADATA || size > MAX_METADATA_SIZE {
        return Err(refusal(
            Code::ResourceExhausted,
            format!(
                "the metadata has {count} entries and {size} bytes, more than {MAX_METADATA} or than {MAX_METADATA_SIZE}"
            ),
        ));
    }
    for (name, value) in metadata {
        if is_reserved(name) {
            let name = text::excerpt(name, 64);
            return Err(refusal(Code::InvalidArgument, format!("metadata {name:?} belongs to the host")));
        }
        if name.parse::<AsciiMetadataKey>().is_err() || value.parse::<AsciiMetadataValue>().is_err() {
            let name = text::excerpt(name, 64);
            return Err(refusal(
                Code::InvalidArgument,
                format!("metadata {name:?} is not a lower-case name with a visible ASCII value"),
            ));
        }
    }
    Ok(())
}

fn is_reserved(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower == "authorization"
        || lower == trace::HEADER
        || lower.starts_with("grpc-")
        || lower.starts_with("cofferdam-")
}

/// Codes that say something about the upstream rather than about the request.
fn is_upstreams_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::DataLoss
            | Code::Cancelled
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(count: usize, value: usize) -> Vec<(String, String)> {
        (0..count).map(|n| (format!("n{n:05}"), "v".repeat(value))).collect()
    }

    #[test]
    fn metadata_is_bounded_in_number_and_size() {
        assert_eq!(check_metadata(&metadata(MAX_METADATA, 10)), Ok(()));
        assert_eq!(check_metadata(&metadata(1, MAX_METADATA_SIZE - 6)), Ok(()));
        for over in [metadata(MAX_METADATA + 1, 0), metadata(25_000, 1), metadata(1, MAX_METADATA_SIZE - 5)] {
            let refused = check_metadata(&over).unwrap_err();
            assert_eq!(
                (refused.code, refused.local),
                (Code::ResourceExhausted as u8, true),
                "{}",
                refused.message
            );
        }
    }

    #[test]
    fn the_hosts_metadata_is_reserved_and_the_rest_is_ascii() {
        for (name, value) in [("Authorization", "x"), ("grpc-timeout", "1S"), ("ä", "x"), ("a", "\n")] {
            let refused = check_metadata(&[(name.into(), value.into())]).unwrap_err();
            assert_eq!(refused.code, Code::InvalidArgument as u8, "{name}");
        }
    }
}
