//! What the tests of this folder share.

use std::sync::Arc;

use bytes::Bytes;
use cofferdam_bus::{
    Bus, Message,
    local::{self, LocalConfig},
};
use cofferdam_sandbox::{Agent, Job, Priority, Sampling};

use super::{QueuedJob, job::AnswerTo};

/// A bus, as long as its folder is there.
pub(crate) async fn bus() -> (Arc<dyn Bus>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let bus = local::open(LocalConfig { directory: folder.path().join("data") }).await.unwrap();
    (bus, folder)
}

/// A job for these agents.
pub(crate) fn job(agents: &[&str]) -> QueuedJob {
    let agent = |id: &&str| Agent {
        id: id.to_string(),
        role: "DEV".into(),
        model: String::new(),
        prompt_template: String::new(),
    };
    let job = Job {
        task_id: "t-1".into(),
        prompt: "Description: do it".into(),
        role: "DEV".into(),
        model: None,
        agents: agents.iter().map(agent).collect(),
        story_id: None,
        plan_id: Some("p-1".into()),
        timeout_seconds: 0,
        max_retries: 0,
        metadata: Vec::new(),
        priority: Priority::default(),
        sampling: Sampling::default(),
    };
    QueuedJob {
        id: "o-1-j0".into(),
        plugin: "tester".into(),
        job,
        answer: AnswerTo::Fleet,
        stream: false,
        parent: None,
    }
}

/// Empty messages on these subjects.
pub(super) fn messages(subjects: &[&str]) -> Vec<Message> {
    let empty =
        |subject: &&str| Message { subject: subject.to_string(), headers: Vec::new(), data: Bytes::new() };
    subjects.iter().map(empty).collect()
}
