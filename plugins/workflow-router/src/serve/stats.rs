//! `GetStats`: figures of all tasks from the boards, or of one story's from its tasks.

use cofferdam_sdk::service::Status;
use fleet_proto::workflow::v1::{GetStatsRequest, StatsResponse};

use crate::{
    board::Board,
    figures::{ARCHITECT, Figures, QA, Totals},
    machine::{Machine, State},
    settings,
    story::Story,
    task::Task,
};

const PO: &str = "po";
/// One call reaches 64 cells: the story, so many of its tasks, and the boards if it has more.
const LOOKED_AT: usize = 40;

pub(super) fn get(request: &GetStatsRequest) -> Result<StatsResponse, Status> {
    let machine = settings::machine()?;
    let named = |name: &str| !name.trim().is_empty();
    let role = named(&request.role).then(|| super::role(&machine, &request.role)).transpose()?;
    let mut counted = Counted { machine: &machine, role, totals: Totals::default() };
    if named(&request.story_id) {
        of_story(&request.story_id, &mut counted)?;
    } else {
        for board in Board::all()? {
            counted.over(&board.over);
            board.rows.values().for_each(|row| counted.task(&row.state, row.figures));
        }
    }
    Ok(answer(&machine, &counted.totals))
}

/// A story knows how those ended that are over.
fn of_story(story_id: &str, counted: &mut Counted<'_>) -> Result<(), Status> {
    let story = Story::named(story_id)?;
    counted.over(&story.over());
    let open: Vec<&str> = story.open().collect();
    if open.len() <= LOOKED_AT {
        for task_id in open {
            if let Some(task) = Task::named(task_id)? {
                counted.task(&task.state, task.figures);
            }
        }
        return Ok(());
    }
    for board in Board::all()? {
        let theirs =
            board.rows.iter().filter(|(task_id, row)| row.story_id == story_id && !story.is_over(task_id));
        theirs.for_each(|(_, row)| counted.task(&row.state, row.figures));
    }
    Ok(())
}

/// What was asked for. Nobody is in charge of a task that is over.
struct Counted<'a> {
    machine: &'a Machine,
    role: Option<&'a str>,
    totals: Totals,
}

impl Counted<'_> {
    fn task(&mut self, state: &str, figures: Figures) {
        if self.role.is_none_or(|role| self.machine.in_charge(state) == Some(role)) {
            self.totals.add(state, figures);
        }
    }

    fn over(&mut self, totals: &Totals) {
        if self.role.is_none() {
            self.totals.merge(totals);
        }
    }
}

fn answer(machine: &Machine, totals: &Totals) -> StatsResponse {
    let count = |counts: &dyn Fn(&State) -> bool| {
        let states = totals.states.iter().filter(|(name, _)| machine.state(name).is_some_and(counts));
        whole(states.map(|(_, count)| count).sum())
    };
    // Assigned where it rests, and not to be done again: somebody has to take it.
    let waits = |state: &State| state.duty.is_some() && state.assigns && !state.rework;
    let waits_for = |role: &str| {
        count(&|state: &State| waits(state) && state.duty.as_ref().is_some_and(|duty| duty.role == role))
    };
    let share = f64::from(totals.unrejected) / f64::from(totals.reviewed.max(1));
    StatsResponse {
        total_tasks: whole(totals.states.values().sum()),
        tasks_in_progress: count(&|state: &State| state.duty.is_some() && !state.assigns),
        tasks_completed: count(&|state: &State| state.ends.is_some()),
        tasks_waiting_architect: waits_for(ARCHITECT),
        tasks_waiting_qa: waits_for(QA),
        tasks_waiting_po: waits_for(PO),
        tasks_by_state: totals.states.iter().map(|(state, count)| (state.clone(), whole(*count))).collect(),
        avg_time_in_arch_review_seconds: totals.figures.architect.average(),
        avg_time_in_qa_seconds: totals.figures.qa.average(),
        total_rejections: i32::try_from(totals.figures.rejections).unwrap_or(i32::MAX),
        approval_rate: share,
    }
}

fn whole(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
