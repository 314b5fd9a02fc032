//! What the agents of a MOCK council say: the same to the same, by rule and without any model.

use crate::{task::Task, text::one_line};

pub(crate) fn proposal(agent: &str, task: &Task) -> String {
    let about = one_line(&task.description).chars().take(200).collect::<String>();
    let about = if about.is_empty() { one_line(&task.task_id) } else { about };
    let mut text = format!(
        "Proposal of {agent}, which is a mock.\n\n1. Read what the task asks for: {about}\n2. Do it in the smallest step that can be \
         checked.\n3. Check it, and write down how.\n"
    );
    for requirement in &task.constraints.requirements {
        text.push_str(&format!("- Required: {}\n", one_line(requirement)));
    }
    text
}

pub(crate) fn review(agent: &str) -> String {
    format!("{agent}, a mock, finds it sound, and asks for a last step that tells how to undo it.")
}

pub(crate) fn revision(agent: &str, proposal: &str) -> String {
    format!("{}\nRevised by {agent}: to undo it, go back to what was there before.", proposal.trim_end())
}
