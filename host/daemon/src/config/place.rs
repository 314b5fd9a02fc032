//! What the operator's config says of a plugin, as far as its manifest has to fit in.

use std::collections::BTreeMap;

use super::limits::{Ceilings, LimitsConfig};

pub(super) struct Place<'a> {
    /// The plugin's name on this cluster. Its durables, its dead letters and its own space follow it.
    pub name: &'a str,
    /// What the author may ask for.
    pub ceilings: &'a Ceilings,
    /// What the operator sets; the author's wish for it does not count.
    pub limits: &'a LimitsConfig,
    /// Durables taken so far, by the plugin that has them.
    pub durables: &'a mut BTreeMap<String, String>,
}
