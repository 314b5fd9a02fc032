//! What a council is asked about, from a call or an event.

use fleet_proto::orchestrator::v1::TaskConstraints;

/// Of description, rubric and requirements together. A prompt may have 256 KiB, and a revision's holds two texts of an agent besides.
const MOST: usize = 96 << 10;
/// No question to a model may wait longer.
const DAY: u32 = 24 * 60 * 60;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Task {
    pub(crate) task_id: String,
    pub(crate) description: String,
    /// Of the council, as [`crate::councils::canonical`] has it.
    pub(crate) role: String,
    pub(crate) constraints: TaskConstraints,
    /// Empty if nobody says.
    pub(crate) story_id: String,
}

impl Task {
    /// Why no agent can be asked about it, if so.
    pub(crate) fn fault(&self) -> Option<String> {
        let TaskConstraints { rubric, requirements, .. } = &self.constraints;
        // A requirement's bullet and the blank of a moved line count for nothing here; there is room enough.
        let size =
            self.description.len() + rubric.len() + requirements.iter().map(|r| r.len() + 4).sum::<usize>();
        (size > MOST).then(|| {
            format!(
                "description, rubric and requirements have {size} bytes together, over {MOST}; a council is asked about less"
            )
        })
    }

    /// What bounds the rounds from without, if anything does.
    pub(crate) fn most_rounds(&self) -> u32 {
        u32::try_from(self.constraints.max_iterations).ok().filter(|most| *most > 0).unwrap_or(u32::MAX)
    }

    /// Its own time, else what the plugin gives.
    pub(crate) fn timeout_seconds(&self, default: u32) -> u32 {
        let own = u32::try_from(self.constraints.timeout_seconds).ok().filter(|seconds| *seconds > 0);
        own.unwrap_or(default).clamp(1, DAY)
    }
}
