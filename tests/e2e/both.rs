//! Tests of a daemon that run on both buses.

use harness::{nats::Server, setup::Setup};

/// What a test begins with.
pub(crate) trait Begin: Sized {
    /// On the bus of this setup, and with its server if it has one.
    async fn on(setup: Setup, nats: Option<Server>) -> Self;
}

pub(crate) async fn on_nats<B: Begin>(test: impl AsyncFnOnce(B)) {
    let nats = Server::start().await;
    let setup = Setup::new(&nats.url());
    let begin = Box::pin(B::on(setup, Some(nats))).await;
    Box::pin(test(begin)).await;
}

pub(crate) async fn on_local<B: Begin>(test: impl AsyncFnOnce(B)) {
    let begin = Box::pin(B::on(Setup::local(), None)).await;
    Box::pin(test(begin)).await;
}

/// Each test once on each bus.
macro_rules! on_both_buses {
    ($($name:ident),* $(,)?) => {
        mod nats {
            $(
                #[tokio::test]
                async fn $name() {
                    crate::both::on_nats(super::$name).await;
                }
            )*
        }
        mod local {
            $(
                #[tokio::test]
                async fn $name() {
                    crate::both::on_local(super::$name).await;
                }
            )*
        }
    };
}
pub(crate) use on_both_buses;
