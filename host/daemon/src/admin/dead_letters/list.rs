//! Listing: one letter after another is read, and no more of them kept than were asked for.

use std::{collections::VecDeque, sync::Arc};

use cofferdam_bus::{Bus, Reader, Start, subject};
use fleet_proto::admin::v1::{Count, Filter, ListRequest, ListResponse, list_response::Item};
use tokio::sync::mpsc;
use tonic::Status;

use super::{super::way_in::AHEAD, MAX_REASON, nanos, status, summary};
use crate::{
    letters::{self, Letter},
    observe::text,
};

/// Kept in memory for one call.
const MAX_NEWEST: u32 = 10_000;
/// As dead letters cut a key.
const MAX_KEY: usize = 512;

type Out = mpsc::Sender<Result<ListResponse, Status>>;

pub(super) async fn begin(
    bus: &Arc<dyn Bus>,
    request: ListRequest,
) -> Result<mpsc::Receiver<Result<ListResponse, Status>>, Status> {
    let ListRequest { filter, newest } = request;
    if newest > MAX_NEWEST {
        return Err(Status::invalid_argument(format!(
            "the newest {newest} dead letters are asked for; {MAX_NEWEST} at most, or 0 for all"
        )));
    }
    let filter = filter.unwrap_or_default();
    let wanted = Wanted::new(&filter)?;
    let under = match filter.plugin.as_str() {
        "" => letters::ALL.to_owned(),
        plugin => letters::subject(plugin),
    };
    if subject::check_filter(&under).is_err() || filter.plugin.contains(['.', '*', '>']) {
        let plugin = &filter.plugin;
        return Err(Status::invalid_argument(format!(
            "{plugin:?} is no plugin's name; letters, digits, - and _"
        )));
    }
    let stream = letters::stream(bus.as_ref()).await.map_err(status::of)?;
    let start = wanted.since.map_or(Start::Sequence(0), Start::Time);
    let reader = bus.read(&stream, &under, start).await.map_err(status::of)?;
    let (out, letters) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let told = tokio::select! {
            told = tell(reader, &wanted, newest as usize, &out) => told,
            () = out.closed() => return,
        };
        if let Err(status) = told {
            // Whoever asked may have gone.
            drop(out.send(Err(status)).await);
        }
    });
    Ok(letters)
}

/// Ends with the count, or early if nobody listens any more.
async fn tell(mut reader: Box<dyn Reader>, wanted: &Wanted, newest: usize, out: &Out) -> Result<(), Status> {
    let mut count = Count { matched: 0, seen: 0 };
    let mut kept = VecDeque::new();
    while let Some(stored) = reader.stored().await.map_err(status::of)? {
        if wanted.until.is_some_and(|until| stored.timestamp >= until) {
            break;
        }
        let Some(letter) = Letter::read(stored) else { continue };
        count.seen += 1;
        if !wanted.is(&letter) {
            continue;
        }
        count.matched += 1;
        let item = Item::Letter(summary(&letter, MAX_REASON));
        if newest == 0 {
            if send(out, item).await.is_none() {
                return Ok(());
            }
            continue;
        }
        if kept.len() == newest {
            kept.pop_front();
        }
        kept.push_back(item);
    }
    for item in kept.into_iter().chain([Item::Count(count)]) {
        if send(out, item).await.is_none() {
            break;
        }
    }
    Ok(())
}

async fn send(out: &Out, item: Item) -> Option<()> {
    out.send(Ok(ListResponse { item: Some(item) })).await.ok()
}

/// A filter that was checked. The plugin is the reader's to look for.
struct Wanted {
    outcome: Option<String>,
    fault: Option<String>,
    subject: Option<String>,
    order_key: Option<String>,
    since: Option<u64>,
    until: Option<u64>,
}

impl Wanted {
    fn new(filter: &Filter) -> Result<Wanted, Status> {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let subject = given(&filter.subject);
        if let Some(subject) = subject.as_deref()
            && subject::check_filter(subject).is_err()
        {
            return Err(Status::invalid_argument(format!(
                "{subject:?} is no filter: tokens with dots between them; * is one token, a last > one or more"
            )));
        }
        Ok(Wanted {
            outcome: given(&filter.outcome),
            fault: given(&filter.fault),
            subject,
            order_key: given(&filter.order_key).map(|key| text::excerpt(&key, MAX_KEY).into_owned()),
            since: nanos(filter.since.as_ref())?,
            until: nanos(filter.until.as_ref())?,
        })
    }

    fn is(&self, letter: &Letter) -> bool {
        let body = &letter.body;
        let same = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        same(&self.outcome, Some(&body.outcome))
            && same(&self.fault, body.fault.as_deref())
            && same(&self.order_key, body.order_key.as_deref())
            && self.subject.as_deref().is_none_or(|filter| subject::covers(filter, letter.subject()))
    }
}
