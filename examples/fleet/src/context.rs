//! The Context service: what an agent of some role should know of a story. It is made from Planning's tables, or read
//! from a file where the operator has something better to say.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use anyhow::Context as _;
use fleet_proto::context::v1::{
    GetContextRequest, GetContextResponse, PromptBlocks, context_service_server::ContextService,
};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status, async_trait};

use crate::{
    events::hex,
    roles,
    store::{
        Error, Store,
        plans::{self, Plan},
        tasks::{self, Of, Task},
    },
};

/// Characters per token, the usual rule of thumb for English text.
const CHARS_PER_TOKEN: usize = 4;

/// Texts that stand in for what the tables would give: by role, and under the empty name for all others.
#[derive(Debug, Default)]
pub(crate) struct Texts(BTreeMap<String, String>);

impl Texts {
    /// Reads the files of `FILE` or `ROLE=FILE`.
    pub(crate) fn read(files: &[String]) -> anyhow::Result<Texts> {
        let mut texts = BTreeMap::new();
        for file in files {
            let (role, path) = match file.split_once('=') {
                Some((role, path)) => (roles::canonical(role), PathBuf::from(path)),
                None => (String::new(), PathBuf::from(file)),
            };
            let text = std::fs::read_to_string(&path).with_context(|| {
                format!("can't read the context file {} (--context-file)", path.display())
            })?;
            texts.insert(role, text);
        }
        Ok(Texts(texts))
    }

    fn of(&self, role: &str) -> Option<&String> {
        self.0.get(role).or_else(|| self.0.get(""))
    }
}

pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) texts: Texts,
    /// Answer every call with UNAVAILABLE.
    pub(crate) down: bool,
}

#[async_trait]
impl ContextService for Context {
    async fn get_context(
        &self,
        request: Request<GetContextRequest>,
    ) -> Result<Response<GetContextResponse>, Status> {
        if self.down {
            return Err(Status::unavailable("down on demand (--context-down)"));
        }
        let request = request.into_inner();
        if request.story_id.is_empty() {
            return Err(Status::invalid_argument("story_id is empty; name the story"));
        }
        if request.token_budget < 0 {
            return Err(Status::invalid_argument("token_budget is negative; 0 is for no limit"));
        }
        let role = roles::canonical(&request.role);
        let story_id = request.story_id.clone();
        let (title, plan, tasks) = self
            .store
            .read(move |transaction| {
                let story = plans::story(transaction, &story_id)?;
                let plan = plans::of_story(transaction, &story_id)?;
                Ok::<_, Error>((story.title, plan, tasks::list(transaction, Of::Story(&story_id))?))
            })
            .await?;
        let (text, scopes) = match self.texts.of(&role) {
            Some(text) => (text.clone(), vec!["file".to_owned()]),
            None => (
                describe(&request, &role, &title, plan.as_ref(), &tasks),
                vec!["story".to_owned(), "plan".to_owned(), "tasks".to_owned()],
            ),
        };
        let context = shorten(text, request.token_budget);
        let version = hex(&Sha256::digest(&context)).chars().take(16).collect();
        Ok(Response::new(GetContextResponse {
            token_count: i32::try_from(tokens(&context)).unwrap_or(i32::MAX),
            scopes,
            version,
            blocks: Some(PromptBlocks {
                system: format!("You work as {role} in the phase {}.", request.phase),
                context: context.clone(),
                tools: String::new(),
            }),
            context,
        }))
    }
}

fn describe(
    request: &GetContextRequest,
    role: &str,
    title: &str,
    plan: Option<&Plan>,
    tasks: &[Task],
) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let mut line = |line: String| writeln!(text, "{line}").unwrap_or_default();
    line(format!("Story {}: {title}", request.story_id));
    if let Some(plan) = plan {
        if plan.title != title {
            line(format!("Current plan: {}", plan.title));
        }
        if plan.approvals > 0 {
            line("The product owner has approved the plan.".to_owned());
        }
    }
    line(format!("What matters to {role}: {}", focus(role)));
    let about: Vec<&Task> = tasks
        .iter()
        .filter(|task| request.subtask_id.is_empty() || task.task_id == request.subtask_id)
        .collect();
    if about.is_empty() {
        line("No tasks exist yet.".to_owned());
    } else {
        line("Tasks so far:".to_owned());
        for task in about {
            line(format!("- {} ({}, {})", task.title, task.task_id, task.assigned_role));
        }
    }
    text
}

fn focus(role: &str) -> &'static str {
    match role {
        "DEVELOPER" => "small changes that can be reviewed alone, each with its tests.",
        "QA" => "every acceptance criterion has a test that fails without the feature.",
        "ARCHITECT" => "clear boundaries between parts; decisions that cost much to change come first.",
        "PO" => "each task leaves something that can be shown.",
        "DEVOPS" => "roll-out and roll-back without downtime; metrics before traffic.",
        "DATA" => "migrations that run while the old version still serves.",
        _ => "tasks that can be done one after another without waiting for people.",
    }
}

fn tokens(text: &str) -> usize {
    text.chars().count().div_ceil(CHARS_PER_TOKEN)
}

/// Cuts the text to the budget; 0 is no limit.
fn shorten(text: String, budget: i32) -> String {
    match usize::try_from(budget) {
        Ok(budget) if budget > 0 && tokens(&text) > budget => {
            text.chars().take(budget.saturating_mul(CHARS_PER_TOKEN)).collect()
        }
        _ => text,
    }
}
