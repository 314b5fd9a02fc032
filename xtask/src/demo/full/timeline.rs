//! What a message tells of a task, in words for a person.

use serde::Serialize;

use crate::demo::message::Message;

/// As the queue says.
pub(super) const QUEUED: &str = "QUEUED";
/// What a developer did; what exactly, another message says.
pub(super) const COMMITTED: &str = "committed";

/// Something that happened to a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::demo) struct Moment {
    /// Since the approval.
    pub(in crate::demo) at_ms: u64,
    pub(in crate::demo) who: String,
    pub(in crate::demo) what: String,
    /// Finer than the report: what happens within a millisecond has an order, too.
    #[serde(skip)]
    pub(super) at_us: u64,
}

/// Who did what, if the message says so of a task.
pub(super) fn tell(message: &Message) -> Option<(String, String)> {
    let text = |key| message.text(key).unwrap_or_default();
    let what = match message.subject.as_str() {
        "planning.task.created" => {
            let role = message.text("assigned_to").unwrap_or_else(|| "nobody yet".to_owned());
            let after = match message.list("depends_on").len() {
                0 => String::new(),
                count => format!(", after {count} {}", if count == 1 { "other" } else { "others" }),
            };
            format!("created, for {role}, priority {}{after}", message.count("priority"))
        }
        "cofferdam.queue.changed" if message.text("status").as_deref() == Some(QUEUED) => "queued".to_owned(),
        "cofferdam.queue.ready" => format!("its turn: asks the council of {}", text("role")),
        "orchestration.deliberation.completed" => deliberation(message),
        "orchestration.task.dispatched" => match message.count("attempt") {
            0 | 1 => format!("dispatched to {}", text("agent_id")),
            attempt => format!("dispatched to {}, attempt {attempt}", text("agent_id")),
        },
        "orchestration.task.completed" => format!("completed by {}", text("agent_id")),
        "orchestration.task.failed" => format!("failed: {}", text("error")),
        "agent.response.completed" => {
            return Some((text("agent_id"), "worked on it, and answered".to_owned()));
        }
        "agent.response.failed" => return Some((text("agent_id"), format!("failed: {}", text("error")))),
        "workflow.state.changed" => return action(message),
        "workflow.task.completed" => text("final_state"),
        "cofferdam.queue.blocked" => format!("held back: {}", text("error")),
        "context.updated" => {
            let version = message.field("snapshot").and_then(|snapshot| snapshot.get("version"));
            let version = version.map_or_else(String::new, |version| format!(", version {version}"));
            format!("Context knows what was decided{version}")
        }
        _ => return None,
    };
    Some((message.publisher(), what))
}

fn deliberation(message: &Message) -> String {
    let agents = message.count("total_agents");
    let by = format!("deliberated by {agents} {}", if agents == 1 { "agent" } else { "agents" });
    let status = message.text("status").unwrap_or_default();
    let Some(winner) = message.text("winner_id").filter(|winner| !winner.is_empty()) else {
        return match message.text("error") {
            Some(error) => format!("{by}: {status}, {error}"),
            None => format!("{by}: {status}"),
        };
    };
    let of_winner = |result: &&serde_json::Value| result.get("agent_id").is_some_and(|id| *id == *winner);
    let result = message.list("results").iter().find(of_winner);
    match result.and_then(|result| result.get("score")).and_then(serde_json::Value::as_f64) {
        Some(score) => format!("{by}: {winner} wins with score {score:.2}"),
        None => format!("{by}: {winner} wins"),
    }
}

/// Hops that the machine makes by itself are left out.
fn action(message: &Message) -> Option<(String, String)> {
    let action = message.text("action")?;
    let feedback = message.text("feedback").filter(|feedback| !feedback.trim().is_empty());
    let why = feedback.map_or_else(String::new, |feedback| format!(": \"{}\"", feedback.trim()));
    let what = match action.as_str() {
        "assign_to_developer" => "assigned to the developer".to_owned(),
        "commit_code" | "request_review" => COMMITTED.to_owned(),
        "revise_code" => "took it up again".to_owned(),
        "claim_task" => "took it".to_owned(),
        "claim_review" | "review_design" => "took it for review".to_owned(),
        "claim_testing" | "run_tests" => "took it for testing".to_owned(),
        "approve_design" => "approved the design".to_owned(),
        "approve_tests" => "approved the tests".to_owned(),
        "approve_story" => "approved the result".to_owned(),
        "reject_design" => format!("rejected the design{why}"),
        "reject_tests" => format!("rejected the tests{why}"),
        "reject_story" => format!("rejected the result{why}"),
        "discard_task" | "cancel" => format!("discarded it{why}"),
        "retry" => format!("sent it back to the beginning{why}"),
        auto if auto.starts_with("auto_") => return None,
        other => format!("{}{why}", other.replace('_', " ")),
    };
    Some((message.text("actor_role").unwrap_or_else(|| message.publisher()), what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(subject: &str, data: &str) -> Option<String> {
        let line = format!(
            r#"{{"time":"1970-01-01T00:00:00Z","subject":"{subject}","headers":{{"Cofferdam-Plugin":"p"}},"data":{data}}}"#
        );
        tell(&Message::read(&line).unwrap()).map(|(who, what)| format!("{who}: {what}"))
    }

    #[test]
    fn each_kind_of_message_is_told_in_words() {
        let changed = "workflow.state.changed";
        let rejected =
            r#"{"action":"reject_design","actor_role":"architect","feedback":" say how a retry ends "}"#;
        let deliberated = r#"{"total_agents":3,"winner_id":"a","status":"completed",
            "results":[{"agent_id":"b","score":0.3},{"agent_id":"a","score":1}]}"#;
        for (subject, data, expect) in [
            (
                "planning.task.created",
                r#"{"assigned_to":"QA","priority":2,"depends_on":["x"]}"#,
                "p: created, for QA, priority 2, after 1 other",
            ),
            ("cofferdam.queue.changed", r#"{"status":"QUEUED"}"#, "p: queued"),
            ("cofferdam.queue.ready", r#"{"role":"QA"}"#, "p: its turn: asks the council of QA"),
            (
                "orchestration.deliberation.completed",
                deliberated,
                "p: deliberated by 3 agents: a wins with score 1.00",
            ),
            (
                "orchestration.deliberation.completed",
                r#"{"total_agents":1,"winner_id":"","status":"failed","error":"no model"}"#,
                "p: deliberated by 1 agent: failed, no model",
            ),
            (
                "orchestration.task.dispatched",
                r#"{"agent_id":"a","attempt":2}"#,
                "p: dispatched to a, attempt 2",
            ),
            ("agent.response.completed", r#"{"agent_id":"a"}"#, "a: worked on it, and answered"),
            (changed, r#"{"action":"commit_code","actor_role":"developer"}"#, "developer: committed"),
            (changed, rejected, "architect: rejected the design: \"say how a retry ends\""),
            (changed, r#"{"action":"ship_it","actor_role":"po"}"#, "po: ship it"),
            ("workflow.task.completed", r#"{"final_state":"done"}"#, "p: done"),
            (
                "context.updated",
                r#"{"snapshot":{"version":4}}"#,
                "p: Context knows what was decided, version 4",
            ),
        ] {
            assert_eq!(said(subject, data).as_deref(), Some(expect), "{subject} {data}");
        }
        for (subject, data) in [
            (changed, r#"{"action":"auto_complete","actor_role":"system"}"#),
            ("cofferdam.queue.changed", r#"{"status":"IN_PROGRESS"}"#),
            ("workflow.task.assigned", "{}"),
        ] {
            assert_eq!(said(subject, data), None, "{subject}");
        }
    }
}
