//! The table against section 5.6 of the fleet's contract, and what is wrong with tables that are.

use super::*;

fn standard() -> Machine {
    Machine::standard().expect("a table without faults")
}

/// The contract's rows: state, agile phase, next. `*` stands for CARRY_OVER.
const ROWS: [(&str, &str, &str); 13] = [
    ("DRAFT", "DRAFT", "PO_REVIEW"),
    ("PO_REVIEW", "DRAFT", "READY_FOR_PLANNING DRAFT"),
    ("READY_FOR_PLANNING", "DESIGN", "PLANNED"),
    ("PLANNED", "DESIGN", "READY_FOR_EXECUTION"),
    ("READY_FOR_EXECUTION", "BUILD", "IN_PROGRESS *"),
    ("IN_PROGRESS", "BUILD", "CODE_REVIEW *"),
    ("CODE_REVIEW", "BUILD", "TESTING IN_PROGRESS *"),
    ("TESTING", "TEST", "READY_TO_REVIEW IN_PROGRESS *"),
    ("READY_TO_REVIEW", "DOCS", "ACCEPTED IN_PROGRESS *"),
    ("ACCEPTED", "DONE", "DONE"),
    ("CARRY_OVER", "BUILD", "DRAFT READY_FOR_EXECUTION ARCHIVED"),
    ("DONE", "DONE", "ARCHIVED"),
    ("ARCHIVED", "DONE", ""),
];

#[test]
fn contract_5_6_there_are_thirteen_states_and_each_leads_where_the_contract_says() {
    let machine = standard();
    assert_eq!(machine.names().collect::<Vec<_>>(), ROWS.map(|row| row.0));
    for (from, _, next) in ROWS {
        let next: Vec<&str> =
            next.split_whitespace().map(|next| if next == "*" { "CARRY_OVER" } else { next }).collect();
        for (to, ..) in ROWS {
            let legal = next.contains(&to) || to == "DRAFT";
            assert_eq!(machine.may_go(from, to), legal, "{from} -> {to}");
        }
        assert_eq!(machine.next(from), next, "in the contract's order");
    }
}

#[test]
fn contract_5_6_k12_each_state_has_its_agile_phase() {
    let machine = standard();
    for (state, phase, _) in ROWS {
        assert_eq!(machine.phase(state), phase, "{state}");
    }
    assert_eq!(machine.phase("LIMBO"), "");
}

#[test]
fn contract_5_6_a_story_begins_as_a_draft_and_any_state_is_reset_to_it() {
    let machine = standard();
    assert_eq!((machine.initial(), machine.reset()), ("DRAFT", Some("DRAFT")));
    assert!(machine.names().all(|state| machine.may_go(state, "DRAFT")));
}

#[test]
fn contract_5_6_each_trigger_leads_on_from_its_states_and_from_no_other() {
    let machine = standard();
    let implementing = trigger::task_enters("implementing");
    let expected = |state: &str, name: &str| match (state, name) {
        ("READY_FOR_PLANNING", trigger::DERIVED) => "PLANNED",
        ("READY_FOR_EXECUTION", trigger::THROUGH) => "IN_PROGRESS CODE_REVIEW TESTING",
        ("IN_PROGRESS", trigger::THROUGH) => "CODE_REVIEW TESTING",
        ("CODE_REVIEW", trigger::THROUGH) => "TESTING",
        ("READY_FOR_EXECUTION", "workflow.state.changed:implementing") => "IN_PROGRESS",
        _ => "",
    };
    for (state, ..) in ROWS {
        for name in [trigger::DERIVED, trigger::THROUGH, &implementing, "workflow.state.changed:todo"] {
            assert_eq!(machine.walk(state, name).join(" "), expected(state, name), "{name} in {state}");
        }
    }
    assert!(machine.heeds(trigger::DERIVED) && machine.heeds(&implementing));
    assert!(!machine.heeds(&trigger::task_enters("todo")));
    assert_eq!(machine.only_on(trigger::DERIVED), Some("READY_FOR_PLANNING"));
    assert_eq!(machine.only_on(trigger::THROUGH), None, "three do");
}

#[test]
fn contract_5_6_whoever_hears_of_a_story_that_is_to_be_executed_needs_its_tasks() {
    let machine = standard();
    let needing: Vec<&str> = machine.names().filter(|state| machine.needs_tasks(state)).collect();
    assert_eq!(needing, ["READY_FOR_EXECUTION"]);
}

#[test]
fn names_are_read_however_they_are_written() {
    let machine = standard();
    for name in ["IN_PROGRESS", "in_progress", " In Progress ", "in-progress"] {
        assert_eq!(machine.name(name), Some("IN_PROGRESS"), "{name:?}");
    }
    for name in ["", "BUILD", "INPROGRESS"] {
        assert_eq!(machine.name(name), None, "{name:?}");
    }
    assert_eq!(trigger::task_enters(" Implementing"), trigger::task_enters("implementing"));
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
        (
            "\"initial\": \"DRAFT\"",
            "\"initial\": \"IDEA\"",
            "`initial` names the state \"IDEA\", which is not among",
        ),
        ("\"reset\": \"DRAFT\"", "\"reset\": \"IDEA\"", "`reset` names the state \"IDEA\""),
        (
            "\"next\": [\"DONE\"]",
            "\"next\": [\"DOEN\"]",
            "the `next` of \"ACCEPTED\" names the state \"DOEN\"",
        ),
        (
            "{\"state\": \"ARCHIVED\"",
            "{\"state\": \"LIMBO\", \"phase\": \"DONE\", \"next\": [\"ARCHIVED\"]}, {\"state\": \"ARCHIVED\"",
            "no way leads to the state \"LIMBO\"; add it to a `next`, or remove",
        ),
        (", \"ends\": true", "", "the state \"ARCHIVED\" is no end, and no way leads from it to one"),
        (", \"ends\": true", "", "the state \"DRAFT\" is no end, and no way leads from it to one"),
        (
            "\"next\": [\"DONE\"]",
            "\"next\": []",
            "the state \"ACCEPTED\" is no end, and no way leads from it to one",
        ),
        (
            "\"next\": [\"ARCHIVED\"]",
            "\"next\": [\"ARCHIVED\"], \"ends\": true",
            "\"DONE\" `ends`, and has a `next`",
        ),
        (
            "\"next\": [\"DONE\"]",
            "\"next\": [\"DONE\", \"ACCEPTED\"]",
            "the state \"ACCEPTED\" is its own `next`",
        ),
        (
            "\"next\": [\"DONE\"]",
            "\"next\": [\"DONE\", \"DONE\"]",
            "the `next` of \"ACCEPTED\" names \"DONE\" twice",
        ),
        ("{\"state\": \"DONE\"", "{\"state\": \"ACCEPTED\"", "the machine names \"ACCEPTED\" twice"),
        ("{\"state\": \"DONE\"", "{\"state\": \"done\"", "the state \"done\" must be upper case"),
        ("\"phase\": \"TEST\"", "\"phase\": \"\"", "the phase \"\" must be upper case"),
        (
            "\"task.derivation.completed\"",
            "\"task.derived\"",
            "\"READY_FOR_PLANNING\" has the trigger \"task.derived\"",
        ),
        (":implementing", ":", "has the trigger \"workflow.state.changed:\", which does not exist"),
        (":implementing", ":Implementing", "which does not exist; there are \"task.derivation.completed\""),
        (
            "\"workflow.story.tasks_completed\": \"TESTING\"",
            "\"workflow.story.tasks_completed\": \"DONE\"",
            "leads from \"CODE_REVIEW\" to \"DONE\", which is not among its `next`",
        ),
        (
            "\"workflow.story.tasks_completed\": \"TESTING\"",
            "\"workflow.story.tasks_completed\": \"IN_PROGRESS\"",
            "leads from \"CODE_REVIEW\" back to it",
        ),
        ("\"initial\"", "\"begin\"", "can't be read"),
    ] {
        let faults = broken(from, to);
        assert!(faults.iter().any(|fault| fault.contains(told)), "{told}: {faults:?}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let text =
        STANDARD.replace("\"reset\": \"DRAFT\"", "\"reset\": \"IDEA\"").replace("\"TEST\"", "\"Test\"");
    assert_eq!(Machine::read(&text).expect_err("two faults").len(), 2);
}
