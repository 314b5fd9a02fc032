//! The way in to the bus: `BusService` over whichever bus the daemon has. Nothing is kept between calls.

use std::{pin::Pin, sync::Arc};

use cofferdam_bus::{Bus, Error, Listener, Message, Publish, subject};
use fleet_proto::bus::v1::{
    self as proto, Header, PublishRequest, PublishResponse, ReadRequest, StoredMessage, SubscribeRequest,
    bus_service_server::BusService,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    reading, rules,
    status::{self, stopping},
};

/// How many messages wait for a caller that is slow to take them; what is more waits on the bus.
pub(super) const AHEAD: usize = 16;
/// Subjects of one subscription.
const MAX_SUBJECTS: usize = 64;

/// What a streaming call answers with.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) struct WayIn {
    bus: Arc<dyn Bus>,
    stop: CancellationToken,
}

impl WayIn {
    pub(super) fn new(bus: Arc<dyn Bus>, stop: CancellationToken) -> WayIn {
        WayIn { bus, stop }
    }
}

#[tonic::async_trait]
impl BusService for WayIn {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let PublishRequest { message, message_id, expected_last_subject_sequence } = request.into_inner();
        let message = inward(message)?;
        rules::may_publish(&message)?;
        if message_id.contains(['\r', '\n']) {
            return Err(Status::invalid_argument(format!("the message id {message_id:?} has a line break")));
        }
        let message_id = (!message_id.is_empty()).then_some(message_id);
        let (subject, expected) =
            (message.subject.clone(), expected_last_subject_sequence.unwrap_or_default());
        let how = Publish { message_id, expected_last_subject_sequence };
        let ack = match self.bus.publish(message, how).await {
            Ok(ack) => ack,
            Err(error @ Error::WrongLastSequence { .. }) => {
                // By now there may be another, which is to be expected just the same.
                return Err(match self.bus.last(&subject).await {
                    Ok(last) => status::wrong_last(&subject, expected, last.map(|stored| stored.sequence)),
                    Err(_) => status::of(error),
                });
            }
            Err(error) => return Err(status::of(error)),
        };
        Ok(Response::new(PublishResponse {
            stream: ack.stream,
            sequence: ack.sequence,
            duplicate: ack.duplicate,
        }))
    }

    type SubscribeStream = Answers<proto::Message>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let subjects = request.into_inner().subjects;
        if subjects.is_empty() || subjects.len() > MAX_SUBJECTS {
            return Err(Status::invalid_argument(format!(
                "{} subjects are given; give 1 to {MAX_SUBJECTS} (`>` is all)",
                subjects.len()
            )));
        }
        subjects.iter().try_for_each(|filter| rules::check_filter(filter))?;
        let mut listeners = Vec::new();
        for filter in &subjects {
            listeners.push(self.bus.listen(filter).await.map_err(status::of)?);
        }
        let (out, messages) = mpsc::channel(AHEAD);
        for (n, listener) in listeners.into_iter().enumerate() {
            let mut filters = subjects[..=n].to_vec();
            let filter = filters.pop().unwrap_or_default();
            tokio::spawn(pass_on(listener, filter, filters, out.clone()));
        }
        Ok(Response::new(Box::pin(until_stopped(messages, self.stop.clone()))))
    }

    type ReadStream = Answers<StoredMessage>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let limit = match request.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let messages = reading::begin(&self.bus, request).await?;
        Ok(Response::new(Box::pin(until_stopped(messages, self.stop.clone()).take(limit))))
    }
}

/// Hands on what one listener hears, but for what an earlier one of the same call hears as well.
async fn pass_on(
    mut listener: Box<dyn Listener>,
    filter: String,
    earlier: Vec<String>,
    out: mpsc::Sender<Result<proto::Message, Status>>,
) {
    let told =
        |subject: &str, filter: &str| subject::covers(filter, subject) && !rules::is_hidden(filter, subject);
    loop {
        let heard = tokio::select! {
            heard = listener.next() => heard,
            () = out.closed() => return,
        };
        let item = match heard {
            Ok(message) if rules::is_hidden(&filter, &message.subject) => continue,
            Ok(message) if earlier.iter().any(|other| told(&message.subject, other)) => continue,
            Ok(message) => Ok(outward(message)),
            Err(error) => Err(status::of(error)),
        };
        let over = item.is_err();
        if out.send(item).await.is_err() || over {
            return;
        }
    }
}

/// What comes through the channel, and the word that we stop.
pub(super) fn until_stopped<T: Send + 'static>(
    messages: mpsc::Receiver<Result<T, Status>>,
    stop: CancellationToken,
) -> impl Stream<Item = Result<T, Status>> + Send {
    stream::unfold((messages, stop, false), async |(mut messages, stop, over)| {
        if over {
            return None;
        }
        let (item, over) = tokio::select! {
            biased;
            () = stop.cancelled() => (Err(stopping()), true),
            item = messages.recv() => (item?, false),
        };
        Some((item, (messages, stop, over)))
    })
}

fn inward(message: Option<proto::Message>) -> Result<Message, Status> {
    let message = message.ok_or_else(|| {
        Status::invalid_argument("the request has no message; give one, with a subject at least")
    })?;
    Ok(Message {
        subject: message.subject,
        headers: message.headers.into_iter().map(|header| (header.name, header.value)).collect(),
        data: message.data,
    })
}

pub(super) fn outward(message: Message) -> proto::Message {
    proto::Message {
        subject: message.subject,
        headers: message.headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
        data: message.data,
    }
}
