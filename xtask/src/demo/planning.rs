//! The hands on Planning: `fleet plan`, as a person would use it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::report::Task;
use crate::steps::Step;
use crate::tool::Tool;

#[derive(Debug)]
pub(super) struct Planning<'a> {
    pub(super) fleet: &'a Path,
    pub(super) log: PathBuf,
    pub(super) address: &'a str,
}

#[derive(Debug, Deserialize)]
pub(super) struct Added {
    pub(super) plan_id: String,
    pub(super) story_id: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    pub(super) title: String,
    pub(super) tasks: Vec<Task>,
}

impl Planning<'_> {
    pub(super) fn add(&self, step: &Step, plan: &Path) -> Result<Added> {
        self.say(step, "add", plan.to_str().context("the plan's path is no UTF-8")?)
    }

    pub(super) fn approve(&self, step: &Step, plan_id: &str) -> Result<()> {
        self.say::<serde_json::Value>(step, "approve", plan_id).map(drop)
    }

    pub(super) fn show(&self, step: &Step, plan_id: &str) -> Result<Shown> {
        self.say(step, "show", plan_id)
    }

    fn say<T: DeserializeOwned>(&self, step: &Step, word: &str, what: &str) -> Result<T> {
        let tool = Tool::new(self.fleet, &self.log, "cargo xtask demo").args(["plan", word, what]);
        let tool = tool.without_fleet_settings().args(["--planning", self.address, "--json"]);
        let text = tool.run(step)?.join("\n");
        serde_json::from_str(&text).with_context(|| format!("fleet printed {text:?}"))
    }
}
