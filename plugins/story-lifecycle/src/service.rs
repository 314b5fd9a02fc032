//! `fleet.planning.v2.PlanningService`, as far as the story machine needs it.

use cofferdam_sdk::{
    fleet::{Cause, Timestamp},
    service::{self, Call, Status},
};
use fleet_proto::planning::v2::{GetStoryRequest, TransitionStoryRequest, TransitionStoryResponse};

use crate::{machine::Machine, settings, story::Story};

/// One call of any of the plugin's methods.
pub(crate) fn serve(call: Call) -> Result<Vec<u8>, Status> {
    match call.name() {
        "TransitionStory" => service::answer(&transition(&call)?),
        "GetStory" => {
            let request: GetStoryRequest = call.read()?;
            let story = known(&request.story_id)?;
            service::answer(&story.shown().ok_or_else(|| unknown(&request.story_id))?)
        }
        _ => Err(Status::unimplemented(&call)),
    }
}

/// One legal step, or an answer that says why there is none.
fn transition(call: &Call) -> Result<TransitionStoryResponse, Status> {
    let request: TransitionStoryRequest = call.read()?;
    let mut story = known(&request.story_id)?;
    let target = request.target_state.trim();
    if target.is_empty() {
        return Err(Status::invalid_argument(
            "target_state is empty; name the state that the story is to go to",
        ));
    }
    let machine = settings::machine()?;
    let from = story.state().unwrap_or_default().to_owned();
    let Some(to) = machine.name(target).filter(|to| machine.may_go(&from, to)) else {
        let (story, message) = (story.shown(), refusal(&machine, &request.story_id, &from, target));
        return Ok(TransitionStoryResponse { story, success: false, message });
    };
    let by = match request.transitioned_by.trim() {
        "" => "unknown",
        by => by,
    };
    let cause = Cause::of_call(call);
    story.step(&machine, &cause, to, by, Timestamp::from_nanos(call.timestamp))?;
    story.heed_waiting(&machine, &cause)?;
    let shown = story.shown();
    story.save()?;
    Ok(TransitionStoryResponse { story: shown, success: true, message: format!("{from} -> {to}") })
}

/// The story of the call's cell.
fn known(story_id: &str) -> Result<Story, Status> {
    if story_id.trim().is_empty() {
        return Err(Status::invalid_argument("story_id is empty; name the story"));
    }
    let story = Story::load(story_id)?;
    if story.state().is_some() { Ok(story) } else { Err(unknown(story_id)) }
}

fn unknown(story_id: &str) -> Status {
    Status::not_found(format!("nobody has told of a story {story_id:?}; planning.story.created opens one"))
}

fn refusal(machine: &Machine, story_id: &str, from: &str, target: &str) -> String {
    let mut legal: Vec<&str> = machine.next(from).iter().map(String::as_str).collect();
    legal.extend(machine.reset().filter(|reset| !legal.contains(reset)));
    let legal = legal.join(", ");
    match machine.name(target) {
        Some(to) => format!("story {story_id:?} is in {from}, which does not go to {to}; legal are: {legal}"),
        None => {
            let states: Vec<&str> = machine.names().collect();
            format!(
                "there is no state {target:?}; story {story_id:?} is in {from}, from where legal are: {legal}; all states: {}",
                states.join(", ")
            )
        }
    }
}
