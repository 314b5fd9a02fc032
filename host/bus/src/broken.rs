//! A commit broken on purpose, so that a test can show that the soak notices it (docs: delivery, "Proof"). In no release build.

use crate::api::Delivery;

/// What `$COFFERDAM_BROKEN` says then.
const ACK_FIRST: &str = "ack-first";

/// Acks before the commit, if the environment says so: whoever dies in between has lost the event.
pub(crate) async fn ack_first(delivery: &Delivery) {
    if std::env::var_os("COFFERDAM_BROKEN").is_some_and(|broken| broken == ACK_FIRST)
        && let Err(error) = delivery.ack().await
    {
        tracing::debug!(%error, "not acked too early");
    }
}
