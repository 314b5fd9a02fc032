//! Structured log lines; the host adds the event, the plugin and the trace. Over the limit (default 64 KiB per
//! event) lines are dropped and counted.

use crate::sys;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes one line; the macros are shorter.
pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
    sys::log(level, message, fields);
}

/// `log!(Level::Info, "took {n} tasks"; plan_id = plan.id, count = n)`: a format string, its arguments, and after a
/// semicolon the fields, which are displayed.
#[macro_export]
macro_rules! log {
    ($level:expr, $format:literal $(, $arg:expr)* $(,)? $(; $($key:ident = $value:expr),+ $(,)?)?) => {
        $crate::log::write($level, &::std::format!($format $(, $arg)*), &[
            $($((::std::string::String::from(::std::stringify!($key)), ::std::string::ToString::to_string(&$value))),+)?
        ])
    };
}

/// [`log!`] at its level.
#[macro_export]
macro_rules! debug { ($($rest:tt)+) => { $crate::log!($crate::log::Level::Debug, $($rest)+) }; }

/// [`log!`] at its level.
#[macro_export]
macro_rules! info { ($($rest:tt)+) => { $crate::log!($crate::log::Level::Info, $($rest)+) }; }

/// [`log!`] at its level.
#[macro_export]
macro_rules! warn { ($($rest:tt)+) => { $crate::log!($crate::log::Level::Warn, $($rest)+) }; }

/// [`log!`] at its level.
#[macro_export]
macro_rules! error { ($($rest:tt)+) => { $crate::log!($crate::log::Level::Error, $($rest)+) }; }
