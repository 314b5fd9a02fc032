//! The agents of a council: the same model each, told to look at the task from another side, so that they don't all propose the
//! same.

/// One agent of a council.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Agent {
    /// `agent-dev-001`.
    pub(crate) id: String,
    /// What it is told of itself.
    pub(crate) system: String,
    pub(crate) temperature: f32,
    pub(crate) seed: i64,
}

/// What an agent cares for most: one for each that a council may have.
const SLANTS: [&str; 16] = [
    "You look for the simplest thing that works.",
    "You look for the safest way: what can go wrong, and how it is noticed and undone.",
    "You look for what can be shipped soonest, and what can wait.",
    "You think of those who will maintain it: names, tests, documentation.",
    "You think of those who will use it, and of what they see when it fails.",
    "You think of load: memory, latency, what grows without bound.",
    "You think of an attacker: inputs, secrets, permissions.",
    "You use what is there already before you add anything.",
    "You begin with how one can tell that it is done, and work back from there.",
    "You think of the data: its shape, its migration, what must never be lost.",
    "You think of what runs at the same time, and of what is cut off in the middle.",
    "You divide the work into steps that can each be checked alone.",
    "You look for what the task does not say, and decide it openly.",
    "You think of operating it: configuration, metrics, what a person does at night.",
    "You look for the interfaces to others, and keep them stable.",
    "You take the opposite of the obvious road, if it holds.",
];

/// How much more freely than the council each agent answers. Nothing of nothing is nothing: a temperature of 0 stays.
const FREEDOM: [f32; 4] = [1.0, 0.6, 1.3, 0.8];
const HOTTEST: f32 = 2.0;

/// The agents of a role's council, in order.
pub(crate) fn of(role: &str, many: u32, temperature: f32) -> Vec<Agent> {
    let agent = |n: usize| {
        let id = id(role, n + 1);
        Agent {
            system: format!(
                "You are {id}, one of {many} agents of a council that works on tasks for the role {role}. {}",
                SLANTS[n % SLANTS.len()]
            ),
            temperature: (temperature * FREEDOM[n % FREEDOM.len()]).clamp(0.0, HOTTEST),
            seed: i64::try_from(n).unwrap_or_default() + 1,
            id,
        }
    };
    (0..many as usize).map(agent).collect()
}

/// `agent-dev-001`.
pub(crate) fn id(role: &str, number: usize) -> String {
    format!("agent-{}-{number:03}", slug(role))
}

/// A role as it stands in ids.
pub(crate) fn slug(role: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    role.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_agents_are_told_the_same() {
        let agents = of("DEV", 16, 0.7);
        for (n, agent) in agents.iter().enumerate() {
            assert!(agents[..n].iter().all(|other| other.system != agent.system && other.id != agent.id));
            assert!((0.0..=2.0).contains(&agent.temperature));
        }
        assert_eq!((agents[0].id.as_str(), agents[15].id.as_str()), ("agent-dev-001", "agent-dev-016"));
        assert_ne!(agents[0].temperature, agents[1].temperature);
        assert!(of("DEV", 4, 0.0).iter().all(|agent| agent.temperature == 0.0));
        assert!(of("DEV", 4, 9.0).iter().all(|agent| agent.temperature == 2.0));
    }

    #[test]
    fn a_role_of_several_words_is_an_id_nevertheless() {
        assert_eq!(id("DATA SCIENCE", 2), "agent-data-science-002");
    }
}
