//! Policies: a trace replayed as one kind of core would live through it.
//!
//! The oracle's two engines say what the architecture forbids. This says who would have noticed: real cores cache more
//! or less, and a broken update crashes some and passes on others. A violation that no policy turns into a crash is
//! still a violation; a crash is always the consequence of one (or of a trace that does not tell all of the tables).
//!
//! A part is concrete: it holds exact entries, not sets of what may be held. Its TLB starts empty; stores reach walks,
//! register writes and TLBIs act at once. Accesses are `load`, `store`, DC ZVA and `fetch` with the MMU on; some parts
//! guess besides, and a guess enters what it translates but never crashes. Memory is what the trace declares and
//! stores; where a walk of the present tables meets unknown memory, the access is not judged.
//!
//! A crash is
//! * a TLB conflict: two entries of one PE match the address of an access. Entries of one span replace each other, so
//!   the two differ in size at least;
//! * a translation used that the tables no longer give, where it leads elsewhere: for loads and fetches, to bytes that
//!   are not known to be the same; or where the tables give none;
//! * a fault where the tables permit the access, or at an entry that the trace broke, though the recorded access went
//!   through.

mod cache;
mod memory;
mod pe;
mod replay;
#[cfg(test)]
mod tests;

use cache::Shape;
pub use replay::{Crash, Replay, Replays, replay, replay_lines};

/// What a core translates that nobody asked for yet. It does so whenever an instruction has been executed, half of its
/// ideas at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ahead {
    /// Nothing.
    Nothing,
    /// The pages beside the last ones fetched from and accessed.
    Neighbours,
    /// The page after the last one fetched from, and the pages that code ran in lately: as a branch predictor sends the
    /// fetch ahead.
    Predicted,
}

/// How a core is built: what its caches look like. Sizes are of the order of a small core's first-level TLB, where
/// conflicts are noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Core {
    /// Its TLB.
    leaves: Shape,
    /// Its walk cache, for descriptors that lead to tables.
    links: Shape,
    /// What it translates ahead of need.
    ahead: Ahead,
    /// It holds a contiguous run as one entry.
    joins_runs: bool,
}

/// A kind of core.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Policy {
    /// Walks ahead of need and replaces at random.
    Eager,
    /// Keeps only what an access translated, and little of it.
    Lazy,
    /// Keeps everything.
    Hoarder,
    /// Each address has one place for each size of entry.
    DirectMapped,
    /// Fetches ahead of what it executes.
    Predictive,
}

impl Policy {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Eager, Self::Lazy, Self::Hoarder, Self::DirectMapped, Self::Predictive];

    /// Its name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Lazy => "lazy",
            Self::Hoarder => "hoarder",
            Self::DirectMapped => "direct-mapped",
            Self::Predictive => "predictive",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|policy| policy.name() == name)
    }

    /// What it is, in a few words.
    #[must_use]
    pub const fn says(self) -> &'static str {
        match self {
            Self::Eager => {
                "16 TLB entries, 4 of walk cache, replaced at random; translates neighbouring pages ahead of need"
            }
            Self::Lazy => "8 TLB entries, the least recently used replaced; no walk cache, nothing ahead of need",
            Self::Hoarder => "fully associative TLB and walk cache that forget only when told to",
            Self::DirectMapped => "32 TLB entries of each size, placed by address bits; no walk cache",
            Self::Predictive => {
                "32 TLB entries, replaced at random; no walk cache; fetches ahead, straight on and where code was lately"
            }
        }
    }

    /// Whether chance decides what it does: whether another seed may come out otherwise.
    #[must_use]
    pub const fn is_random(self) -> bool {
        matches!(self, Self::Eager | Self::Predictive)
    }

    const fn part(self) -> Core {
        let (leaves, links, ahead, joins_runs) = match self {
            Self::Eager => (Shape::Random(16), Shape::Random(4), Ahead::Neighbours, true),
            Self::Lazy => (Shape::LeastRecent(8), Shape::Absent, Ahead::Nothing, false),
            Self::Hoarder => (Shape::Unbounded, Shape::Unbounded, Ahead::Nothing, true),
            Self::DirectMapped => (Shape::Direct(32), Shape::Absent, Ahead::Nothing, false),
            Self::Predictive => (Shape::Random(32), Shape::Absent, Ahead::Predicted, false),
        };
        Core { leaves, links, ahead, joins_runs }
    }
}
