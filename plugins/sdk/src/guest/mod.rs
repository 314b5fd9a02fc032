//! What makes a component of a plugin: the generated bindings, the ways in, and what a panic leaves behind.

mod allocator;
pub(crate) mod imports;
mod jobs;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Event, Failure, WIT_VERSION, service};

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated code")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "event-plugin",
        pub_export_macro: true,
        default_bindings_module: "cofferdam_sdk::guest::bindings",
    });
}

/// What a plugin that serves exports besides: a world of its own, for whoever exports nothing but `handler` must not be made to
/// say more. A component is the union of the worlds that it is linked from.
#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated code")]
pub mod serving {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package cofferdam:sdk; world serving { export cofferdam:plugin/service@0.1.0; }",
        with: { "cofferdam:plugin/types@0.1.0": super::bindings::cofferdam::plugin::types },
        pub_export_macro: true,
        default_bindings_module: "cofferdam_sdk::guest::serving",
    });
}

pub use bindings::{
    cofferdam::plugin::types::{Event as WireEvent, Failure as WireFailure},
    exports::cofferdam::plugin::handler::Guest,
};
pub use serving::exports::cofferdam::plugin::service::{
    Call as WireCall, Guest as ServiceGuest, Status as WireStatus,
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

/// Answers one call by the plugin's function.
pub fn serve(
    server: fn(service::Call) -> Result<Vec<u8>, service::Status>,
    call: WireCall,
) -> Result<Vec<u8>, WireStatus> {
    log_panics();
    let call = service::Call {
        id: call.id,
        method: call.method,
        metadata: call.metadata,
        request: call.request,
        timestamp: call.timestamp,
    };
    server(call).map_err(|status| WireStatus { code: imports::wire(status.code), message: status.message })
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
