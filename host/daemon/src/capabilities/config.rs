//! The plugin's configuration, as JSON text.

use super::Run;

impl Run {
    pub(super) fn config(&self, key: &str) -> Option<String> {
        self.plugin.values.get(key).map(ToString::to_string)
    }
}
