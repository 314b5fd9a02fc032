//! A third party's scoring stage in the test's own process: it judges and selects as the test says, and keeps what it was asked.

use std::sync::{Arc, Mutex};

use fleet_proto::council::v1::{
    Judged, ScoreRequest, ScoreResponse, SelectRequest, SelectResponse,
    scoring_service_server::{ScoringService, ScoringServiceServer},
};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, async_trait};

use crate::serve::serve_at;

type Judge = Arc<dyn Fn(&ScoreRequest) -> Result<Vec<Judged>, Status> + Send + Sync>;

/// Ends on drop.
pub struct Scoring {
    pub address: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    judge: Judge,
    /// Which of the best is taken.
    choice: u32,
    scored: Mutex<Vec<ScoreRequest>>,
    selected: Mutex<Vec<SelectRequest>>,
}

impl Scoring {
    /// Judges in this way, and then takes the result at this place.
    pub async fn start(
        choice: u32,
        judge: impl Fn(&ScoreRequest) -> Result<Vec<Judged>, Status> + Send + Sync + 'static,
    ) -> Scoring {
        Scoring::at("127.0.0.1:0", choice, judge).await
    }

    /// The same at an address, where one was before.
    pub async fn at(
        address: &str,
        choice: u32,
        judge: impl Fn(&ScoreRequest) -> Result<Vec<Judged>, Status> + Send + Sync + 'static,
    ) -> Scoring {
        let shared = Arc::new(Shared {
            judge: Arc::new(judge),
            choice,
            scored: Mutex::default(),
            selected: Mutex::default(),
        });
        let (address, server) = serve_at(address, ScoringServiceServer::new(Service(shared.clone()))).await;
        Scoring { address, shared, server }
    }

    /// What it was asked to judge.
    pub fn scored(&self) -> Vec<ScoreRequest> {
        self.shared.scored.lock().expect("no poison").clone()
    }

    /// What it was asked to select from.
    pub fn selected(&self) -> Vec<SelectRequest> {
        self.shared.selected.lock().expect("no poison").clone()
    }
}

impl Drop for Scoring {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service(Arc<Shared>);

#[async_trait]
impl ScoringService for Service {
    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreResponse>, Status> {
        let request = request.into_inner();
        let judged = (self.0.judge)(&request);
        self.0.scored.lock().expect("no poison").push(request);
        Ok(Response::new(ScoreResponse { judged: judged? }))
    }

    async fn select(&self, request: Request<SelectRequest>) -> Result<Response<SelectResponse>, Status> {
        self.0.selected.lock().expect("no poison").push(request.into_inner());
        let reason = "as the test says".to_owned();
        Ok(Response::new(SelectResponse { index: self.0.choice, reason }))
    }
}
