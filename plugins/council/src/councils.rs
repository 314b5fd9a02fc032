//! Which councils there are: those of the configuration, and those that somebody created, which go before them. The created ones
//! are in the cell `councils`, one key for each role.

use cofferdam_sdk::{
    Failure,
    fleet::{Role, Timestamp},
    state::{self, Cell},
};
use serde::{Deserialize, Serialize};

use crate::{agents, settings::Settings};

/// So many agents a council may have: that is how many questions are asked at once.
pub(crate) const MOST_AGENTS: u32 = 16;
/// So many questions an event may ask: one for each agent, and two for each agent in each round.
const MOST_QUESTIONS: u64 = 256;
const MOST_OF_A_NAME: usize = 64;

/// Who answers for a council's agents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A model. The fleet has two names for it.
    #[default]
    Model,
    /// The plugin itself, by rule.
    Mock,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Council {
    /// As [`canonical`] has it.
    pub(crate) role: String,
    pub(crate) agents: u32,
    pub(crate) rounds: u32,
    /// `None`: the executor's default.
    pub(crate) model: Option<String>,
    pub(crate) temperature: f32,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) kind: Kind,
    /// When somebody created it.
    pub(crate) created_at: Option<Timestamp>,
}

/// A council as somebody created it. What is left out follows the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Created {
    pub(crate) agents: u32,
    pub(crate) rounds: Option<u32>,
    pub(crate) model: Option<String>,
    pub(crate) temperature: Option<f32>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) kind: Kind,
    pub(crate) at: Timestamp,
}

/// The name of a role for the orchestrator: `DEV` for a developer by any alias, any other in upper case.
pub(crate) fn canonical(role: &str) -> String {
    match Role::parse(role) {
        Some(role) => role.wire().to_owned(),
        None => role.trim().to_uppercase(),
    }
}

/// Why the role can't have a council, if so.
pub(crate) fn fault_of_name(role: &str) -> Option<String> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ' | '.');
    if role.len() <= MOST_OF_A_NAME && role.chars().all(plain) {
        return None;
    }
    Some(format!(
        "{role:?} is no name of a role; use up to {MOST_OF_A_NAME} letters, digits, blanks, _ - and ."
    ))
}

/// Why so many agents can't deliberate for so many rounds, if so.
pub(crate) fn fault_of_size(agents: u32, rounds: u32) -> Option<String> {
    let questions = (1 + 2 * u64::from(rounds)).saturating_mul(agents.into());
    if (1..=MOST_AGENTS).contains(&agents) && questions <= MOST_QUESTIONS {
        return None;
    }
    Some(format!(
        "{agents} agents and {rounds} rounds can't be: a council has 1 to {MOST_AGENTS} agents, and (1 + 2 * rounds) * agents is at \
         most {MOST_QUESTIONS}, here it is {questions}"
    ))
}

impl Council {
    fn configured(role: &str, settings: &Settings) -> Self {
        Self {
            role: role.to_owned(),
            agents: settings.agents,
            rounds: settings.rounds,
            model: settings.model.clone(),
            temperature: settings.temperature,
            max_tokens: settings.max_tokens,
            kind: Kind::Model,
            created_at: None,
        }
    }

    fn created(role: &str, created: Created, settings: &Settings) -> Self {
        Self {
            role: role.to_owned(),
            agents: created.agents,
            rounds: created.rounds.unwrap_or(settings.rounds),
            model: created.model.or_else(|| settings.model.clone()),
            temperature: created.temperature.unwrap_or(settings.temperature),
            max_tokens: created.max_tokens.or(settings.max_tokens),
            kind: created.kind,
            created_at: Some(created.at),
        }
    }

    /// `council-dev`.
    pub(crate) fn id(&self) -> String {
        format!("council-{}", agents::slug(&self.role))
    }

    pub(crate) fn agent_ids(&self) -> Vec<String> {
        (1..=self.agents as usize).map(|number| agents::id(&self.role, number)).collect()
    }
}

fn cell() -> Cell {
    state::cell("councils")
}

/// The council of a role.
pub(crate) fn find(role: &str, settings: &Settings) -> Result<Option<Council>, Failure> {
    // No longer name was ever created, nor is it a key.
    if fault_of_name(role).is_some() {
        return Ok(None);
    }
    if let Some(created) = cell().load(role)? {
        return Ok(Some(Council::created(role, created, settings)));
    }
    let configured = is_configured(role, settings).then(|| Council::configured(role, settings));
    Ok(configured)
}

pub(crate) fn is_configured(role: &str, settings: &Settings) -> bool {
    settings.councils.iter().any(|name| canonical(name) == role)
}

/// All, sorted by role.
pub(crate) fn all(settings: &Settings) -> Result<Vec<Council>, Failure> {
    let mut roles: Vec<String> = settings.councils.iter().map(|name| canonical(name)).collect();
    roles.extend(cell().keys("")?);
    roles.sort();
    roles.dedup();
    let mut all = Vec::with_capacity(roles.len());
    for role in roles {
        all.extend(find(&role, settings)?);
    }
    Ok(all)
}

/// Their roles, for people.
pub(crate) fn names(settings: &Settings) -> Result<String, Failure> {
    let roles: Vec<String> = all(settings)?.into_iter().map(|council| council.role).collect();
    Ok(if roles.is_empty() { "none".into() } else { roles.join(", ") })
}

/// Why nobody can be asked for this role.
pub(crate) fn none_for(role: &str, settings: &Settings) -> Result<String, Failure> {
    let names = names(settings)?;
    Ok(format!(
        "no council for the role {role:?}; there are: {names}. CreateCouncil makes one, or the config councils"
    ))
}

/// As it was created, if it was.
pub(crate) fn load(role: &str) -> Result<Option<Created>, Failure> {
    Ok(cell().load(role)?)
}

pub(crate) fn save(role: &str, created: &Created) -> Result<(), Failure> {
    Ok(cell().save(role, created)?)
}

pub(crate) fn delete(role: &str) -> Result<(), Failure> {
    Ok(cell().delete(role)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_6_deliberate_a_council_is_found_by_any_alias_of_its_role() {
        for alias in ["DEV", "dev", "developer", " Developer "] {
            assert_eq!(canonical(alias), "DEV");
        }
        assert_eq!(canonical("security officer"), "SECURITY OFFICER");
    }

    #[test]
    fn agents_and_rounds_are_bounded_by_what_an_event_may_ask() {
        for (agents, rounds) in [(1, 0), (16, 7), (1, 127), (3, 42)] {
            assert_eq!(fault_of_size(agents, rounds), None, "{agents} {rounds}");
        }
        for (agents, rounds) in [(0, 1), (17, 0), (16, 8), (1, 128), (3, 43), (u32::MAX, u32::MAX)] {
            let told = fault_of_size(agents, rounds).unwrap();
            assert!(told.contains(&format!("{agents} agents and {rounds} rounds")), "{told}");
        }
    }
}
