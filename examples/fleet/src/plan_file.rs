//! A plan as a person writes it down: TOML, or JSON in a file that is named so.

use std::path::Path;

use anyhow::Context as _;
use fleet_proto::standin::v1::AddPlanRequest;
use serde::Deserialize;

/// Unknown keys are refused: a misspelt one would silently be left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    acceptance_criteria: Vec<String>,
    #[serde(default)]
    technical_notes: String,
    #[serde(default)]
    roles: Vec<String>,
    /// Chosen by Planning if absent.
    #[serde(default)]
    plan_id: String,
    #[serde(default)]
    story_id: String,
}

pub(crate) fn read(path: &Path) -> anyhow::Result<AddPlanRequest> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("can't read the plan {}", path.display()))?;
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let plan: PlanFile = if json {
        serde_json::from_str(&text).map_err(anyhow::Error::new)
    } else {
        toml::from_str(&text).map_err(anyhow::Error::new)
    }
    .with_context(|| {
        format!(
            "{} is no plan; it needs a title and may have description, acceptance_criteria (a list), technical_notes, \
             roles (a list), plan_id and story_id",
            path.display()
        )
    })?;
    Ok(AddPlanRequest {
        plan_id: plan.plan_id,
        story_id: plan.story_id,
        title: plan.title,
        description: plan.description,
        acceptance_criteria: plan.acceptance_criteria,
        technical_notes: plan.technical_notes,
        roles: plan.roles,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_misspelt_key_is_refused_with_its_line() {
        let (_folder, path) = write("plan.toml", "title = \"T\"\nacceptance_critera = []\n");
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(
            error.contains("plan.toml") && error.contains("acceptance_critera") && error.contains("line 2"),
            "{error}"
        );
    }

    #[test]
    fn json_is_read_where_the_name_says_so() {
        let (_folder, path) = write("plan.json", r#"{"title": "T", "roles": ["qa"]}"#);
        assert_eq!(read(&path).unwrap().roles, ["qa"]);
    }

    #[test]
    fn every_sample_plan_is_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let plan = read(&entry.unwrap().path()).unwrap();
            assert!(!plan.acceptance_criteria.is_empty() && !plan.roles.is_empty(), "{}", plan.title);
            seen += 1;
        }
        assert!(seen >= 3);
    }
}
