//! The components of the tests: fixture guests, one per behaviour, and those written by hand. Building the former is
//! `cargo xtask`'s work.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The component of `tests/guests/examples/<name>.rs`.
pub fn fixture(name: &str) -> PathBuf {
    built(&format!("target/plugins/fixtures/{name}.wasm"), "cargo xtask plugins --fixtures")
}

/// The component of `plugins/<name>`; its manifest lies beside it.
pub fn bundled(name: &str) -> PathBuf {
    built(&format!("target/plugins/{name}.wasm"), "cargo xtask plugins")
}

fn built(path: &str, command: &str) -> PathBuf {
    let file = root().join(path);
    assert!(file.is_file(), "{path} is not there: run `{command}`");
    file
}

/// `tests/guests/wat/<name>.wat`, assembled: for what the SDK cannot do.
pub fn by_hand(name: &str) -> Vec<u8> {
    let file = root().join(format!("tests/guests/wat/{name}.wat"));
    wat::parse_file(&file).unwrap_or_else(|error| panic!("{error}"))
}
