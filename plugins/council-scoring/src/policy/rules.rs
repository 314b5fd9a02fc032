//! Rules: regular expressions that a proposal of a role may not match, or has to. They are matched in time linear in the text.

use cofferdam_sdk::fleet::Role;
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::findings::{Findings, clip};

/// Compiled. The defaults take a tenth of it.
const REGEX_BYTES: usize = 256 << 10;
const MOST_RULES: usize = 64;
/// Of what a rule found. Enough to tell what it is, and next to nothing of a secret.
const SHOWN: usize = 6;

/// A rule as the operator writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Given {
    pub(crate) name: String,
    /// No proposal may match it.
    pub(crate) forbid: Option<String>,
    /// Each proposal has to match it.
    pub(crate) require: Option<String>,
    /// Whose proposals, by any alias; empty for all.
    pub(crate) roles: Vec<String>,
    pub(crate) message: String,
}

#[derive(Debug)]
struct Rule {
    name: String,
    forbid: Option<Regex>,
    require: Option<Regex>,
    roles: Vec<String>,
    message: String,
}

#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<Rule>);

/// Name, what is forbidden, why.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("private-key", "-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY", "a private key belongs in a vault"),
    ("cloud-key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", "an access key belongs in a vault"),
    (
        "token",
        r"\b(?:gh[opsu]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22}|glpat-[A-Za-z0-9_-]{20}|xox[abprs]-[A-Za-z0-9-]{10}|sk-[A-Za-z0-9_-]{32})",
        "an access token belongs in a vault",
    ),
    (
        "password",
        r#"(?i)(?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?token)["']?[ \t]{0,8}[:=][ \t]{0,8}["'][^"'\s$<{*]{4}"#,
        "a password is read from the environment or a vault, not written down",
    ),
    (
        "wipe",
        r#"(?m)\brm[ \t]+(?:--?[A-Za-z-]+[ \t]+)+["']?(?:/|~/?|\$HOME/?)\*?["']?(?:[\s;&|)`]|$)"#,
        "it would delete everything",
    ),
    ("drop-database", r"(?i)\bdrop\s{1,8}(?:database|schema)\b", "it would delete a database"),
    (
        "force-push",
        r"\bgit[ \t]+push\b(?:[^\n;&|]*[ \t](?:--force|-f)\b[^\n;&|]*\b(?:main|master|trunk)\b|[^\n;&|]*\b(?:main|master|trunk)\b[^\n;&|]*[ \t](?:--force|-f)\b|[^\n;&|]*[ \t]\+(?:HEAD:)?(?:main|master|trunk)\b)",
        "it would overwrite the main branch",
    ),
    (
        "unread-script",
        r"\b(?:curl|wget)\b[^\n|;&]*\|[ \t]*(?:sudo[ \t]+)?(?:ba|da|z)?sh\b",
        "it would run a script from the network that nobody has read",
    ),
    ("world-writable", r"\bchmod[ \t]+(?:-[A-Za-z]+[ \t]+)?0?777\b", "it would let everybody write"),
];

impl Rules {
    /// An error names the rule that can't be used, and why.
    pub(crate) fn compile(with_defaults: bool, given: Vec<Given>) -> Result<Self, String> {
        let defaults = DEFAULTS.iter().filter(|_| with_defaults).map(|(name, forbid, message)| Given {
            name: (*name).into(),
            forbid: Some((*forbid).into()),
            message: (*message).into(),
            ..Given::default()
        });
        if given.len() > MOST_RULES {
            return Err(format!("{} rules, more than {MOST_RULES}", given.len()));
        }
        defaults.chain(given).map(Rule::compile).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn apply(&self, content: &str, role: &str, violations: &mut Findings) {
        let role = wire(role);
        for rule in self.0.iter().filter(|rule| rule.roles.is_empty() || rule.roles.contains(&role)) {
            rule.apply(content, violations);
        }
    }
}

impl Rule {
    fn compile(given: Given) -> Result<Self, String> {
        let Given { name, forbid, require, roles, message } = given;
        if name.trim().is_empty() || (forbid.is_none() && require.is_none()) {
            return Err(format!("the rule {name:?} needs a name, and forbid or require"));
        }
        let regex = |pattern: Option<String>| {
            let compiled = pattern.map(|pattern| {
                // Bytes, so that matching a text with letters beyond ASCII takes no slower road.
                RegexBuilder::new(&pattern).unicode(false).size_limit(REGEX_BYTES).build()
            });
            compiled
                .transpose()
                .map_err(|error| format!("the rule {name:?}: {}", clip(&error.to_string(), 300)))
        };
        let (forbid, require) = (regex(forbid)?, regex(require)?);
        Ok(Self { forbid, require, roles: roles.iter().map(|role| wire(role)).collect(), name, message })
    }

    fn apply(&self, content: &str, violations: &mut Findings) {
        let Self { name, message, .. } = self;
        let told = if message.is_empty() { String::new() } else { format!(": {message}") };
        if let Some(found) = self.forbid.as_ref().and_then(|regex| regex.find(content.as_bytes())) {
            violations.add(|| {
                let line =
                    1 + content.as_bytes()[..found.start()].iter().filter(|byte| **byte == b'\n').count();
                let shown = clip(&String::from_utf8_lossy(found.as_bytes()), SHOWN);
                format!("{name}{told} (line {line}, {shown:?})")
            });
        }
        if self.require.as_ref().is_some_and(|regex| !regex.is_match(content.as_bytes())) {
            violations.add(|| format!("{name}{told} (it is missing)"));
        }
    }
}

/// A role as the orchestrator knows it; one that is none of the fleet's in upper case.
fn wire(role: &str) -> String {
    Role::parse(role).map_or_else(|| role.trim().to_uppercase(), |role| role.wire().to_owned())
}
