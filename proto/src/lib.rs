//! The fleet's gRPC contract and the daemon's way in as Rust types, generated from the `.proto` files beside `src/`.
//! Messages are always there (guests use nothing else); clients and servers come with the features `client` and
//! `server`.
//!
//! Nothing is written by hand here but this list. After a change to a `.proto` file run
//! `UPDATE=1 cargo test -p fleet-proto` and commit what it writes to `src/generated/`.
//!
//! Maps are `BTreeMap`s, so equal messages encode to equal bytes: idempotency keys are hashes of requests.

/// One module per package. The generated files are included rather than declared as modules: rustfmt leaves them as
/// the generator wrote them.
macro_rules! package {
    ($(#[$doc:meta])* $name:ident :: $version:ident, $file:literal) => {
        $(#[$doc])*
        pub mod $name {
            #[allow(
                clippy::all,
                clippy::allow_attributes_without_reason,
                clippy::large_futures,
                elided_lifetimes_in_paths,
                unreachable_pub,
                reason = "generated code is the generator's to lint"
            )]
            pub mod $version {
                include!(concat!("generated/", $file, ".rs"));
            }
        }
    };
}

package!(
    /// What Planning offers to task derivation.
    task_derivation::v1, "fleet.task_derivation.v1"
);
package!(
    /// What an agent should know of a story.
    context::v1, "fleet.context.v1"
);
package!(
    /// Inference on GPUs.
    ray_executor::v1, "fleet.ray_executor.v1"
);
package!(
    /// The state machine of a task.
    workflow::v1, "fleet.workflow.v1"
);
package!(
    /// Councils of agents.
    orchestrator::v1, "fleet.orchestrator.v1"
);
package!(
    /// The life of a story.
    planning::v2, "fleet.planning.v2"
);
package!(
    /// How people and tests work the stand-ins of `examples/fleet`.
    standin::v1, "fleet.standin.v1"
);
package!(
    /// The way in from outside: what a daemon's bus takes and gives, on its admin port.
    bus::v1, "cofferdam.bus.v1"
);
package!(
    /// What an operator does about dead letters and jobs, on an admin port.
    admin::v1, "cofferdam.admin.v1"
);
package!(
    /// What judges the proposals of a council.
    council::v1, "cofferdam.council.v1"
);
package!(
    /// How the tasks of the queue stand.
    queue::v1, "cofferdam.queue.v1"
);
package!(
    /// What the tests' guest that serves is asked for.
    fixtures::v1, "cofferdam.fixtures.v1"
);

/// All files but `fixtures`, with their imports, as an encoded `google.protobuf.FileDescriptorSet`, for server reflection and for
/// tools that turn messages into JSON.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/fleet.fds");

/// The same of `fixtures`, which no server shows but that of the tests' guest.
pub const FIXTURES_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/fixtures.fds");
