//! OpenAI-compatible endpoints: a job becomes a chat completion, what comes back an answer, or a failure with its word.

use std::{fs, sync::Arc, time::Duration};

use anyhow::Context as _;
use cofferdam_inference::{
    Answer, ChatRequest, EndpointConfig, Failure, Finish, Kind, Limits, Member, ModelConfig, Pool,
    PoolConfig, Repeat, Secret, Served, TokenLimit, Work,
};
use tokio::time::{Instant, timeout_at};

use super::{
    Answered, Failed, Places, Task, Worked,
    cache::{Cache, Found},
    chat::{is_repeated, request},
    tokens::Tokens,
};
use crate::{
    capabilities::Services,
    config::{EndpointSettings, ExecutorConfig, InferenceConfig},
};

/// No job is kept for longer.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of text in a token, where an endpoint does not count them.
const BYTES_PER_TOKEN: usize = 4;

/// The endpoints of one process.
pub(crate) struct Endpoints {
    services: Arc<Services>,
    pool: Pool,
    places: Vec<Places>,
    cache: Option<Cache>,
    /// Tokens are stored for the fleet, too.
    stored_tokens: bool,
    repeat_unknown: bool,
}

impl Endpoints {
    /// Nothing is connected before the first request.
    ///
    /// # Errors
    /// All that is wrong with the configuration, and a file that can't be read.
    pub(super) fn new(services: Arc<Services>, config: &ExecutorConfig) -> anyhow::Result<Self> {
        let inference = &config.inference;
        let pool = pool(inference)?;
        let asked = pool.clone();
        services.metrics.executor.follow(Box::new(move || asked.statistics()));
        Ok(Self {
            cache: config.cache.map(|kept| Cache::new(services.bus.clone(), kept)),
            services,
            pool,
            places: places(inference),
            stored_tokens: config.stream_tokens,
            repeat_unknown: inference.repeat_unknown,
        })
    }

    pub(super) fn places(&self) -> &[Places] {
        &self.places
    }

    pub(super) fn serves(&self, model: &str) -> bool {
        self.places.iter().any(|places| places.model == model)
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }

    pub(super) async fn work(&self, task: &Task<'_>) -> Worked {
        if !self.serves(task.model) {
            return Worked::Failed(self.unknown(task.model));
        }
        let request = match request(task) {
            Ok(request) => request,
            Err(error) => return Worked::Failed(Failed::new("refused", error)),
        };
        tokio::select! {
            biased;
            // What is being asked is dropped, and its connection closed.
            () = task.cancelled.cancelled() => Worked::Failed(Failed::new("cancelled", "it was cancelled while it was worked")),
            worked = self.shared(task, &request) => worked,
        }
    }

    /// The answer of an identical request, or one of its own.
    async fn shared(&self, task: &Task<'_>, request: &ChatRequest) -> Worked {
        let Some(cache) = &self.cache else { return self.asked(task, request).await };
        let found = timeout_at(task.deadline, cache.find(request, is_repeated(task))).await;
        let metrics = &self.services.metrics.executor;
        match found {
            Err(_) => {
                let error =
                    "no answer by its deadline: it waited for an identical request; give it more time";
                Worked::Failed(Failed::new("timeout", error))
            }
            Ok(Found::Answer(mut answered)) => {
                metrics.cache_hits.with_label_values(&[task.model]).inc();
                if let Some(tokens) = self.tokens(task) {
                    tokens.whole(&mut answered).await;
                }
                Worked::Answered(answered)
            }
            Ok(Found::Nothing(place)) => {
                metrics.cache_misses.with_label_values(&[task.model]).inc();
                let worked = self.asked(task, request).await;
                if let Worked::Answered(answered) = &worked
                    && is_whole(answered)
                {
                    place.keep(answered);
                }
                worked
            }
        }
    }

    async fn asked(&self, task: &Task<'_>, request: &ChatRequest) -> Worked {
        let answer = match self.tokens(task) {
            None => self.pool.complete(request).await.map(|answer| (answer, 0)),
            Some(tokens) => match self.pool.stream(request).await {
                Ok(stream) => tokens.hear(stream).await,
                Err(failure) => Err(failure),
            },
        };
        match answer {
            Ok((answer, chunks)) => Worked::Answered(Answered { chunks, ..answered(task, request, answer) }),
            Err(failure) => worked(failure, task.deadline, self.repeat_unknown),
        }
    }

    fn tokens(&self, task: &Task<'_>) -> Option<Tokens> {
        Tokens::wanted(&self.services.bus, task, self.stored_tokens)
    }

    fn unknown(&self, model: &str) -> Failed {
        let known: Vec<String> = self.places.iter().map(|places| format!("{:?}", places.model)).collect();
        let known = known.join(", ");
        Failed::new(
            "unknown_model",
            format!(
                "no endpoint serves the model {model:?}; there are {known}; add [executor.models], or name one of these"
            ),
        )
    }
}

/// Not cut off, by whomever.
fn is_whole(answered: &Answered) -> bool {
    answered.finish.as_deref().is_none_or(|finish| finish == Finish::Stop.as_str())
}

fn answered(task: &Task<'_>, request: &ChatRequest, answer: Answer) -> Answered {
    let estimated = |bytes: usize| bytes.div_ceil(BYTES_PER_TOKEN) as u64;
    let (tokens_in, tokens_out) = match answer.usage {
        Some(usage) => (usage.tokens_in, usage.tokens_out),
        None => {
            let asked = request.messages.iter().map(|message| message.content.len()).sum();
            (estimated(asked), estimated(answer.content.len() + answer.reasoning.len()))
        }
    };
    Answered {
        text: answer.content,
        reasoning: answer.reasoning,
        model: answer.model.unwrap_or_else(|| task.model.to_owned()),
        finish: answer.finish.map(|finish| finish.as_str().to_owned()),
        temperature: request.temperature.unwrap_or_default(),
        tokens_in,
        tokens_out,
        first_token: answer.first_token_after,
        ..Answered::default()
    }
}

/// What a failure means for its job.
fn worked(failure: Failure, deadline: Instant, repeat_unknown: bool) -> Worked {
    let (kind, after) = (failure.kind.as_str(), failure.retry_after);
    let error = failure.to_string();
    // Nobody is asked any more: another worker does it.
    if failure.kind == Kind::Cancelled {
        return Worked::Later { error, kind: "unavailable", after: None };
    }
    let may_be_repeated = failure.is_safe_to_retry() || (repeat_unknown && failure.work == Work::Unknown);
    // Where nothing was sent because endpoints are left alone for a while, that passes whatever they ail from.
    let passes = failure.may_pass() || (failure.work == Work::NotSent && after.is_some());
    let in_time = Instant::now() + after.unwrap_or_default() < deadline;
    if passes && may_be_repeated && in_time {
        return Worked::Later { error, kind, after };
    }
    let usage = failure.usage.unwrap_or_default();
    let error = if passes && may_be_repeated {
        format!("{error}; its deadline comes before it may be asked again")
    } else {
        error
    };
    Worked::Failed(Failed {
        error,
        kind,
        tokens_in: usage.tokens_in,
        tokens_out: usage.tokens_out,
        told: false,
    })
}

/// Whether workers could ask these endpoints: files and all, without asking.
///
/// # Errors
/// All that is wrong.
pub fn examine(config: &InferenceConfig) -> anyhow::Result<()> {
    pool(config).map(drop)
}

fn pool(config: &InferenceConfig) -> anyhow::Result<Pool> {
    let endpoints = config.endpoints.iter().map(member).collect::<anyhow::Result<_>>()?;
    let models = config.models.iter().map(|model| ModelConfig {
        name: model.name.clone(),
        concurrency: model.concurrency as usize,
        served: model
            .endpoints
            .iter()
            .map(|(endpoint, model)| Served { endpoint: endpoint.clone(), model: model.clone() })
            .collect(),
    });
    let config = PoolConfig {
        endpoints,
        models: models.collect(),
        attempts: config.attempts,
        // A job has a deadline of its own.
        whole: LONGEST,
        repeat: if config.repeat_unknown { Repeat::Unknown } else { Repeat::Unworked },
        ..PoolConfig::default()
    };
    Pool::new(config).context("[executor.endpoints] and [executor.models]")
}

fn member(settings: &EndpointSettings) -> anyhow::Result<Member> {
    let name = &settings.name;
    let ca = settings.ca.as_ref().map(|file| {
        fs::read(file)
            .with_context(|| format!("executor.endpoints.{name}.ca: {} can't be read", file.display()))
    });
    let limits = Limits {
        connect: settings.connect_timeout,
        first: settings.first_timeout,
        idle: settings.idle_timeout,
        whole: settings.timeout,
        max_answer: settings.max_answer,
    };
    let token_limit =
        if settings.max_completion_tokens { TokenLimit::MaxCompletionTokens } else { TokenLimit::MaxTokens };
    let endpoint = EndpointConfig {
        bearer: settings.token.as_ref().map(|token| Secret::new(token.reveal())),
        ca: ca.transpose()?,
        limits,
        token_limit,
        ..EndpointConfig::new(name.clone(), settings.url.reveal())
    };
    Ok(Member { endpoint, concurrency: settings.concurrency as usize })
}

/// Of each model as many as it and its endpoints take.
fn places(config: &InferenceConfig) -> Vec<Places> {
    let at = |name: &str| {
        config.endpoints.iter().find(|endpoint| endpoint.name == name).map_or(0, |e| e.concurrency)
    };
    let places = config.models.iter().map(|model| {
        let together = model.endpoints.iter().map(|(name, _)| at(name)).fold(0, u32::saturating_add);
        Places { model: model.name.clone(), concurrency: model.concurrency.min(together) as usize }
    });
    places.collect()
}

#[cfg(test)]
mod tests {
    use cofferdam_inference::{Late, Usage};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::executor::testing;

    fn failure(kind: Kind, work: Work, retry_after: Option<u64>) -> Failure {
        Failure {
            kind,
            work,
            status: None,
            retry_after: retry_after.map(Duration::from_secs),
            endpoint: "e".into(),
            model: "m".into(),
            detail: "d".into(),
            usage: Some(Usage { tokens_in: 3, tokens_out: 4 }),
        }
    }

    #[test]
    fn only_what_may_pass_and_is_not_paid_for_twice_is_for_later() {
        let hung = Kind::Timeout(Late::Answer);
        for (failure, repeat_unknown, later) in [
            (failure(Kind::Unreachable, Work::NotSent, None), false, Some("unreachable")),
            (failure(Kind::Overloaded, Work::NotWorked, Some(5)), false, Some("overloaded")),
            (failure(Kind::ServerError, Work::Unknown, None), false, None),
            (failure(Kind::ServerError, Work::Unknown, None), true, Some("server_error")),
            (failure(Kind::Truncated, Work::Unknown, None), true, Some("truncated")),
            (failure(hung, Work::Unknown, None), false, None),
            (failure(hung, Work::Unknown, None), true, Some("hung")),
            (failure(Kind::Timeout(Late::Deadline), Work::NotSent, None), true, None),
            (failure(Kind::Empty, Work::Worked, None), true, None),
            (failure(Kind::TooLarge, Work::Worked, None), true, None),
            (failure(Kind::Unauthorized, Work::NotWorked, None), true, None),
            (failure(Kind::ModelMissing, Work::NotWorked, None), true, None),
            (failure(Kind::Refused, Work::NotWorked, None), true, None),
            (failure(Kind::Malformed, Work::NotWorked, None), true, None),
            (failure(Kind::Malformed, Work::NotSent, Some(5)), false, Some("malformed")),
            (failure(Kind::Cancelled, Work::NotSent, None), false, Some("unavailable")),
        ] {
            let (told, after) = (failure.to_string(), failure.retry_after);
            let kind = failure.kind.as_str();
            match worked(failure, Instant::now() + Duration::from_secs(60), repeat_unknown) {
                Worked::Later { error, kind, after: when } => {
                    assert_eq!((Some(kind), error, when), (later, told, after));
                }
                Worked::Failed(failed) => {
                    assert_eq!((None, failed.kind, failed.error), (later, kind, told));
                    assert_eq!((failed.tokens_in, failed.tokens_out), (3, 4));
                }
                _ => panic!("{told}"),
            }
        }
    }

    #[test]
    fn what_may_be_asked_again_only_after_its_deadline_has_failed() {
        let busy = failure(Kind::Overloaded, Work::NotWorked, Some(120));
        let Worked::Failed(failed) = worked(busy, Instant::now() + Duration::from_secs(60), false) else {
            panic!("it is for later");
        };
        assert_eq!(failed.kind, "overloaded");
        assert!(
            failed.error.ends_with("; its deadline comes before it may be asked again"),
            "{}",
            failed.error
        );
    }

    #[test]
    fn an_answer_that_nobody_counted_is_estimated() {
        let queued = testing::job(&["a"]);
        let task = Task {
            queued: &queued,
            prompt: "",
            agent: &queued.job.agents[0],
            model: "m",
            attempt: 1,
            deadline: Instant::now(),
            trace: "",
            cancelled: CancellationToken::new(),
        };
        let request = ChatRequest::new("m", "x".repeat(401));
        let answer = Answer { content: "y".repeat(8), reasoning: "z".repeat(4), ..Answer::default() };
        let counted = Answer { usage: Some(Usage { tokens_in: 5, tokens_out: 6 }), ..answer.clone() };
        let tokens = |answer| {
            let answered = answered(&task, &request, answer);
            (answered.tokens_in, answered.tokens_out)
        };
        assert_eq!((tokens(answer), tokens(counted)), ((101, 3), (5, 6)));
    }
}
