//! Why a sandbox could not be made, and why a component could not be loaded. How a run ends is in `ending`.

use std::io;
use std::path::PathBuf;

/// The sandbox itself cannot be made: the operator's or the machine's fault.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("sandbox setting {setting} = {value} is not possible: {remedy}")]
    Setting { setting: &'static str, value: String, remedy: &'static str },
    #[error("cannot make the WebAssembly engine: {0}")]
    Engine(String),
    #[error("cannot start the thread that ticks: {0}")]
    Ticker(#[source] io::Error),
    #[error("cannot use {} as the artifact cache: {source}", path.display())]
    Cache { path: PathBuf, source: io::Error },
    #[error(
        "the artifact cache {} can be written by others than this user (owner {owner}, mode {mode:03o}), who could put \
         machine code there: make it the daemon's own and `chmod go-w` it, or name another directory",
        path.display()
    )]
    CacheNotPrivate { path: PathBuf, owner: u32, mode: u32 },
}

/// A component cannot be loaded. All but `Compile`, `Link` and `Interrupted` are found before anything is
/// compiled.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("not a WebAssembly binary: it begins with {found:02x?} instead of 00 61 73 6d")]
    NotWasm { found: Vec<u8> },
    #[error(
        "a core WebAssembly module, not a component: turn it into one, with `cargo xtask plugins` for a guest of \
         this workspace or `wasm-tools component new <module> -o <component>` for any other"
    )]
    CoreModule,
    #[error("malformed component at byte {offset:#x}: {message}")]
    Malformed { offset: u64, message: String },
    #[error(
        "no export cofferdam:plugin/handler: a plugin is a component of the world cofferdam:plugin/event-plugin \
         (exports found: {exports})"
    )]
    NoHandler { exports: String },
    #[error(
        "built for cofferdam:plugin@{found}; this host knows {known}: rebuild it with an SDK of a known version"
    )]
    UnknownVersion { found: String, known: &'static str },
    #[error("imports {import}, an interface that cofferdam:plugin@{known} does not have")]
    UnknownInterface { import: String, known: &'static str },
    #[error(
        "imports {import}, but the only WASI linked here is 0.2.x of {linked}, and without any authority"
    )]
    UnknownWasi { import: String, linked: String },
    #[error(
        "imports {import}: a plugin can import nothing but cofferdam:plugin and WASI 0.2; compose the component with \
         what provides it"
    )]
    ForeignImport { import: String },
    #[error("cannot compile the component: {0}")]
    Compile(String),
    #[error("cannot link the component: {0}")]
    Link(String),
    #[error("loading was interrupted: {0}")]
    Interrupted(String),
}
