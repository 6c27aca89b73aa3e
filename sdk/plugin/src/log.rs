//! Lines for the engine's log. The engine writes a few a second per plugin and counts the rest.

use std::fmt::Arguments;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Something of interest.
    Info,
    /// For the plugin's developer.
    Debug,
}

/// Writes a line; natively, to standard error.
#[cfg(target_arch = "wasm32")]
pub fn write(level: Level, message: Arguments<'_>) {
    use crate::bindings::levada::plugin::log;

    let level = match level {
        Level::Error => log::Level::Error,
        Level::Warn => log::Level::Warn,
        Level::Info => log::Level::Info,
        Level::Debug => log::Level::Debug,
    };
    match message.as_str() {
        Some(text) => log::write(level, text),
        None => log::write(level, &message.to_string()),
    }
}

/// Writes a line; natively, to standard error.
#[cfg(not(target_arch = "wasm32"))]
pub fn write(level: Level, message: Arguments<'_>) {
    eprintln!("{level:?}: {message}");
}

/// Writes an error line, as `format!` would.
#[macro_export]
macro_rules! log_error {
    ($($part:tt)*) => { $crate::log::write($crate::log::Level::Error, ::std::format_args!($($part)*)) };
}

/// Writes a warning, as `format!` would.
#[macro_export]
macro_rules! log_warn {
    ($($part:tt)*) => { $crate::log::write($crate::log::Level::Warn, ::std::format_args!($($part)*)) };
}

/// Writes a line of interest, as `format!` would.
#[macro_export]
macro_rules! log_info {
    ($($part:tt)*) => { $crate::log::write($crate::log::Level::Info, ::std::format_args!($($part)*)) };
}
