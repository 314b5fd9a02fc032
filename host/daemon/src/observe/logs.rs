//! Log lines: to stderr, as text for people or JSON for machines.

use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

/// Installs the subscriber. A level that can't be read is replaced by `info`, and said so.
pub fn init(config: &LogConfig) {
    let (filter, fault) = match EnvFilter::builder().parse(&config.level) {
        Ok(filter) => (filter, None),
        Err(e) => (EnvFilter::new("info"), Some(e)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = if config.json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
    };
    if let Err(e) = installed {
        tracing::debug!("a log subscriber is installed already: {e}");
    }
    if let Some(fault) = fault {
        tracing::warn!(level = config.level, "the log level can't be read ({fault}); using \"info\"");
    }
}
