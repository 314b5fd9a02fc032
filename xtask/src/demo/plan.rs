//! The user's own plan is checked before anything is set up: a fault names the file, the line and the key.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The keys that a plan may have. Only their shapes count here; Planning reads the file itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only checked")]
struct Plan {
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    acceptance_criteria: Vec<String>,
    #[serde(default)]
    technical_notes: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    plan_id: String,
    #[serde(default)]
    story_id: String,
}

/// The file's full path, if it holds a plan. JSON by its extension, else TOML.
pub(super) fn check(file: &Path) -> Result<PathBuf> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("can't read the plan {}", file.display()))?;
    let is_json = file.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    let read = if is_json {
        serde_json::from_str::<Plan>(&text).map_err(|error| {
            let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default().trim();
            format!("{}:{}: {error}\n  | {line}", file.display(), error.line())
        })
    } else {
        toml::from_str::<Plan>(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            format!("{}:{line}: {}", file.display(), error.to_string().trim_end())
        })
    };
    match read {
        Ok(plan) if plan.title.trim().is_empty() => {
            bail!("{}: the key `title` is empty: give the plan one", file.display())
        }
        Ok(_) => file.canonicalize().with_context(|| format!("can't find {}", file.display())),
        Err(fault) => bail!(
            "{fault}\n  a plan has `title`, and may have `description`, `acceptance_criteria` (a list), `technical_notes`, \
             `roles` (a list), `plan_id`, `story_id`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str, text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        check(&file).unwrap_err().to_string()
    }

    #[test]
    fn a_fault_names_file_line_and_key() {
        let text = fault("p.toml", "title = \"T\"\n\nroles = 3\n");
        assert!(text.contains("p.toml:3: ") && text.contains("roles"), "{text}");
        let text = fault("p.toml", "title = \"T\"\nacceptance_critera = []\n");
        assert!(text.contains("p.toml:2: ") && text.contains("acceptance_critera"), "{text}");
        let text = fault("p.json", "{\n  \"title\": \"T\",\n  \"roles\": 3\n}");
        assert!(text.contains("p.json:3: ") && text.contains("| \"roles\": 3"), "{text}");
        let text = fault("p.json", "{\n  \"titel\": \"T\"\n}");
        assert!(text.contains("p.json:2: ") && text.contains("titel"), "{text}");
        assert!(fault("p.toml", "description = \"no title\"\n").contains("title"));
        assert!(fault("p.toml", "title = \" \"\n").contains("`title` is empty"));
    }

    #[test]
    fn the_sample_is_a_plan() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        check(&folder.join(super::super::SAMPLE)).unwrap();
    }
}
