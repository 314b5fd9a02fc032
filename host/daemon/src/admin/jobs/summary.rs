//! One job in a line, as the port tells it.

use fleet_proto::admin::v1::JobSummary;
use prost_types::Timestamp;

use super::super::reading::timestamp;
use crate::{
    executor::{
        job,
        look::{self, Standing, Whole},
    },
    observe::text,
};

/// `max_error`: of why it failed, in bytes.
pub(super) fn summary(whole: &Whole, standing: &Standing, max_error: usize) -> JobSummary {
    let mut told = JobSummary {
        id: whole.id.clone(),
        state: look::word(standing.phase).to_owned(),
        plugin: job::owner(&whole.id).unwrap_or_default().to_owned(),
        submitted_at: time(whole.submitted),
        started_at: time(standing.started),
        ended_at: time(standing.ended),
        worker: standing.worker.clone(),
        tokens_in: standing.tokens_in,
        tokens_out: standing.tokens_out,
        error: text::excerpt(standing.error.as_deref().unwrap_or_default(), max_error).into_owned(),
        error_type: standing.kind.clone().unwrap_or_default(),
        ..JobSummary::default()
    };
    if let Some(queued) = &whole.queued {
        let job = &queued.job;
        told.task_id.clone_from(&job.task_id);
        told.role.clone_from(&job.role);
        told.model = model(&job.agents, job.model.as_deref());
        job::word(job.priority).clone_into(&mut told.priority);
        told.agents = u32::try_from(job.agents.len()).unwrap_or(u32::MAX);
    } else if let Some(record) = &whole.record {
        told.task_id.clone_from(&record.task_id);
        told.role.clone_from(&record.role);
        told.model.clone_from(&record.model);
        told.agents = u32::try_from(record.parts.len().max(1)).unwrap_or(u32::MAX);
    }
    told
}

/// Of each agent, once, with commas between them.
fn model(agents: &[cofferdam_sandbox::Agent], of_job: Option<&str>) -> String {
    let mut models: Vec<&str> = Vec::new();
    for agent in agents {
        let model = if agent.model.is_empty() { of_job.unwrap_or_default() } else { &agent.model };
        if !models.contains(&model) {
            models.push(model);
        }
    }
    models.join(",")
}

/// Nothing where nobody knows.
pub(super) fn time(nanos: u64) -> Option<Timestamp> {
    (nanos > 0).then(|| timestamp(nanos))
}

#[cfg(test)]
mod tests {
    use cofferdam_sandbox::Agent;

    use super::*;

    #[test]
    fn the_models_of_all_agents_are_named_once() {
        let agent = |model: &str| Agent {
            id: "a".into(),
            role: "DEV".into(),
            model: model.into(),
            prompt_template: String::new(),
        };
        for (agents, expected) in [(&["", "b", ""][..], "m,b"), (&["b"], "b"), (&[""], "m"), (&[], "")] {
            let agents: Vec<Agent> = agents.iter().map(|model| agent(model)).collect();
            assert_eq!(model(&agents, Some("m")), expected);
        }
    }
}
