//! Which PEs may hold something in their TLBs, and which TLBIs are on their way to remove it.
//!
//! A TLBI removes nothing by itself: it is complete at a DSB of the PE that issued it (RPSMWS), and under the repeat errata only after a
//! second round. Until then its PEs count as holding.

use super::Rule;
use super::cause::{At, Evidence, Lack, Missing, Remedy};
use crate::maintenance::{Invalidation, Ordering, Reach, TlbiTarget};

/// A set of PEs.
pub(super) type Pes = u128;

/// The set of one PE; PEs are below 128.
pub(super) const fn bit(pe: u32) -> Pes {
    1 << (pe & 127)
}

/// The lowest PE of a set that is not empty.
pub(super) const fn first(pes: Pes) -> u32 {
    pes.trailing_zeros()
}

/// How far a TLBI in flight has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
enum Stage {
    /// Issued.
    Issued,
    /// Its DSB is done, and the repeat errata ask for a second broadcast TLBI.
    Half,
    /// That one is issued.
    Repeated,
}

/// A TLBI as its completion sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct Shot {
    pub(super) issuer: u32,
    pub(super) reach: Reach,
    pub(super) without_xs: bool,
    /// The walks of which it removes the table descriptors as well.
    pub(super) walks: Walks,
    /// Where it was issued.
    pub(super) at: Evidence<At>,
}

impl Shot {
    const fn is_broadcast(&self) -> bool {
        !matches!(self.reach, Reach::Own)
    }

    /// RPSMWS: a DSB of `pe` completes it, where that waits for loads and stores and reaches as far.
    fn is_completed_by(&self, pe: u32, ordering: &Ordering) -> bool {
        let of_its_kind = !ordering.without_xs || self.without_xs;
        self.issuer == pe && ordering.is_full() && ordering.reach >= self.reach && of_its_kind
    }

    /// The nearest domain of a DSB that completes it.
    const fn domain(&self) -> &'static str {
        match self.reach {
            Reach::Own => "NSH",
            Reach::Inner => "ISH",
            Reach::Outer => "OSH",
            Reach::System => "SY",
        }
    }

    /// What is wanting after it.
    pub(super) fn wanting(&self) -> Missing {
        let (domain, issuer) = (self.domain(), self.issuer);
        let says = if self.without_xs {
            format!("DSB {domain}nXS or wider by PE {issuer} after its TLBI")
        } else {
            format!("DSB {domain} or wider, for loads and stores, by PE {issuer} after its TLBI")
        };
        Missing { remedy: Remedy::after(Lack::TlbiDsb, self.at.0), says }
    }
}

/// The TLBIs of a PE that no DSB has completed: each by itself, so that one that is complete hides none that is not.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Unfinished(Vec<Shot>);

impl Unfinished {
    pub(super) fn issue(&mut self, shot: Shot) {
        let shot = Shot { walks: Walks::None, ..shot };
        if let Err(at) = self.0.binary_search(&shot) {
            self.0.insert(at, shot);
        }
    }

    /// The PE executes a DSB. The second TLBI that the repeat errata ask for need not be repeated itself.
    pub(super) fn complete(&mut self, ordering: &Ordering) {
        self.0.retain(|shot| !shot.is_completed_by(shot.issuer, ordering));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that reaches farthest.
    pub(super) fn farthest(&self) -> Option<&Shot> {
        self.0.iter().max_by_key(|shot| shot.reach)
    }
}

/// A set of walks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) enum Walks {
    /// None: the L forms, and those with a level.
    None,
    /// Those of these addresses, the last included.
    Of(u64, u64),
    /// All of them.
    All,
}

impl Walks {
    /// Of what `invalidation` names.
    pub(super) const fn of(invalidation: &Invalidation) -> Self {
        match invalidation.target {
            TlbiTarget::All => Self::All,
            _ if invalidation.last_level_only => Self::None,
            TlbiTarget::Page { va, level: None } => Self::Of(va, va),
            TlbiTarget::Range { first, last, level: None } => Self::Of(first, last),
            TlbiTarget::Page { .. } | TlbiTarget::Range { .. } | TlbiTarget::Nothing(_) => Self::None,
        }
    }

    /// Whether any walk is among them.
    pub(super) const fn any(self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether a walk for `first` to `last` is among them.
    const fn meet(self, first: u64, last: u64) -> bool {
        match self {
            Self::None => false,
            Self::Of(from, to) => from <= last && first <= to,
            Self::All => true,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
struct InFlight {
    shot: Shot,
    stage: Stage,
    pes: Pes,
}

/// Who may hold something.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Holder {
    held: Pes,
    pending: Vec<InFlight>,
}

impl Holder {
    pub(super) const fn by(held: Pes) -> Self {
        Self { held, pending: Vec::new() }
    }

    pub(super) const fn held(&self) -> Pes {
        self.held
    }

    /// `pes` may have it from now on, whatever was on its way to them.
    pub(super) fn hold(&mut self, pes: Pes) {
        self.held |= pes;
        for pending in &mut self.pending {
            pending.pes &= !pes;
        }
        self.pending.retain(|pending| pending.pes != 0);
    }

    /// It is held anew as `other` is: what is on its way to both stays on its way.
    pub(super) fn join(&mut self, other: &Self) {
        self.hold(other.held & !other.on_its_way());
        let more = other.held & !self.held;
        self.held |= more;
        self.pending.extend(other.pending.iter().map(|pending| InFlight { pes: pending.pes & more, ..*pending }));
        self.pending.retain(|pending| pending.pes != 0);
        self.pending.sort_unstable();
    }

    /// Whatever is on its way for `other` removes this as well, where both are held.
    pub(super) fn go_with(&mut self, other: &Self) {
        let pes = self.held;
        let both = other.pending.iter().map(|pending| InFlight { pes: pending.pes & pes, ..*pending });
        self.pending.extend(both.filter(|pending| pending.pes != 0));
        self.pending.sort_unstable();
        self.pending.dedup();
    }

    /// A TLBI that removes it from `pes` is issued.
    pub(super) fn invalidate(&mut self, shot: Shot, pes: Pes) {
        let pes = pes & self.held;
        if pes == 0 {
            return;
        }
        match self.pending.iter_mut().find(|pending| pending.shot == shot && pending.stage == Stage::Issued) {
            Some(pending) => pending.pes |= pes,
            None => self.pending.push(InFlight { shot, stage: Stage::Issued, pes }),
        }
        self.pending.sort_unstable();
    }

    /// `pe` issues a broadcast TLBI that reaches so far: the second one that the repeat errata ask for. The DSB has to cover both.
    pub(super) fn repeat(&mut self, pe: u32, reach: Reach) {
        let mut any = false;
        for pending in &mut self.pending {
            if pending.shot.issuer == pe && pending.stage == Stage::Half {
                pending.stage = Stage::Repeated;
                pending.shot.reach = pending.shot.reach.max(reach);
                any = true;
            }
        }
        // Hundreds of TLBIs may be on their way to one table, and each of them comes by here.
        if any {
            self.pending.sort_unstable();
        }
    }

    /// `pe` executes a DSB; returns the PEs that no longer hold it.
    pub(super) fn complete(&mut self, pe: u32, ordering: &Ordering, repeats: bool) -> Pes {
        let mut gone = 0;
        for pending in &mut self.pending {
            let InFlight { shot, .. } = *pending;
            if !shot.is_completed_by(pe, ordering) {
                continue;
            }
            match pending.stage {
                Stage::Issued if repeats && shot.is_broadcast() => pending.stage = Stage::Half,
                Stage::Half => {}
                Stage::Issued | Stage::Repeated => gone |= pending.pes,
            }
        }
        self.held &= !gone;
        for pending in &mut self.pending {
            pending.pes &= self.held;
        }
        self.pending.retain(|pending| pending.pes != 0);
        gone
    }

    /// PEs to which a TLBI is on its way.
    pub(super) fn on_its_way(&self) -> Pes {
        self.pending.iter().fold(0, |pes, pending| pes | pending.pes)
    }

    /// The same, with nothing on its way but what removes whole walks for `first` to `last`.
    pub(super) fn of_walks(&self, first: u64, last: u64) -> Self {
        let pending = self.pending.iter().filter(|pending| pending.shot.walks.meet(first, last));
        Self { held: self.held, pending: pending.copied().collect() }
    }

    /// Only of `pes`.
    pub(super) fn only(mut self, pes: Pes) -> Self {
        self.held &= pes;
        self.pending.iter_mut().for_each(|pending| pending.pes &= pes);
        self.pending.retain(|pending| pending.pes != 0);
        self
    }

    /// Whether `pe` issued a TLBI that is on its way.
    pub(super) fn awaits(&self, pe: u32) -> bool {
        self.pending.iter().any(|pending| pending.shot.issuer == pe)
    }

    /// Whether all that is wanting is the second round of the repeat errata.
    pub(super) fn wants_repeat(&self, pes: Pes) -> bool {
        let pes = pes & self.held;
        let once = self.pending.iter().filter(|pending| pending.stage != Stage::Issued);
        pes != 0 && pes & !once.fold(0, |pes, pending| pes | pending.pes) == 0
    }

    /// What is wanting after the TLBI.
    pub(super) fn wanting(&self) -> Missing {
        let Some(InFlight { shot, stage, .. }) = self.pending.first() else {
            return Missing { remedy: Remedy::at(Lack::Tlbi, At::default()), says: "a TLBI".into() };
        };
        let (issuer, domain) = (shot.issuer, shot.domain());
        let says = match stage {
            Stage::Half => format!("a second broadcast TLBI and DSB {domain} by PE {issuer}"),
            Stage::Repeated => format!("DSB {domain} by PE {issuer} after its second TLBI"),
            Stage::Issued => return shot.wanting(),
        };
        Missing { remedy: Remedy::after(Lack::Own(Rule::RepeatTlbi), shot.at.0), says }
    }
}
