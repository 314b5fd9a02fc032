//! Who answers a job: one agent's prompt goes in, a text or a failure comes out. Knows nothing of queues, events and records.

mod cache;
mod chat;
mod endpoints;
mod fleet;
mod offline;
mod tokens;

use std::{sync::Arc, time::Duration};

use cofferdam_sandbox::Agent;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use tokens::{last_word, subject as tokens_subject};

pub use self::endpoints::examine;
use self::{endpoints::Endpoints, tokens::Tokens};
use super::QueuedJob;
use crate::{
    capabilities::Services,
    config::{self, ExecutorConfig, OfflineConfig},
};

/// The job of one agent, ready to be worked.
pub(crate) struct Task<'a> {
    pub(crate) queued: &'a QueuedJob,
    pub(crate) prompt: &'a str,
    pub(crate) agent: &'a Agent,
    pub(crate) model: &'a str,
    /// From 1, as tokens tell it: whoever hears a higher one forgets what a lower one brought.
    pub(crate) attempt: u32,
    /// When its answer is of no use any more.
    pub(crate) deadline: Instant,
    pub(crate) trace: &'a str,
    /// Somebody wants it to end.
    pub(crate) cancelled: CancellationToken,
}

/// What a backend made of a task.
pub(crate) enum Worked {
    Answered(Answered),
    /// Another executor has it now, under this id, and tells the fleet itself.
    Accepted {
        execution_id: String,
    },
    /// Not now: nothing was paid for, or the operator lets it be paid for twice. `kind` is what it fails as when it is not tried
    /// again.
    Later {
        error: String,
        kind: &'static str,
        after: Option<Duration>,
    },
    /// Never.
    Failed(Failed),
}

/// A model's answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answered {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) model: String,
    pub(crate) finish: Option<String>,
    pub(crate) temperature: f32,
    pub(crate) tokens_in: u64,
    pub(crate) tokens_out: u64,
    /// From asking to the first text, where it came in pieces.
    pub(crate) first_token: Option<Duration>,
    /// It was another job's, from the cache.
    pub(crate) cached: bool,
    /// Messages with its tokens that were stored for the fleet.
    pub(crate) chunks: u64,
    /// Whoever worked it tells the fleet itself: no events of ours.
    pub(crate) told: bool,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) error: String,
    /// One word, which stays.
    pub(crate) kind: &'static str,
    /// What was paid for all the same.
    pub(crate) tokens_in: u64,
    pub(crate) tokens_out: u64,
    /// As [`Answered::told`].
    pub(crate) told: bool,
}

impl Failed {
    pub(crate) fn new(kind: &'static str, error: impl Into<String>) -> Self {
        Self { error: error.into(), kind, tokens_in: 0, tokens_out: 0, told: false }
    }
}

/// How many jobs of a model are worked at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) model: String,
    pub(crate) concurrency: usize,
}

/// Who answers.
pub(crate) enum Backend {
    Offline { services: Arc<Services>, config: OfflineConfig, stored_tokens: bool },
    Fleet { services: Arc<Services>, upstream: String, config: Box<ExecutorConfig> },
    Queue(Box<Endpoints>),
}

impl Backend {
    /// Nothing is connected before the first job.
    ///
    /// # Errors
    /// All that is wrong with the endpoints, and files that can't be read.
    pub(crate) fn new(services: &Arc<Services>, config: &ExecutorConfig) -> anyhow::Result<Self> {
        Ok(match &config.backend {
            config::Backend::Offline => Self::Offline {
                services: services.clone(),
                config: config.offline.clone(),
                stored_tokens: config.stream_tokens,
            },
            config::Backend::Fleet { upstream } => Self::Fleet {
                services: services.clone(),
                upstream: upstream.clone(),
                config: Box::new(config.clone()),
            },
            config::Backend::Queue => Self::Queue(Box::new(Endpoints::new(services.clone(), config)?)),
        })
    }

    /// The models that it answers for. None: any.
    pub(crate) fn models(&self) -> Option<&[Places]> {
        match self {
            Self::Offline { .. } | Self::Fleet { .. } => None,
            Self::Queue(endpoints) => Some(endpoints.places()),
        }
    }

    pub(crate) fn serves(&self, model: &str) -> bool {
        self.models().is_none_or(|models| models.iter().any(|places| places.model == model))
    }

    /// Whatever waits for an endpoint is for later; what is being answered goes on.
    pub(crate) fn close(&self) {
        if let Self::Queue(endpoints) = self {
            endpoints.close();
        }
    }

    pub(crate) async fn work(&self, task: &Task<'_>) -> Worked {
        match self {
            Self::Offline { services, config, stored_tokens } => {
                let mut worked = offline::work(config, task);
                if let Worked::Answered(answered) = &mut worked
                    && let Some(tokens) = Tokens::wanted(&services.bus, task, *stored_tokens)
                {
                    tokens.whole(answered).await;
                }
                worked
            }
            Self::Fleet { services, upstream, config } => fleet::work(services, upstream, config, task).await,
            Self::Queue(endpoints) => endpoints.work(task).await,
        }
    }
}
