//! Why something is no CloudEvent.

/// As many characters of a value as an error repeats.
const SHOWN_CHARS: usize = 60;

/// Why something that claims to be a CloudEvent is none: the attribute, what was expected, and what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCloudEvent {
    /// An attribute that every CloudEvent has.
    #[error("expected the attribute `{0}`, which every CloudEvent has, got none")]
    Missing(&'static str),
    /// An attribute with a value that it cannot have.
    #[error("expected {expected} as the attribute `{name}`, got {got}")]
    Attribute {
        /// The attribute.
        name: String,
        /// What it takes.
        expected: &'static str,
        /// What it has.
        got: String,
    },
    /// A name that no attribute can have.
    #[error("expected a name of 1 to 20 lower case letters and digits for an attribute, got {0}")]
    Name(String),
    /// An attribute that is there twice.
    #[error("expected the attribute `{0}` once, got it twice")]
    Repeated(String),
    /// More attributes than an event can keep.
    #[error("expected at most 72 attributes, got more")]
    TooMany,
    /// Data that is given as JSON or text and in base64.
    #[error("expected either `data` or `data_base64`, got both")]
    TwoData,
    /// Data that its member cannot hold.
    #[error("expected {expected} as `{member}`, got {got}")]
    Data {
        /// `data` or `data_base64`.
        member: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What it has.
        got: String,
    },
    /// Something else than a JSON object, or no JSON.
    #[error("expected a CloudEvent as a JSON object, got {0}")]
    Json(String),
}

impl InvalidCloudEvent {
    pub(crate) fn attribute(name: &str, expected: &'static str, got: &str) -> Self {
        Self::Attribute { name: shorten(name), expected, got: quote(got) }
    }

    /// The attribute or member that is wrong, if it is one.
    pub fn attribute_name(&self) -> Option<&str> {
        match self {
            Self::Missing(name) => Some(name),
            Self::Attribute { name, .. } | Self::Name(name) | Self::Repeated(name) => Some(name),
            Self::TwoData => Some("data"),
            Self::Data { member, .. } => Some(member),
            Self::Json(_) | Self::TooMany => None,
        }
    }
}

/// Why something is no batch of CloudEvents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// Something else than a JSON array, or no JSON.
    #[error("expected an array of CloudEvents in JSON, got {0}")]
    Json(String),
    /// One element is no CloudEvent.
    #[error("event {index} of the batch, counted from 0: {error}")]
    Event {
        /// Its index, from 0.
        index: usize,
        /// Why.
        error: InvalidCloudEvent,
    },
}

/// The beginning of a text, in quotes.
pub(crate) fn quote(text: &str) -> String {
    format!("{:?}", shorten(text))
}

/// The beginning of a text.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
