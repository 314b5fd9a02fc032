//! Keys that are paths, relative to the folder of the config.

use std::path::{Path, PathBuf};

use super::{
    literal,
    reader::{At, Table},
    settings::Origin,
};

/// A path that may be made later.
pub(super) fn path_or(table: &Table<'_>, key: &str, base: &Path, default: &Path) -> PathBuf {
    optional_path(table, key, base).map_or_else(
        || {
            let path = base.join(default);
            table.set(key, literal::path(&path), Origin::Default);
            path
        },
        |(path, _)| path,
    )
}

/// `None` if the key is not there, or along with a fault.
pub(super) fn optional_path(table: &Table<'_>, key: &str, base: &Path) -> Option<(PathBuf, At<String>)> {
    let text = table.string(key)?;
    let name = table.name(key);
    if text.value.trim().is_empty() {
        table.fault_at(&text, format!("{name} is empty; write a path, or remove it"));
        return None;
    }
    if text.value == "~" || text.value.starts_with("~/") {
        table.fault_at(
            &text,
            format!("{name} is {:?}, and ~ is not expanded here; write the whole path", text.value),
        );
        return None;
    }
    let path = base.join(&text.value);
    table.refine(key, literal::path(&path));
    Some((path, text))
}

/// A path whose file must be there.
pub(super) fn file(table: &Table<'_>, key: &str, base: &Path) -> Option<PathBuf> {
    let (path, text) = optional_path(table, key, base)?;
    if !path.is_file() {
        table.fault_at(
            &text,
            format!("{key} names {:?}, which is not a file; correct the path", path.display()),
        );
    }
    Some(path)
}

/// A client certificate comes with its key.
pub(super) fn certificate(table: &Table<'_>, base: &Path) -> Option<(PathBuf, PathBuf)> {
    match (file(table, "certificate", base), file(table, "key", base)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        // What is wrong with one of them has been told.
        _ if table.has("certificate") && table.has("key") => None,
        _ => {
            table.fault("certificate and key belong together; add the one that is missing");
            None
        }
    }
}
