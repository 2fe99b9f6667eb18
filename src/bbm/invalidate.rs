//! The invalidation of a request: one DSB, the TLBIs, one DSB, one ISB. The only place that issues any.

#![forbid(unsafe_code)]

use super::pending::Owed;
use super::{Broken, Changed, Geo, Invalidated, Pending, Protocol, Reach};
use crate::errata::Errata;
use crate::features::Features;
use crate::geometry::Geometry;
use crate::machine::{Machine, Maintenance, Scope};

/// All that there is.
pub(super) struct Everything;

impl Owed for Everything {
    fn is_nothing(&self) -> bool {
        false
    }

    fn each<G: Geometry>(&self, _: Features, mut issue: impl FnMut(Scope)) -> Option<Scope> {
        issue(Scope::All);
        Some(Scope::All)
    }
}

impl<M: Machine> Protocol<M> {
    /// Settles what breaks owe. What comes back proves that no TLB translates through any slot that was broken.
    #[inline(always)]
    pub fn invalidate(&mut self, broken: Broken) -> Invalidated {
        self.invalidate_owed([broken.pending()].as_slice());
        self.proof_of(broken)
    }

    /// Settles what changes in place owe: what was there is gone from every TLB.
    #[inline(always)]
    pub fn invalidate_changed(&mut self, changed: Changed) {
        self.invalidate_owed([changed.pending()].as_slice());
        changed.settle();
    }

    /// Settles what breaks and changes in place owe, together.
    #[inline(always)]
    pub fn invalidate_all(&mut self, broken: Broken, changed: Changed) -> Invalidated {
        self.invalidate_owed([broken.pending(), changed.pending()].as_slice());
        changed.settle();
        self.proof_of(broken)
    }

    fn proof_of(&mut self, broken: Broken) -> Invalidated {
        let (breaks, span) = broken.settle();
        self.breaks_owed = self.breaks_owed.checked_sub(breaks).expect("what is settled was broken by this protocol");
        Invalidated::of(span, self.epoch)
    }

    /// One invalidation. A function of its own, whoever asks: its instructions are in the image once for each kind of what is owed.
    #[inline(never)]
    pub(super) fn invalidate_owed(&mut self, owed: impl Owed) {
        if owed.is_nothing() {
            return;
        }
        self.dsb_ishst(); // the stores are visible to every walk before the TLBIs: nothing may be cached anew from the old ones
        let last = owed.each::<Geo<M>>(self.features, |scope| self.tlbi(scope));
        let Some(last) = last else { return };
        self.dsb_complete(); // the TLBIs are complete before anything relies on them
        if self.repeats() {
            // Broadcast, as `repeats` knows: nothing of one PE alone is in the image here, where it would never execute.
            self.counts.maintenance.tlbis += 1;
            self.machine.tlbi(&self.permit, last.within(Reach::Domain));
            self.counts.maintenance.dsbs += 1;
            self.machine.dsb_ish(); // the repeated TLBI is complete too
        }
        self.isb(); // RBLDZX: without FEAT_ETS2 this PE needs it for completion
    }

    /// Whether an erratum asks for one broadcast TLBI and its DSB again.
    fn repeats(&self) -> bool {
        self.reach == Reach::Domain && self.errata.contains(Errata::REPEAT_TLBI)
    }

    /// What [`Self::invalidate_all`] will do for these.
    pub(crate) fn maintenance_of(&self, broken: &Pending, changed: &Pending) -> Maintenance {
        if broken.is_empty() && changed.is_empty() {
            return Maintenance::default();
        }
        let again = u32::from(self.repeats());
        let tlbis = broken.tlbis::<Geo<M>>(self.features) + changed.tlbis::<Geo<M>>(self.features);
        Maintenance { tlbis: tlbis + again, dsbs: 2 + again, isbs: 1 }
    }

    #[inline(always)]
    fn tlbi(&mut self, scope: Scope) {
        self.counts.maintenance.tlbis += 1;
        self.machine.tlbi(&self.permit, scope.within(self.reach));
    }

    pub(super) fn dsb_ishst(&mut self) {
        self.counts.maintenance.dsbs += 1;
        self.machine.dsb_ishst();
    }

    fn dsb_complete(&mut self) {
        self.counts.maintenance.dsbs += 1;
        match self.reach {
            Reach::ThisPe => self.machine.dsb_nsh(),
            Reach::Domain => self.machine.dsb_ish(),
        }
    }

    pub(super) fn isb(&mut self) {
        self.counts.maintenance.isbs += 1;
        self.machine.isb();
    }
}
