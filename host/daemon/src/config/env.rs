//! The environment variables of the fleet, which override the file, and the place where its faults are gathered.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use toml::Value;

use super::{
    Url,
    fault::Fault,
    reader::{HIDDEN, Table},
    settings::Origin,
};

/// What surrounds the process: its variables, each looked up when it is needed (none is kept, and none but those asked for
/// is read), and the program's own file.
pub struct Environment {
    variables: Variables,
    program: Option<PathBuf>,
}

enum Variables {
    Process,
    Given(BTreeMap<String, OsString>),
}

/// Addresses of upstreams, by the variable that sets them.
pub(super) const UPSTREAMS: [(&str, &str); 3] = [
    ("PLANNING_SERVICE_ADDRESS", "planning"),
    ("CONTEXT_SERVICE_ADDRESS", "context"),
    ("RAY_EXECUTOR_ADDRESS", "ray"),
];

impl Environment {
    pub fn of_process() -> Self {
        Self { variables: Variables::Process, program: std::env::current_exe().ok() }
    }

    /// For tests: these variables and no other, and a program that is nowhere.
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        let variables = variables.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
        Self { variables: Variables::Given(variables), program: None }
    }

    /// For tests: the same for a program of this path.
    pub fn with_program(self, program: impl Into<PathBuf>) -> Self {
        Self { program: Some(program.into()), ..self }
    }

    /// An empty variable counts as not set. The error is the value that is not UTF-8, not to be shown.
    fn get(&self, name: &str) -> Result<Option<String>, OsString> {
        let value = match &self.variables {
            Variables::Process => std::env::var_os(name),
            Variables::Given(variables) => variables.get(name).cloned(),
        };
        value.filter(|v| !v.is_empty()).map(OsString::into_string).transpose()
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::of([])
    }
}

/// Without the variables: some of them are secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// What surrounds the config file while it is read.
pub(super) struct Surroundings<'a> {
    /// What relative paths are relative to.
    pub base: PathBuf,
    environment: &'a Environment,
    /// Faults that are not the file's own: the environment's and the manifests'.
    faults: RefCell<Vec<Fault>>,
}

impl<'a> Surroundings<'a> {
    pub(super) fn new(base: PathBuf, environment: &'a Environment) -> Self {
        Self { base, environment, faults: RefCell::default() }
    }

    /// A variable of the environment; one that is not text is a fault.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.environment.get(name).unwrap_or_else(|_| {
            self.fault(format!("{name} is not UTF-8; set it to plain text"));
            None
        })
    }

    /// Is it set, to whatever?
    pub(super) fn has(&self, name: &str) -> bool {
        !matches!(self.environment.get(name), Ok(None))
    }

    /// A variable that stands in the way of a key, which is recorded.
    pub(super) fn overriding(&self, table: &Table<'_>, key: &str, name: &str) -> Option<String> {
        let value = self.variable(name)?;
        if value.split(',').any(|url| Url::is_shown(url.trim())) {
            self.fault(format!("{name}: {HIDDEN}"));
        }
        table.set(key, Value::from(value.as_str()), Origin::Variable(name.to_owned()));
        Some(value)
    }

    /// The program's own file.
    pub(super) fn program(&self) -> Option<&Path> {
        self.environment.program.as_deref()
    }

    /// A fault of the environment.
    pub(super) fn fault(&self, message: String) {
        self.extend([Fault::of_environment(message)]);
    }

    /// Faults of another file.
    pub(super) fn extend(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.borrow_mut().extend(faults);
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_variable_that_is_not_text_is_a_fault_and_no_panic() {
        let broken = BTreeMap::from([("NATS_URL".to_owned(), OsString::from_vec(vec![b'a', 0xff]))]);
        let environment = Environment { variables: Variables::Given(broken), program: None };
        let surroundings = Surroundings::new(PathBuf::new(), &environment);
        assert_eq!(surroundings.variable("NATS_URL"), None);
        assert_eq!(surroundings.variable("LOG_LEVEL"), None);
        let faults = surroundings.into_faults();
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].to_string(), "environment: NATS_URL is not UTF-8; set it to plain text");
    }

    #[test]
    fn variables_are_not_printed() {
        let environment = Environment::of([("PLANNING_TOKEN", "hunter2")]);
        assert_eq!(format!("{environment:?}"), "Environment");
    }
}
