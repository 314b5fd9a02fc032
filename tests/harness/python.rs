//! Programs of `tests/python`, with the packages that `cargo xtask setup` fetched. They print nothing but their result.

use std::path::Path;

use tokio::process::Command;

use crate::process::target;

/// `python3 tests/python/<name>`.
pub fn script(name: &str) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let mut command = Command::new("python3");
    // -B: no cache beside the sources.
    command.arg("-B").arg(folder.join(name)).env("PYTHONPATH", target().join("tools/python"));
    command
}
