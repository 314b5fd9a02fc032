//! The table against section 5.2 of the fleet's contract, and what is wrong with tables that are.

use super::*;

fn standard() -> Machine {
    assert_eq!(Machine::standard(), Machine::read(STANDARD), "it has no faults");
    Machine::standard().expect("a table")
}

/// The states that a step goes through, or why it does not.
fn way(state: &str, action: &str, role: &str) -> String {
    match standard().step(state, action, role) {
        Step::Moves(moves) => moves.iter().map(|row| row.to.as_str()).collect::<Vec<_>>().join(" "),
        Step::NotTheirs => "not theirs".into(),
        Step::NotHere => "not here".into(),
    }
}

const OPEN: [&str; 13] = [
    "todo",
    "implementing",
    "dev_completed",
    "pending_arch_review",
    "arch_reviewing",
    "arch_approved",
    "arch_rejected",
    "pending_qa",
    "qa_testing",
    "qa_passed",
    "qa_failed",
    "pending_po_approval",
    "po_approved",
];

#[test]
fn contract_5_2_there_are_fifteen_states_and_two_ends() {
    let machine = standard();
    let names: Vec<&str> = machine.states.iter().map(|state| state.name.as_str()).collect();
    assert_eq!(names[..13], OPEN);
    assert_eq!(names[13..], ["done", "cancelled"]);
    let ends: Vec<Option<End>> = machine.states[13..].iter().map(|state| state.ends).collect();
    assert_eq!(ends, [Some(End::Done), Some(End::Cancelled)]);
    assert!(machine.states[..13].iter().all(|state| state.ends.is_none()));
}

/// Every row of the contract: from, action, role, to.
const ROWS: &[(&str, &str, &str, &str)] = &[
    ("todo", "assign_to_developer", "system", "implementing"),
    ("todo", "claim_task", "developer", "implementing"),
    ("implementing", "claim_task", "developer", "implementing"),
    ("implementing", "commit_code", "developer", "dev_completed"),
    ("pending_arch_review", "claim_review", "architect", "arch_reviewing"),
    ("arch_reviewing", "approve_design", "architect", "arch_approved"),
    ("arch_reviewing", "reject_design", "architect", "arch_rejected"),
    ("arch_rejected", "revise_code", "developer", "implementing"),
    ("qa_failed", "revise_code", "developer", "implementing"),
    ("pending_qa", "claim_testing", "qa", "qa_testing"),
    ("qa_testing", "approve_tests", "qa", "qa_passed"),
    ("qa_testing", "reject_tests", "qa", "qa_failed"),
    ("pending_po_approval", "approve_story", "po", "po_approved"),
    ("pending_po_approval", "reject_story", "po", "cancelled"),
];
/// Those of section 5.3.
const IMPLIED: &[(&str, &str, &str, &str)] = &[
    ("pending_arch_review", "approve_design", "architect", "arch_reviewing arch_approved"),
    ("pending_arch_review", "reject_design", "architect", "arch_reviewing arch_rejected"),
    ("pending_qa", "approve_tests", "qa", "qa_testing qa_passed"),
    ("pending_qa", "reject_tests", "qa", "qa_testing qa_failed"),
    ("arch_rejected", "commit_code", "developer", "implementing dev_completed"),
    ("qa_failed", "commit_code", "developer", "implementing dev_completed"),
    // By the rule as it is written: claiming is defined where the revision leads.
    ("arch_rejected", "claim_task", "developer", "implementing implementing"),
    ("qa_failed", "claim_task", "developer", "implementing implementing"),
];
const AUTOMATIC: &[(&str, &str, &str)] = &[
    ("dev_completed", "auto_route_to_architect", "pending_arch_review"),
    ("arch_approved", "auto_route_to_qa", "pending_qa"),
    ("qa_passed", "auto_route_to_po", "pending_po_approval"),
    ("po_approved", "auto_complete", "done"),
];

#[test]
fn contract_5_2_and_5_3_each_row_leads_where_it_says_and_nothing_else_leads_anywhere() {
    let machine = standard();
    let actions: Vec<String> = machine.moves.iter().map(|row| row.action.clone()).collect();
    for state in machine.states.iter().map(|state| state.name.as_str()) {
        let open = OPEN.contains(&state);
        for action in &actions {
            for role in ["system", "developer", "architect", "qa", "po"] {
                let listed =
                    ROWS.iter().chain(IMPLIED).find(|row| (row.0, row.1, row.2) == (state, action, role));
                let automatic =
                    AUTOMATIC.iter().find(|row| (row.0, row.1, "system") == (state, action, role));
                let expected = match (action.as_str(), role) {
                    ("discard_task" | "cancel", "po") | ("cancel", "system") if open => "cancelled",
                    ("retry", "system") if open => "todo",
                    _ => listed.map(|row| row.3).or(automatic.map(|row| row.2)).unwrap_or_default(),
                };
                let went = way(state, action, role);
                let went = if went.starts_with("not ") { "" } else { &went };
                assert_eq!(went, expected, "{action} by {role} in {state}");
            }
        }
        let by_itself = machine.automatic(state).map(|row| (row.action.as_str(), row.to.as_str()));
        let expected = AUTOMATIC.iter().find(|row| row.0 == state).map(|row| (row.1, row.2));
        assert_eq!(by_itself, expected, "{state}");
    }
}

#[test]
fn contract_5_4_a_role_that_never_does_an_action_is_told_from_a_wrong_moment() {
    assert_eq!(way("arch_reviewing", "approve_design", "developer"), "not theirs");
    assert_eq!(way("todo", "approve_design", "architect"), "not here");
    assert_eq!(way("todo", "commit_code", "developer"), "not here", "never from todo");
    assert_eq!(way("done", "cancel", "po"), "not here");
    assert_eq!(way("implementing", "discard_task", "system"), "not theirs");
}

#[test]
fn contract_5_2_who_is_in_charge_and_when_an_alert_is_due() {
    let machine = standard();
    let charge =
        |name: &str| machine.state(name).and_then(|state| state.duty.as_ref()).map(|duty| &*duty.role);
    for state in OPEN {
        let expected = match state {
            "implementing" | "arch_rejected" | "qa_failed" => Some("developer"),
            "pending_arch_review" | "arch_reviewing" => Some("architect"),
            "pending_qa" | "qa_testing" => Some("qa"),
            "pending_po_approval" => Some("po"),
            _ => None,
        };
        assert_eq!(charge(state), expected, "{state}");
    }
    let alerts = machine.states.iter().filter_map(|state| Some((&*state.name, state.alert_after_seconds?)));
    let expected = [("pending_arch_review", 3_600), ("pending_qa", 7_200), ("pending_po_approval", 86_400)];
    assert_eq!(alerts.collect::<Vec<_>>(), expected);
}

#[test]
fn contract_5_2_names_are_read_in_any_case_and_by_their_aliases() {
    let machine = standard();
    for (name, action) in [
        ("COMMIT_CODE", "commit_code"),
        ("request-review", "commit_code"),
        ("Review Design", "claim_review"),
        ("RUN_TESTS", "claim_testing"),
        (" cancel ", "cancel"),
    ] {
        assert_eq!(machine.action(name), Some(action), "{name}");
    }
    assert_eq!(machine.action("dance"), None);
    for (name, role) in
        [("DEV", "developer"), ("Product Owner", "po"), ("tester", "qa"), ("SYSTEM", "system")]
    {
        assert_eq!(machine.role(name), Some(role), "{name}");
    }
    assert_eq!(machine.role("devops"), None);
}

/// The standard table with one text replaced, and the faults that has.
fn broken(from: &str, to: &str) -> Vec<String> {
    assert!(STANDARD.contains(from), "{from}");
    let faults = Machine::read(&STANDARD.replacen(from, to, 1)).expect_err(to);
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn a_fault_of_a_table_is_named_with_what_to_do() {
    for (from, to, told) in [
        ("\"initial\": \"todo\"", "\"initial\": \"begin\"", "`initial` names the state \"begin\""),
        (
            "\"to\": \"qa_failed\"",
            "\"to\": \"qa_fialed\"",
            "the move \"reject_tests\" names the state \"qa_fialed\"",
        ),
        ("\"by\": [\"qa\"]", "\"by\": [\"qaa\"]", "names the role \"qaa\""),
        (
            "\"role\": \"po\"",
            "\"role\": \"owner\"",
            "the state \"pending_po_approval\" names the role \"owner\"",
        ),
        (
            "\"action\": \"approve_story\", \"label\"",
            "\"action\": \"bless\", \"label\"",
            "names the action \"bless\"",
        ),
        (
            "{\"name\": \"po_approved\"}",
            "{\"name\": \"po_approved\"}, {\"name\": \"limbo\"}",
            "no move leads to the state \"limbo\"",
        ),
        ("\"name\": \"qa_passed\"", "\"name\": \"QA Passed\"", "must be lower case"),
        ("{\"name\": \"qa\", ", "{\"name\": \"po\", ", "the role \"po\" is there twice"),
        (", \"ends\": \"done\"", "", "the state \"done\" is no end"),
        ("\"ends\": \"done\"", "\"ends\": \"cancelled\"", "no state ends with \"done\""),
        (
            "\"from\": [\"qa_testing\"], \"action\": \"approve_tests\"",
            "\"from\": [\"done\"], \"action\": \"approve_tests\"",
            "the state \"done\" is an end",
        ),
        ("\"initial\"", "\"begin\"", "can't be read"),
        ("{\"name\": \"qa_passed\"}", "{\"name\": \"*\"}", "state \"*\" must be lower case"),
        ("{\"name\": \"qa_passed\"}", "{\"name\": \"\"}", "state \"\" must be lower case"),
        (
            "\"to\": \"done\", \"automatic\": true",
            "\"to\": \"po_approved\", \"automatic\": true",
            "the automatic moves from \"po_approved\" come back to it",
        ),
        (
            "\"action\": \"assign_to_developer\", \"by\": [\"system\"]",
            "\"action\": \"assign_to_developer\", \"by\": [\"po\"]",
            "`initial` needs \"assign_to_developer\" by \"system\" in the state \"todo\", which no move allows; add one",
        ),
        (
            "\"then\": \"assign_to_developer\"",
            "\"then\": \"auto_complete\"",
            "the move \"retry\" needs \"auto_complete\" by \"system\" in the state \"todo\", which no move allows",
        ),
        (
            "{\"from\": [\"qa_passed\"], \"action\": \"auto_route_to_po\"",
            "{\"from\": [\"pending_po_approval\"], \"action\": \"auto_route_to_po\"",
            "no move leads to the state \"pending_po_approval\"",
        ),
        (
            "{\"from\": [\"qa_passed\"], \"action\": \"auto_route_to_po\"",
            "{\"from\": [\"todo\"], \"action\": \"assign_to_developer\", \"by\": [\"system\"], \"to\": \"implementing\"}, {\"from\": [\"qa_passed\"], \"action\": \"auto_route_to_po\"",
            "two moves are called \"assign_to_developer\" and leave \"todo\" by \"system\"",
        ),
        (
            "\"then\": \"assign_to_developer\"",
            "\"then\": \"bless\"",
            "the move \"retry\" names the action \"bless\"",
        ),
    ] {
        let faults = broken(from, to);
        assert!(faults.iter().any(|fault| fault.contains(told)), "{told}: {faults:?}");
    }
}

/// Not even what is possible everywhere: nobody knows whether it is over.
#[test]
fn a_state_that_the_table_does_not_have_leads_nowhere() {
    for (action, role) in [("cancel", "po"), ("retry", "system"), ("commit_code", "developer")] {
        assert_eq!(way("gone", action, role), "not here", "{action}");
    }
    assert_eq!(standard().in_charge("gone"), None);
}

#[test]
fn a_claim_may_be_of_several_roles() {
    let by_two = STANDARD.replacen("\"by\": [\"architect\"]", "\"by\": [\"qa\", \"architect\"]", 1);
    let machine = Machine::read(&by_two).expect("a table without faults");
    for role in ["architect", "qa"] {
        let claim = machine.claim("pending_arch_review", role).map(|row| row.action.as_str());
        assert_eq!(claim, Some("claim_review"), "{role}");
    }
    assert_eq!(machine.claim("pending_arch_review", "developer"), None);
}
