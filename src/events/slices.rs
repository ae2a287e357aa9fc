//! The names of the state's parts, and sets of them. Pure.

/// A part of the state that changes, and is sent, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// The wrapped server.
    Server,
    /// The current run of the agent.
    Execution,
    /// The agent's last messages.
    Agent,
    /// Approvals.
    Hitl,
    /// Workers.
    Workers,
    /// Artifacts, counted.
    Artifacts,
}

impl Slice {
    /// All of them.
    pub const ALL: [Slice; 6] =
        [Slice::Server, Slice::Execution, Slice::Agent, Slice::Hitl, Slice::Workers, Slice::Artifacts];

    /// The name on wires.
    pub fn name(self) -> &'static str {
        match self {
            Slice::Server => "server",
            Slice::Execution => "execution",
            Slice::Agent => "agent",
            Slice::Hitl => "hitl",
            Slice::Workers => "workers",
            Slice::Artifacts => "artifacts",
        }
    }

    /// The slice of that name.
    pub fn named(name: &str) -> Option<Slice> {
        Slice::ALL.into_iter().find(|slice| slice.name() == name)
    }
}

/// Some of the slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slices(u8);

impl Slices {
    /// All of them.
    pub fn all() -> Slices {
        Slice::ALL.into_iter().collect()
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    pub fn has(self, slice: Slice) -> bool {
        self.0 & (1 << slice as u8) != 0
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Slices) -> Slices {
        Slices(self.0 & other.0)
    }

    /// Those in either.
    #[must_use]
    pub fn or(self, other: Slices) -> Slices {
        Slices(self.0 | other.0)
    }
}

impl FromIterator<Slice> for Slices {
    fn from_iter<I: IntoIterator<Item = Slice>>(slices: I) -> Slices {
        Slices(slices.into_iter().fold(0, |set, slice| set | 1 << slice as u8))
    }
}
