//! The daemon's config for a run: the plugins' asks are read from their manifests and written out as grants, as an
//! operator who agrees would.

use std::fmt::Write;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::repo::Repo;

/// Where the run's services listen.
#[derive(Debug)]
pub(super) struct At<'a> {
    pub(super) nats: &'a str,
    pub(super) planning: &'a str,
    pub(super) context: &'a str,
}

/// The text of `cofferdam.toml`.
pub(super) fn write(repo: &Repo, at: &At<'_>, plugins: &[&str]) -> Result<String> {
    let mut text = String::from("# Written by `cargo xtask demo`.\n\n");
    let cache = repo.target().join("compiled");
    let sections = [
        ("bus", vec![("nats", at.nats.to_owned().into())]),
        // Any free port; the daemon says which.
        ("admin", vec![("listen", "127.0.0.1:0".into())]),
        // What was compiled once starts at once in the next run.
        ("sandbox", vec![("cache", cache.display().to_string().into())]),
        ("observe", vec![("advisories", Value::Boolean(true))]),
        ("executor", vec![("backend", "offline".into())]),
        ("upstreams.planning", vec![("address", format!("http://{}", at.planning).into())]),
        ("upstreams.context", vec![("address", format!("http://{}", at.context).into())]),
    ];
    for (name, keys) in sections {
        section(&mut text, name, keys)?;
    }
    for name in plugins {
        let component = repo.plugins().join(format!("{name}.wasm"));
        let manifest = repo.plugins().join(format!("{name}.toml"));
        let manifest = std::fs::read_to_string(&manifest)
            .with_context(|| format!("can't read {}", manifest.display()))?;
        let manifest: Table =
            manifest.parse().with_context(|| format!("plugins/{name}/plugin.toml is no TOML"))?;
        section(
            &mut text,
            &format!("plugins.{name}"),
            vec![("component", component.display().to_string().into())],
        )?;
        section(&mut text, &format!("plugins.{name}.grants"), grants(name, &manifest))?;
    }
    Ok(text)
}

fn section(text: &mut String, name: &str, keys: Vec<(&str, Value)>) -> Result<()> {
    writeln!(text, "[{name}]")?;
    for (key, value) in keys {
        writeln!(text, "{key} = {value}")?;
    }
    writeln!(text)?;
    Ok(())
}

/// What the manifest asks for, in the form of grants.
fn grants(name: &str, manifest: &Table) -> Vec<(&'static str, Value)> {
    let asks = manifest.get("asks").and_then(Value::as_table);
    let asked = |key| Some((key, asks?.get(key)?.clone()));
    let mut grants = ["publish", "rpc", "executor"].into_iter().filter_map(asked).collect::<Vec<_>>();
    if let Some(state) = manifest.get("state") {
        let space = state.get("space").and_then(Value::as_str).unwrap_or(name);
        grants.push(("state", Value::Array(vec![space.into()])));
    }
    grants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_become_grants() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repo::at(folder.path());
        std::fs::create_dir_all(repo.plugins()).unwrap();
        let manifest = "[plugin]\nname = \"a\"\n[state]\nspace = \"derivation\"\n[asks]\npublish = [\"x.*\"]\nexecutor = [\"default\"]\n";
        std::fs::write(repo.plugins().join("a.toml"), manifest).unwrap();
        std::fs::write(repo.plugins().join("b.toml"), "[plugin]\nname = \"b\"\n[state]\n").unwrap();
        let at = At { nats: "nats://127.0.0.1:1", planning: "127.0.0.1:2", context: "127.0.0.1:3" };
        let text = write(&repo, &at, &["a", "b"]).unwrap();
        let config: Table = text.parse().unwrap();
        let grants = |name: &str| config["plugins"][name]["grants"].to_string();
        assert_eq!(config["upstreams"]["planning"]["address"].as_str(), Some("http://127.0.0.1:2"));
        assert!(
            grants("a").contains(r#"publish = ["x.*"]"#) && grants("a").contains(r#"state = ["derivation"]"#),
            "{text}"
        );
        assert_eq!(grants("b"), r#"{ state = ["b"] }"#);
    }
}
