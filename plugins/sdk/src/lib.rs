//! What a Cofferdam plugin in Rust is written with: the event, the failure, one module per thing that the host
//! lends a plugin, the calls that it serves, and the fleet's messages. How the host does it is not here; the contract is `wit/plugin.wit`.
//!
//! ```
//! use cofferdam_sdk::{Event, Failure, info, publish};
//!
//! fn handle(event: Event) -> Result<(), Failure> {
//!     info!("passing on {} bytes", event.data.len(); subject = event.subject);
//!     publish::emit("orders.copied", &event.data)?;
//!     Ok(())
//! }
//! cofferdam_sdk::export!(handle);
//!
//! let mut host = cofferdam_sdk::testing::Host::new();
//! let run = host.run(handle, cofferdam_sdk::testing::event("orders.placed", "{}"));
//! assert_eq!(run.published[0].subject, "orders.copied");
//! ```
//!
//! On `wasm32` the functions call the host; on any other target they act on [`testing::Host`], so that a plugin's
//! tests run natively. Effects (publishes, timers, jobs, writes to state) are buffered: they happen together after
//! the handler returned `Ok`, and not at all otherwise. A plugin that answers gRPC calls too has a second function, see
//! [`service`].

pub mod clock;
pub mod config;
pub mod delivery;
mod event;
pub mod executor;
mod failure;
pub mod fleet;
pub mod log;
pub mod metrics;
pub mod publish;
pub mod rpc;
pub mod service;
pub mod state;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
#[cfg(target_arch = "wasm32")]
use guest::imports as sys;

#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
#[cfg(not(target_arch = "wasm32"))]
use testing::sys;

pub use event::Event;
pub use failure::Failure;

/// Name and value pairs, in order.
pub type Pairs = Vec<(String, String)>;

/// The version of the contract that this SDK is built for; [`export!`] stamps it into the component.
pub const WIT_VERSION: &str = "0.1.0";

/// Makes `fn(Event) -> Result<(), Failure>` the plugin's handler, and with a second argument
/// `fn(service::Call) -> Result<Vec<u8>, service::Status>` what answers its calls. Once per plugin, at the root of its crate.
#[macro_export]
macro_rules! export {
    ($handler:path $(, $server:path)? $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Plugin;

            impl $crate::guest::Guest for Plugin {
                fn handle(event: $crate::guest::WireEvent) -> Result<(), $crate::guest::WireFailure> {
                    $crate::guest::run($handler, event)
                }
            }

            $crate::guest::bindings::export!(Plugin with_types_in $crate::guest::bindings);

            $(
                impl $crate::guest::ServiceGuest for Plugin {
                    fn serve(call: $crate::guest::WireCall) -> Result<Vec<u8>, $crate::guest::WireStatus> {
                        $crate::guest::serve($server, call)
                    }
                }

                $crate::guest::serving::export!(Plugin with_types_in $crate::guest::serving);
            )?

            // Says what the component was built for, even where none of its imports does.
            #[used]
            #[unsafe(link_section = "cofferdam:wit")]
            static WIT: [u8; $crate::WIT_VERSION.len()] = $crate::guest::wit_version();
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::Event) -> Result<(), $crate::Failure> = $handler;
        $(
            #[cfg(not(target_arch = "wasm32"))]
            const _: fn($crate::service::Call) -> Result<Vec<u8>, $crate::service::Status> = $server;
        )?
    };
}
