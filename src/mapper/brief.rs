//! The fast path of changes: plain leaves of one table are unmapped while others stay beside them, or lose rights in place. (That of fills, a run of
//! a table that exists, is [`Mapper::map`]'s own.)
//!
//! Why it exists: one page is unmapped or protected far more often than anything else is done, and a plan, which has words for blocks in
//! parts, for tables that go and for runs that are remade, costs several times the page (`cargo xtask bench`). What is found here took one
//! walk, which the change uses.
//!
//! What must hold: the same stores and the same maintenance as by a plan, and never a refusal: where anything is less plain, nothing is found,
//! and the request goes by a plan, which knows what to say.

#![forbid(unsafe_code)]

use super::plan::Unmapped;
use super::unit::beside_output;
use super::{Cost, Mapper};
use crate::addr::VirtSpan;
use crate::bbm::{Counts, Geo, Live};
use crate::descriptor::{Attributes, Entry, Leaf};
use crate::errata::Errata;
use crate::frames::Supply;
use crate::geometry::Slot;
use crate::machine::Machine;

impl<M: Machine, F: Supply<M>> Mapper<'_, M, Live, F> {
    /// [`Self::unmap`], if it is as plain as that.
    #[inline(always)]
    pub(super) fn unmap_plainly(&mut self, virt: VirtSpan) -> Option<Unmapped> {
        let (first, count, _) = self.plain_leaves(virt)?;
        if !self.stays_beside(first, count) {
            return None; // their table may become empty, and then goes
        }
        let before = self.protocol.counts();
        let proof = self.protocol.remove_run(self.protocol.vouch(self.tables, first), count);
        Some(Unmapped { cost: self.spent_since(before), proof })
    }

    /// [`Self::protect`], if it is as plain as that: no right is gained, and each leaf changes in place.
    #[inline(always)]
    pub(super) fn protect_plainly(&mut self, virt: VirtSpan, attributes: Attributes) -> Option<Cost> {
        let (first, count, leaf) = self.plain_leaves(virt)?;
        let old = leaf.attributes();
        let gains = !(attributes.rights() - old.rights()).is_empty();
        let breaks = self.protocol.errata().intersects(Errata::BBM_ALWAYS | Errata::BBM_FOR_XN);
        if gains || breaks || old == attributes || !old.same_memory_type(attributes) {
            return None;
        }
        let before = self.protocol.counts();
        self.protocol.rewrite_run(self.protocol.vouch(self.tables, first), count, attributes);
        Some(self.spent_since(before))
    }

    /// The leaves side by side in one table, alike but for their outputs and not contiguous, that are all of `virt`, if nobody stands on it.
    #[inline(always)]
    fn plain_leaves(&self, virt: VirtSpan) -> Option<(Slot, u64, Leaf)> {
        let machine = self.protocol.machine();
        if machine.is_reached(virt) || machine.footing(virt).is_some() {
            return None;
        }
        let first = self.walk_end(virt.start())?;
        let count = virt.bytes() >> first.shift();
        let is_whole = first.virt() == virt.start() && count << first.shift() == virt.bytes();
        if !is_whole || first.index() as u64 + count > first.slots() {
            return None;
        }
        let raw = self.protocol.raw(first);
        let leaf = Entry::leaf_in::<Geo<M>>(raw, first.level()).filter(|leaf| !leaf.contiguous())?;
        let mask = beside_output::<Geo<M>>(first.level());
        let alike = self.protocol.alike(first, 1, count, (mask, raw & mask));
        (alike + 1 == count).then_some((first, count, leaf))
    }

    /// Whether the slot behind them is used, or the one before: then their table does not become empty.
    #[inline(always)]
    fn stays_beside(&self, first: Slot, count: u64) -> bool {
        let (from, zero) = (first.index() as u64, first.first());
        let is_used = |index: u64| self.protocol.raw(zero.step(index)) != 0;
        from + count < first.slots() && is_used(from + count) || from > 0 && is_used(from - 1)
    }

    /// What was done since `before`, on tables that stay as many as they are; the request is done.
    #[inline(always)]
    fn spent_since(&mut self, before: Counts) -> Cost {
        self.protocol.claim_settled();
        let now = self.protocol.counts();
        let (then, maintenance) = (before.maintenance, now.maintenance);
        Cost {
            stores: u64::from(now.stores - before.stores),
            tlbis: maintenance.tlbis - then.tlbis,
            dsbs: maintenance.dsbs - then.dsbs,
            isbs: maintenance.isbs - then.isbs,
            ..Cost::default()
        }
    }
}
