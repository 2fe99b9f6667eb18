//! The commonest changes, briefly: leaves of one table, alike and not contiguous, are unmapped, remapped, or lose rights; with the last of them
//! their table goes.
//!
//! Why it exists: one page is unmapped or protected far more often than anything else is done, and a plan that has words for blocks in
//! parts, tables that go and runs that are remade costs more than the page. What is found here took one walk, which the change uses.
//!
//! What must hold: the same stores and the same maintenance as the long way, and never a refusal: where anything is less plain, nothing is
//! found, and the request goes the long way, which knows what to say.

#![forbid(unsafe_code)]

use super::unit::beside_output;
use super::{Cost, Mapper, Unmapped};
use crate::addr::{Frame, Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::bbm::{After, Counts, Geo, Live};
use crate::descriptor::{Access, Attributes, Entry, Leaf, leaf_bits};
use crate::errata::Errata;
use crate::geometry::{Geometry, HighBits, Slot};
use crate::machine::Machine;

/// What most leaves are, and the bits of such a page.
const USUAL: [(Attributes, u64); 2] = [usual(Access::ReadWrite), usual(Access::ReadOnly)];

/// What distinguishes a page from a block.
const PAGE_BIT: u64 = USUAL[0].1 ^ leaf_bits(USUAL[0].0, Level::L2);

const fn usual(access: Access) -> (Attributes, u64) {
    (Attributes::Normal(access), leaf_bits(Attributes::Normal(access), Level::L3))
}

/// Tables on the way to a leaf, at most.
const WAY_MAX: usize = 4;

/// Leaves side by side in one table, alike but for their outputs, not contiguous, all of which a request covers wholly.
#[derive(Clone, Copy)]
struct Brief {
    count: u64,
    leaf: Leaf,
}

impl<M: Machine> Mapper<'_, M, Live> {
    /// The pages that are all of `virt`, if they are as plain as that, may be broken, and lie beside one that stays.
    #[inline(always)]
    pub(super) fn pages_to_unmap(&self, virt: VirtSpan) -> Option<(Slot, u64)> {
        let (table, Level::L3, raw) = self.walk_beside(virt)? else { return None };
        let first = Geo::<M>::slot(table, Level::L3, virt.start());
        if !self.stays_beside(first, virt.bytes() >> Geo::<M>::PAGE_SHIFT) {
            return None;
        }
        let Brief { count, .. } = self.plain_leaves(first, raw, virt)?;
        self.protocol.machine().footing(virt).is_none().then_some((first, count))
    }

    /// [`Self::unmap`] of such pages.
    #[inline(always)]
    pub(super) fn unmap_pages(&mut self, first: Slot, count: u64) -> Unmapped {
        self.last = None;
        self.break_plain(first, count, After::Nothing)
    }

    /// [`Self::unmap`] of leaves that are as plain, whatever stays beside them. With all that is left in a table that goes, with those above
    /// it that led to it alone.
    #[inline(never)]
    pub(super) fn unmap_briefly(&mut self, virt: VirtSpan) -> Option<Unmapped> {
        let (table, level, raw) = self.walk_beside(virt)?;
        let first = Geo::<M>::slot(table, level, virt.start());
        let Brief { count, .. } = self.plain_leaves(first, raw, virt)?;
        if self.protocol.machine().footing(virt).is_some() {
            return None;
        }
        self.last = None;
        let chain = if self.has_neighbour(first, count) { None } else { self.chain_above(first) };
        let Some((slot, freed)) = chain else { return Some(self.break_plain(first, count, After::Nothing)) };
        let before = self.protocol.counts();
        let proof = self.protocol.cycle_table(self.tables, slot, first, count, self.frames.tables_mut());
        self.protocol.claim_settled();
        Some(Unmapped { cost: Cost { freed, ..spent(before, self.protocol.counts()) }, proof })
    }

    /// The slot of the highest table that leads to the table of `lowest` alone, and how many tables hang from it; `None` when that table, which
    /// holds nothing that stays, is kept.
    fn chain_above(&self, lowest: Slot) -> Option<(Slot, u64)> {
        let mut way = [None; WAY_MAX];
        let mut slot = Geo::<M>::slot(self.tables.root(), self.tables.level(), lowest.virt());
        for place in &mut way {
            if slot.table() == lowest.table() {
                break;
            }
            let raw = self.protocol.raw(slot);
            *place = Some(slot).filter(|_| !Entry::keeps(raw));
            let child = Entry::table_in::<Geo<M>>(raw, slot.level())?;
            slot = Geo::<M>::slot(child, slot.level().next()?, lowest.virt());
        }
        let levels = lowest.level() as i32 - self.tables.level() as i32;
        let (mut highest, mut below) = (None, lowest);
        for (slot, freed) in way.into_iter().take(levels as usize).rev().zip(1..) {
            let Some(slot) = slot.filter(|_| freed == 1 || !self.has_neighbour(below, 1)) else { break };
            (highest, below) = (Some((slot, freed)), slot);
        }
        highest
    }

    #[inline(always)]
    fn break_plain(&mut self, first: Slot, count: u64, after: After) -> Unmapped {
        let before = self.protocol.counts();
        let proof = self.protocol.cycle_run(self.protocol.vouch(self.tables, first), count, after);
        self.protocol.claim_settled();
        Unmapped { cost: spent(before, self.protocol.counts()), proof }
    }

    /// [`Self::remap`], if it is as plain as that: leaves that lie in memory as they do in the table, to another place where they fit.
    #[inline(always)]
    pub(super) fn remap_briefly(&mut self, virt: VirtSpan, outputs: PhysSpan, attributes: Attributes) -> Option<Cost> {
        match self.walk_beside(virt)? {
            (table, Level::L3, raw) => {
                let first = Geo::<M>::slot(table, Level::L3, virt.start());
                self.remap_leaves(first, raw, virt, outputs, attributes)
            }
            (table, level, raw) => {
                self.remap_blocks(Geo::<M>::slot(table, level, virt.start()), raw, virt, outputs, attributes)
            }
        }
    }

    #[inline(never)]
    fn remap_blocks(
        &mut self,
        first: Slot,
        raw: u64,
        virt: VirtSpan,
        outputs: PhysSpan,
        attributes: Attributes,
    ) -> Option<Cost> {
        self.remap_leaves(first, raw, virt, outputs, attributes)
    }

    #[inline(always)]
    fn remap_leaves(
        &mut self,
        first: Slot,
        raw: u64,
        virt: VirtSpan,
        outputs: PhysSpan,
        attributes: Attributes,
    ) -> Option<Cost> {
        let Brief { count, leaf } = self.first_of_leaves(first, raw, virt)?;
        let new = Leaf::new_in::<Geo<M>>(first.level(), outputs.start(), attributes)?;
        if new.output() == leaf.output() || self.protocol.machine().footing(virt).is_some() {
            return None;
        }
        let step = Geo::<M>::slot_bytes(first.level());
        // Alike, and in order.
        let in_order = |index| self.protocol.raw(first.step(index)) == raw + index * step;
        let ends_within = ((raw + (count - 1) * step) ^ raw) & !Geo::<M>::OUTPUT_MASK == 0;
        if !matches!(Geo::<M>::HIGH_BITS, HighBits::None) || !ends_within || !(1..count).all(in_order) {
            return None;
        }
        self.last = None;
        self.protocol.aliases_mut().note(outputs, attributes.rights());
        Some(self.break_plain(first, count, After::Leaf(new)).cost)
    }

    /// [`Self::protect`], if it is as plain as that: no right is gained, and each leaf changes in place.
    #[inline(always)]
    pub(super) fn protect_briefly(&mut self, virt: VirtSpan, attributes: Attributes) -> Option<Cost> {
        match self.walk_beside(virt)? {
            (table, Level::L3, raw) => {
                self.protect_leaves(Geo::<M>::slot(table, Level::L3, virt.start()), raw, virt, attributes)
            }
            (table, level, raw) => {
                self.protect_blocks(Geo::<M>::slot(table, level, virt.start()), raw, virt, attributes)
            }
        }
    }

    #[inline(never)]
    fn protect_blocks(&mut self, first: Slot, raw: u64, virt: VirtSpan, attributes: Attributes) -> Option<Cost> {
        self.protect_leaves(first, raw, virt, attributes)
    }

    #[inline(always)]
    fn protect_leaves(&mut self, first: Slot, raw: u64, virt: VirtSpan, attributes: Attributes) -> Option<Cost> {
        let Brief { count, leaf } = self.plain_leaves(first, raw, virt)?;
        if self.protocol.machine().footing(virt).is_some() {
            return None; // rights are lost here, and nothing but rights
        }
        let old = leaf.attributes();
        let gains = !(attributes.rights() - old.rights()).is_empty();
        let breaks = self.protocol.errata().intersects(Errata::BBM_ALWAYS | Errata::BBM_FOR_XN);
        if gains || breaks || old == attributes || !old.same_memory_type(attributes) {
            return None;
        }
        self.last = None;
        let before = self.protocol.counts();
        self.protocol.recast_run(self.protocol.vouch(self.tables, first), count, attributes);
        self.protocol.claim_settled();
        Some(spent(before, self.protocol.counts()))
    }

    /// Where the walk for all of `virt` ends: a table, its level, and what its slot for the first byte holds; if that is no part of the window.
    #[inline(always)]
    fn walk_beside(&self, virt: VirtSpan) -> Option<(Frame, Level, u64)> {
        if self.is_window(virt) {
            return None;
        }
        let (start, last) = (virt.start().raw(), virt.end_exclusive().raw() - 1);
        // Of tables in force, a constant: the root switch has seen to that.
        let (mut table, mut level) = (self.tables.root(), Geo::<M>::ROOT);
        loop {
            let raw = self.protocol.raw(Geo::<M>::slot(table, level, virt.start()));
            let Some(child) = Entry::table_in::<Geo<M>>(raw, level) else { return Some((table, level, raw)) };
            if (start ^ last) >> Geo::<M>::shift(level) != 0 {
                return None;
            }
            (table, level) = (child, level.next()?);
        }
    }

    /// The leaves from `first` on, which holds `raw`, if they are all of `virt`.
    #[inline(always)]
    fn plain_leaves(&self, first: Slot, raw: u64, virt: VirtSpan) -> Option<Brief> {
        let brief = self.first_of_leaves(first, raw, virt)?;
        let mask = beside_output::<Geo<M>>(first.level());
        let alike = self.protocol.alike(first, 1, brief.count, (mask, raw & mask));
        (alike + 1 == brief.count).then_some(brief)
    }

    /// The same by the first alone.
    #[inline(always)]
    fn first_of_leaves(&self, first: Slot, raw: u64, virt: VirtSpan) -> Option<Brief> {
        let (level, bits) = (first.level(), raw & !Geo::<M>::OUTPUT_MASK);
        let count = virt.bytes() >> Geo::<M>::shift(level);
        let is_whole = virt.start() == first.virt() && count << Geo::<M>::shift(level) == virt.bytes();
        if !is_whole || first.index() as u64 + count > first.slots() {
            return None;
        }
        // What is nearly always there is told by comparison; anything else is read bit by bit.
        let as_page = if level == Level::L3 { bits } else { bits ^ PAGE_BIT };
        let usual = USUAL.into_iter().find(|(_, usual)| as_page == *usual);
        let output = PhysAddr::within(Geo::<M>::decode_output(raw));
        let leaf = match usual {
            Some((attributes, _)) => Leaf::new_in::<Geo<M>>(level, output, attributes)?,
            None => match Entry::decode_in::<Geo<M>>(raw, level) {
                Entry::Leaf(leaf) if !leaf.contiguous() => leaf,
                _ => return None,
            },
        };
        Some(Brief { count, leaf })
    }

    /// Whether the slot behind them is used, or the one before: then their table does not become empty. They usually tell.
    #[inline(always)]
    fn stays_beside(&self, first: Slot, count: u64) -> bool {
        let (level, from) = (first.level(), first.index() as u64);
        let before = || {
            let virt = VirtAddr::within(first.virt().raw() - Geo::<M>::slot_bytes(level));
            Geo::<M>::slot(first.table(), level, virt)
        };
        from + count < first.slots() && self.protocol.raw(first.step(count)) != 0
            || from > 0 && self.protocol.raw(before()) != 0
    }

    /// Whether any other slot of their table is used: then it does not become empty.
    fn has_neighbour(&self, first: Slot, count: u64) -> bool {
        if self.stays_beside(first, count) {
            return true;
        }
        let from = first.index() as u64;
        let (to, slots, zero) = (from + count, first.slots(), first.first());
        let is_used = |from, to| self.protocol.first_used(zero, from, to).is_some();
        is_used(0, from) || is_used(to, slots)
    }
}

/// What was done between two counts, on tables that stay as many as they are.
fn spent(before: Counts, now: Counts) -> Cost {
    let (then, maintenance) = (before.maintenance, now.maintenance);
    Cost {
        stores: u64::from(now.stores - before.stores),
        tlbis: maintenance.tlbis - then.tlbis,
        dsbs: maintenance.dsbs - then.dsbs,
        isbs: maintenance.isbs - then.isbs,
        ..Cost::default()
    }
}
