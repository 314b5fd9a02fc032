//! `Jobs`: what an operator asks of jobs. Nothing is kept between calls.

mod cancel;
mod show;
mod summary;
mod watch;

use std::sync::Arc;

use cofferdam_bus::{Bus, Error};
use cofferdam_sandbox::JobPhase;
use fleet_proto::admin::v1::{
    CancelJobRequest, CancelJobResponse, JobFilter, ListJobsEnd, ListJobsRequest, ListJobsResponse,
    ShowJobRequest, ShowJobResponse, WatchJobsRequest, WatchJobsResponse, jobs_server,
    list_jobs_response::Item,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    status,
    way_in::{AHEAD, Answers, until_stopped},
};
use crate::executor::look::{self, Crew, MAX_NEWEST, Wanted, Whole};
use summary::summary;

/// Where a caller does not say how many.
const NEWEST: usize = 50;
/// Of an error in a list; `Show` has all of it.
const MAX_ERROR: usize = 512;
const STATES: [JobPhase; 5] =
    [JobPhase::Queued, JobPhase::Running, JobPhase::Done, JobPhase::Failed, JobPhase::Cancelled];

pub(super) struct Jobs {
    bus: Arc<dyn Bus>,
    stop: CancellationToken,
}

impl Jobs {
    pub(super) fn new(bus: Arc<dyn Bus>, stop: CancellationToken) -> Self {
        Self { bus, stop }
    }

    async fn whole(&self, id: &str) -> Result<Whole, Status> {
        let found = Whole::find(&self.bus, id).await.map_err(|error| failed(id, error))?;
        found.ok_or_else(|| not_there(id))
    }
}

#[tonic::async_trait]
impl jobs_server::Jobs for Jobs {
    type ListStream = Answers<ListJobsResponse>;

    async fn list(&self, request: Request<ListJobsRequest>) -> Result<Response<Self::ListStream>, Status> {
        let ListJobsRequest { filter, newest } = request.into_inner();
        let wanted = wanted(filter.unwrap_or_default())?;
        let count = match newest as usize {
            0 => NEWEST,
            newest if newest <= MAX_NEWEST => newest,
            newest => {
                return Err(Status::invalid_argument(format!(
                    "the newest {newest} jobs are asked for; {MAX_NEWEST} at most, or 0 for {NEWEST}"
                )));
            }
        };
        let (out, jobs) = mpsc::channel(AHEAD);
        let bus = self.bus.clone();
        tokio::spawn(async move {
            let told = tokio::select! {
                told = list(&bus, &wanted, count, &out) => told,
                () = out.closed() => return,
            };
            if let Err(error) = told {
                // Whoever asked may have gone.
                drop(out.send(Err(status::of(error))).await);
            }
        });
        Ok(Response::new(Box::pin(until_stopped(jobs, self.stop.clone()))))
    }

    async fn show(&self, request: Request<ShowJobRequest>) -> Result<Response<ShowJobResponse>, Status> {
        let ShowJobRequest { id, text } = request.into_inner();
        let whole = self.whole(&id).await?;
        let shown = show::show(&self.bus, &whole, text).await.map_err(|error| failed(&id, error))?;
        Ok(Response::new(shown))
    }

    async fn cancel(
        &self,
        request: Request<CancelJobRequest>,
    ) -> Result<Response<CancelJobResponse>, Status> {
        cancel::cancel(self, request.into_inner()).await.map(Response::new)
    }

    type WatchStream = Answers<WatchJobsResponse>;

    async fn watch(&self, request: Request<WatchJobsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let progress = watch::begin(&self.bus, request.into_inner()).await?;
        Ok(Response::new(Box::pin(until_stopped(progress, self.stop.clone()))))
    }
}

fn wanted(filter: JobFilter) -> Result<Wanted, Status> {
    let JobFilter { state, plugin, model } = filter;
    let phase = match state.as_str() {
        "" => None,
        state => Some(STATES.into_iter().find(|phase| look::word(*phase) == state).ok_or_else(|| {
            Status::invalid_argument(format!(
                "{state:?} is no state of a job; they are {}",
                STATES.map(look::word).join(", ")
            ))
        })?),
    };
    let is_name = plugin.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !is_name {
        return Err(Status::invalid_argument(format!(
            "{plugin:?} is no plugin's name; letters, digits, - and _"
        )));
    }
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok(Wanted { phase, plugin: given(plugin), model: given(model) })
}

type Out = mpsc::Sender<Result<ListJobsResponse, Status>>;

/// Ends with whether there are more, or early if nobody listens any more.
async fn list(bus: &Arc<dyn Bus>, wanted: &Wanted, count: usize, out: &Out) -> Result<(), Error> {
    let crew = Crew::now(bus).await?;
    let (jobs, more) = look::newest(bus, &crew, wanted, count).await?;
    let jobs = jobs.iter().map(|(whole, standing)| Item::Job(summary(whole, standing, MAX_ERROR)));
    for item in jobs.chain([Item::End(ListJobsEnd { more })]) {
        if out.send(Ok(ListJobsResponse { item: Some(item) })).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn not_there(id: &str) -> Status {
    let id = &id[..id.floor_char_boundary(256)];
    Status::not_found(format!(
        "there is no job {id:?}: nobody submitted it, or it was forgotten (after a week); `cofferdam jobs list` shows those \
         there are"
    ))
}

fn failed(id: &str, error: Error) -> Status {
    let answer = status::of(error);
    Status::new(answer.code(), format!("job {id}: {}", answer.message()))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_filter_says_what_it_wants_in_the_words_of_jobs() {
        let filter = |state: &str, plugin: &str| JobFilter {
            state: state.into(),
            plugin: plugin.into(),
            ..JobFilter::default()
        };
        for state in STATES {
            assert_eq!(wanted(filter(look::word(state), "a-b_1")).unwrap().phase, Some(state));
        }
        assert_eq!(wanted(filter("", "")).unwrap().plugin, None);
        for (state, plugin, why) in [
            ("unknown", "", "they are queued, running, done, failed, cancelled"),
            ("", "a.b", "is no plugin's name"),
            ("", "*", "is no plugin's name"),
        ] {
            let status = wanted(filter(state, plugin)).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(why), "{status}");
        }
    }
}
