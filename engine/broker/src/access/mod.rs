//! Who asks. Every call into the broker names its principal; what a principal may do is decided here.

/// On whose behalf a call is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Somebody on this machine, while no identities are configured; the listeners are then loopback only.
    Local,
}

impl Principal {
    /// The name that catalogue records keep as their owner.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Local => "local",
        }
    }
}
