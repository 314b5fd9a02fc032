//! Lists of gRPC methods: which of an upstream's methods a setting is for.

use super::reader::Table;

/// Methods by their full names, or all of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Methods(Vec<String>);

impl Methods {
    /// Is it for this `package.Service/Method`?
    pub fn covers(&self, method: &str) -> bool {
        self.0.iter().any(|entry| {
            entry == method
                || entry
                    .strip_suffix('*')
                    .is_some_and(|service| method.strip_prefix(service).is_some_and(|name| !name.is_empty()))
        })
    }
}

/// The list under a key; empty by default.
pub(super) fn methods(table: &Table<'_>, key: &str) -> Methods {
    let mut all = Vec::new();
    for entry in table.strings(key) {
        if is_entry(&entry.value) {
            all.push(entry.value);
        } else {
            table.fault_at(
                &entry,
                format!(
                    "{} names {:?}, which is not a method; write \"package.Service/Method\", or \"package.Service/*\" for \
                     all of a service",
                    table.name(key),
                    entry.value
                ),
            );
        }
    }
    Methods(all)
}

/// `package.Service/Method`, and nothing that a proxy could take for another path.
pub fn is_method(method: &str) -> bool {
    method.split_once('/').is_some_and(|(service, name)| is_service(service) && is_word(name))
}

fn is_entry(entry: &str) -> bool {
    entry.strip_suffix("/*").map_or_else(|| is_method(entry), is_service)
}

/// `package.Service`.
pub fn is_service(service: &str) -> bool {
    service.split('.').all(is_word)
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_one_path_and_no_other() {
        assert!(is_method("fleet.task_derivation.v1.Planning/GetPlan"));
        for bad in ["a.B", "a.B/", "/C", "a.B/../D/E", "a..B/C", "a.B/C/D", "a.B/C?x", "a.B/C%2f", "a.B/*"] {
            assert!(!is_method(bad), "{bad}");
        }
    }

    #[test]
    fn an_entry_is_a_method_or_all_of_a_service() {
        for good in ["a.B/C", "a.B/*", "B/*"] {
            assert!(is_entry(good), "{good}");
        }
        for bad in ["*", "a.*/C", "a.B/C*", "a.B", "/*", "up/a.B/C", ""] {
            assert!(!is_entry(bad), "{bad}");
        }
        let methods = Methods(vec!["a.B/C".into(), "a.D/*".into()]);
        assert!(methods.covers("a.B/C") && methods.covers("a.D/X"));
        assert!(!methods.covers("a.B/Cx") && !methods.covers("a.Dx/X") && !methods.covers("a.D/"));
    }
}
