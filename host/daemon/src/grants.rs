//! What a plugin may do. Deny by default; the manifest asks and the operator's config grants, and both must agree.
//! A denial carries the very line of config that would allow it.

use std::fmt;

use cofferdam_bus::subject;

use crate::config::{is_method, is_service};

/// The kinds of grant, by their names in `[asks]` and `[plugins.NAME.grants]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Publish,
    Rpc,
    Executor,
    State,
    /// Methods that clients call on the host.
    Serve,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Publish, Kind::Rpc, Kind::Executor, Kind::State, Kind::Serve];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Publish => "publish",
            Kind::Rpc => "rpc",
            Kind::Executor => "executor",
            Kind::State => "state",
            Kind::Serve => "serve",
        }
    }

    /// Does one entry of a list cover the thing?
    fn covers(self, entry: &str, thing: &str) -> bool {
        match self {
            Kind::Publish => subject::covers(entry, thing),
            Kind::Rpc => {
                entry == thing
                    || entry.strip_suffix('*').is_some_and(|p| p.ends_with('/') && thing.starts_with(p))
            }
            Kind::Executor => entry == thing || entry == "*",
            Kind::State => entry == thing,
            // A service covers its methods.
            Kind::Serve => {
                thing.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }

    /// Is there something that both entries may cover?
    fn meets(self, one: &str, other: &str) -> bool {
        let overlap = self == Kind::Publish && subject::overlaps(one, other);
        overlap || self.covers(one, other) || self.covers(other, one)
    }

    /// Why an entry is not well-formed, if it isn't.
    pub fn fault(self, entry: &str) -> Option<String> {
        match self {
            Kind::Publish => (subject::check_filter(entry).is_err()).then(|| {
                format!("{entry:?} is not a subject; write one such as \"orders.created\" or \"orders.>\"")
            }),
            Kind::Rpc => {
                let mut parts = entry.split('/');
                let fine = matches!((parts.next(), parts.next(), parts.next(), parts.next()), (Some(u), Some(s), Some(m), None)
                    if !u.is_empty() && s.contains('.') && !m.is_empty());
                (!fine).then(|| {
                    format!("{entry:?} is not a method; write \"upstream/package.Service/Method\" (Method may be *)")
                })
            }
            Kind::Serve => {
                let fine = if entry.contains('/') { is_method(entry) } else { is_service(entry) };
                (!fine).then(|| {
                    format!("{entry:?} is neither a service nor a method; write \"package.Service\" or \"package.Service/Method\"")
                })
            }
            Kind::Executor | Kind::State => {
                entry.is_empty().then(|| "an empty name grants nothing; remove it".into())
            }
        }
    }
}

/// One list for each kind: what a manifest asks for, or what an operator grants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    pub publish: Vec<String>,
    pub rpc: Vec<String>,
    pub executor: Vec<String>,
    pub state: Vec<String>,
    pub serve: Vec<String>,
}

impl Permissions {
    pub fn list(&self, kind: Kind) -> &Vec<String> {
        match kind {
            Kind::Publish => &self.publish,
            Kind::Rpc => &self.rpc,
            Kind::Executor => &self.executor,
            Kind::State => &self.state,
            Kind::Serve => &self.serve,
        }
    }

    pub fn list_mut(&mut self, kind: Kind) -> &mut Vec<String> {
        match kind {
            Kind::Publish => &mut self.publish,
            Kind::Rpc => &mut self.rpc,
            Kind::Executor => &mut self.executor,
            Kind::State => &mut self.state,
            Kind::Serve => &mut self.serve,
        }
    }

    pub fn covers(&self, kind: Kind, thing: &str) -> bool {
        self.list(kind).iter().any(|entry| kind.covers(entry, thing))
    }
}

/// What one plugin asked for and was granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    pub plugin: String,
    pub asked: Permissions,
    pub granted: Permissions,
}

impl Grants {
    pub fn check(&self, kind: Kind, thing: &str) -> Result<(), Denial> {
        let (asked, granted) = (self.asked.covers(kind, thing), self.granted.covers(kind, thing));
        if asked && granted {
            return Ok(());
        }
        let ask = (!asked).then(|| line(kind, self.asked.list(kind), thing));
        let grant = (!granted).then(|| line(kind, self.granted.list(kind), thing));
        Err(Denial { plugin: self.plugin.clone(), kind, thing: thing.to_owned(), ask, grant })
    }

    /// What is asked for and not granted, one denial a kind with everything that is missing in its line.
    pub fn missing(&self) -> Vec<Denial> {
        let mut denials = Vec::new();
        for kind in Kind::ALL {
            let granted = self.granted.list(kind);
            // An ask with wildcards is met by a narrower grant: the operator has thought of it.
            let met = |ask: &String| {
                self.granted.covers(kind, ask) || granted.iter().any(|grant| kind.covers(ask, grant))
            };
            let missing: Vec<&String> = self.asked.list(kind).iter().filter(|ask| !met(ask)).collect();
            if missing.is_empty() {
                continue;
            }
            let things = missing.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
            let whole: Vec<String> = granted.iter().chain(missing).cloned().collect();
            denials.push(Denial {
                plugin: self.plugin.clone(),
                kind,
                thing: things,
                ask: None,
                grant: Some(format!("{} = {}", kind.name(), list(&whole))),
            });
        }
        denials
    }

    /// Grants without effect: the manifest never asked for anything of the kind.
    pub fn idle(&self) -> Vec<(Kind, &str)> {
        let entries = Kind::ALL
            .into_iter()
            .flat_map(|kind| self.granted.list(kind).iter().map(move |granted| (kind, granted.as_str())));
        let met =
            |kind: Kind, granted: &str| self.asked.list(kind).iter().any(|ask| kind.meets(ask, granted));
        entries.filter(|(kind, granted)| !met(*kind, granted)).collect()
    }
}

fn line(kind: Kind, entries: &[String], thing: &str) -> String {
    let whole: Vec<String> = entries.iter().cloned().chain([thing.to_owned()]).collect();
    format!("{} = {}", kind.name(), list(&whole))
}

fn list(entries: &[String]) -> String {
    serde_json::to_string(entries).unwrap_or_default().replace("\",\"", "\", \"")
}

/// A refusal, with what to write where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Denial {
    pub plugin: String,
    pub kind: Kind,
    pub thing: String,
    /// The line of `[asks]` in plugin.toml, if the manifest does not ask.
    pub ask: Option<String>,
    /// The line of the operator's config, if it does not grant.
    pub grant: Option<String>,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {:?} has no {} grant for {}", self.plugin, self.kind.name(), self.thing)?;
        if let Some(ask) = &self.ask {
            write!(f, "; its plugin.toml does not ask for it, which takes: [asks] {ask}")?;
        }
        if let Some(grant) = &self.grant {
            write!(f, "; to allow it, write in the config under [plugins.{}.grants]: {grant}", self.plugin)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(asked: &[&str], granted: &[&str]) -> Grants {
        let own = |l: &[&str]| l.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        Grants {
            plugin: "p".into(),
            asked: Permissions { publish: own(asked), ..Default::default() },
            granted: Permissions { publish: own(granted), ..Default::default() },
        }
    }

    #[test]
    fn both_must_agree() {
        let g = grants(&["a.>", "b.c"], &["a.x", "b.*"]);
        assert!(g.check(Kind::Publish, "a.x").is_ok());
        assert!(g.check(Kind::Publish, "b.c").is_ok());
        assert!(g.check(Kind::Publish, "a.y").unwrap_err().grant.is_some());
        assert!(g.check(Kind::Publish, "b.d").unwrap_err().ask.is_some());
    }

    #[test]
    fn a_denial_prints_the_whole_line_to_write() {
        let denial = grants(&["a.>"], &["a.x"]).check(Kind::Publish, "a.y").unwrap_err();
        assert!(denial.to_string().ends_with(r#"[plugins.p.grants]: publish = ["a.x", "a.y"]"#), "{denial}");
    }

    #[test]
    fn a_grant_is_idle_if_nothing_that_was_asked_for_meets_it() {
        let g = grants(&["a.>", "*.b"], &["a.x", "c.*", "d.c", "a.>"]);
        assert_eq!(g.idle(), [(Kind::Publish, "d.c")]);
    }

    #[test]
    fn methods_are_exact_unless_the_method_is_a_star() {
        for (entry, thing, covered) in [
            ("up/a.B/C", "up/a.B/C", true),
            ("up/a.B/*", "up/a.B/C", true),
            ("up/a.B/C", "up/a.B/CC", false),
            ("up/*", "up/a.B/C", true),
            ("up*", "upper/a.B/C", false),
        ] {
            assert_eq!(Kind::Rpc.covers(entry, thing), covered, "{entry} {thing}");
        }
        assert!(Kind::Rpc.fault("up/a.B/C").is_none());
        for bad in ["a.B/C", "up/B/C", "up/a.B/", "up/*", "up/a.B/C/D"] {
            assert!(Kind::Rpc.fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_service_is_granted_whole_or_by_the_method() {
        for (entry, thing, covered) in [
            ("a.B", "a.B/C", true),
            ("a.B", "a.B", true),
            ("a.B/C", "a.B/C", true),
            ("a.B/C", "a.B/CC", false),
            ("a.B", "a.BB/C", false),
            ("a.B/C", "a.B", false),
        ] {
            assert_eq!(Kind::Serve.covers(entry, thing), covered, "{entry} {thing}");
        }
        assert!(["a.B", "a.B/C", "B"].iter().all(|entry| Kind::Serve.fault(entry).is_none()));
        for bad in ["", "a.", "a.B/", "a.B/*", "a.B/C/D", "*"] {
            assert!(Kind::Serve.fault(bad).is_some(), "{bad}");
        }
    }
}
