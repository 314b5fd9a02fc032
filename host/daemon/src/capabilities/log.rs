//! Guest log lines, with the event, the plugin and the trace added.

use cofferdam_sandbox::{LogLevel, Pairs};

use super::Run;
use crate::observe::text;

/// Of one event; a guest in a loop must not fill the disk.
const MAX_BYTES: usize = 64 << 10;

impl Run {
    pub(super) fn log(&mut self, level: LogLevel, message: &str, fields: &Pairs) {
        let size = message.len() + fields.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() + 16;
        if self.log_bytes + size > MAX_BYTES {
            if self.log_dropped == 0 {
                tracing::warn!(
                    plugin = self.plugin.name,
                    event = self.occasion.event_id,
                    "the plugin logged more than {MAX_BYTES} bytes for one event; the rest is dropped and counted"
                );
            }
            self.log_dropped += 1;
            return;
        }
        self.log_bytes += size;
        let message = text::excerpt(message, MAX_BYTES);
        let fields = fields.iter().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join(" ");
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "cofferdam::guest",
                    plugin = self.plugin.name,
                    event = self.occasion.event_id,
                    trace = self.occasion.trace.trace_id,
                    fields,
                    "{message}"
                )
            };
        }
        match level {
            LogLevel::Trace => line!(trace),
            LogLevel::Debug => line!(debug),
            LogLevel::Info => line!(info),
            LogLevel::Warn => line!(warn),
            LogLevel::Error => line!(error),
        }
    }
}
