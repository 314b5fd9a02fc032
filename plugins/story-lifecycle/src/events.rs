//! What each message means for a story. Whose word counts is decided by when the bus stored it, for messages of different subjects
//! come in any order.

use cofferdam_sdk::{
    Failure,
    fleet::{DerivationCompleted, Incoming, StoryCreated, StoryTransitioned, TaskCreated},
    info, warn,
};

use crate::{
    dropped,
    machine::{Machine, folded, trigger},
    malformed, settings,
    story::{AT_ONCE_MS, Story},
};

/// `planning.story.created`: opens the story, and brings no story back that is on its way.
pub(crate) fn created(message: &Incoming, created: StoryCreated) -> Result<(), Failure> {
    message.keyed_by(&created.story_id).map_err(malformed)?;
    let machine = settings::machine()?;
    let mut story = Story::load(&created.story_id)?;
    if !story.seen.first_time(message) {
        return dropped("duplicate");
    }
    if story.state().is_none() {
        let told = created.state.as_deref();
        let state = told.and_then(|state| machine.name(state));
        if let (Some(told), None) = (told, state) {
            warn!("it is created in a state that the machine does not have"; story_id = story.story_id, state = told);
        }
        let state = state.unwrap_or(machine.initial());
        story.open(state, message.arrival());
        info!("opened"; story_id = story.story_id, state = state);
        story.heed_waiting(&machine, &message.cause())?;
    }
    story.describe(created);
    story.save()
}

/// `planning.story.transitioned`: what another service says of a story is so.
pub(crate) fn transitioned(message: &Incoming, moved: &StoryTransitioned) -> Result<(), Failure> {
    message.keyed_by(&moved.story_id).map_err(malformed)?;
    let mut story = Story::load(&moved.story_id)?;
    if story.is_own(message, moved) {
        return Ok(());
    }
    if !story.seen.first_time(message) {
        return dropped("duplicate");
    }
    let machine = settings::machine()?;
    if let Some(tasks) = &moved.tasks {
        story.order_tasks(tasks.clone());
    }
    follow(&mut story, &machine, message, moved)?;
    story.save()
}

fn follow(
    story: &mut Story,
    machine: &Machine,
    message: &Incoming,
    moved: &StoryTransitioned,
) -> Result<(), Failure> {
    let Some(to) = machine.name(&moved.to_state) else {
        warn!("the machine has no such state"; story_id = story.story_id, to_state = moved.to_state);
        return dropped("unknown_state");
    };
    let from = moved.from_state.as_deref().map(folded);
    if story.is_past(message, from.as_deref()) {
        info!("told of what was before"; story_id = story.story_id, to_state = to);
        return dropped("stale");
    }
    if story.state() == Some(to) {
        return Ok(());
    }
    if let Some(at) = story.state()
        && !machine.may_go(at, to)
    {
        warn!("it went a way that the machine does not have"; story_id = story.story_id, from_state = at, to_state = to);
    }
    story.place(to, message.arrival());
    story.followed_at = Some(message.arrival());
    info!("followed"; story_id = story.story_id, state = to, by = moved.transitioned_by.as_deref().unwrap_or_default());
    story.heed_waiting(machine, &message.cause())
}

/// `planning.task.created`.
pub(crate) fn task_created(message: &Incoming, created: &TaskCreated) -> Result<(), Failure> {
    message.keyed_by(&created.story_id).map_err(malformed)?;
    let mut story = Story::load(&created.story_id)?;
    if !story.learn_task(&created.task_id) {
        return dropped("duplicate");
    }
    story.save()
}

/// `task.derivation.completed`.
pub(crate) fn derived(message: &Incoming, completed: &DerivationCompleted) -> Result<(), Failure> {
    let count = |story: &mut Story| {
        story.expected.insert(completed.plan_id.clone(), completed.task_count);
    };
    let place = |story: &mut Story, machine: &Machine| {
        // A plan that nobody approved is not derived, so this is where the story was.
        if let (None, Some(state)) = (story.state(), machine.only_on(trigger::DERIVED)) {
            info!("nobody has told of this story, so it is taken to be {state}"; story_id = story.story_id);
            story.place(state, message.arrival());
        }
    };
    triggered(message, &completed.story_id, trigger::DERIVED, count, place)
}

/// `workflow.state.changed`.
pub(crate) fn task_moved(message: &Incoming) -> Result<(), Failure> {
    let story_id = message.required(&["story_id"]).map_err(malformed)?;
    let to = message.required(&["to_state"]).map_err(malformed)?;
    triggered(message, &story_id, &trigger::task_enters(&to), |_| (), |_, _| ())
}

/// `workflow.story.tasks_completed`.
pub(crate) fn through(message: &Incoming) -> Result<(), Failure> {
    let story_id = message.required(&["story_id"]).map_err(malformed)?;
    triggered(message, &story_id, trigger::THROUGH, |_| (), |_, _| ())
}

/// Makes the steps that a trigger leads to from where the story is. `learn`: what else it says of it, however old it is;
/// `assume`: what follows from it unless it is stale.
fn triggered(
    message: &Incoming,
    story_id: &str,
    trigger: &str,
    learn: impl FnOnce(&mut Story),
    assume: impl FnOnce(&mut Story, &Machine),
) -> Result<(), Failure> {
    message.keyed_by(story_id).map_err(malformed)?;
    let machine = settings::machine()?;
    if !machine.heeds(trigger) || settings::is_history(message)? {
        return Ok(());
    }
    let mut story = Story::load(story_id)?;
    if !story.seen.first_time(message) {
        return dropped("duplicate");
    }
    learn(&mut story);
    let at = message.arrival();
    if story.followed_at.is_some_and(|followed| followed.millis_since(at) > AT_ONCE_MS) {
        info!("older than what the story has gone through"; story_id = story_id, trigger = trigger);
        dropped("stale")?;
        return story.save();
    }
    assume(&mut story, &machine);
    if !story.heed(&machine, &message.cause(), trigger, at)? {
        let state = story.state().unwrap_or("unknown");
        if trigger == trigger::THROUGH {
            warn!("its tasks are through, but the story does not go on from here"; story_id = story_id, state = state);
        }
        dropped("no_move")?;
        story.keep_waiting(trigger, at);
    }
    story.save()
}
