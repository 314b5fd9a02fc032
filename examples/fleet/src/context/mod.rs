//! The Context service: what an agent of some role should know of a story, and what was found out or decided since.

pub(crate) mod show;
mod text;
mod update;

use std::time::Duration;

use fleet_proto::context::v1::{
    GetContextRequest, GetContextResponse, PromptBlocks, UpdateContextRequest, UpdateContextResponse,
    context_service_server::ContextService,
};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status, async_trait};

pub(crate) use self::text::Texts;
use self::text::{Story, describe, shorten, tokens};
use crate::{
    events::hex,
    faults::Faults,
    once::once,
    roles,
    store::{
        Error, Store, knowledge, plans,
        tasks::{self, Of},
    },
};

const DECISION: &str = "DECISION";

pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) texts: Texts,
    /// Answer every call with UNAVAILABLE.
    pub(crate) down: bool,
    pub(crate) faults: Faults,
    /// Between what `UpdateContext` does and its answer.
    pub(crate) lag: Duration,
}

#[async_trait]
impl ContextService for Context {
    async fn get_context(
        &self,
        request: Request<GetContextRequest>,
    ) -> Result<Response<GetContextResponse>, Status> {
        self.up()?;
        self.faults.before("GetContext").await?;
        let request = request.into_inner();
        if request.story_id.is_empty() {
            return Err(Status::invalid_argument("story_id is empty; name the story"));
        }
        if request.token_budget < 0 {
            return Err(Status::invalid_argument("token_budget is negative; 0 is for no limit"));
        }
        let role = roles::canonical(&request.role);
        let story = self.story(request.story_id).await?;
        let (text, scopes) = match self.texts.of(&role) {
            Some(text) => (text.clone(), vec!["file"]),
            None => {
                let mut scopes = vec!["story", "plan", "tasks"];
                if !story.decisions.is_empty() {
                    scopes.push("decisions");
                }
                (describe(&story, &role, &request.subtask_id), scopes)
            }
        };
        let context = shorten(text, request.token_budget);
        let version = hex(&Sha256::digest(&context)).chars().take(16).collect();
        self.faults.after("GetContext")?;
        Ok(Response::new(GetContextResponse {
            token_count: i32::try_from(tokens(&context)).unwrap_or(i32::MAX),
            scopes: scopes.into_iter().map(str::to_owned).collect(),
            version,
            blocks: Some(PromptBlocks {
                system: format!("You work as {role} in the phase {}.", request.phase),
                context: context.clone(),
                tools: String::new(),
            }),
            context,
        }))
    }

    async fn update_context(
        &self,
        request: Request<UpdateContextRequest>,
    ) -> Result<Response<UpdateContextResponse>, Status> {
        self.up()?;
        self.faults.before("UpdateContext").await?;
        let answer = once(&self.store, "UpdateContext", request, update::update).await?;
        tokio::time::sleep(self.lag).await;
        self.faults.after("UpdateContext")?;
        Ok(answer)
    }
}

impl Context {
    fn up(&self) -> Result<(), Status> {
        if self.down { Err(Status::unavailable("down on demand (--context-down)")) } else { Ok(()) }
    }

    /// What is known of a story, to Planning or by what was told since.
    async fn story(&self, story_id: String) -> Result<Story, Error> {
        self.store
            .read(move |transaction| {
                let decisions: Vec<_> = knowledge::list(transaction, &story_id)?
                    .into_iter()
                    .filter(|entity| entity.entity_type == DECISION)
                    .collect();
                let title = match plans::story(transaction, &story_id) {
                    Ok(story) => story.title,
                    Err(Error::Unknown { .. }) if !decisions.is_empty() => String::new(),
                    Err(error) => return Err(error),
                };
                Ok(Story {
                    title,
                    plan: plans::of_story(transaction, &story_id)?,
                    tasks: tasks::list(transaction, Of::Story(&story_id))?,
                    decisions,
                    story_id,
                })
            })
            .await
    }
}
