//! What makes a component of a plugin: the generated bindings, the way in, and what a panic leaves behind.

mod allocator;
pub(crate) mod imports;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Event, Failure, WIT_VERSION};

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated code")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "event-plugin",
        pub_export_macro: true,
        default_bindings_module: "cofferdam_sdk::guest::bindings",
    });
}

pub use bindings::{
    cofferdam::plugin::types::{Event as WireEvent, Failure as WireFailure},
    exports::cofferdam::plugin::handler::Guest,
};

/// The contract's version, as the component's custom section `cofferdam:wit` holds it.
pub const fn wit_version() -> [u8; WIT_VERSION.len()] {
    let mut bytes = [0; WIT_VERSION.len()];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = WIT_VERSION.as_bytes()[at];
        at += 1;
    }
    bytes
}

/// Runs the plugin's handler on one event.
pub fn run(handler: fn(Event) -> Result<(), Failure>, event: WireEvent) -> Result<(), WireFailure> {
    log_panics();
    let event = Event {
        id: event.id,
        subject: event.subject,
        headers: event.headers,
        data: event.data,
        timestamp: event.timestamp,
    };
    handler(event).map_err(imports::failure)
}

/// A panic traps, and all that the host sees of a trap is where it was. So the message goes to its log first.
fn log_panics() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|panic| {
            crate::log::write(crate::log::Level::Error, &panic.to_string().replace('\n', " "), &[]);
        }));
    }
}
