//! What is owed for one changed descriptor at one place of the input address space.

use super::Rule;
use super::cause::{At, Evidence, Lack, Missing, Origin, Remedy};
use super::holder::{Holder, Pes, bit, first};
use crate::descriptor::Descriptor;

/// A place: the level of the descriptor and the first address that it translates.
pub(super) type Key = (i8, u64);

/// The tables of a walk, by level, -1 first.
pub(super) type WalkTables = [u64; 5];

/// No table.
pub(super) const NOWHERE: WalkTables = [u64::MAX; 5];

/// Why a TLBI that came near did not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Note {
    /// None came near.
    #[default]
    None,
    /// The store was not visible yet when it was issued.
    TooEarly(At),
    /// It was of the L form, and this is a table descriptor.
    LastLevelOnly(At),
    /// Its TTL named another level, or any level where this is a table descriptor.
    OtherLevel(At),
    /// It reached the issuing PE alone, or not the PEs without FEAT_TLBIRANGE.
    NotFarEnough(At),
    /// The leaf could be cached again through a table descriptor that was still cached.
    StillLinked(At),
    /// Its operand named nothing.
    Void(At, &'static str),
}

/// How a store went where the walks of a context do not look.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Detour {
    /// Past the caches, through which they read: a line from before may hide it.
    PastCaches,
    /// Into the caches, past which they read.
    IntoCaches,
}

impl Detour {
    /// Of a store that was `cached` or not, in the eyes of walks that are or not.
    pub(super) const fn of(cached: bool, walks_cached: bool) -> Option<Self> {
        match (cached, walks_cached) {
            (false, true) => Some(Self::PastCaches),
            (true, false) => Some(Self::IntoCaches),
            _ => None,
        }
    }

    pub(super) const fn rule(self) -> Rule {
        match self {
            Self::PastCaches => Rule::LineAfter,
            Self::IntoCaches => Rule::NotCleaned,
        }
    }

    /// What is wanting after the store of `storer`.
    fn wanting(self, storer: u32, since: At) -> Missing {
        let says = match self {
            Self::PastCaches => {
                format!("DMB, DC IVAC of the line and DSB after the store of PE {storer}, which went past the caches")
            }
            Self::IntoCaches => {
                format!("DC CVAC of the line and DSB after the store of PE {storer}: the walks go past the caches")
            }
        };
        Missing { remedy: Remedy::after(Lack::Own(self.rule()), since), says }
    }
}

/// A descriptor that was replaced, and who may still see, hold or run on it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Debt {
    /// The context through which it was reached.
    pub(super) context: usize,
    /// Where the descriptor stood.
    pub(super) slot: u64,
    /// The tables of its walk, from the root on; those that are not there are [`u64::MAX`].
    pub(super) way: WalkTables,
    /// The descriptor.
    pub(super) word: u64,
    /// What it said; [`Descriptor::Invalid`] for anything that is not cached.
    pub(super) said: Descriptor,
    /// Who replaced it.
    pub(super) storer: u32,
    /// Whose walkers may still see it, for want of a DSB.
    pub(super) visible: Pes,
    /// Whether all may still see it, for want of the upkeep of its line.
    pub(super) detour: Option<Detour>,
    /// Who may have it cached.
    pub(super) holder: Holder,
    /// Who has not synchronised context since it was gone, or since a new one could be seen.
    pub(super) unsynced: Pes,
    /// Who issued the TLBI that removed it and, without FEAT_ETS2, has not synchronised context since.
    pub(super) latent: Pes,
    /// For the report.
    pub(super) note: Evidence<Note>,
    /// The store that replaced it, and what followed.
    pub(super) origin: Evidence<Origin>,
    /// Old and new may be cached at once: it was to be broken first.
    pub(super) in_place: Evidence<bool>,
}

impl Debt {
    /// Whether nothing was there: the debt is for the visibility of what was filled in.
    pub(super) const fn is_fill(&self) -> bool {
        matches!(self.said, Descriptor::Invalid)
    }

    /// The tables of its walk.
    pub(super) fn way(&self) -> impl Iterator<Item = u64> {
        self.way.into_iter().filter(|table| *table != u64::MAX)
    }

    /// Whose walkers may still see it.
    pub(super) const fn seen_by(&self) -> Pes {
        if self.detour.is_some() { Pes::MAX } else { self.visible }
    }

    /// Whether nothing but the context synchronisation of other PEs is owed.
    pub(super) const fn is_over(&self) -> bool {
        self.seen_by() == 0 && self.holder.held() == 0 && self.latent == 0
    }

    /// Whether `pe` is to be asked again at its barriers.
    pub(super) fn concerns(&self, pe: u32) -> bool {
        let visible = self.storer == pe && self.visible != 0;
        visible || (self.unsynced | self.latent) & bit(pe) != 0 || self.holder.awaits(pe)
    }

    /// Whether `pe` neither sees nor holds it any more.
    pub(super) const fn gone_for(&self, pe: u32) -> bool {
        (self.seen_by() | self.holder.held()) & bit(pe) == 0
    }

    /// The store that made it.
    pub(super) const fn since(&self) -> At {
        self.origin.0.since
    }

    /// What is wanting for what was filled in to be seen by all.
    pub(super) fn unseen(&self) -> Missing {
        let (storer, since) = (self.storer, self.since());
        let says = || format!("DSB ISHST or wider by PE {storer} after its store");
        let dsb = || Missing { remedy: Remedy::after(Lack::StoreDsb, since), says: says() };
        self.detour.map_or_else(dsb, |detour| detour.wanting(storer, since))
    }

    /// The event that should have been there for `pes` not to have it; `seen` are those whose walkers still see it.
    pub(super) fn missing(&self, pes: Pes, seen: Pes) -> Missing {
        let (storer, since) = (self.storer, self.since());
        if let Some(detour) = self.detour.filter(|_| seen & pes != 0 && self.visible & seen & pes == 0) {
            return detour.wanting(storer, since);
        }
        if seen & pes != 0 {
            let says = format!("DSB ISHST or wider by PE {storer} after its store, before the TLBI");
            return Missing { remedy: Remedy::after(Lack::StoreDsb, since), says };
        }
        let pes = pes & self.holder.held();
        let forgotten = pes & !self.holder.on_its_way();
        if forgotten == 0 {
            return self.holder.wanting();
        }
        let whom = first(forgotten);
        let instead = |at| Remedy::at(Lack::Tlbi, at);
        let (remedy, says) = match self.note.0 {
            Note::TooEarly(At { line, .. }) => {
                let says = format!("DSB ISHST or wider by PE {storer} between its store and the TLBI of line {line}");
                (Remedy::after(Lack::StoreDsb, since), says)
            }
            Note::LastLevelOnly(at @ At { line, .. }) => (
                instead(at),
                format!("TLBI VAE2IS: the L form of line {line} leaves table descriptors cached, here at PE {whom}"),
            ),
            Note::OtherLevel(at @ At { line, .. }) => (
                instead(at),
                format!("a TLBI with the right TTL or none for PE {whom}: line {line} names another level"),
            ),
            Note::NotFarEnough(at @ At { line, .. }) => {
                (instead(at), format!("a broadcast TLBI that reaches PE {whom}: that of line {line} does not"))
            }
            Note::StillLinked(at @ At { line, .. }) => (
                Remedy::after(Lack::Tlbi, at),
                format!(
                    "a TLBI of this address after the table descriptor's for PE {whom}, or a non-L form on line {line}"
                ),
            ),
            Note::Void(at @ At { line, .. }, why) => {
                (instead(at), format!("a TLBI that reaches PE {whom}: that of line {line} names nothing ({why})"))
            }
            Note::None => {
                let says = match self.said {
                    Descriptor::Leaf(leaf) if leaf.contiguous => "a TLBI of this entry of the contiguous run",
                    Descriptor::Table(_) => "a non-L TLBI under this table descriptor",
                    _ => "a TLBI of this address",
                };
                let remedy = match self.in_place.0 {
                    true => Remedy::before(Lack::Break, since),
                    false => Remedy::after(Lack::Tlbi, since),
                };
                (remedy, format!("{says} that reaches PE {whom}"))
            }
        };
        Missing { remedy, says }
    }
}
