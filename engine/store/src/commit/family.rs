//! The spaces of keys.

/// A space of keys of its own. The numbers are stored and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Few rows about the whole.
    Meta = 0,
    /// Topics, subscriptions, plugins, routes.
    Catalogue = 1,
    /// The events.
    Log = 2,
    /// How far subscriptions and routes have come.
    Cursors = 3,
    /// Producers' epochs, sequences and recent outcomes.
    Producers = 4,
    /// Event ids seen within a window.
    Dedup = 5,
    /// Events that wait for their time.
    Schedule = 6,
    /// Events that wait for a decision.
    Prepared = 7,
    /// What plugins remember.
    PluginState = 8,
    /// Which dead letters were redriven, and what waits for one subscription alone; who owns producers' names.
    Side = 9,
}

impl Family {
    /// Every family, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Meta,
        Self::Catalogue,
        Self::Log,
        Self::Cursors,
        Self::Producers,
        Self::Dedup,
        Self::Schedule,
        Self::Prepared,
        Self::PluginState,
        Self::Side,
    ];

    /// The stored number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The family with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name of its column family; stored, so it never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Catalogue => "catalogue",
            Self::Log => "log",
            Self::Cursors => "cursors",
            Self::Producers => "producers",
            Self::Dedup => "dedup",
            Self::Schedule => "schedule",
            Self::Prepared => "prepared",
            Self::PluginState => "plugin_state",
            Self::Side => "side",
        }
    }
}
