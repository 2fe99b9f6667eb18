//! The commonest changes, briefly: a few leaves of one table, alike and not contiguous, are unmapped beside leaves that stay, or lose rights.
//!
//! Why it exists: one page is unmapped or protected far more often than anything else is done, and a plan that has words for blocks in
//! parts, tables that go and runs that are remade costs more than the page. What is found here took one walk, which the change uses.
//!
//! What must hold: the same stores and the same maintenance as the long way, and never a refusal: where anything is less plain, nothing is
//! found, and the request goes the long way, which knows what to say.

#![forbid(unsafe_code)]

use super::unit::beside_output;
use super::{Cost, Mapper, Unmapped};
use crate::addr::{Level, PhysAddr, PhysSpan, VirtSpan};
use crate::bbm::{After, Broken, Changed, Counts, Filled, Geo, Live};
use crate::descriptor::{Access, Attributes, Entry, Leaf, leaf_bits};
use crate::errata::Errata;
use crate::geometry::{Geometry, HighBits};
use crate::machine::{Machine, Slot};

/// What most leaves are, and the bits of such a page.
const USUAL: [(Attributes, u64); 2] = [usual(Access::ReadWrite), usual(Access::ReadOnly)];

/// What distinguishes a page from a block.
const PAGE_BIT: u64 = USUAL[0].1 ^ leaf_bits(USUAL[0].0, Level::L2);

const fn usual(access: Access) -> (Attributes, u64) {
    (Attributes::Normal(access), leaf_bits(Attributes::Normal(access), Level::L3))
}

/// Leaves side by side in one table, alike but for their outputs, not contiguous, all of which a request covers wholly.
#[derive(Clone, Copy)]
pub(super) struct Brief {
    first: Slot,
    count: u64,
    leaf: Leaf,
}

impl<M: Machine> Mapper<'_, M, Live> {
    /// What an unmap of `virt` takes away, if it is as plain as that.
    #[inline(always)]
    pub(super) fn plain_unmap(&self, virt: VirtSpan) -> Option<Brief> {
        let brief = self.brief(virt, true)?;
        let stays = self.has_neighbour(brief.first, brief.count);
        (stays && self.protocol.machine().footing(virt).is_none()).then_some(brief)
    }

    /// [`Self::unmap`] of what is as plain as that.
    #[inline(always)]
    pub(super) fn unmap_plain(&mut self, Brief { first, count, .. }: Brief) -> Unmapped {
        self.last = None;
        self.break_plain(first, count, After::Nothing)
    }

    #[inline(always)]
    fn break_plain(&mut self, first: Slot, count: u64, after: After) -> Unmapped {
        let before = self.protocol.counts();
        let (mut broken, mut filled) = (Broken::none(), Filled::none());
        self.protocol.break_run(first, count, after, &mut broken);
        let proof = self.protocol.invalidate(broken);
        self.protocol.settle_leaves(first, count, &proof, &mut filled);
        self.protocol.complete(filled);
        self.protocol.claim_settled();
        Unmapped { cost: spent(before, self.protocol.counts()), proof }
    }

    /// [`Self::remap`], if it is as plain as that: leaves that lie in memory as they do in the table, to another place where they fit.
    pub(super) fn remap_briefly(&mut self, virt: VirtSpan, outputs: PhysSpan, attributes: Attributes) -> Option<Cost> {
        let Brief { first, count, leaf } = self.brief(virt, true)?;
        let new = Leaf::new_in::<Geo<M>>(first.level(), outputs.start(), attributes)?;
        if new.output() == leaf.output() || self.protocol.machine().footing(virt).is_some() {
            return None;
        }
        let (raw, step) = (self.protocol.raw(first), Geo::<M>::slot_bytes(first.level()));
        let in_order = |index| self.protocol.raw(Geo::<M>::step(first, index)) == raw + index * step;
        if !matches!(Geo::<M>::HIGH_BITS, HighBits::None) || !(1..count).all(in_order) {
            return None;
        }
        self.last = None;
        self.protocol.aliases_mut().note(outputs, attributes.rights());
        Some(self.break_plain(first, count, After::Leaf(new)).cost)
    }

    /// [`Self::protect`], if it is as plain as that: no right is gained, and each leaf changes in place.
    #[inline(always)]
    pub(super) fn protect_briefly(&mut self, virt: VirtSpan, attributes: Attributes) -> Option<Cost> {
        let Brief { first, count, leaf } = self.brief(virt, true)?;
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
        let mut changed = Changed::none();
        self.protocol.change_run(first, count, attributes, false, &mut changed);
        self.protocol.invalidate_changed(changed);
        self.protocol.claim_settled();
        Some(spent(before, self.protocol.counts()))
    }

    /// The leaves that are all of `virt`, if they are as plain as that; and, where they are to be broken, if no table on the way to them is
    /// reached through `virt`.
    #[inline(always)]
    fn brief(&self, virt: VirtSpan, breaks: bool) -> Option<Brief> {
        let (start, last) = (virt.start().raw(), virt.end_exclusive().raw() - 1);
        let (mut table, mut level) = (self.tables.root(), self.tables.level());
        let mut shift = Geo::<M>::shift(level);
        loop {
            if breaks && self.check_reached(virt, table).is_err() {
                return None;
            }
            let raw = self.protocol.raw(Geo::<M>::slot(table, level, virt.start()));
            let Some(child) = Entry::table_in::<Geo<M>>(raw, level) else {
                return self.plain_leaves(Geo::<M>::slot(table, level, virt.start()), raw, virt);
            };
            if (start ^ last) >> shift != 0 {
                return None;
            }
            (table, level, shift) = (child, level.next()?, shift - Geo::<M>::STRIDE);
        }
    }

    /// The leaves from `first` on, which holds `raw`, if they are all of `virt`.
    #[inline(always)]
    fn plain_leaves(&self, first: Slot, raw: u64, virt: VirtSpan) -> Option<Brief> {
        let (level, bits) = (first.level(), raw & !Geo::<M>::OUTPUT_MASK);
        let count = virt.bytes() >> Geo::<M>::shift(level);
        let is_whole = virt.start() == first.virt() && count << Geo::<M>::shift(level) == virt.bytes();
        if !is_whole || first.index() as u64 + count > Geo::<M>::slots(level) {
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
        let mask = beside_output::<Geo<M>>(level);
        let alike = self.protocol.alike(first, 1, count, (mask, raw & mask));
        (alike + 1 == count).then_some(Brief { first, count, leaf })
    }

    /// Whether any other slot of their table is used: then it does not become empty. Those beside these usually tell.
    #[inline(always)]
    fn has_neighbour(&self, first: Slot, count: u64) -> bool {
        let (level, from) = (first.level(), first.index() as u64);
        let (to, slots) = (from + count, Geo::<M>::slots(level));
        let zero = Geo::<M>::slot(first.table(), level, first.virt().align_down(slots << Geo::<M>::shift(level)));
        let is_used = |from, to| self.protocol.first_used(zero, from, to).is_some();
        is_used(to, slots.min(to + 1))
            || is_used(from.saturating_sub(1), from)
            || is_used(0, from)
            || is_used(to, slots)
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
