//! Guests: every cdylib below `plugins/`, and the fixtures of `tests/guests`, become components in `target/plugins`.
//! The same sources and compiler give the same bytes in every checkout.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use wit_component::ComponentEncoder;

use crate::cargo::{self, Package, Product};
use crate::disk::{self, MIB};
use crate::lock::Lock;
use crate::repo::Repo;
use crate::stamps::{self, Inputs};
use crate::steps::{Step, Steps};
use crate::tools::wasm::{TARGET, Wasm};

/// Dependencies built for the guests and, for their macros, for the host.
const DISK: u64 = 1024 * MIB;
/// The descriptors of the fleet's contract, as manifests name them, and where they are generated.
const FLEET: (&str, &str) = ("fleet.binpb", "proto/src/generated/fleet.fds");
/// The package whose `[[example]]`s are the test guests.
const FIXTURES: &str = "guest-fixtures";

/// What one cargo call builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plugin,
    Fixture,
}

/// A guest to build.
#[derive(Debug)]
struct Guest {
    kind: Kind,
    name: String,
    /// As cargo names it.
    target: String,
    folder: PathBuf,
    inputs: String,
}

/// A component in `target/plugins`, and its stamp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Component {
    pub(crate) name: String,
    inputs: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

/// Which guests to build.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection<'a> {
    /// Empty: all plugins.
    pub(crate) names: &'a [String],
    pub(crate) fixtures: bool,
}

/// Builds what is not up to date. All components that could be built are there even if one could not.
pub(crate) fn build(
    repo: &Repo,
    steps: &Steps,
    wasm: &Wasm,
    selection: Selection<'_>,
) -> Result<Vec<Component>> {
    steps.run("plugins", |step| {
        let _lock = Lock::take(&repo.notes().join("plugins.lock"), step)?;
        let packages = cargo::packages(repo)?;
        let guests = select(repo, &packages, wasm, selection)?;
        let (done, stale): (Vec<_>, Vec<_>) =
            guests.iter().partition(|guest| up_to_date(repo, guest).is_some());
        step.note(format!("{} unchanged, {} built", done.len(), stale.len()));
        if !stale.is_empty() {
            disk::require(&repo.guests(), DISK, "building plugins")?;
        }
        let mut faults = Vec::new();
        for kind in [Kind::Plugin, Kind::Fixture] {
            let stale = stale.iter().filter(|guest| guest.kind == kind).copied().collect::<Vec<_>>();
            if !stale.is_empty() {
                faults.extend(build_kind(repo, step, wasm, &packages, kind, &stale)?);
            }
        }
        if !faults.is_empty() {
            let faults = faults.iter().map(|fault| format!("{fault:#}")).collect::<Vec<_>>();
            bail!(
                "{}",
                faults.join(
                    "
"
                )
            );
        }
        Ok(guests.iter().filter_map(|guest| up_to_date(repo, guest)).collect())
    })
}

fn select(repo: &Repo, packages: &[Package], wasm: &Wasm, selection: Selection<'_>) -> Result<Vec<Guest>> {
    let plugins = repo.root().join("plugins");
    let is_cdylib = |target: &&cargo::Target| target.crate_types.iter().any(|kind| kind == "cdylib");
    let mut guests = Vec::new();
    for package in packages {
        let kind = if package.folder().starts_with(&plugins) { Kind::Plugin } else { Kind::Fixture };
        if kind == Kind::Fixture && package.name != FIXTURES {
            continue;
        }
        for target in package.targets.iter().filter(is_cdylib) {
            let example = target.kind.iter().any(|kind| kind == "example");
            if example != (kind == Kind::Fixture) {
                continue;
            }
            let name = if example { target.name.clone() } else { package.name.clone() };
            let inputs = inputs(repo, packages, package, wasm)?;
            guests.push(Guest {
                kind,
                name,
                target: target.name.clone(),
                folder: package.folder().to_path_buf(),
                inputs,
            });
        }
    }
    let is_plugin = |name: &str| guests.iter().any(|guest| guest.kind == Kind::Plugin && guest.name == name);
    if let Some(unknown) = selection.names.iter().find(|name| !is_plugin(name)) {
        let known = guests.iter().filter(|guest| guest.kind == Kind::Plugin).map(|guest| guest.name.as_str());
        bail!("no plugin `{unknown}` below plugins/; there are: {}", known.collect::<Vec<_>>().join(", "));
    }
    guests.retain(|guest| match guest.kind {
        Kind::Plugin => selection.names.is_empty() || selection.names.contains(&guest.name),
        Kind::Fixture => selection.fixtures,
    });
    Ok(guests)
}

/// All that decides about the bytes of a guest.
fn inputs(repo: &Repo, packages: &[Package], package: &Package, wasm: &Wasm) -> Result<String> {
    let mut inputs = Inputs::new(repo.root());
    inputs.word(&wasm.version);
    inputs.word(&format!("{:?}", wasm.debian.is_some()));
    for path in ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", "wit", "xtask/src/guests.rs", FLEET.1] {
        inputs.path(&repo.root().join(path))?;
    }
    for folder in cargo::folders(packages, package) {
        inputs.path(&folder)?;
    }
    Ok(inputs.digest())
}

fn stamp(repo: &Repo, guest: &Guest) -> PathBuf {
    let kind = if guest.kind == Kind::Plugin { "plugin" } else { "fixture" };
    repo.notes().join("stamps").join(format!("{kind}-{}.json", guest.name))
}

fn folder(repo: &Repo, kind: Kind) -> PathBuf {
    match kind {
        Kind::Plugin => repo.plugins(),
        Kind::Fixture => repo.plugins().join("fixtures"),
    }
}

fn up_to_date(repo: &Repo, guest: &Guest) -> Option<Component> {
    let component =
        stamps::read::<Component>(&stamp(repo, guest)).filter(|stamp| stamp.inputs == guest.inputs)?;
    let folder = folder(repo, guest.kind);
    let same = stamps::sha256_of_file(&folder.join(format!("{}.wasm", guest.name)))
        .is_ok_and(|sha| sha == component.sha256);
    let manifest = folder.join(format!("{}.toml", guest.name));
    let beside = guest.kind == Kind::Fixture
        || std::fs::read_to_string(&manifest)
            .is_ok_and(|text| descriptors(&text).iter().all(|name| folder.join(name).is_file()));
    (same && beside).then_some(component)
}

/// One cargo call for all guests of a kind, so that features unify the same way whatever is stale. Returns the faults
/// of single guests.
fn build_kind(
    repo: &Repo,
    step: &Step,
    wasm: &Wasm,
    packages: &[Package],
    kind: Kind,
    stale: &[&Guest],
) -> Result<Vec<anyhow::Error>> {
    let (products, status) = compile(repo, step, wasm, packages, kind)?;
    let mut faults = Vec::new();
    for guest in stale {
        let product =
            products.iter().find(|product| product.package == guest.folder && product.target == guest.target);
        let module = product.and_then(|product| {
            product.files.iter().find(|file| file.extension().is_some_and(|end| end == "wasm"))
        });
        // What was not built is among cargo's own errors.
        let Some(module) = module else { continue };
        step.at(&format!("componentizing {}", guest.name));
        if let Err(error) = componentize(repo, guest, module) {
            faults.push(error.context(format!("plugin {}", guest.name)));
        }
    }
    if let Err(error) = status {
        faults.push(error);
    }
    Ok(faults)
}

fn compile(
    repo: &Repo,
    step: &Step,
    wasm: &Wasm,
    packages: &[Package],
    kind: Kind,
) -> Result<(Vec<Product>, Result<()>)> {
    let (again, log) = match kind {
        Kind::Plugin => ("cargo xtask plugins", "plugins"),
        Kind::Fixture => ("cargo xtask plugins --fixtures", "fixtures"),
    };
    let extra = wasm.flags()?;
    let mut cargo = cargo::command(repo, log, again)
        .args([
            "build",
            "--profile=guest",
            "--keep-going",
            "--target",
            TARGET,
            "--message-format=json-render-diagnostics",
        ])
        .args(["--config", &flags(repo, wasm)?])
        .args(extra.args)
        .env("CARGO_TARGET_DIR", repo.guests())
        // They would replace the flags of .cargo/config.toml.
        .without("RUSTFLAGS")
        .without("CARGO_ENCODED_RUSTFLAGS");
    for (key, value) in extra.environment {
        cargo = cargo.env(key, value);
    }
    match kind {
        Kind::Plugin => {
            let plugins = repo.root().join("plugins");
            cargo = cargo.arg("--lib");
            for package in packages.iter().filter(|package| package.folder().starts_with(&plugins)) {
                cargo = cargo.args(["-p", &package.name]);
            }
        }
        Kind::Fixture => cargo = cargo.args(["-p", FIXTURES, "--examples"]),
    }
    let (lines, status) = cargo.run_to_status(step)?;
    Ok((cargo::products(&lines), status))
}

/// Panic messages hold paths: those of this machine become the same everywhere. Merged with `.cargo/config.toml`.
fn flags(repo: &Repo, wasm: &Wasm) -> Result<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).context("no home folder")?;
    // Of several that match, the compiler takes the last.
    let folders =
        [(home.as_path(), "/cargo"), (repo.root(), "/cofferdam"), (wasm.sysroot.as_path(), "/rust")];
    let flags =
        folders.map(|(from, to)| toml::Value::from(format!("--remap-path-prefix={}={to}", from.display())));
    Ok(format!("target.{TARGET}.rustflags={}", toml::Value::from(flags.to_vec())))
}

fn componentize(repo: &Repo, guest: &Guest, module: &Path) -> Result<()> {
    let bytes = std::fs::read(module).with_context(|| format!("can't read {}", module.display()))?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|encoder| encoder.encode())
        .with_context(|| format!("{} becomes no component", repo.short(module)))?;
    let folder = folder(repo, guest.kind);
    stamps::write_whole(&folder.join(format!("{}.wasm", guest.name)), &component)?;
    if guest.kind == Kind::Plugin {
        let manifest = guest.folder.join("plugin.toml");
        let text = std::fs::read_to_string(&manifest)
            .with_context(|| format!("can't read {}: every plugin has one", manifest.display()))?;
        for name in descriptors(&text) {
            let own = guest.folder.join(&name);
            let source = if name == FLEET.0 && !own.is_file() { repo.root().join(FLEET.1) } else { own };
            let bytes = std::fs::read(&source).with_context(|| {
                format!("can't read {}, which {} names", source.display(), manifest.display())
            })?;
            stamps::write_whole(&folder.join(name), &bytes)?;
        }
        stamps::write_whole(&folder.join(format!("{}.toml", guest.name)), text.as_bytes())?;
    }
    let made = Component {
        name: guest.name.clone(),
        inputs: guest.inputs.clone(),
        size: component.len() as u64,
        sha256: stamps::sha256(&component),
    };
    stamps::write(&stamp(repo, guest), &made)
}

/// The files of descriptors that a manifest names, which lie beside it. What is wrong with a manifest the daemon tells.
fn descriptors(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().unwrap_or_default();
    let services = manifest.get("services").and_then(toml::Value::as_array).into_iter().flatten();
    let mut names: Vec<String> = services
        .filter_map(|service| service.get("descriptors")?.as_str())
        .filter(|name| Path::new(name).file_name().is_some_and(|file| file == *name))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::wasm::Rung;

    #[test]
    fn descriptors_are_those_that_lie_beside_the_manifest() {
        let service = |name: &str| format!("[[services]]\nname = \"a.B\"\ndescriptors = \"{name}\"\n");
        let all = ["b.binpb", "a.binpb", "b.binpb", "../c.binpb", "/d.binpb"].map(service).concat();
        assert_eq!(descriptors(&all), ["a.binpb", "b.binpb"]);
        assert!(descriptors("[plugin]\n").is_empty() && descriptors("no toml").is_empty());
    }

    #[test]
    fn paths_of_the_machine_are_remapped_in_toml_that_cargo_reads() {
        let repo = Repo::at(Path::new("/a/checkout \"x\""));
        let wasm = Wasm::native_for_tests(Rung::Present, "/sys");
        let text = flags(&repo, &wasm).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let flags = table["target"][TARGET]["rustflags"].as_array().unwrap();
        assert_eq!(flags[1].as_str(), Some("--remap-path-prefix=/a/checkout \"x\"=/cofferdam"));
        assert_eq!(flags[2].as_str(), Some("--remap-path-prefix=/sys=/rust"));
    }
}
