//! A client of whoever keeps stories: `fleet.planning.v2.PlanningService`, for example a daemon that runs story-lifecycle. It may come
//! later, go, and come back.

use std::time::Duration;

use anyhow::Context as _;
use fleet_proto::planning::v2::{
    GetStoryRequest, TransitionStoryRequest, planning_service_client::PlanningServiceClient,
};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

/// Of a connection, and of a call.
const PATIENCE: Duration = Duration::from_secs(10);
/// A server that is silent for so long is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Who says that they make the moves.
const BY: &str = "product-owner";

/// Whoever keeps stories. The connection is made when it is needed, and again.
pub(crate) struct Stories(PlanningServiceClient<Channel>);

impl Stories {
    /// Fails only on what will never work.
    pub(crate) fn new(address: &str) -> anyhow::Result<Stories> {
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(url)
            .with_context(|| format!("{address:?} is no address such as 127.0.0.1:50056 (--stories)"))?;
        let channel = endpoint
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Stories(PlanningServiceClient::new(channel)))
    }

    /// Where a story is.
    pub(super) async fn state(&self, story_id: &str) -> Result<String, Status> {
        let request = GetStoryRequest { story_id: story_id.to_owned() };
        Ok(self.0.clone().get_story(request).await?.into_inner().state)
    }

    /// One step; a call with the same key is the same call. The inner error is why it was refused.
    pub(super) async fn step(
        &self,
        story_id: &str,
        to: &str,
        key: &str,
    ) -> Result<Result<(), String>, Status> {
        let mut request = Request::new(TransitionStoryRequest {
            story_id: story_id.to_owned(),
            target_state: to.to_owned(),
            transitioned_by: BY.to_owned(),
        });
        let key = key.parse().map_err(|_| Status::internal("a key that is no ASCII text"))?;
        request.metadata_mut().insert("idempotency-key", key);
        let answer = self.0.clone().transition_story(request).await?.into_inner();
        Ok(if answer.success { Ok(()) } else { Err(answer.message) })
    }
}
