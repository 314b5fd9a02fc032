//! From a job that is asked for to its place on the queue. A key stands for one job, whoever takes the call and however often it
//! is repeated: it is stored first, and the job's id follows from it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cofferdam_bus::Error;
use tonic::Status;

use super::{
    Desk,
    request::{Asked, refused},
};
use crate::{
    executor::{
        job::{self, AnswerTo, CLIENTS, Queue, QueuedJob},
        limits::{MAX_JOB, resolve, within},
    },
    observe::trace::TraceContext,
    serve::{
        Incoming,
        keys::{self, Claim, Claimed},
    },
};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Desk {
    /// Gives the job's id once it is stored.
    pub(super) async fn submit(
        &self,
        method: &str,
        incoming: &Incoming,
        asked: Asked,
    ) -> Result<String, Status> {
        let Asked { mut job, identity } = asked;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let model = self.config.model.as_str();
        self.no_circle(incoming).await?;
        let (taken, model) = match &incoming.key {
            None => (keys::once(now), model.to_owned()),
            Some(key) => {
                // The model is noted because the id depends on it: whoever takes a repeat may be configured otherwise.
                let claim = Claim { plugin: CLIENTS, method, key, request: identity, note: model };
                match claim.make(self.bus().as_ref(), now, incoming.deadline).await? {
                    Claimed::Taken(taken) => {
                        let model = taken.note.clone();
                        (taken, model)
                    }
                    Claimed::Answered(_) => {
                        return Err(Status::internal("the idempotency key stands for a call that is no job"));
                    }
                }
            }
        };
        halt().await;
        resolve(&mut job, &model);
        let id = Queue::of(CLIENTS, &job).id(&own(&taken.call));
        if job::subject(&id).is_none() {
            return Err(Status::internal(format!("{id:?} can't be the id of a job")));
        }
        let queued = QueuedJob {
            id: id.clone(),
            plugin: CLIENTS.to_owned(),
            job,
            answer: AnswerTo::Client,
            stream: false,
            parent: None,
        };
        let size = serde_json::to_vec(&queued).map_err(|e| Status::internal(e.to_string()))?.len();
        within("the whole job, as it is stored in JSON,", size, MAX_JOB).map_err(refused)?;
        let trace = TraceContext::of_event(&incoming.metadata, &id, 1).header();
        self.store(&queued, &trace, incoming).await?;
        Ok(id)
    }

    /// A daemon that hands jobs to an executor gives each call its job's id as the key. Where that job is one of this bus, whoever
    /// took it here would hand it here again, for ever.
    async fn no_circle(&self, incoming: &Incoming) -> Result<(), Status> {
        let Some((id, place)) = incoming.key.as_ref().and_then(|key| Some((key, job::subject(key)?))) else {
            return Ok(());
        };
        match self.bus().last(&place).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Status::failed_precondition(format!(
                "the idempotency key {id} is a job of this very bus, which would be worked in a circle: the [executor] upstream of \
                 whoever calls leads back to its own queue; let it use backend \"queue\", or name another executor"
            ))),
            Err(Error::Unavailable(why)) => Err(keys::out_of_reach(&format!(": {why}"))),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }

    /// Until it is known to be stored, or the call's time is over.
    async fn store(&self, queued: &QueuedJob, trace: &str, incoming: &Incoming) -> Result<(), Status> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.services.queues.submit_now(queued, trace).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(too_many)) => return Err(Status::resource_exhausted(too_many.to_string())),
                Err(error @ Error::Unavailable(_)) => error,
                Err(error @ Error::TooLarge { .. }) => {
                    return Err(Status::resource_exhausted(error.to_string()));
                }
                Err(error) => return Err(Status::internal(format!("the job can't be stored: {error}"))),
            };
            if Instant::now() + pause >= incoming.deadline {
                let again = match incoming.key {
                    Some(_) => "repeat the call with its idempotency key, and it is stored once",
                    None => "a repeat may make another job; with an idempotency key it would be the same",
                };
                return Err(Status::unavailable(format!(
                    "the bus is out of reach, and whether the job is stored is not known: {error}; {again}"
                )));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Of a call's id, which is two tokens: half of the first says enough beside the time, and people have to read it.
fn own(call: &str) -> String {
    let (slot, at) = call.split_once('.').unwrap_or((call, ""));
    format!("{}-{at}", &slot[..slot.floor_char_boundary(16)])
}

/// Between a key and its job a test may stop the process for good. In no release build.
async fn halt() {
    #[cfg(debug_assertions)]
    if std::env::var_os("COFFERDAM_HALT").is_some_and(|at| at == "key-of-a-job") {
        tracing::warn!("halted between a key and its job");
        std::future::pending::<()>().await;
    }
}
