//! What people say to a decision.

use serde_json::json;

use super::support::*;

#[test]
fn contract_2_3_an_approval_is_an_update_of_the_decision() {
    let data = json!({"story_id": "S", "decision_id": "DEC-T", "approved_by": "ann", "comment": "Go ahead."});
    let run = run(&mut host(), APPROVED, data);
    let request = one(&run);
    assert_eq!((request.story_id.as_str(), request.task_id.as_str(), request.role.as_str()), ("S", "", "PO"));
    let [change] = request.changes.as_slice() else { panic!("{request:?}") };
    assert_eq!(
        (change.operation.as_str(), change.entity_type.as_str(), change.entity_id.as_str()),
        ("UPDATE", "DECISION", "DEC-T")
    );
    assert_eq!(
        payload(change),
        json!({"id": "DEC-T", "status": "approved", "approved_by": "ann", "comment": "Go ahead."})
    );
    assert_eq!(change.reason, "Go ahead.");
    assert_eq!(updated(&run)["changed"], json!(["DEC-T"]));
}

#[test]
fn contract_2_3_a_rejection_is_an_update_with_its_reason() {
    let data = json!({"story_id": "S", "decision_id": "DEC-T", "rejected_by": "ann", "reason": "Too dear.",
        "timestamp": "2026-01-01T00:00:00+00:00Z"});
    let run = run(&mut host(), REJECTED, data);
    let request = one(&run);
    assert_eq!(
        payload(&request.changes[0]),
        json!({"id": "DEC-T", "status": "rejected", "rejected_by": "ann", "reason": "Too dear."})
    );
    assert_eq!((request.changes[0].reason.as_str(), request.changes.len()), ("Too dear.", 1));
    assert_eq!(updated(&run)["snapshot"]["version"], 1);
}

#[test]
fn contract_2_3_what_lacks_an_id_or_a_rejections_reason_is_malformed() {
    for (subject, data) in [
        (DECIDED, json!({"decisions": [{"id": "DEC-T"}]})),
        (APPROVED, json!({"story_id": "S"})),
        (APPROVED, json!({"decision_id": "DEC-T"})),
        (REJECTED, json!({"story_id": "S", "decision_id": "DEC-T", "rejected_by": "ann"})),
        (REJECTED, json!({"story_id": "S", "reason": "Too dear."})),
    ] {
        let run = run(&mut host(), subject, &data);
        assert!(matches!(run.result, Err(cofferdam_sdk::Failure::Reject(_))), "{subject} {data}");
        assert_eq!((run.metric("context_dropped"), run.calls.len()), (1.0, 0));
    }
}
