//! Where a violation comes from, where it did harm, and what would mend it.
//!
//! A debt does harm long after it was made: at a use, at the claim that nothing is owed, at the end. What a person has
//! to change stands where it was made. So every debt keeps the event that made it, and the events that should have
//! settled it; all of it is evidence, and takes no part in whether two states are equal.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::Rule;

/// An event of the trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct At {
    /// Its line.
    pub line: u64,
    /// Its PE.
    pub pe: u32,
    /// Its instruction.
    pub pc: u64,
}

/// Where a violation did harm, if not where it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Harm {
    /// At this event.
    At(At),
    /// When the trace ended: it was owed until then.
    End,
}

/// What kind of instruction is wanting. Violations that lack the same at the same place have one cause, whatever rules
/// they break.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Lack {
    /// What this rule asks for, and no other.
    Own(Rule),
    /// Break-before-make.
    Break,
    /// A DSB after a store.
    StoreDsb,
    /// A TLBI, or another form of one.
    Tlbi,
    /// A DSB after a TLBI.
    TlbiDsb,
    /// A context synchronisation.
    Isb,
}

impl Lack {
    /// Its name: baselines know causes by it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own(rule) => rule.name(),
            Self::Break => "break-before-make",
            Self::StoreDsb => "store DSB",
            Self::Tlbi => "TLBI",
            Self::TlbiDsb => "TLBI DSB",
            Self::Isb => "ISB",
        }
    }
}

/// On which side of an instruction something belongs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// Before it.
    Before,
    /// After it.
    After,
    /// In its place, or in what it writes.
    At,
}

impl Side {
    /// In words.
    #[must_use]
    pub const fn says(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::At => "at",
        }
    }
}

/// What would mend a violation: something wanting, on one side of an event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Remedy {
    /// What.
    pub lack: Lack,
    /// On which side of [`Remedy::at`].
    pub side: Side,
    /// The event that it belongs to.
    pub at: At,
}

impl Remedy {
    pub(super) const fn before(lack: Lack, at: At) -> Self {
        Self { lack, side: Side::Before, at }
    }

    pub(super) const fn after(lack: Lack, at: At) -> Self {
        Self { lack, side: Side::After, at }
    }

    pub(super) const fn at(lack: Lack, at: At) -> Self {
        Self { lack, side: Side::At, at }
    }
}

/// What is wanting, and the same in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Missing {
    pub(super) remedy: Remedy,
    pub(super) says: String,
}

/// Where a debt was made, and what was done about it last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Origin {
    /// The store, or the write of a register.
    pub(super) since: At,
    /// The last DSB that made the store visible or completed its TLBI, or did that for what was stored there, or led
    /// there, since; the store itself as long as there is none.
    pub(super) done: At,
    /// Something was stored there, or led there, since then: an ISB belongs behind the DSB for that.
    pub(super) goes_on: bool,
}

impl Origin {
    pub(super) const fn of(at: At) -> Self {
        Self { since: at, done: at, goes_on: false }
    }
}

/// Something kept for the report alone: it takes no part in whether two states are equal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence<T>(pub(super) T);

impl<T> PartialEq for Evidence<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Evidence<T> {}

impl<T> PartialOrd for Evidence<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Evidence<T> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl<T> Hash for Evidence<T> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}
