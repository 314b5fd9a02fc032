//! How a deliberation ended: who won, or why nobody did. Kept as its record, told as an event, counted.

use std::collections::BTreeMap;

use cofferdam_sdk::{
    Failure,
    fleet::{Cause, DeliberationCompleted, Timestamp},
    info, metrics, warn,
};
use fleet_proto::orchestrator::v1::{
    DeliberationResult, DeliberationStatus, GetDeliberationResultResponse, OrchestratorMetadata,
};
use serde_json::json;

use crate::{
    WRITER, collector,
    councils::Council,
    fit,
    hear::{self, Failed, Heard, TIMEOUT},
    record, scoring,
    task::Task,
    telling, text,
    totals::{Ended, What},
};

/// Of an id or a reason that rides along as a tag.
const TAG: usize = 1_000;

/// How the winner is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Rank 1.
    First,
    /// The architect's choice among so many of the best.
    Architect(usize),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) status: DeliberationStatus,
    /// Best first.
    pub(crate) results: Vec<DeliberationResult>,
    /// Of `results`; `None` along with an error.
    pub(crate) winner: Option<usize>,
    pub(crate) error: String,
    /// One word.
    pub(crate) error_type: String,
    pub(crate) duration_ms: i64,
    /// How long the run had waited for it, which the plugin's clock does not know.
    waited_ms: i64,
    failed: Vec<Failed>,
    asked: u32,
    tags: BTreeMap<String, String>,
}

impl Verdict {
    /// Nobody was asked.
    pub(crate) fn without(error_type: &str, error: String) -> Self {
        Self {
            status: DeliberationStatus::Failed,
            error,
            error_type: error_type.to_owned(),
            ..Self::default()
        }
    }

    /// What a council said; the architect is asked here.
    pub(crate) fn of(task: &Task, council: &Council, heard: Heard, choice: Choice) -> Result<Self, Failure> {
        let mut tags = BTreeMap::new();
        let mut tag = |name: &str, value: String| tags.insert(name.to_owned(), text::beginning(&value, TAG));
        tag("council", council.id());
        tag("rounds", heard.rounds.to_string());
        if heard.fitted.dropped > 0 {
            tag("dropped_revisions", heard.fitted.dropped.to_string());
        }
        if heard.fitted.cut > 0 {
            tag("cut_proposals", heard.fitted.cut.to_string());
        }
        if !heard.failed.is_empty() {
            tag("failed_agents", hear::reasons(&heard.failed));
        }
        let Heard { mut results, failed, asked, duration_ms, .. } = heard;
        fit::results(&mut results, fit::RESULTS);
        let winner = match choice {
            _ if results.is_empty() => None,
            Choice::First => Some(0),
            Choice::Architect(most) => {
                let best = &results[..most.min(results.len())];
                let chosen = scoring::select(&hear::subject(task), best)?;
                tag("selected_by", "architect".into());
                tag("selection", chosen.reason);
                Some(chosen.index)
            }
        };
        let verdict = Self {
            results,
            winner,
            duration_ms,
            waited_ms: duration_ms,
            failed,
            asked,
            tags,
            ..Self::default()
        };
        Ok(if winner.is_some() {
            Self { status: DeliberationStatus::Completed, ..verdict }
        } else {
            verdict.of_nobody(council)
        })
    }

    /// What agents answered of themselves, best first. Without all of them the best is still told, and nothing is decided.
    pub(crate) fn collected(
        status: DeliberationStatus,
        results: Vec<DeliberationResult>,
        error: String,
        failed: Vec<Failed>,
        asked: u32,
        duration_ms: i64,
    ) -> Self {
        let ranked = matches!(status, DeliberationStatus::Completed | DeliberationStatus::Timeout);
        let winner = (ranked && !results.is_empty()).then_some(0);
        Self { status, results, winner, error, failed, asked, duration_ms, ..Self::default() }
    }

    /// All agents failed.
    fn of_nobody(self, council: &Council) -> Self {
        let late = self.failed.iter().all(|agent| agent.kind == TIMEOUT);
        Self {
            status: if late { DeliberationStatus::Timeout } else { DeliberationStatus::Failed },
            error: format!("no agent of {} answered: {}", council.id(), hear::reasons(&self.failed)),
            error_type: self.failed.first().map_or_else(String::new, |agent| agent.kind.clone()),
            ..self
        }
    }

    pub(crate) fn won(&self) -> Option<&DeliberationResult> {
        self.results.get(self.winner?)
    }

    pub(crate) fn winner_id(&self) -> &str {
        self.won().map_or("", telling::author)
    }

    /// For the log, the metric and the event.
    fn word(&self) -> &'static str {
        match self.status {
            DeliberationStatus::Completed => "completed",
            DeliberationStatus::Timeout => "timeout",
            _ => "failed",
        }
    }

    pub(crate) fn metadata(&self, execution_id: &str) -> OrchestratorMetadata {
        metadata(execution_id, self.tags.clone())
    }

    /// As it is kept.
    pub(crate) fn record(&self, task_id: &str, execution_id: &str) -> GetDeliberationResultResponse {
        GetDeliberationResultResponse {
            task_id: task_id.to_owned(),
            status: self.status.into(),
            results: self.results.clone(),
            winner_id: self.winner_id().to_owned(),
            duration_ms: self.duration_ms,
            error_message: self.error.clone(),
            metadata: Some(self.metadata(execution_id)),
        }
    }

    /// Keeps it as the record of the task, tells of it, and has it counted, and forgotten in time.
    pub(crate) fn conclude(
        &self,
        cause: &Cause,
        task: &Task,
        execution_id: &str,
        what: What,
    ) -> Result<(), Failure> {
        record::save(&self.record(&task.task_id, execution_id))?;
        let mut decision_id = telling::decision_id(&task.task_id);
        match what {
            // An agent's work is not to take the place of what a council decided about it.
            What::Collection if self.asked == 1 => decision_id.push_str("-ANSWER"),
            What::Collection => {}
            What::Deliberation | What::Orchestration => collector::superseded()?,
        }
        self.tell(cause, task, execution_id, decision_id)?;
        let ended = Ended::new(&task.task_id, execution_id, what, self.duration_ms);
        WRITER.emit(cause, &ended, &format!("ended:{execution_id}"))?;
        Ok(())
    }

    /// `orchestration.deliberation.completed`.
    pub(crate) fn tell(
        &self,
        cause: &Cause,
        task: &Task,
        execution_id: &str,
        decision_id: String,
    ) -> Result<(), Failure> {
        let waited = u64::try_from(self.waited_ms).unwrap_or_default().saturating_mul(1_000_000);
        let now = Timestamp::from_nanos(Timestamp::now().nanos().saturating_add(waited));
        let failed = |agent: &Failed| json!({"agent_id": agent.agent_id, "error": agent.error, "error_type": agent.kind});
        let won = self.won();
        let told = DeliberationCompleted {
            task_id: task.task_id.clone(),
            story_id: task.story_id.clone(),
            decisions: won
                .filter(|_| self.status == DeliberationStatus::Completed)
                .map(|winner| telling::decision(decision_id, &task.task_id, winner, self.results.len()))
                .into_iter()
                .collect(),
            deliberation_id: execution_id.to_owned(),
            status: self.word().to_owned(),
            role: task.role.clone(),
            winner_id: self.winner_id().to_owned(),
            result: won.map(telling::winners_text),
            error: Some(self.error.clone()).filter(|error| !error.is_empty()),
            results: telling::answers(&self.results),
            failed_agents: self.failed.iter().map(failed).collect(),
            total_agents: self.asked,
            successful_responses: u32::try_from(self.results.len()).unwrap_or(u32::MAX),
            failed_responses: u32::try_from(self.failed.len()).unwrap_or(u32::MAX),
            duration_ms: self.duration_ms,
            completed_at: now,
            timestamp: now,
        };
        WRITER.emit(cause, &told, &format!("{}:{execution_id}:{}", self.word(), task.role))?;
        metrics::count("council_deliberations", &[("status", self.word())])?;
        metrics::observe("council_deliberation_ms", &[], self.duration_ms as f64)?;
        match won {
            Some(winner) => {
                info!("deliberated"; task_id = task.task_id, role = task.role, winner = telling::author(winner),
                score = winner.score, of = self.results.len(), duration_ms = self.duration_ms)
            }
            None => {
                warn!("a deliberation came to nothing"; task_id = task.task_id, role = task.role, error = self.error);
            }
        }
        Ok(())
    }
}

/// Who says so.
pub(crate) fn metadata(execution_id: &str, tags: BTreeMap<String, String>) -> OrchestratorMetadata {
    OrchestratorMetadata {
        orchestrator_version: env!("CARGO_PKG_VERSION").into(),
        timestamp_ms: i64::try_from(Timestamp::now().nanos() / 1_000_000).unwrap_or_default(),
        execution_id: execution_id.to_owned(),
        tags,
    }
}
