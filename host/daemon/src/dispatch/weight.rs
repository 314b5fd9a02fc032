//! What the payloads of a subscription's events in flight weigh together. A subscription has room of its own, so that one
//! that is slow and has large events leaves the others theirs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use cofferdam_bus::Delivery;
use tokio::sync::Notify;

/// Of one subscription, taken and not settled. With the default of 256 events in flight it holds back none of up to
/// 128 KiB.
const MOST: usize = 32 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Scale {
    weight: AtomicUsize,
    lighter: Notify,
}

/// What one event weighs, until it is dropped.
#[derive(Debug)]
pub(super) struct Weight {
    scale: Arc<Scale>,
    bytes: usize,
}

impl Scale {
    /// Waits until another event may be taken. It may weigh more than there is room for: how much is known only then.
    pub(super) async fn room(&self) {
        loop {
            let lighter = self.lighter.notified();
            if self.weight.load(Ordering::Acquire) < MOST {
                return;
            }
            lighter.await;
        }
    }

    pub(super) fn put(self: &Arc<Self>, delivery: &Delivery) -> Weight {
        let message = &delivery.stored.message;
        let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.add(message.subject.len() + headers + message.data.len())
    }

    fn add(self: &Arc<Self>, bytes: usize) -> Weight {
        self.weight.fetch_add(bytes, Ordering::AcqRel);
        Weight { scale: self.clone(), bytes }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.scale.weight.fetch_sub(self.bytes, Ordering::AcqRel);
        // One waits at most: whoever takes the subscription's events. It may be just about to.
        self.scale.lighter.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_is_taken_while_too_much_is_in_flight() {
        let scale = Arc::new(Scale::default());
        scale.room().await;
        let (heavy, light) = (scale.add(MOST), scale.add(1));
        let waits = tokio::time::timeout(Duration::from_secs(1), scale.room()).await;
        assert!(waits.is_err());
        drop(light);
        assert!(tokio::time::timeout(Duration::from_secs(1), scale.room()).await.is_err());
        drop(heavy);
        scale.room().await;
    }
}
