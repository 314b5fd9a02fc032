//! Takes the deliveries of one queue, as many as the desk wants.

use std::sync::{Arc, PoisonError};

use cofferdam_bus::{Delivery, Error};
use tokio::{
    sync::{mpsc::UnboundedSender, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{PAUSE, Taken, Worker, desk::Event};
use crate::executor::{
    QueuedJob,
    job::{self, Queue},
    queues,
};

/// Tokens of an answer to a job that sets no limit.
const ANSWER: u64 = 512;
/// Bytes of a token.
const BYTES: usize = 4;

/// What the desk wants of a queue: so many more, and the number of that word.
pub(super) type Want = (usize, u64);

/// Until `stop`; then what is here and was not begun is handed back.
pub(super) async fn pull(
    worker: Arc<Worker>,
    lane: usize,
    queue: Queue,
    mut wants: watch::Receiver<Want>,
    events: UnboundedSender<Event>,
    stop: CancellationToken,
) {
    let mut left = *wants.borrow_and_update();
    loop {
        let took = take(&worker, lane, &queue, &mut wants, &mut left, &events, &stop).await;
        let Err(error) = took else { return };
        tracing::error!(durable = queue.durable(), "taking jobs stopped: {error}; beginning anew");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn take(
    worker: &Arc<Worker>,
    lane: usize,
    queue: &Queue,
    wants: &mut watch::Receiver<Want>,
    left: &mut Want,
    events: &UnboundedSender<Event>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let bus = &worker.services.bus;
    let origin = queues::durable(bus, queue, worker.config.lease).await?;
    worker.origins.lock().unwrap_or_else(PoisonError::into_inner).insert(queue.clone(), origin.clone());
    let mut deliveries = bus.deliveries(&origin, 0).await?;
    deliveries.want(left.0).await;
    drop(events.send(Event::Opened(lane)));
    let ended = loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            changed = wants.changed() => {
                if changed.is_err() {
                    break Ok(());
                }
                *left = *wants.borrow_and_update();
                deliveries.want(left.0).await;
            }
            delivery = deliveries.next() => match delivery {
                Ok(delivery) => {
                    left.0 = left.0.saturating_sub(1);
                    let taken = worker.taken(delivery).map(Box::new);
                    drop(events.send(Event::Arrived { lane, word: left.1, taken }));
                }
                Err(error) => break Err(error),
            }
        }
    };
    deliveries.close().await;
    ended
}

impl Worker {
    /// Takes a job in hand, unless a copy of it is.
    fn taken(&self, delivery: Delivery) -> Option<Taken> {
        let delivery = Arc::new(delivery);
        let Some(entry) = self.in_flight.enter(delivery.stored.message.subject.clone(), delivery.clone())
        else {
            tracing::debug!(event = delivery.id(), "delivered again while it is in hand");
            return None;
        };
        let message = &delivery.stored.message;
        let read = serde_json::from_slice::<QueuedJob>(&message.data).map_err(|error| error.to_string());
        let queued = read.and_then(|queued| match job::subject(&queued.id) {
            Some(subject) if subject != message.subject => {
                Err(format!("its id {:?} belongs elsewhere than {:?}", queued.id, message.subject))
            }
            Some(_) if job::owner(&queued.id) != Some(&queued.plugin) => {
                Err(format!("its id {:?} is not of plugin {:?}", queued.id, queued.plugin))
            }
            Some(_) if queued.job.agents.is_empty() => Err("it has no agent".to_owned()),
            Some(_) => Ok(queued),
            None => Err(format!("{:?} can't be the id of a job", queued.id)),
        });
        let cost = queued.as_ref().map_or(0, |queued| {
            let answer = queued.job.sampling.max_tokens.map_or(ANSWER, u64::from);
            (queued.job.prompt.len() / BYTES) as u64 + answer
        });
        let bytes = message.data.len();
        Some(Taken { delivery, queued, cost, bytes, arrived: Instant::now(), entry })
    }
}
