//! A failure that a command itself finds: a stable code, a sentence, and what to do about it.
//!
//! It must not know how failures are printed, nor the exit codes.

use std::{error::Error, fmt, io, path::Path};

use levada_protocol::error::ErrorCode;

/// What went wrong, as a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCode {
    /// A code of the protocol.
    Known(ErrorCode),
    /// A file that the user named cannot be read.
    FileUnreadable,
    /// Standard output cannot be written.
    OutputFailed,
    /// The user has no context of that name, or no current one.
    ContextNotFound,
    /// The user has a context of that name already.
    ContextExists,
}

impl FailureCode {
    /// The word as it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Known(code) => code.as_str(),
            Self::FileUnreadable => "FILE_UNREADABLE",
            Self::OutputFailed => "OUTPUT_FAILED",
            Self::ContextNotFound => "CONTEXT_NOT_FOUND",
            Self::ContextExists => "CONTEXT_EXISTS",
        }
    }
}

impl From<ErrorCode> for FailureCode {
    fn from(code: ErrorCode) -> Self {
        Self::Known(code)
    }
}

/// A failure that the command line itself finds, as opposed to one that the engine returns.
#[derive(Debug)]
pub struct Failure {
    code: FailureCode,
    message: String,
    hint: Option<String>,
    kind: FailureKind,
}

/// The kinds of failure that exit codes distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// It was refused, or did not work.
    Failed,
    /// The command was typed wrongly, and nothing was begun.
    WrongUsage,
    /// The user wished to stop.
    Interrupted,
}

impl Failure {
    /// A failure with this code and sentence.
    pub fn new(code: impl Into<FailureCode>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: None, kind: FailureKind::Failed }
    }

    /// Flags that contradict each other in a way that only the command itself can see.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::WrongUsage, ..Self::new(ErrorCode::InvalidArgument, message) }
    }

    /// A file that the user named and that cannot be read.
    pub fn unreadable(file: &Path, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            io::ErrorKind::PermissionDenied => "its permissions do not allow it".to_owned(),
            io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
            _ => error.to_string(),
        };
        let message = format!("{} cannot be read: {why}", file.display());
        Self { kind: FailureKind::WrongUsage, ..Self::new(FailureCode::FileUnreadable, message) }
    }

    /// The user wished to stop before the work was done.
    pub fn interrupted() -> Self {
        Self { kind: FailureKind::Interrupted, ..Self::new(ErrorCode::ShuttingDown, "interrupted") }
    }

    /// What went wrong.
    pub fn code(&self) -> FailureCode {
        self.code
    }

    /// What the exit code says of it.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// What to do about it, if known.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The same failure with a hint what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}
