//! Field numbers and types are the contract's: bytes written down by hand from it, not by the code under test.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

use std::{collections::BTreeMap, fmt::Debug};

use fleet_proto::{
    context::v1::{GetContextRequest, GetContextResponse, PromptBlocks},
    orchestrator::v1::{DeliberationStatus, GetDeliberationResultResponse},
    ray_executor::v1::{Agent, ExecuteDeliberationRequest, TaskConstraints},
    standin::v1::GetPlanRequest,
    task_derivation::v1::{
        CreateTasksRequest, DependencyEdge, GetPlanContextResponse, PlanContext, SaveTaskDependenciesRequest,
        TaskCreationCommand,
    },
    workflow::v1::RequestValidationResponse,
};
use prost::Message;

/// A length-delimited field: tag, length, content.
fn part(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
    bytes.extend(content);
    bytes
}

/// A varint field of one byte.
fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn check<M: Message + Default + PartialEq + Debug>(message: &M, parts: &[Vec<u8>]) {
    let bytes = parts.concat();
    assert_eq!(message.encode_to_vec(), bytes, "{message:?}");
    assert_eq!(&M::decode(bytes.as_slice()).unwrap(), message);
}

#[test]
fn a_plan_context_has_the_contracts_numbers() {
    let plan_context = PlanContext {
        plan_id: "p".to_owned(),
        story_id: "s".to_owned(),
        title: "t".to_owned(),
        description: "d".to_owned(),
        acceptance_criteria: vec!["a".to_owned(), "b".to_owned()],
        technical_notes: "n".to_owned(),
        roles: vec!["DEVELOPER".to_owned()],
    };
    let inner = [
        part(1, "p"),
        part(2, "s"),
        part(3, "t"),
        part(4, "d"),
        part(5, "a"),
        part(5, "b"),
        part(6, "n"),
        part(7, "DEVELOPER"),
    ];
    check(&GetPlanContextResponse { plan_context: Some(plan_context) }, &[part(1, inner.concat())]);
}

#[test]
fn a_command_has_the_contracts_numbers() {
    let command = TaskCreationCommand {
        plan_id: "p".to_owned(),
        story_id: "s".to_owned(),
        title: "t".to_owned(),
        description: "d".to_owned(),
        estimated_hours: 8,
        priority: 2,
        assigned_role: "QA".to_owned(),
    };
    let inner =
        [part(1, "p"), part(2, "s"), part(3, "t"), part(4, "d"), number(5, 8), number(6, 2), part(7, "QA")];
    check(&CreateTasksRequest { commands: vec![command] }, &[part(1, inner.concat())]);
}

#[test]
fn an_edge_goes_from_the_dependent_to_its_prerequisite() {
    let edge = DependencyEdge {
        from_task_id: "waits".to_owned(),
        to_task_id: "first".to_owned(),
        reason: "r".to_owned(),
    };
    let request =
        SaveTaskDependenciesRequest { plan_id: "p".to_owned(), story_id: "s".to_owned(), edges: vec![edge] };
    let inner = [part(1, "waits"), part(2, "first"), part(3, "r")];
    check(&request, &[part(1, "p"), part(2, "s"), part(3, inner.concat())]);
}

#[test]
fn a_context_has_the_contracts_numbers() {
    let request = GetContextRequest {
        story_id: "s".to_owned(),
        role: "DEV".to_owned(),
        phase: "PLAN".to_owned(),
        subtask_id: "x".to_owned(),
        token_budget: 100,
    };
    check(&request, &[part(1, "s"), part(2, "DEV"), part(3, "PLAN"), part(4, "x"), number(5, 100)]);
    let response = GetContextResponse {
        context: "c".to_owned(),
        token_count: 7,
        scopes: vec!["o".to_owned()],
        version: "v".to_owned(),
        blocks: Some(PromptBlocks { system: "y".to_owned(), context: "c".to_owned(), tools: "t".to_owned() }),
    };
    let blocks = [part(1, "y"), part(2, "c"), part(3, "t")];
    check(&response, &[part(1, "c"), number(2, 7), part(3, "o"), part(4, "v"), part(5, blocks.concat())]);
}

#[test]
fn a_deliberation_has_the_contracts_numbers() {
    let request = ExecuteDeliberationRequest {
        task_id: "derive-p".to_owned(),
        task_description: "prompt".to_owned(),
        role: "SYSTEM".to_owned(),
        constraints: Some(TaskConstraints {
            story_id: "s".to_owned(),
            plan_id: "p".to_owned(),
            timeout_seconds: 120,
            max_retries: 3,
            metadata: BTreeMap::from([
                ("attempt".to_owned(), "1".to_owned()),
                ("task_id".to_owned(), "x".to_owned()),
            ]),
        }),
        agents: vec![Agent {
            id: "task-deriver".to_owned(),
            role: "SYSTEM".to_owned(),
            model: "m".to_owned(),
            prompt_template: "t".to_owned(),
        }],
        vllm_url: "u".to_owned(),
        vllm_model: "m".to_owned(),
    };
    let constraints = [
        part(1, "s"),
        part(2, "p"),
        number(3, 120),
        number(4, 3),
        part(5, [part(1, "attempt"), part(2, "1")].concat()),
        part(5, [part(1, "task_id"), part(2, "x")].concat()),
    ];
    let agent = [part(1, "task-deriver"), part(2, "SYSTEM"), part(3, "m"), part(4, "t")];
    check(
        &request,
        &[
            part(1, "derive-p"),
            part(2, "prompt"),
            part(3, "SYSTEM"),
            part(4, constraints.concat()),
            part(5, agent.concat()),
            part(6, "u"),
            part(7, "m"),
        ],
    );
}

#[test]
fn a_validation_has_the_contracts_numbers() {
    let response = RequestValidationResponse {
        status: "accepted".to_owned(),
        message: "m".to_owned(),
        current_state: "done".to_owned(),
        next_role: "qa".to_owned(),
        next_action: "a".to_owned(),
        workflow_completed: true,
    };
    check(
        &response,
        &[part(1, "accepted"), part(2, "m"), part(3, "done"), part(4, "qa"), part(5, "a"), number(6, 1)],
    );
}

#[test]
fn the_status_of_a_deliberation_has_the_contracts_values() {
    let response = GetDeliberationResultResponse {
        task_id: "t".to_owned(),
        status: DeliberationStatus::Timeout.into(),
        duration_ms: 9,
        ..Default::default()
    };
    check(&response, &[part(1, "t"), number(2, 5), number(5, 9)]);
}

#[test]
fn unknown_fields_are_ignored() {
    let bytes = [part(1, "p"), part(15, "from a newer version")].concat();
    assert_eq!(GetPlanRequest::decode(bytes.as_slice()).unwrap(), GetPlanRequest { plan_id: "p".to_owned() });
}

#[test]
fn the_descriptor_set_names_every_service() {
    let files = prost_types::FileDescriptorSet::decode(fleet_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut services: Vec<String> = files
        .file
        .iter()
        .flat_map(|file| {
            file.service.iter().map(move |service| format!("{}.{}", file.package(), service.name()))
        })
        .collect();
    services.sort();
    assert_eq!(
        services,
        [
            "cofferdam.admin.v1.DeadLetters",
            "cofferdam.admin.v1.Jobs",
            "cofferdam.bus.v1.BusService",
            "cofferdam.council.v1.ScoringService",
            "cofferdam.queue.v1.TaskQueueService",
            "fleet.context.v1.ContextService",
            "fleet.orchestrator.v1.OrchestratorService",
            "fleet.planning.v2.PlanningService",
            "fleet.ray_executor.v1.RayExecutorService",
            "fleet.standin.v1.PlanningAdminService",
            "fleet.task_derivation.v1.TaskDerivationPlanningService",
            "fleet.workflow.v1.WorkflowOrchestrationService",
        ]
    );
}

/// Each field's number is its place in the contract's list.
#[test]
fn contract_3_fields_of_what_we_serve_are_numbered_in_the_contracts_order() {
    let files = prost_types::FileDescriptorSet::decode(fleet_proto::FILE_DESCRIPTOR_SET).unwrap();
    for (package, name, fields) in [
        ("fleet.workflow.v1", "GetWorkflowStateRequest", "task_id"),
        (
            "fleet.workflow.v1",
            "WorkflowStateResponse",
            "task_id current_state role_in_charge required_action history feedback updated_at retry_count",
        ),
        (
            "fleet.workflow.v1",
            "StateTransitionDTO",
            "from_state to_state action actor_role timestamp feedback",
        ),
        ("fleet.workflow.v1", "RequestValidationRequest", "task_id role action result agent_id"),
        ("fleet.workflow.v1", "WorkResult", "success artifacts reasoning operations_count feedback"),
        ("fleet.workflow.v1", "GetPendingTasksRequest", "role limit offset"),
        ("fleet.workflow.v1", "PendingTasksResponse", "tasks total_count"),
        (
            "fleet.workflow.v1",
            "PendingTask",
            "task_id story_id current_state required_action work waiting_since priority",
        ),
        ("fleet.workflow.v1", "ClaimTaskRequest", "task_id agent_id role"),
        ("fleet.workflow.v1", "ClaimTaskResponse", "claimed message current_state claimed_at"),
        ("fleet.planning.v2", "TransitionStoryRequest", "story_id target_state transitioned_by"),
        ("fleet.planning.v2", "TransitionStoryResponse", "story success message"),
        ("fleet.planning.v2", "GetStoryRequest", "story_id"),
        (
            "fleet.planning.v2",
            "Story",
            "story_id epic_id title brief state dor_score created_by created_at updated_at",
        ),
        ("fleet.task_derivation.v1", "ListStoryTasksRequest", "story_id"),
        ("fleet.task_derivation.v1", "ListStoryTasksResponse", "tasks"),
        ("fleet.task_derivation.v1", "TaskSummary", "task_id title priority assigned_role"),
        ("fleet.task_derivation.v1", "SaveTaskDependenciesRequest", "plan_id story_id edges"),
        ("fleet.task_derivation.v1", "CreateTasksResponse", "task_ids"),
    ] {
        let file = files.file.iter().find(|file| file.package() == package).unwrap();
        let message = file.message_type.iter().find(|message| message.name() == name).unwrap();
        let found: Vec<(&str, i32)> =
            message.field.iter().map(|field| (field.name(), field.number())).collect();
        let listed: Vec<(&str, i32)> = fields.split_whitespace().zip(1..).collect();
        assert_eq!(found, listed, "{name}");
    }
}
