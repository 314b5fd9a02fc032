//! The daemon's config for a run: the plugins' asks are read from their manifests and written out as grants, as an
//! operator who agrees would.

use std::fmt::Write;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::repo::Repo;

/// Where the run's services listen.
#[derive(Debug)]
pub(super) struct At<'a> {
    /// None: the embedded bus, in a folder beside the config.
    pub(super) nats: Option<&'a str>,
    pub(super) admin: &'a str,
    pub(super) grpc: &'a str,
    pub(super) planning: &'a str,
    pub(super) context: &'a str,
    /// With councils and what belongs to them; and how many kills are to be survived.
    pub(super) full: Option<u64>,
}

/// Where the embedded bus keeps its data, from the config's folder.
const LOCAL: &str = "bus";
/// Of Context; an answer counts for all runs of an event, so that a decision is told once.
const ONCE: &str = "fleet.context.v1.ContextService/UpdateContext";
/// A job whose worker was killed is another's soon: half a minute is long for somebody who watches.
const LEASE: &str = "2s";
/// As the daemon's own default.
const DELIVERIES: u64 = 8;

/// The text of `cofferdam.toml`.
pub(super) fn write(repo: &Repo, at: &At<'_>, plugins: &[&str]) -> Result<String> {
    let mut text = String::from(
        "# Written by `cargo xtask demo`. A plugin without a component is the bundled one of its name.\n\n",
    );
    let cache = repo.target().join("compiled");
    let bus = match at.nats {
        Some(url) => ("nats", url.into()),
        None => ("local", LOCAL.into()),
    };
    let mut executor = vec![("backend", "offline".into())];
    let mut context = vec![("address", format!("http://{}", at.context).into())];
    let mut more = Vec::new();
    if let Some(kills) = at.full {
        executor.push(("lease", LEASE.into()));
        context.push(("once", Value::Array(vec![ONCE.into()])));
        more.push(("upstreams.scoring", vec![("address", "self".into())]));
        // We kill at random, and it is no fault of the event that happens to be under way.
        let deliveries = i64::try_from(DELIVERIES.saturating_add(kills)).unwrap_or(i64::MAX);
        more.push(("dispatch", vec![("max-deliveries", deliveries.into())]));
    }
    let sections = [
        ("bus", vec![bus]),
        ("admin", vec![("listen", at.admin.into())]),
        ("grpc", vec![("listen", Value::Array(vec![at.grpc.into()]))]),
        // What was compiled once starts at once in the next run.
        ("sandbox", vec![("cache", cache.display().to_string().into())]),
        ("observe", vec![("advisories", Value::Boolean(true))]),
        ("executor", executor),
        ("upstreams.planning", vec![("address", format!("http://{}", at.planning).into())]),
        ("upstreams.context", context),
    ];
    for (name, keys) in sections.into_iter().chain(more) {
        section(&mut text, name, keys)?;
    }
    for name in plugins {
        let manifest = repo.plugins().join(format!("{name}.toml"));
        let manifest = std::fs::read_to_string(&manifest)
            .with_context(|| format!("can't read {}", manifest.display()))?;
        let manifest: Table =
            manifest.parse().with_context(|| format!("plugins/{name}/plugin.toml is no TOML"))?;
        section(&mut text, &format!("plugins.{name}.grants"), grants(name, &manifest))?;
    }
    Ok(text)
}

fn section(text: &mut String, name: &str, keys: Vec<(&str, Value)>) -> Result<()> {
    writeln!(text, "[{name}]")?;
    for (key, value) in keys {
        match value {
            Value::Array(items) if items.len() > 1 => {
                writeln!(text, "{key} = [")?;
                for item in items {
                    writeln!(text, "    {item},")?;
                }
                writeln!(text, "]")?;
            }
            value => writeln!(text, "{key} = {value}")?,
        }
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
    let services = manifest.get("services").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<Value> = services.filter_map(|service| service.get("name").cloned()).collect();
    if !names.is_empty() {
        grants.push(("serve", Value::Array(names)));
    }
    grants
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;
    use crate::demo::FULL;

    #[test]
    fn asks_become_grants() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repo::at(folder.path());
        std::fs::create_dir_all(repo.plugins()).unwrap();
        let manifest = "[plugin]\nname = \"a\"\n[state]\nspace = \"derivation\"\n[asks]\npublish = [\"x.*\", \"y\"]\nexecutor = [\"default\"]\n";
        std::fs::write(repo.plugins().join("a.toml"), manifest).unwrap();
        std::fs::write(
            repo.plugins().join("b.toml"),
            "[plugin]\nname = \"b\"\n[state]\n[[services]]\nname = \"a.B\"\n",
        )
        .unwrap();
        let at = |nats| At {
            nats,
            admin: "127.0.0.1:4",
            grpc: "127.0.0.1:0",
            planning: "127.0.0.1:2",
            context: "127.0.0.1:3",
            full: None,
        };
        let text = write(&repo, &at(None), &["a", "b"]).unwrap();
        let config: Table = text.parse().unwrap();
        let grants = |name: &str| config["plugins"][name]["grants"].to_string();
        assert_eq!(config["upstreams"]["planning"]["address"].as_str(), Some("http://127.0.0.1:2"));
        assert_eq!(config["bus"].to_string(), r#"{ local = "bus" }"#);
        assert!(
            grants("a").contains(r#"publish = ["x.*", "y"]"#)
                && grants("a").contains(r#"state = ["derivation"]"#),
            "{text}"
        );
        assert_eq!(grants("b"), r#"{ state = ["b"], serve = ["a.B"] }"#);
        let config: Table = write(&repo, &at(Some("nats://127.0.0.1:1")), &[]).unwrap().parse().unwrap();
        assert_eq!(config["bus"].to_string(), r#"{ nats = "nats://127.0.0.1:1" }"#);
        assert!(!config.contains_key("dispatch") && config["executor"].get("lease").is_none(), "{config}");
    }

    #[test]
    fn a_full_run_scores_at_the_daemon_itself_and_survives_its_kills() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repo::at(folder.path());
        let at = At {
            nats: None,
            admin: "127.0.0.1:4",
            grpc: "127.0.0.1:5",
            planning: "127.0.0.1:2",
            context: "127.0.0.1:3",
            full: Some(10),
        };
        let config: Table = write(&repo, &at, &[]).unwrap().parse().unwrap();
        assert_eq!(config["grpc"]["listen"].to_string(), r#"["127.0.0.1:5"]"#);
        assert_eq!(config["upstreams"]["scoring"]["address"].as_str(), Some("self"));
        assert_eq!(config["upstreams"]["context"]["once"].to_string(), format!("[{ONCE:?}]"));
        assert_eq!(config["dispatch"]["max-deliveries"].as_integer(), Some(18));
    }

    #[test]
    fn the_configuration_for_people_grants_what_the_manifests_ask_for() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |file: &Path| std::fs::read_to_string(file).unwrap().parse::<Table>().unwrap();
        let config = read(&root.join("cofferdam.full.toml"));
        let plugins = config["plugins"].as_table().unwrap();
        let names: BTreeSet<&str> = plugins.keys().map(String::as_str).collect();
        assert_eq!(names, FULL.into());
        let texts = |value: &Value| -> BTreeSet<String> {
            value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
        };
        for name in FULL {
            let manifest = read(&root.join("plugins").join(name).join("plugin.toml"));
            let mut asked: BTreeMap<_, _> =
                grants(name, &manifest).into_iter().map(|(kind, value)| (kind, texts(&value))).collect();
            let mut granted: BTreeMap<_, _> = plugins[name]["grants"]
                .as_table()
                .unwrap()
                .iter()
                .map(|(k, value)| (&**k, texts(value)))
                .collect();
            // Which models is for the operator to say.
            assert_eq!(asked.remove("executor").is_some(), granted.remove("executor").is_some(), "{name}");
            assert_eq!(asked, granted, "{name}");
        }
    }
}
