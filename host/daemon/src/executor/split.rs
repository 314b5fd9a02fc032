//! A job of several agents becomes a job for each. The parts are put on their queues create-only, *before* the whole is ended by a
//! record that names them: a crash in between only puts them again, which changes nothing. The whole never ends by itself: it is
//! split whatever is wrong with it, and what is wrong ends each part. So an agent never has two ends.

use cofferdam_bus::Error;

use super::{
    QueuedJob,
    job::{Parent, Queue},
    queues::Queues,
};

/// The jobs of its agents; none where it has but one. `model`: of an agent that names none, where the job names none either.
pub(super) fn parts(whole: &QueuedJob, submitted: u64, model: &str) -> Vec<QueuedJob> {
    if whole.job.agents.len() < 2 || whole.parent.is_some() {
        return Vec::new();
    }
    let own = whole.id.rsplit('_').next().unwrap_or_default();
    let part = |(index, agent): (usize, &cofferdam_sandbox::Agent)| {
        let mut part = whole.clone();
        part.job.prompt = String::new();
        part.job.agents = vec![agent.clone()];
        part.job.model.get_or_insert_with(|| model.to_owned());
        part.id = Queue::of(&part.plugin, &part.job).id(&format!("{own}-a{index}"));
        part.parent = Some(Parent { id: whole.id.clone(), agents: whole.job.agents.len(), submitted });
        part
    };
    whole.job.agents.iter().enumerate().map(part).collect()
}

/// Puts the parts on their queues. Their ids.
pub(super) async fn put(queues: &Queues, parts: &[QueuedJob], trace: &str) -> Result<Vec<String>, Error> {
    for part in parts {
        queues.put(part, trace).await?;
    }
    Ok(parts.iter().map(|part| part.id.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{job, testing};

    #[test]
    fn each_agent_gets_a_job_in_the_queue_of_its_model() {
        let mut whole = testing::job(&["a", "b", "c"]);
        whole.job.model = Some("m".into());
        whole.job.agents[1].model = "other".into();
        let parts = parts(&whole, 7, "default");
        let ids: Vec<&str> = parts.iter().map(|part| part.id.as_str()).collect();
        let queue = |model: &str| Queue {
            plugin: "tester".into(),
            priority: whole.job.priority,
            model: model.into(),
        };
        let expected =
            [queue("m").id("o-1-j0-a0"), queue("other").id("o-1-j0-a1"), queue("m").id("o-1-j0-a2")];
        assert_eq!(ids, expected);
        for (part, agent) in parts.iter().zip(["a", "b", "c"]) {
            assert_eq!((part.job.agents.len(), part.job.agents[0].id.as_str()), (1, agent));
            assert_eq!(part.parent, Some(Parent { id: whole.id.clone(), agents: 3, submitted: 7 }));
            assert!(part.job.prompt.is_empty() && job::subject(&part.id).is_some());
            assert!(super::parts(part, 9, "default").is_empty(), "a part is not split again");
        }
        assert!(super::parts(&testing::job(&["a"]), 7, "m").is_empty());
    }
}
