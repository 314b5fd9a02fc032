//! Following what is stored: all there is, then what comes. Queues, cancellations, reports and budgets are told so.

use std::{convert::Infallible, sync::Arc, time::Duration};

use cofferdam_bus::{Bus, ConsumerSpec, Error, Origin, Reader, Start, Stored};

use crate::executor::job::Queue;

/// Between tries where reading fails.
const PAUSE: Duration = Duration::from_secs(2);
/// Of one queue, over all workers: those that are worked, and those that wait for another try or another hour.
const MAX_ACK_PENDING: u32 = 10_000;

/// Tells `each` of all that is stored under the filter, `None` once that was all, then of each message as it comes. Where it
/// begins anew it tells all once more. Never ends.
pub(in crate::executor) async fn follow(
    bus: Arc<dyn Bus>,
    filter: &str,
    mut each: impl FnMut(Option<Stored>) + Send,
) -> Infallible {
    loop {
        let error = match tell(&bus, filter, &mut each).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        tracing::warn!(filter, "reading stopped: {error}; beginning anew");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn tell(
    bus: &Arc<dyn Bus>,
    filter: &str,
    each: &mut (impl FnMut(Option<Stored>) + Send),
) -> Result<Infallible, Error> {
    let mut reader = begin(bus, filter).await?;
    while let Some(stored) = reader.stored().await? {
        each(Some(stored));
    }
    each(None);
    loop {
        each(Some(reader.next().await?));
    }
}

/// All that is stored under the filter now.
pub(in crate::executor) async fn all(bus: &Arc<dyn Bus>, filter: &str) -> Result<Vec<Stored>, Error> {
    let mut reader = begin(bus, filter).await?;
    let mut found = Vec::new();
    while let Some(stored) = reader.stored().await? {
        found.push(stored);
    }
    Ok(found)
}

async fn begin(bus: &Arc<dyn Bus>, filter: &str) -> Result<Box<dyn Reader>, Error> {
    let Some(stream) = bus.covering(filter).await? else {
        return Err(Error::NoStream { subject: filter.to_owned() });
    };
    bus.read(&stream.name, filter, Start::Sequence(0)).await
}

/// The queue that a notice tells of.
pub(in crate::executor) fn queue(notice: &Stored) -> Option<Queue> {
    match serde_json::from_slice::<Queue>(&notice.message.data) {
        Ok(queue) if queue.notice() == notice.message.subject => Some(queue),
        Ok(_) => {
            tracing::warn!(subject = notice.message.subject, "a notice of another queue was passed over");
            None
        }
        Err(error) => {
            tracing::warn!(
                subject = notice.message.subject,
                "a notice that can't be read was passed over: {error}"
            );
            None
        }
    }
}

/// The durable that hands out the jobs of a queue. Whoever works a queue makes it, and agrees with all others on the lease.
pub(in crate::executor) async fn durable(
    bus: &Arc<dyn Bus>,
    queue: &Queue,
    lease: Duration,
) -> Result<Arc<Origin>, Error> {
    let filter = queue.filter();
    let Some(stream) = bus.covering(&filter).await? else {
        return Err(Error::NoStream { subject: filter });
    };
    bus.ensure_consumer(&ConsumerSpec {
        stream: stream.name,
        durable: queue.durable(),
        filter,
        ack_wait: lease,
        max_deliver: None,
        max_ack_pending: MAX_ACK_PENDING,
        ordered: false,
    })
    .await
}
