//! Roles and their names: every alias is read, and each reader gets the name it knows.

/// Who does a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Developer,
    Qa,
    Architect,
    Po,
    Devops,
    Data,
    System,
}

/// Role, further aliases, name in the workflow, name for Orchestrator, Context and executor, name in CreateTasks.
/// An empty name: the reader does not know the role.
type Names = (Role, &'static [&'static str], &'static str, &'static str, &'static str);

const TABLE: &[Names] = &[
    (Role::Developer, &["dev"], "developer", "DEV", "DEVELOPER"),
    (Role::Qa, &["tester"], "qa", "QA", "QA"),
    (Role::Architect, &["arch"], "architect", "ARCHITECT", "ARCHITECT"),
    (Role::Po, &["product_owner"], "po", "PO", "PO"),
    (Role::Devops, &[], "", "DEVOPS", "DEVOPS"),
    (Role::Data, &[], "", "DATA", "DATA"),
    (Role::System, &[], "system", "SYSTEM", ""),
];

impl Role {
    /// Any alias, in any case, with `_`, `-` or a space between words.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase().replace(['-', ' '], "_");
        let found = TABLE.iter().find(|(_, aliases, workflow, wire, tasks)| {
            [workflow, wire, tasks]
                .iter()
                .any(|known| !known.is_empty() && known.to_ascii_lowercase() == name)
                || aliases.contains(&name.as_str())
        });
        found.map(|(role, ..)| *role)
    }

    fn names(self) -> &'static Names {
        TABLE.iter().find(|(role, ..)| *role == self).unwrap_or(&TABLE[0])
    }

    /// As the workflow writes it; nothing for a role without a part in it.
    pub fn workflow(self) -> Option<&'static str> {
        Some(self.names().2).filter(|name| !name.is_empty())
    }

    /// As Orchestrator, Context and executor know it.
    pub fn wire(self) -> &'static str {
        self.names().3
    }

    /// As CreateTasks takes it; nothing for a role that no task may have.
    pub fn task(self) -> Option<&'static str> {
        Some(self.names().4).filter(|name| !name.is_empty())
    }
}

/// The roles of a request as CreateTasks names them, without repeats, and the names that stand for none (or for none
/// that a task may have). A name with commas is several.
pub fn requested_roles(names: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut roles, mut unknown) = (Vec::new(), Vec::new());
    let names = names.iter().flat_map(|name| name.split(',')).map(str::trim);
    for name in names.filter(|name| !name.is_empty()) {
        match Role::parse(name).and_then(Role::task) {
            Some(role) if roles.iter().any(|known| known == role) => {}
            Some(role) => roles.push(role.to_owned()),
            None => unknown.push(name.to_owned()),
        }
    }
    (roles, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_3_roles_every_alias_in_any_case_is_the_role() {
        for (name, role) in [
            ("dev", Role::Developer),
            ("DEVELOPER", Role::Developer),
            ("Tester", Role::Qa),
            ("arch", Role::Architect),
            ("Product Owner", Role::Po),
            ("PRODUCT_OWNER", Role::Po),
            ("DevOps", Role::Devops),
            (" data ", Role::Data),
            ("SYSTEM", Role::System),
        ] {
            assert_eq!(Role::parse(name), Some(role), "{name}");
        }
        assert_eq!(Role::parse(""), None);
        assert_eq!(Role::parse("ADMIN"), None);
    }

    #[test]
    fn contract_3_roles_each_reader_gets_its_own_name() {
        assert_eq!(Role::Developer.workflow(), Some("developer"));
        assert_eq!(Role::Developer.wire(), "DEV");
        assert_eq!(Role::Developer.task(), Some("DEVELOPER"));
        assert_eq!(Role::Devops.workflow(), None);
        assert_eq!(Role::System.task(), None);
    }

    #[test]
    fn requested_roles_are_told_from_what_is_none() {
        let names = ["dev", "QA", "Developer", "system", "wizard"].map(str::to_owned);
        let (roles, unknown) = requested_roles(&names);
        assert_eq!(roles, ["DEVELOPER", "QA"]);
        assert_eq!(unknown, ["system", "wizard"]);
    }

    #[test]
    fn contract_2_3_roles_in_one_text_have_commas_between() {
        let (roles, unknown) = requested_roles(&["qa, dev,,wizard ,".to_owned()]);
        assert_eq!((roles, unknown), (vec!["QA".into(), "DEVELOPER".into()], vec!["wizard".into()]));
    }

    #[test]
    fn contract_3_roles_the_whole_table() {
        for (role, aliases, workflow, wire, task) in [
            (Role::Developer, &["developer", "dev"][..], Some("developer"), "DEV", Some("DEVELOPER")),
            (Role::Qa, &["qa", "tester"], Some("qa"), "QA", Some("QA")),
            (Role::Architect, &["architect", "arch"], Some("architect"), "ARCHITECT", Some("ARCHITECT")),
            (Role::Po, &["po", "product_owner"], Some("po"), "PO", Some("PO")),
            (Role::Devops, &["devops"], None, "DEVOPS", Some("DEVOPS")),
            (Role::Data, &["data"], None, "DATA", Some("DATA")),
            (Role::System, &["system"], Some("system"), "SYSTEM", None),
        ] {
            for alias in aliases {
                assert_eq!(Role::parse(alias), Some(role), "{alias}");
                assert_eq!(Role::parse(&alias.to_uppercase()), Some(role), "{alias}");
            }
            assert_eq!((role.workflow(), role.wire(), role.task()), (workflow, wire, task), "{role:?}");
        }
    }
}
