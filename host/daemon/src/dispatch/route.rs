//! Which version of a plugin an event goes to. One version lives today; a rollout swaps it here and nowhere else.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{config::Subscription, plugins::Plugin};

pub struct Route {
    current: ArcSwap<Plugin>,
    subscription: Subscription,
}

impl Route {
    pub fn new(plugin: Arc<Plugin>, subscription: Subscription) -> Self {
        Self { current: ArcSwap::new(plugin), subscription }
    }

    pub fn plugin(&self) -> Arc<Plugin> {
        self.current.load_full()
    }

    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }
}
