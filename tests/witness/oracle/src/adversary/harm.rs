//! What the adversary achieved: the proof that a sequence is unsound.

use core::fmt;

use super::entry::{TableEntry, Translation};

/// What kind of harm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum HarmKind {
    /// One PE may hold two translations of one address that exclude each other.
    Conflict,
    /// Something that memory no longer says may be held at a point where it must be gone.
    Stale,
    /// An invalidated translation may still be used for want of context synchronisation.
    Latent,
    /// A use may find the fault that a fill has replaced.
    Faulting,
    /// A use of an address whose descriptor is broken.
    Broken,
    /// A table store that some walk may still not see, at a point where nothing may be owed.
    PendingStore,
    /// A TLBI that no DSB has completed at the end.
    Unfinished,
    /// A frame is a live table, or something stale leads to it, while it changes hands.
    Frame,
    /// Memory is written and then executed.
    WriteExecute,
    /// A speculative fetch reaches Device memory.
    DeviceFetch,
    /// A speculative read reaches what is no RAM.
    BeyondRam,
    /// One frame is seen with two sets of attributes.
    Alias,
    /// An access sees other data than was stored, because of a data-cache line.
    Line,
    /// A walk reads memory that nobody wrote.
    Unknown,
    /// A contiguous run translates as no descriptor of it says.
    Contiguous,
    /// A TLB may hold other control values than those in force, or they are not in force for certain.
    Controls,
    /// Translation begins with what a TLB held out of reset.
    Garbage,
    /// PEs share entries of different tables.
    Sharing,
    /// Memory was accessed in the window of a root switch.
    Window,
    /// A regime that this manager does not program: E2H or PIE.
    Unsupported,
    /// What the architecture reserves is in force: hardware may take it for anything.
    Reserved,
    /// An affected core does something else than was written.
    Erratum,
}

/// One proof.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Harm {
    /// What kind.
    pub kind: HarmKind,
    /// Line of the trace at which it became possible.
    pub line: u64,
    /// The PE that comes to harm.
    pub pe: u32,
    /// The address, where there is one.
    pub va: Option<u64>,
    /// What can happen.
    pub what: What,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: PE {}: {:?}", self.line, self.pe, self.kind)?;
        if let Some(va) = self.va {
            write!(f, " at {va:#x}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What a harm says; made into words when somebody reads it: a search finds millions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// Words alone.
    Text(&'static str),
    /// And the physical address of a word or frame.
    Word(&'static str, u64),
    /// And a translation.
    Leaf(&'static str, Translation),
    /// And two.
    Leaves(&'static str, Translation, Translation),
    /// And a table descriptor: its level and physical address, and the table that it leads to.
    Table(&'static str, i8, u64, u64),
}

impl What {
    pub(super) const fn table(text: &'static str, table: &TableEntry) -> Self {
        Self::Table(text, table.level, table.slot, table.next)
    }
}

impl From<&'static str> for What {
    fn from(text: &'static str) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Word(text, pa) => write!(f, "{text} (physical address {pa:#x})"),
            Self::Leaf(text, leaf) => write!(f, "{text} ({leaf})"),
            Self::Leaves(text, one, other) => write!(f, "{text} ({one}; {other})"),
            Self::Table(text, level, slot, next) => {
                write!(f, "{text} (level {level} descriptor {slot:#x} -> table {next:#x})")
            }
        }
    }
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { va, output, level, memory, shareability, .. } = self;
        write!(f, "{va:#x} -> {output:#x} level {level} {memory:?} SH {shareability} R")?;
        f.write_str(if self.writable { "W" } else { "-" })?;
        f.write_str(if self.executable { "X" } else { "-" })?;
        f.write_str(if self.contiguous { " contiguous" } else { "" })
    }
}

/// A harm before it has a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnplacedHarm {
    pub(super) kind: HarmKind,
    pub(super) va: Option<u64>,
    pub(super) what: What,
}
