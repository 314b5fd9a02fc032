//! `docs/contract-coverage.md` is true: each rule of the fleet's contract that we keep names tests that are there, and each
//! test that is named by the contract is in it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const TABLE: &str = "docs/contract-coverage.md";
/// Of the contract: all of them.
const SECTIONS: [&str; 17] =
    ["1", "2.1", "2.2", "2.3", "2.4", "3", "4", "5.1", "5.2", "5.3", "5.4", "5.5", "5.6", "6", "7", "8", "9"];
/// Where tests are that may be named by a section: `contract_5_2_...`.
const PLACES: [&str; 4] = ["plugins", "tests/e2e", "host", "proto"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `path::name` in backticks.
struct Named {
    line: usize,
    path: String,
    name: String,
}

fn table() -> String {
    fs::read_to_string(root().join(TABLE)).expect(TABLE)
}

fn named(text: &str) -> Vec<Named> {
    let mut all = Vec::new();
    for (n, line) in text.lines().enumerate() {
        for word in line.split('`').skip(1).step_by(2) {
            if let Some((path, name)) = word.split_once(".rs::") {
                all.push(Named { line: n + 1, path: format!("{path}.rs"), name: name.to_owned() });
            }
        }
    }
    all
}

/// Whether a file has a test of this name: a function with a test attribute above it, or one in a list that makes tests.
fn is_test(source: &str, name: &str) -> bool {
    let (listed, declared) = (format!("{name},"), format!("fn {name}("));
    let (mut in_list, mut attributed) = (false, false);
    for line in source.lines().map(str::trim) {
        in_list |= line == listed;
        if line.trim_start_matches("async ").starts_with(&declared) && (in_list || attributed) {
            return true;
        }
        let may_be_between = line.starts_with("#[") || line.starts_with("//");
        attributed = line.starts_with("#[") && (line.contains("test]") || line.contains("test("))
            || attributed && may_be_between;
    }
    false
}

#[test]
fn each_rule_names_tests_that_exist() {
    let text = table();
    let mut missing = Vec::new();
    for Named { line, path, name } in named(&text) {
        let source = fs::read_to_string(root().join(&path)).unwrap_or_default();
        if !is_test(&source, &name) {
            missing.push(format!("{TABLE}:{line}: {path} has no test {name}"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    let bare: Vec<String> = rules(&text)
        .filter(|(_, row)| named(row).is_empty())
        .map(|(line, row)| format!("{TABLE}:{line}: no test: {row}"))
        .collect();
    assert!(bare.is_empty(), "{}", bare.join("\n"));
}

/// Rows below the head of a table.
fn rules(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("| ") && !line.starts_with("| rule "))
        .map(|(n, line)| (n + 1, line))
}

#[test]
fn each_section_has_rules() {
    let text = table();
    for section in SECTIONS {
        let rules = text
            .lines()
            .skip_while(|line| !line.starts_with(&format!("## {section} ")))
            .skip(1)
            .take_while(|line| !line.starts_with("## "))
            .filter(|line| line.starts_with("| ") && !line.starts_with("| rule "));
        assert_ne!(rules.count(), 0, "{TABLE} has no rules of section {section}");
    }
}

#[test]
fn each_test_that_is_named_by_the_contract_is_in_the_table() {
    let text = table();
    let known: BTreeSet<(PathBuf, String)> =
        named(&text).into_iter().map(|n| (root().join(n.path), n.name)).collect();
    let mut left_out = Vec::new();
    for place in PLACES {
        for file in sources(&root().join(place)) {
            let source = fs::read_to_string(&file).expect("a source");
            for name in source.split("fn ").skip(1).filter_map(|rest| rest.split('(').next()) {
                if name.starts_with("contract_") && !known.contains(&(file.clone(), name.to_owned())) {
                    left_out.push(format!("{}::{name}", file.display()));
                }
            }
        }
    }
    assert!(left_out.is_empty(), "not in {TABLE}:\n{}", left_out.join("\n"));
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push(path);
        }
    }
    all
}
