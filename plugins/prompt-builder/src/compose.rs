//! What the prompt is made of: the plan, which a derivation can't do without, and the context of each role, which it
//! can.

use cofferdam_sdk::{
    fleet::{Record, Role},
    rpc::{self, Status},
    warn,
};
use fleet_derivation::{Trouble, plan};
use fleet_proto::context::v1::{GetContextRequest, GetContextResponse};

use crate::{prompt, settings::Settings};

const GET_CONTEXT: &str = "fleet.context.v1.ContextService/GetContext";
/// Of all roles together: well below the executor's limit for a prompt, which the plan has to fit into as well.
const CONTEXT_BYTES: usize = 96 << 10;

/// Completes the record (story, title, roles) from the plan and writes the prompt.
pub(crate) fn compose(record: &mut Record, settings: &Settings) -> Result<String, Trouble> {
    let plan = plan(record)?;
    let context = context(record, settings);
    let inputs = prompt::Inputs { plan: &plan, roles: &record.roles, context: &context };
    Ok(prompt::render(settings, &inputs))
}

/// What the roles should know of the story, as far as Context answers.
fn context(record: &mut Record, settings: &Settings) -> String {
    let mut text = String::new();
    for task_role in record.roles.clone() {
        let role = Role::parse(&task_role).map_or(task_role, |role| role.wire().to_owned());
        let request = GetContextRequest {
            story_id: record.story_id.clone(),
            role: role.clone(),
            phase: settings.context_phase.clone(),
            subtask_id: String::new(),
            token_budget: settings.context_token_budget,
        };
        let answer: Result<GetContextResponse, Status> = rpc::unary("context", GET_CONTEXT, &request);
        let warning = match answer {
            Ok(answer) if answer.context.trim().is_empty() => continue,
            Ok(answer) if text.len() + answer.context.len() <= CONTEXT_BYTES => {
                text.push_str(&format!("For {role}:\n{}\n\n", answer.context.trim()));
                continue;
            }
            Ok(answer) => {
                format!("the context for {role} has {} bytes, too many: left out", answer.context.len())
            }
            Err(status) => format!("going on without the context for {role}: {status}"),
        };
        warn!("{warning}"; plan_id = record.plan_id, story_id = record.story_id);
        record.warn(warning);
    }
    text.trim_end().to_owned()
}
