//! How a run ended and what it used: the sandbox's word to its caller. What an ending means for the event is the
//! caller's to decide.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::{Trap, WasmBacktrace};

use crate::limits::Limits;
use crate::seam::{Failure, Host, ServeError};

/// Functions of a backtrace that a message shows.
const FRAMES_SHOWN: usize = 6;

/// One run of one event or request, over.
pub struct Run {
    /// The caller's own host, with whatever it gathered: it comes back after a kill, too.
    pub host: Box<dyn Host>,
    pub ending: Ending,
    /// What a request that ended with [`Ending::Ok`] is answered with; an event has none.
    pub answer: Option<Bytes>,
    pub usage: Usage,
}

impl Run {
    /// The host as what it was before it was boxed; nothing if it was another type.
    pub fn into_host<H: Host>(self) -> Option<Box<H>> {
        let host: Box<dyn Any> = self.host;
        host.downcast().ok()
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("ending", &self.ending)
            .field("answer", &self.answer.as_ref().map(Bytes::len))
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}

/// What a run used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the guest and of the host calls' own work, without waiting.
    pub cpu: Duration,
    /// From the start of the handler or of `serve`; waiting for a free instance comes before it.
    pub wall: Duration,
    /// Bytes of all linear memories at their largest.
    pub memory_peak: usize,
    /// Calls through the seam.
    pub host_calls: u32,
    /// The instance was made for this run, and had none before.
    pub fresh: bool,
}

/// How a run ended. Only `Ok`, `Failed` and `Refused` are the guest's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Ok,
    /// Of an event.
    Failed(Failure),
    /// Of a request: the status that it is answered with.
    Refused(ServeError),
    /// The guest broke off: a panic, an abort, a wild access, an exit.
    Trap {
        /// The reason, the guest's last words and a short backtrace, on one line.
        message: String,
    },
    CpuLimit,
    WallLimit,
    /// It broke off after growth of its memory was refused, or did not even fit at the start.
    MemoryLimit,
    /// The same of its tables.
    TableLimit,
    HostCallLimit,
    StackOverflow,
    /// Not the guest's fault: the host gave the answer to another call, or could not make an instance.
    HostFault {
        message: String,
    },
}

impl Ending {
    /// The guest did not come to an answer, for what it did itself.
    pub fn broke_off(&self) -> bool {
        match self {
            Self::Trap { .. }
            | Self::CpuLimit
            | Self::MemoryLimit
            | Self::TableLimit
            | Self::StackOverflow => true,
            Self::Ok
            | Self::Failed(_)
            | Self::Refused(_)
            | Self::WallLimit
            | Self::HostCallLimit
            | Self::HostFault { .. } => false,
        }
    }

    /// One sentence for the operator, with the limit that applied and where to raise it.
    pub fn describe(&self, limits: &Limits) -> String {
        match self {
            Self::Ok => "the guest did what it was asked".to_owned(),
            Self::Failed(Failure::Retry { reason, .. }) => format!("the guest asks for a retry: {reason}"),
            Self::Failed(Failure::Reject(reason)) => format!("the guest rejects the event: {reason}"),
            Self::Refused(ServeError { code, message }) => {
                format!("the guest answers with status {code}: {message}")
            }
            Self::Trap { message } | Self::HostFault { message } => message.clone(),
            Self::CpuLimit => {
                format!("computed for longer than {:?} (limit `cpu`): an endless loop?", limits.cpu)
            }
            Self::WallLimit => {
                format!("took longer than {:?}, waiting included (limit `wall`)", limits.wall)
            }
            Self::MemoryLimit => {
                format!("needs more than {} bytes of memory (limit `memory`)", limits.memory)
            }
            Self::TableLimit => {
                format!("needs more than {} table elements (limit `table_elements`)", limits.table_elements)
            }
            Self::HostCallLimit => {
                format!("made more than {} host calls (limit `host_calls`)", limits.host_calls)
            }
            Self::StackOverflow => "overflowed its stack: endless recursion?".to_owned(),
        }
    }
}

/// A trap, readable: `wasm trap: ...; the guest's last words: ...; at parse < handle`.
pub(crate) fn trap_message(error: &wasmtime::Error, last_words: Option<&str>) -> String {
    let mut message = match error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        Some(exit) => format!("the guest exited with status {}", exit.0),
        None => match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => error.root_cause().to_string(),
        },
    };
    if let Some(words) = last_words {
        message.push_str("; the guest's last words: ");
        message.push_str(words);
    }
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    for (index, frame) in frames.iter().take(FRAMES_SHOWN).enumerate() {
        message.push_str(if index == 0 { "; at " } else { " < " });
        match frame.func_name() {
            Some(name) => message.push_str(name),
            None => message.push_str(&format!("function {}", frame.func_index())),
        }
    }
    if frames.len() > FRAMES_SHOWN {
        message.push_str(" < ...");
    }
    message
}
