//! What each PE's registers may be, and what it owes for having written them.

use std::sync::Arc;

use super::Rule;
use super::cause::{At, Evidence, Lack, Missing, Remedy};
use super::holder::{Holder, Unfinished};
use super::report::UnplacedViolation;
use super::switching::{OffWindow, Stores};
use crate::level::Levels;
use crate::maintenance::ZeroedBlock;
use crate::regime::{Control, Controls};

/// Why a PE owes an invalidation of everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) enum ControlCause {
    /// Its TLBs have held anything since reset.
    Reset,
    /// TCR_EL2 changed.
    Tcr,
    /// MAIR_EL2 changed.
    Mair,
    /// SCTLR_EL2.WXN changed.
    Wxn,
    /// SCTLR_EL2.EE changed.
    Ee,
    /// TTBR0_EL2.CnP changed.
    Cnp,
    /// HCR_EL2.E2H changed.
    E2h,
}

impl ControlCause {
    pub(super) const fn rule(self) -> Rule {
        match self {
            Self::Reset => Rule::FirstEnable,
            Self::E2h => Rule::HostChange,
            Self::Tcr | Self::Mair | Self::Wxn | Self::Ee | Self::Cnp => Rule::ControlChange,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Tcr => "the write of TCR_EL2",
            Self::Mair => "the write of MAIR_EL2",
            Self::Wxn => "the change of SCTLR_EL2.WXN",
            Self::Ee => "the change of SCTLR_EL2.EE",
            Self::Cnp => "the change of TTBR0_EL2.CnP",
            Self::E2h => "the change of HCR_EL2.E2H",
        }
    }

    /// What writing `control` with `new` over `old` changes; over nothing known, everything.
    pub(super) fn of_write(control: Control, old: Option<Controls>, new: Controls) -> Vec<Self> {
        let differs = |get: fn(&Controls) -> u64| old.is_none_or(|old| get(&old) != get(&new));
        let mut causes = Vec::new();
        let mut note = |cause, get| {
            if differs(get) {
                causes.push(cause);
            }
        };
        match control {
            Control::Tcr => note(Self::Tcr, |controls| controls.tcr),
            Control::Mair => note(Self::Mair, |controls| controls.mair),
            Control::Sctlr => {
                note(Self::Wxn, |controls| controls.wxn().into());
                note(Self::Ee, |controls| controls.big_endian().into());
            }
            Control::Ttbr0 => note(Self::Cnp, |controls| controls.common_not_private().into()),
            Control::Hcr => note(Self::E2h, |controls| controls.e2h().into()),
            Control::Tcr2 => {}
        }
        causes
    }
}

/// How far the sequence ISB, ALLE2, DSB, ISB has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Progress {
    /// Written; no ISB yet.
    Written,
    /// In force; entries made under the old value are cached until ALLE2 and its DSB.
    Cached(Holder),
    /// Invalidated; no ISB yet.
    Invalidated,
}

impl Progress {
    /// Whether no invalidation is on its way.
    pub(super) fn is_forgotten(&self) -> bool {
        match self {
            Self::Written => true,
            Self::Cached(holder) => holder.on_its_way() == 0,
            Self::Invalidated => false,
        }
    }
}

/// An invalidation of everything that a PE owes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Owed {
    pub(super) cause: ControlCause,
    pub(super) progress: Progress,
    /// The write; of a PE whose TLBs nobody has invalidated since reset, the one that turned its MMU on.
    pub(super) at: Evidence<At>,
    /// The DSB that completed the invalidation.
    pub(super) done: Evidence<At>,
    /// A TLBI of everything that came before the write was in force.
    pub(super) early: Evidence<Option<At>>,
    /// It comes from the write that turned the MMU on, before which it should have been done.
    pub(super) is_before: Evidence<bool>,
}

impl Owed {
    /// That it is owed, where it must not be.
    pub(super) fn finding(&self) -> UnplacedViolation {
        UnplacedViolation::of(self.cause.rule()).by(self.at.0).about(self.cause.name())
    }

    /// What is wanting: an ISB after the PE's last write of a control, which is `last`, or a TLBI, `behind` this event
    /// or a later one.
    pub(super) fn missing(&self, last: At, behind: At) -> Missing {
        let (name, Evidence(at)) = (self.cause.name(), self.at);
        let (remedy, says) = match (&self.progress, self.early.0) {
            (progress, Some(early)) if progress.is_forgotten() => {
                let line = early.line;
                (Remedy::before(Lack::Isb, early), format!("ISB between {name} and the TLBI of line {line}"))
            }
            (Progress::Written, _) => {
                // A change that the write of M = 1 makes itself could be followed by nothing yet.
                let is_last = last.line >= at.line;
                let remedy = if is_last { Remedy::after(Lack::Isb, last) } else { Remedy::after(Lack::Tlbi, at) };
                (remedy, format!("ISB after {name}, then TLBI ALLE2, DSB and ISB"))
            }
            (Progress::Cached(holder), _) if holder.on_its_way() == 0 => {
                let before = Remedy::before(Lack::Tlbi, at);
                let behind = if behind.line > at.line { behind } else { at };
                let remedy = if self.is_before.0 { before } else { Remedy::after(Lack::Tlbi, behind) };
                (remedy, format!("TLBI ALLE2, after {name} and its ISB, then DSB and ISB"))
            }
            (Progress::Cached(holder), _) => return holder.wanting(),
            (Progress::Invalidated, _) => {
                (Remedy::after(Lack::Isb, self.done.0), format!("ISB after the DSB that completes the TLBI for {name}"))
            }
        };
        Missing { remedy, says }
    }
}

/// What the last event of a PE was, as far as errata ask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Last {
    #[default]
    Other,
    Isb,
    Dsb,
}

/// More values in doubt at once than any boot needs.
const MOST_BETWEEN: usize = 32;

/// One PE.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Pe {
    /// It has had a record.
    pub(super) exists: bool,
    /// Its registers are still being found.
    pub(super) arriving: bool,
    /// Where it executes: at EL3 nothing is translated by EL2's tables, below EL2 no access of its own.
    pub(super) levels: Levels,
    /// Certainly in force since the last context synchronisation.
    pub(super) now: Controls,
    /// As written last.
    pub(super) next: Controls,
    /// What may be in force since the last context synchronisation, what was written last at the end.
    pub(super) between: Vec<Controls>,
    /// Controls whose value is known, a bit each.
    pub(super) known: u8,
    pub(super) owed: Vec<Owed>,
    /// Contexts that it may walk.
    pub(super) walks: Arc<[usize]>,
    /// Controls that it wrote, a bit each.
    pub(super) written: u8,
    /// Where it wrote each last, and which it wrote last of all.
    pub(super) writes: Evidence<[At; 6]>,
    pub(super) last_write: Evidence<At>,
    /// The write of a control before that.
    pub(super) prior_write: Evidence<At>,
    /// Its first use, since it synchronised context last, of what it should have synchronised for.
    pub(super) used: Evidence<Option<At>>,
    /// What its DC ZVA zeroes.
    pub(super) zeroed_block: ZeroedBlock,
    /// It started with its MMU off.
    pub(super) from_reset: bool,
    /// It had a fetch: its program counters mean something.
    pub(super) fetched: bool,
    /// The time with its MMU off between two with it on.
    pub(super) window: OffWindow,
    /// Its stores without DSB.
    pub(super) stores: Stores,
    pub(super) last: Last,
    /// HCR_EL2 was written and the ISB that has to follow directly has not.
    pub(super) hcr_written: bool,
    /// TLBIs that it issued and no DSB completed.
    pub(super) unfinished: Unfinished,
    /// The line of its last load, and of the last one that a DSB has waited for.
    pub(super) loaded: Evidence<u64>,
    pub(super) waited_for: Evidence<u64>,
    /// Cache maintenance without its DSB.
    pub(super) maintained: Vec<super::lines::Waiting>,
    /// DC by set and way, a sweep for each kind.
    pub(super) sweeps: Vec<super::sweep::Sweep>,
    /// Pages with words that it wrote with caches off since its last DMB or DSB.
    pub(super) unordered: Vec<u64>,
}

impl Pe {
    /// Whether its MMU may be on.
    pub(super) fn may_translate(&self) -> bool {
        !self.levels.is_el3() && (self.now.mmu_on() || self.next.mmu_on() || self.between.iter().any(Controls::mmu_on))
    }

    /// Whether its MMU may be on or off: no context synchronisation since M was written.
    pub(super) fn is_uncertain(&self) -> bool {
        !self.levels.is_el3() && self.between.iter().any(|controls| controls.mmu_on() != self.now.mmu_on())
    }

    /// Whether its data accesses are cached; nothing where nobody knows.
    pub(super) fn may_cache(&self) -> Option<bool> {
        if self.levels.is_el2() {
            return Some(self.now.mmu_on() && self.now.cache_on());
        }
        self.levels.caches(self.now.hcr)
    }

    /// Whether its data accesses are certainly cached.
    pub(super) fn caches(&self) -> bool {
        self.may_cache() == Some(true)
    }

    /// Whether its data caches may be on, by any value of the controls that may be in force.
    pub(super) fn might_cache(&self) -> bool {
        if !self.levels.is_el2() {
            return self.may_cache() != Some(false);
        }
        let on = |controls: &Controls| controls.mmu_on() && controls.cache_on();
        on(&self.now) || on(&self.next) || self.between.iter().any(on)
    }

    /// `control` is written: of the values written since the last context synchronisation, any may be in force with any other.
    pub(super) fn note_write(&mut self, control: Control, value: u64) {
        let before: Vec<Controls> = core::iter::once(self.now).chain(self.between.iter().copied()).collect();
        for mut controls in before {
            controls.set(control, value);
            self.between.retain(|other| *other != controls);
            self.between.push(controls);
        }
        self.between.retain(|controls| *controls != self.next);
        self.between.push(self.next);
        if self.between.len() > MOST_BETWEEN {
            self.between.drain(..self.between.len() - MOST_BETWEEN);
        }
    }

    /// Notes that it owes an invalidation of everything because of `cause`.
    pub(super) fn owe(&mut self, cause: ControlCause, progress: Progress, at: At) {
        self.owed.retain(|owed| owed.cause != cause);
        let (at, early, is_before) = (Evidence(at), Evidence(None), Evidence(false));
        self.owed.push(Owed { cause, progress, at, done: at, early, is_before });
        self.owed.sort_unstable_by_key(|owed| owed.cause);
    }

    /// Where it wrote `control` last, if it did.
    pub(super) fn wrote(&self, control: Control) -> Option<At> {
        Some(self.writes.0[control as usize]).filter(|at| at.line != 0)
    }

    /// The controls under which it may walk.
    pub(super) fn candidates(&self) -> Vec<Controls> {
        if self.levels.is_el3() {
            return Vec::new();
        }
        let all = core::iter::once(&self.now).chain(&self.between);
        all.filter(|controls| controls.mmu_on()).copied().collect()
    }
}
