//! `demo --keep` and `demo --stop`: what was left running, what to try with it, and how it ends.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::start::Addresses;
use crate::binaries;
use crate::repo::Repo;
use crate::sys::{self, Signal};
use crate::{interrupt, stamps, terminal};

const FILE: &str = "kept.json";
const GRACE: Duration = Duration::from_secs(15);

/// The processes of a kept run, in the order of their start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    folder: PathBuf,
    processes: Vec<Running>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Running {
    name: String,
    pid: u32,
    /// A pid may come again with another process; the moment of its start does not.
    started: Option<String>,
}

impl Kept {
    pub(super) fn write<'a>(folder: &Path, processes: impl Iterator<Item = (&'a str, u32)>) -> Result<Self> {
        let running =
            |(name, pid): (&str, u32)| Running { name: name.to_owned(), pid, started: sys::started(pid) };
        let kept = Self { folder: folder.to_path_buf(), processes: processes.map(running).collect() };
        stamps::write(&folder.join(FILE), &kept)?;
        Ok(kept)
    }

    /// What a person can do now.
    pub(super) fn text(&self, repo: &Repo, of: &binaries::Demo, at: &Addresses, plan_id: &str) -> String {
        let (fleet, cofferdam) = (repo.short(&of.fleet), repo.short(&of.cofferdam));
        let (planning, admin) = (&at.planning, format!("http://{}", at.admin));
        let mut lines = vec!["Everything is still running:".to_owned()];
        lines.extend(
            self.processes.iter().map(|process| format!("  {:<12} pid {}", process.name, process.pid)),
        );
        lines.extend(at.nats.iter().map(|url| format!("  {:<12} {url}", "NATS")));
        let folder = repo.short(&self.folder);
        lines.extend([
            format!("  {:<12} {planning}", "Planning"),
            format!("  {:<12} {admin}", "admin"),
            format!("  {:<12} {}", "gRPC", at.grpc),
            "Try next:".to_owned(),
            "  # what passes, until Ctrl-C".to_owned(),
            format!("  {cofferdam} sub '>' --admin {admin}"),
            "  # what is stored".to_owned(),
            format!("  {cofferdam} sub workflow.task.assigned --all --no-follow --admin {admin}"),
            "  # approved again, here and there: its tasks exist once".to_owned(),
            format!(
                "  {cofferdam} pub planning.plan.approved '{{\"plan_id\": \"{plan_id}\"}}' --admin {admin}"
            ),
            format!("  {fleet} plan approve {plan_id} --planning {planning}"),
            format!("  {fleet} plan show {plan_id} --planning {planning}"),
            "  # a plan of your own".to_owned(),
            format!("  {fleet} plan add examples/fleet/plans/search.json --planning {planning}"),
            format!("  curl {admin}/health"),
            format!("  curl {admin}/metrics"),
            format!("  cat {folder}/cofferdam.toml"),
            "Stop it:".to_owned(),
            format!("  cargo xtask demo --stop {folder}"),
        ]);
        lines.join("\n")
    }
}

/// Stops a kept run, the last process first, and waits until they are gone.
pub(super) fn stop(repo: &Repo, folder: &Path) -> Result<()> {
    let file =
        [folder.join(FILE), repo.root().join(folder).join(FILE)].into_iter().find(|file| file.is_file());
    let Some(file) = file else {
        bail!("{} has no {FILE}: name the folder that `demo --keep` printed", folder.display())
    };
    let kept = stamps::read::<Kept>(&file).with_context(|| format!("can't read {}", file.display()))?;
    for process in kept.processes.iter().rev() {
        if !process.is_alive() {
            terminal::err(&format!("{} was gone already", process.name));
            continue;
        }
        sys::signal_group(process.pid, Signal::Term);
        let deadline = Instant::now() + GRACE;
        while process.is_alive() {
            interrupt::check()?;
            if Instant::now() > deadline {
                sys::signal_group(process.pid, Signal::Kill);
            }
            interrupt::pause(Duration::from_millis(20));
        }
        terminal::err(&format!("{} stopped", process.name));
    }
    std::fs::remove_file(&file).with_context(|| format!("can't remove {}", file.display()))
}

impl Running {
    fn is_alive(&self) -> bool {
        sys::is_alive(self.pid) && sys::started(self.pid) == self.started
    }
}
