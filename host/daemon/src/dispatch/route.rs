//! Which version of a plugin an event goes to, and by which of its subscriptions it came. One version lives today; a rollout
//! swaps it here and nowhere else.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{config::Subscription, plugins::Plugin};

pub struct Route {
    current: ArcSwap<Plugin>,
    /// `None`: the plugin's inbox, whose events say themselves.
    subscription: Option<Arc<Subscription>>,
}

impl Route {
    pub fn new(plugin: Arc<Plugin>, subscription: Subscription) -> Self {
        Self { current: ArcSwap::new(plugin), subscription: Some(Arc::new(subscription)) }
    }

    pub fn inbox(plugin: Arc<Plugin>) -> Self {
        Self { current: ArcSwap::new(plugin), subscription: None }
    }

    pub fn plugin(&self) -> Arc<Plugin> {
        self.current.load_full()
    }

    /// The one subscription, unless this is an inbox.
    pub(super) fn subscription(&self) -> Option<&Arc<Subscription>> {
        self.subscription.as_ref()
    }
}
