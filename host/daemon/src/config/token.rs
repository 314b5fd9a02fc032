//! `token-file` and `token-env`: a secret never stands in the config itself.

use std::path::PathBuf;

use super::{Secret, env::Surroundings, paths::file, reader::Table};

pub(super) fn token(table: &Table<'_>, surroundings: &Surroundings<'_>) -> Option<Secret> {
    let path: Option<PathBuf> = file(table, "token-file", &surroundings.base);
    let name = table.string("token-env");
    if let (Some(_), Some(name)) = (&path, &name) {
        table.fault_at(name, "token-file and token-env exclude each other; remove one");
    }
    let (key, holder, token) = match (path, name) {
        (Some(path), _) => match std::fs::read_to_string(&path) {
            Ok(text) => ("token-file", format!("the file {:?}", path.display()), text),
            // That it is no file has been told.
            Err(_) if !path.is_file() => return None,
            Err(e) => {
                table.fault_of(
                    "token-file",
                    format!(
                        "token-file {:?} can't be read: {e}; let the daemon's user read it, or name another",
                        path.display()
                    ),
                );
                return None;
            }
        },
        (None, Some(name)) => match surroundings.variable(&name.value) {
            Some(value) => ("token-env", format!("the variable {:?}", name.value), value),
            None => {
                table.fault_at(
                    &name,
                    format!("token-env names {:?}, which is not set; set it, or use token-file", name.value),
                );
                return None;
            }
        },
        (None, None) => return None,
    };
    let token = token.trim();
    let wrong = match token {
        "" => Some("is empty"),
        token if !token.bytes().all(|b| b.is_ascii_graphic()) => {
            Some("holds no token: there is white space in it, or a character beyond ASCII")
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        table.fault_of(
            key,
            format!(
                "{holder}, which {key} names, {wrong}; write the token there and nothing else, such as `openssl rand -hex 32` \
                 prints"
            ),
        );
    }
    Some(Secret::new(token.to_owned()))
}
