//! Golden tests: a folder in `testdata` for each, with the config, the manifests, and what is told about them.

use std::path::{Path, PathBuf};

use super::told;
use crate::config::{Environment, Location};

/// A guest that does nothing but import these, in the text format.
fn guest(imports: &[&str]) -> Vec<u8> {
    let imports: String =
        imports.iter().map(|name| format!("(import \"cofferdam:plugin/{name}@0.1.0\" (instance))")).collect();
    let text = include_str!("testdata/guest.wat").replace("(;imports;)", &imports);
    wat::parse_str(&text).unwrap()
}

/// The folder's files with the components that they name, where they can be told of by their own names.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(testdata(name)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let components = [
        ("plain.wasm", guest(&[])),
        ("talker.wasm", guest(&["publish", "state"])),
        ("caller.wasm", guest(&["rpc", "log"])),
        ("newer.wasm", wat::parse_str("(component (@custom \"cofferdam:wit\" \"0.9.0\"))").unwrap()),
        ("foreign.wasm", wat::parse_str("(component (import \"acme:db/query@1.0.0\" (instance)))").unwrap()),
        ("script.wasm", b"#!/bin/sh\n".to_vec()),
    ];
    for (file, bytes) in components {
        std::fs::write(folder.path().join(file), bytes).unwrap();
    }
    folder
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands/check/testdata").join(name)
}

/// `UPDATE=1` accepts what is told now.
#[track_caller]
fn golden(name: &str, told: &str) {
    let golden = testdata(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&golden, told).unwrap();
    }
    assert_eq!(told, std::fs::read_to_string(&golden).unwrap(), "{name}");
}

async fn check(name: &str, fine: bool) {
    let folder = copy(name);
    let file = folder.path().join("cofferdam.toml");
    let told = told(&Location::File(file), &Environment::default(), false).await;
    assert_eq!(told.fine, fine, "{}", told.text);
    golden(&format!("{name}.out"), &told.text.replace(&format!("{}/", folder.path().display()), ""));
    let left = std::fs::read_dir(folder.path()).unwrap().any(|f| f.unwrap().file_name() == ".cofferdam");
    assert!(!left, "nothing is left behind");
}

#[tokio::test]
async fn a_config_that_is_fine_is_summed_up() {
    check("fine", true).await;
}

#[tokio::test]
async fn who_is_asked_for_answers_is_summed_up_with_what_nobody_makes_anything_of() {
    check("queue", true).await;
}

#[tokio::test]
async fn missing_grants_are_told_with_the_lines_to_write_in_their_context() {
    check("lacking", false).await;
}

#[tokio::test]
async fn faults_of_config_manifests_and_components_are_told_at_once() {
    check("faulty", false).await;
}

#[tokio::test]
async fn pasting_the_lines_makes_it_fine() {
    let folder = copy("lacking");
    let file = folder.path().join("cofferdam.toml");
    let location = Location::File(file.clone());
    let first = told(&location, &Environment::default(), true).await;
    let report: serde_json::Value = serde_json::from_str(&first.text).unwrap();
    assert_eq!(report["ok"], false);
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let writes = || report["findings"].as_array().unwrap().iter().map(|finding| &finding["write"]);
    let new = |write: &serde_json::Value| write["lines"].as_array().cloned().unwrap_or_default();
    let text_of = |line: &serde_json::Value| line["text"].as_str().unwrap().to_owned();
    for line in writes().flat_map(new) {
        if let Some(at) = line["replaces"].as_u64() {
            lines[at as usize - 1] = text_of(&line);
        }
    }
    // From below, so that those above keep their numbers.
    let mut tables: Vec<&serde_json::Value> = writes().collect();
    tables.sort_by_key(|write| std::cmp::Reverse(write["table_line"].as_u64()));
    for write in tables {
        let added: Vec<String> =
            new(write).iter().filter(|line| line["replaces"].is_null()).map(text_of).collect();
        match (write["table_line"].as_u64(), write["table"].as_str()) {
            (Some(at), _) => drop(lines.splice(at as usize..at as usize, added)),
            (None, Some(table)) => lines.extend([format!("[{table}]")].into_iter().chain(added)),
            (None, None) => {}
        }
    }
    std::fs::write(&file, lines.join("\n")).unwrap();
    let second = told(&location, &Environment::default(), false).await;
    assert!(second.fine, "{}\n{}", second.text, lines.join("\n"));
}

#[tokio::test]
async fn a_config_that_is_not_there_is_a_fault() {
    let missing = Location::File("no/such/cofferdam.toml".into());
    let told = told(&missing, &Environment::default(), false).await;
    assert!(!told.fine);
    assert!(told.text.starts_with("fault: no/such/cofferdam.toml: can't be read"), "{}", told.text);
}
