//! What is committed under `src/generated/` is what the `.proto` files generate today. Needs no protoc.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;

const PROTOS: [&str; 13] = [
    "cofferdam/admin/v1/dead_letters.proto",
    "cofferdam/admin/v1/jobs.proto",
    "cofferdam/bus/v1/bus.proto",
    "cofferdam/council/v1/scoring.proto",
    "cofferdam/fixtures/v1/ledger.proto",
    "cofferdam/queue/v1/queue.proto",
    "fleet/context/v1/context.proto",
    "fleet/orchestrator/v1/orchestrator.proto",
    "fleet/planning/v2/planning.proto",
    "fleet/ray_executor/v1/ray_executor.proto",
    "fleet/task_derivation/v1/task_derivation.proto",
    "fleet/workflow/v1/workflow.proto",
    "standin/v1/planning_admin.proto",
];

/// For tests alone, and with no imports.
const FIXTURES: &str = "cofferdam.fixtures.";

/// Name and content of every file that `src/generated/` should hold.
fn generate() -> BTreeMap<String, Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::Compiler::new([root])
        .unwrap()
        .include_imports(true)
        .include_source_info(true)
        .open_files(PROTOS.map(|file| root.join(file)))
        .unwrap()
        .file_descriptor_set();

    let out = tempfile::tempdir().unwrap();
    let gate = |feature: &str| (".", format!("#[cfg(feature = \"{feature}\")]"));
    let (client, server) = (gate("client"), gate("server"));
    tonic_prost_build::configure()
        // Payloads of up to a mebibyte pass through: shared, not copied.
        .bytes(".cofferdam.bus.v1")
        .bytes(".cofferdam.admin.v1")
        .client_mod_attribute(client.0, client.1)
        .server_mod_attribute(server.0, server.1)
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .out_dir(out.path())
        .compile_fds(files.clone())
        .unwrap();

    let mut generated: BTreeMap<String, Vec<u8>> = read(out.path());
    // The generator takes packages for modules within each other; here each is one below the crate.
    for code in generated.values_mut() {
        let text = String::from_utf8(std::mem::take(code)).unwrap();
        *code = text.replace("super::super::super::fleet::", "crate::").into_bytes();
    }
    // Comments are in the .proto files; reflection does without them.
    let mut lean = files;
    for file in &mut lean.file {
        file.source_code_info = None;
    }
    let mut fixtures = lean.clone();
    fixtures.file.retain(|file| file.package().starts_with(FIXTURES));
    lean.file.retain(|file| !file.package().starts_with(FIXTURES));
    generated.insert("fleet.fds".to_owned(), lean.encode_to_vec());
    generated.insert("fixtures.fds".to_owned(), fixtures.encode_to_vec());
    generated
}

fn read(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn proto_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            proto_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
}

#[test]
fn generated_code_is_what_the_proto_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    let wanted = generate();
    let found = read(&folder);

    let mut drifted: Vec<&String> =
        wanted.iter().filter(|(name, data)| found.get(*name) != Some(data)).map(|(name, _)| name).collect();
    drifted.extend(found.keys().filter(|name| !wanted.contains_key(*name)));
    if drifted.is_empty() {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        for name in drifted {
            match wanted.get(name) {
                Some(data) => fs::write(folder.join(name), data).unwrap(),
                None => fs::remove_file(folder.join(name)).unwrap(),
            }
        }
        return;
    }
    panic!(
        "src/generated/ differs from what the .proto files generate: {drifted:?}; run `UPDATE=1 cargo test -p fleet-proto` and commit the result"
    );
}

#[test]
fn every_proto_file_is_generated() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    proto_files(root, &mut found);
    let mut found: Vec<String> = found
        .iter()
        .map(|path| path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"))
        .collect();
    found.sort();
    assert_eq!(found, PROTOS);
}
