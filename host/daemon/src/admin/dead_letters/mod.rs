//! `DeadLetters`: what an operator does about events and effects that were given up. Nothing is kept between calls.

mod list;
mod redrive;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cofferdam_bus::{Bus, Error};
use fleet_proto::admin::v1::{
    DropRequest, DropResponse, ListRequest, ListResponse, RedriveRequest, RedriveResponse, ShowRequest,
    ShowResponse, Summary, dead_letters_server,
};
use prost_types::Timestamp;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    reading::timestamp,
    status,
    way_in::{Answers, until_stopped},
};
use crate::{
    letters::{self, Letter},
    observe::text,
};

/// Of a reason in a list; `Show` has all of it.
const MAX_REASON: usize = 512;

pub(super) struct DeadLetters {
    bus: Arc<dyn Bus>,
    stop: CancellationToken,
    /// What events can be given back to: plugins of this daemon, each with the durables that it takes events from.
    takes: BTreeMap<String, BTreeSet<String>>,
}

impl DeadLetters {
    pub(super) fn new(
        bus: Arc<dyn Bus>,
        stop: CancellationToken,
        takes: BTreeMap<String, BTreeSet<String>>,
    ) -> Self {
        Self { bus, stop, takes }
    }

    async fn stream(&self) -> Result<String, Status> {
        letters::stream(self.bus.as_ref()).await.map_err(status::of)
    }

    /// One of them; what else its stream may hold is none.
    async fn letter(&self, stream: &str, id: u64) -> Result<Letter, Status> {
        let stored = self.bus.message(stream, id).await.map_err(|error| failed(id, error))?;
        stored.and_then(Letter::read).ok_or_else(|| not_there(id))
    }
}

#[tonic::async_trait]
impl dead_letters_server::DeadLetters for DeadLetters {
    type ListStream = Answers<ListResponse>;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let letters = list::begin(&self.bus, request.into_inner()).await?;
        Ok(Response::new(Box::pin(until_stopped(letters, self.stop.clone()))))
    }

    async fn show(&self, request: Request<ShowRequest>) -> Result<Response<ShowResponse>, Status> {
        let letter = self.letter(&self.stream().await?, request.into_inner().id).await?;
        let summary = Some(summary(&letter, usize::MAX));
        let payload = letter.payload();
        Ok(Response::new(ShowResponse { summary, letter: letter.stored.message.data, payload }))
    }

    async fn redrive(&self, request: Request<RedriveRequest>) -> Result<Response<RedriveResponse>, Status> {
        redrive::redrive(self, request.into_inner().id).await.map(Response::new)
    }

    async fn drop(&self, request: Request<DropRequest>) -> Result<Response<DropResponse>, Status> {
        let (stream, id) = (self.stream().await?, request.into_inner().id);
        let letter = self.letter(&stream, id).await?;
        match self.bus.delete_message(&stream, id).await {
            Ok(true) => {
                let Letter { body, .. } = &letter;
                let (plugin, event) = (&body.plugin, letter.event_id());
                tracing::warn!(plugin, event, letter = id, "an operator dropped a dead letter");
                Ok(Response::new(DropResponse { summary: Some(summary(&letter, MAX_REASON)) }))
            }
            Ok(false) => Err(not_there(id)),
            Err(error) => Err(failed(id, error)),
        }
    }
}

fn summary(letter: &Letter, max_reason: usize) -> Summary {
    let body = &letter.body;
    Summary {
        id: letter.id(),
        stored_at: Some(timestamp(letter.stored.timestamp)),
        plugin: body.plugin.clone(),
        outcome: body.outcome.clone(),
        fault: body.fault.clone().unwrap_or_default(),
        attempts: body.attempts,
        subject: letter.subject().to_owned(),
        order_key: body.order_key.clone().unwrap_or_default(),
        reason: text::excerpt(body.reason.as_deref().unwrap_or_default(), max_reason).into_owned(),
        event: letter.event_id().to_owned(),
    }
}

fn not_there(id: u64) -> Status {
    Status::not_found(format!(
        "there is no dead letter {id}: it has been redriven or dropped, or never was; `cofferdam dlq list` shows those \
         there are"
    ))
}

fn failed(id: u64, error: Error) -> Status {
    let answer = status::of(error);
    Status::new(answer.code(), format!("dead letter {id}: {}", answer.message()))
}

/// What the filter's times say, in nanoseconds since the epoch.
fn nanos(time: Option<&Timestamp>) -> Result<Option<u64>, Status> {
    time.map(super::reading::nanos).transpose()
}
