//! A story that goes on to another phase, told to those who know phases only.

use cofferdam_sdk::{
    Failure,
    fleet::{Incoming, PhaseChanged, Seen, StoryTransitioned, Timestamp},
    state,
};

use crate::{WRITER, dropped, malformed};

const SEEN: &str = "seen";

/// `planning.story.transitioned`.
pub(crate) fn transitioned(message: &Incoming) -> Result<(), Failure> {
    let moved = StoryTransitioned::read(message).map_err(malformed)?;
    message.keyed_by(&moved.story_id).map_err(malformed)?;
    let phases = message.text(&["from_phase"]).zip(message.text(&["to_phase"]));
    let of_states = || Some((of(moved.from_state.as_deref()?), of(&moved.to_state)));
    let Some((from_phase, to_phase)) = phases.or_else(of_states) else { return Ok(()) };
    if from_phase.eq_ignore_ascii_case(&to_phase) {
        return Ok(());
    }
    let mut seen: Seen = state::load(SEEN)?.unwrap_or_default();
    if !seen.first_time(message) {
        return dropped("duplicate");
    }
    let cause = message.cause();
    let changed = PhaseChanged {
        task_id: String::new(),
        story_id: moved.story_id,
        from_phase,
        to_phase,
        timestamp: Timestamp::now(),
    };
    WRITER.emit(&cause, &changed, &format!("phase:{}", cause.event_id))?;
    Ok(state::save(SEEN, &seen)?)
}

/// The agile phase of a state; one that the fleet does not know stands for itself.
fn of(state: &str) -> String {
    let phase = match state.to_uppercase().as_str() {
        "DRAFT" | "PO_REVIEW" => "DRAFT",
        "READY_FOR_PLANNING" | "PLANNED" => "DESIGN",
        "READY_FOR_EXECUTION" | "IN_PROGRESS" | "CODE_REVIEW" | "CARRY_OVER" => "BUILD",
        "TESTING" => "TEST",
        "READY_TO_REVIEW" => "DOCS",
        "ACCEPTED" | "DONE" | "ARCHIVED" => "DONE",
        _ => state,
    };
    phase.to_owned()
}
