//! Log lines: to stderr, as text for people or JSON for machines; and which levels there are.

use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

/// What [`level`] takes, for messages.
pub const LEVELS: &str = "a log level; write one of trace, debug, info, warn, error, off, or a list such as \
                          \"cofferdam=debug,warn\"";

/// Installs the subscriber. The level has been checked along with the config.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::new(&config.level);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = if config.json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
    };
    if let Err(e) = installed {
        tracing::debug!("a log subscriber is installed already: {e}");
    }
}

/// A level in any case, with the names that the fleet's Python services use, or a list of directives; as `EnvFilter` is to
/// have it. A lone word that is no level is refused: `EnvFilter` would take it for a module and log nothing else.
pub fn level(text: &str) -> Option<String> {
    let directives: Vec<String> =
        text.split(',').map(|part| directive(part.trim())).collect::<Option<_>>()?;
    let all = directives.join(",");
    EnvFilter::builder().parse(&all).is_ok().then_some(all)
}

fn directive(part: &str) -> Option<String> {
    match part.rsplit_once('=') {
        None => word(part).map(str::to_owned),
        // What stands behind the = may belong to a span's fields, as in `[span{a=b}]`: for EnvFilter to judge.
        Some((target, level)) => Some(format!("{target}={}", word(level).unwrap_or(level))),
    }
}

fn word(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" | "fatal" => "error",
        "off" => "off",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_by_all_the_fleets_names() {
        for (text, expected) in [
            ("info", "info"),
            ("DEBUG", "debug"),
            ("Warning", "warn"),
            ("CRITICAL", "error"),
            ("FATAL", "error"),
            ("off", "off"),
            ("cofferdam=debug,warn", "cofferdam=debug,warn"),
            ("cofferdam=WARNING, CRITICAL", "cofferdam=warn,error"),
            ("[span{a=b}]=trace", "[span{a=b}]=trace"),
        ] {
            assert_eq!(level(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for text in
            ["", "loud", "7", "cofferdam", "cofferdam=loud", "cofferdam,warn", "info,", "a b=info=", "NOTSET"]
        {
            assert_eq!(level(text), None, "{text}");
        }
    }
}
