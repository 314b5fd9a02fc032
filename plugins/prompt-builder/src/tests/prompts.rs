//! What the prompt holds.

use cofferdam_sdk::{log::Level, rpc::Code, testing::event};
use fleet_proto::context::v1::{GetContextRequest, GetContextResponse};
use serde_json::json;

use super::support::*;

fn prompt(host: &mut cofferdam_sdk::testing::Host) -> String {
    open(host).jobs[0].job.prompt.clone()
}

#[test]
fn contract_4_prompt_holds_plan_context_bounds_and_format() {
    let prompt = prompt(&mut host());
    for part in [
        "3 to 8 tasks",
        "Title: Guest checkout\n",
        "Roles: DEVELOPER, QA\n",
        "- A cart lives a day\n- Payment is taken once\n",
        "Use the payment gateway.",
        "For DEV:\nDEV of story-1 in PLAN",
        "For QA:\nQA of story-1 in PLAN",
        "TASK_ID:",
        "DEPENDS_ON:",
    ] {
        assert!(prompt.contains(part), "{part:?} is missing in:\n{prompt}");
    }
    assert!(!prompt.contains("{{"), "{prompt}");
}

#[test]
fn contract_4_prompt_text_of_the_plan_is_data() {
    let mut plan = plan();
    plan.title = "A\ntitle {{description}}".into();
    plan.description = "{{roles}} {max_tasks} }}\n---\nTITLE: hi".into();
    let prompt = prompt(&mut host_with(plan));
    assert!(prompt.contains("Title: A title {{description}}\n"), "{prompt}");
    assert!(prompt.contains("{{roles}} {max_tasks} }}\n---\nTITLE: hi"), "{prompt}");
}

#[test]
fn what_the_plan_leaves_out_is_said_to_be_none() {
    let plan = fleet_proto::task_derivation::v1::PlanContext {
        plan_id: "plan-1".into(),
        story_id: "story-1".into(),
        ..Default::default()
    };
    let prompt = prompt(&mut host_with(plan).fails("context", GET_CONTEXT, Code::Unavailable, "down"));
    for part in ["Title: none", "criteria:\nnone\n", "notes: none", "already:\nnone\n"] {
        assert!(prompt.contains(part), "{part:?} is missing in:\n{prompt}");
    }
}

#[test]
fn the_operator_sets_template_bounds_model_and_phase() {
    let mut host = host()
        .config("template", "{{ title }}: {{min_tasks}}..{{max_tasks}}, {{context}}")
        .config("min_tasks", 1)
        .config("max_tasks", 2)
        .config("model", "")
        .config("context_phase", "DESIGN")
        .config("role", "TASK_EXTRACTOR");
    let run = open(&mut host);
    let job = &run.jobs[0].job;
    assert!(
        job.prompt.starts_with("Guest checkout: 1..2, For DEV:\nDEV of story-1 in DESIGN"),
        "{}",
        job.prompt
    );
    assert_eq!((job.model.as_deref(), job.role.as_str()), (None, "TASK_EXTRACTOR"));
}

#[test]
fn an_empty_context_is_none() {
    let mut empty =
        host().config("template", "<{{context}}>").answers("context", GET_CONTEXT, |_: GetContextRequest| {
            Ok(GetContextResponse { context: " \n".into(), ..Default::default() })
        });
    assert_eq!(prompt(&mut empty), "<none>");
}

#[test]
fn contract_3_get_context_that_fails_or_is_too_much_is_done_without() {
    let mut down = host().fails("context", GET_CONTEXT, Code::Unavailable, "down");
    let run = open(&mut down);
    assert!(run.logged(Level::Warn).iter().any(|line| line.contains("without the context for DEV")));
    assert_eq!(record(&down)["warnings"].as_array().unwrap().len(), 2);

    let mut huge = host().answers("context", GET_CONTEXT, |request: GetContextRequest| {
        let size = if request.role == "DEV" { 1 << 20 } else { 10 };
        Ok(GetContextResponse { context: "x".repeat(size), ..Default::default() })
    });
    let run = open(&mut huge);
    assert!(run.jobs[0].job.prompt.contains("For QA:\nxxxxxxxxxx\n"));
    assert!(!run.jobs[0].job.prompt.contains("For DEV"));
}

#[test]
fn the_story_of_the_request_wins_over_the_plans() {
    let mut host = host();
    let run = run(&mut host, event(REQUESTED, json!({"plan_id": "plan-1", "story_id": "other"})));
    assert_eq!(run.jobs[0].job.story_id.as_deref(), Some("other"));
    assert!(run.logged(Level::Warn).iter().any(|line| line.contains("story")));
}

#[test]
fn contract_4_prompt_asks_for_days_of_work_without_cycles_in_the_block_format() {
    let prompt = prompt(&mut host());
    for part in ["in one or two days", "there are no cycles", "one blank line between tasks"] {
        assert!(prompt.contains(part), "{part:?} is missing in:\n{prompt}");
    }
    let format = [
        "TASK_ID: TASK-001",
        "TITLE: what is done, at most 80 characters",
        "DESCRIPTION: ",
        "ROLE: ",
        "ESTIMATED_HOURS: a whole number from 1 to 40",
        "PRIORITY: a whole number from 1 to 10, 1 being the most urgent",
        "KEYWORDS: two to five words, divided by commas",
        "DEPENDS_ON: ",
    ];
    let lines: Vec<&str> = prompt.lines().skip_while(|line| !line.starts_with("TASK_ID: ")).collect();
    assert_eq!(lines.len(), format.len(), "{lines:?}");
    assert!(lines.iter().zip(format).all(|(line, begins)| line.starts_with(begins)), "{lines:#?}");
}
