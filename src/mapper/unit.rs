//! What a request that changes finds: runs of leaves that it covers wholly, leaves that it covers in part, tables that go as a whole.
//!
//! Why it exists: a request that looks at each page by itself walks a thousand times where once is enough. Plan and commit both go from
//! unit to unit, and see the same: nothing behind a unit is looked at again, nothing ahead of it has been touched.

#![forbid(unsafe_code)]

use super::change::{Change, Target, Unit};
use super::{Error, Mapper};
use crate::addr::{Frame, Level, VirtAddr, VirtSpan};
use crate::bbm::{Geo, Live};
use crate::change::Why;
use crate::descriptor::{Entry, Leaf};
use crate::frames::Supply;
use crate::geometry::{Geometry, HighBits, Slot};
use crate::machine::Machine;

/// The tables on the way to the unit before that were looked through and do not go as a whole, by level. They stay so
/// for the rest of the request, which looks through none of them again, lest a hole at the end of a span cost a look at
/// all of it for each unit.
#[derive(Default)]
pub(super) struct Seen {
    stays: [Option<Frame>; 5],
}

impl Seen {
    fn place(level: Level) -> usize {
        (level as i32 - Level::Minus1 as i32) as usize
    }

    fn stays(&self, level: Level, table: Frame) -> bool {
        self.stays.get(Self::place(level)) == Some(&Some(table))
    }

    fn note(&mut self, level: Level, table: Frame) {
        if let Some(place) = self.stays.get_mut(Self::place(level)) {
            *place = Some(table);
        }
    }
}

impl<M: Machine, F: Supply<M>> Mapper<'_, M, Live, F> {
    /// What `change` meets at `virt`, which lies in its span and behind all units before.
    pub(super) fn unit_at(&self, change: &Change, virt: VirtAddr, seen: &mut Seen) -> Result<Unit, Error> {
        let mut slot = self.root_slot(virt);
        let raw = loop {
            let raw = self.protocol.raw(slot);
            let Some(child) = Entry::table_in::<Geo<M>>(raw, slot.level()) else { break raw };
            let Some(below) = slot.below(child, virt) else { break raw };
            if self.may_merge(change, slot, raw) && !seen.stays(below.level(), child) {
                if self.block_for(slot, child).is_some() {
                    return Ok(Unit::Table { slot, child });
                }
                seen.note(below.level(), child);
            }
            slot = below;
        };
        if raw == 0 && change.lets_holes_be() {
            return Ok(self.hole(change, slot));
        }
        let leaf = self.leaf_at(slot, raw)?;
        if change.removes()
            && let Some((slot, child)) = self.vacated(slot, virt, change, seen)
        {
            return Ok(Unit::Table { slot, child });
        }
        Ok(self.leaves(change, slot, raw, leaf))
    }

    /// The unused slots from `slot`, which is one, on, as far as the span goes and the table.
    fn hole(&self, change: &Change, slot: Slot) -> Unit {
        let in_table = slot.slots() - slot.index() as u64;
        let in_span = (change.whole.end_exclusive().raw() - slot.virt().raw()).div_ceil(slot.bytes());
        let most = in_table.min(in_span);
        Unit::Hole { first: slot, count: self.protocol.first_used(slot, 1, most).unwrap_or(most) }
    }

    /// The leaf that `raw` in `slot` is.
    pub(super) fn leaf_at(&self, slot: Slot, raw: u64) -> Result<Leaf, Error> {
        match Entry::decode_in::<Geo<M>>(raw, slot.level()) {
            Entry::Leaf(leaf) => Ok(leaf),
            Entry::Unused | Entry::Table { .. } => Err(Error::NotMapped { slot }),
            Entry::Broken(descriptor) => Err(Error::Refused { slot, descriptor, why: Why::InvalidationOwed }),
            Entry::Foreign(descriptor) => Err(Error::Refused { slot, descriptor, why: Why::Foreign }),
        }
    }

    /// The leaves from `slot` on that are like the one there, as far as the span goes and the table; or the block or run that is covered in
    /// part.
    fn leaves(&self, change: &Change, slot: Slot, raw: u64, leaf: Leaf) -> Unit {
        let level = slot.level();
        let run = if leaf.contiguous() { slot.run_slots() } else { 1 };
        let into = slot.index() as u64 & (run - 1);
        let in_table = slot.slots() - slot.index() as u64;
        let end = change.whole.end_exclusive().raw();
        let in_span = end.saturating_sub(slot.virt().raw()) >> slot.shift();
        if into != 0 || slot.virt() < change.whole.start() || in_span < run {
            let first = slot.beside(slot.virt().align_down(run << slot.shift()));
            let first_raw = self.protocol.raw(first);
            let leaf = self.leaf_at(first, first_raw).unwrap_or(leaf);
            return Unit::Part { first, count: run, leaf };
        }
        let limit = change.boundary(slot, leaf).min(in_table).min(in_span);
        let alike = |index: &u64| {
            let next = self.protocol.raw(slot.step(*index));
            (next ^ raw) & !Geo::<M>::OUTPUT_MASK == 0 && follows::<Geo<M>>(leaf, level, *index, next)
        };
        let bits = beside_output::<Geo<M>>(level);
        let count = match change.needs_order() {
            true => (1..limit).take_while(alike).count() as u64 + 1,
            false => self.protocol.alike(slot, 1, limit, (bits, raw & bits)) + 1,
        };
        Unit::Leaves { first: slot, count: count & !(run - 1), leaf }
    }

    /// The highest table on the way to `lowest`, where the walk for `virt` ends, that `change`, an unmap, leaves empty,
    /// if there is one: the slot that leads to it.
    fn vacated(&self, lowest: Slot, virt: VirtAddr, change: &Change, seen: &mut Seen) -> Option<(Slot, Frame)> {
        let (mut highest, mut in_table) = (None, lowest.first());
        // Up again by a walk to each table: nearly always, the first one stays.
        while in_table.level() != Geo::<M>::ROOT && !seen.stays(in_table.level(), in_table.table()) {
            let goes = highest.map(|(slot, _)| slot);
            // A table that stays when it is empty is not looked through.
            let stays = self.has_neighbour(in_table, change.whole);
            let link = if stays { None } else { self.link_to(in_table, virt) };
            let link = link.filter(|_| self.becomes_empty(in_table, change, goes));
            let Some(link) = link else {
                seen.note(in_table.level(), in_table.table());
                break;
            };
            (highest, in_table) = (Some((link, in_table.table())), link.first());
        }
        highest
    }

    /// The slot that leads to the table of `below`, which is on the way of `virt`, unless that table stays when it is empty.
    fn link_to(&self, below: Slot, virt: VirtAddr) -> Option<Slot> {
        let mut slot = self.root_slot(virt);
        loop {
            let raw = self.protocol.raw(slot);
            let child = Entry::table_in::<Geo<M>>(raw, slot.level())?;
            if child == below.table() {
                return (!Entry::keeps(raw)).then_some(slot);
            }
            slot = slot.below(child, virt)?;
        }
    }

    /// Whether the slot before `span` in the table of slot `zero` is used: then the table stays, and usually it tells.
    fn has_neighbour(&self, zero: Slot, span: VirtSpan) -> bool {
        let from = span.start().raw().saturating_sub(zero.virt().raw()) >> zero.shift();
        self.protocol.first_used(zero, from.saturating_sub(1), from).is_some()
    }

    /// Whether nothing is left of the table of slot `zero` when `change` has unmapped its span; that nothing is left
    /// below `goes` is known. What is not mapped within, or may not be unmapped, is no table that goes: the unit of
    /// that slot says so.
    fn becomes_empty(&self, zero: Slot, change: &Change, goes: Option<Slot>) -> bool {
        let span = change.whole;
        let (level, slots, shift) = (zero.level(), zero.slots(), zero.shift());
        let from = span.start().raw().saturating_sub(zero.virt().raw()) >> shift;
        let bytes = span.end_exclusive().raw() - zero.virt().raw();
        let (to, whole) = (bytes.div_ceil(1 << shift).min(slots), (bytes >> shift).min(slots));
        let is_used = |from, to| self.protocol.first_used(zero, from, to).is_some();
        if is_used(to, slots) || is_used(0, from) {
            return false;
        }
        let mut index = from;
        while index < to {
            let slot = zero.step(index);
            let raw = self.protocol.raw(slot);
            index += 1;
            if raw == 0 && change.lets_holes_be() {
                index = self.protocol.first_used(zero, index, to).unwrap_or(to);
                continue;
            }
            let below = Entry::table_in::<Geo<M>>(raw, level).and_then(|child| slot.below(child, slot.virt()));
            if let Some(below) = below {
                if goes == Some(slot) || !Entry::keeps(raw) && self.becomes_empty(below, change, None) {
                    continue;
                }
                return false;
            }
            // A block of which a part stays; or no leaf, which the unit of that slot finds, unless this commit has broken it before.
            if !span.covers(slot.span()) || self.leaf_at(slot, raw).is_err() {
                return false;
            }
            let mask = beside_output::<Geo<M>>(level);
            index += self.protocol.alike(zero, index, whole, (mask, raw & mask));
        }
        true
    }

    /// Whether a block may take the place of the table that `raw` in `slot` leads to, if one says what that does.
    fn may_merge(&self, change: &Change, slot: Slot, raw: u64) -> bool {
        let Target::Merge { largest, .. } = change.target else { return false };
        let level = slot.level();
        level >= largest && Geo::<M>::allows_leaf(level) && change.whole.covers(slot.span()) && !Entry::keeps(raw)
    }

    /// The block that maps what the table `child` under `slot` maps, if one leaf can say it all.
    pub(super) fn block_for(&self, slot: Slot, child: Frame) -> Option<Leaf> {
        let first = self.uniform(slot.below(child, slot.virt())?)?;
        Leaf::new_in::<Geo<M>>(slot.level(), first.output(), first.attributes())
    }

    /// The first leaf of the table of slot `zero`, if that maps memory side by side, all of it alike.
    fn uniform(&self, zero: Slot) -> Option<Leaf> {
        let (raw, bytes) = (self.protocol.raw(zero), zero.bytes());
        let begins_with_table = Entry::table_in::<Geo<M>>(raw, zero.level()).is_some();
        let mut first: Option<Leaf> = None;
        for index in 0..zero.slots() {
            let slot = zero.step(index);
            // The leaf that follows the first in memory and is like it in all else is told by comparison; anything else is read bit by bit.
            let follows = raw.wrapping_add(index * bytes);
            let is_like = (follows ^ raw) & !Geo::<M>::OUTPUT_MASK == 0 && self.protocol.raw(slot) == follows;
            if index > 0 && !begins_with_table && is_like {
                continue;
            }
            let leaf = match self.protocol.read(slot) {
                Entry::Leaf(leaf) => leaf,
                Entry::Table { frame, kept: false } => self.uniform(slot.below(frame, slot.virt())?)?,
                _ => return None,
            };
            let first = *first.get_or_insert(leaf);
            let ahead = index * bytes;
            if leaf.attributes() != first.attributes() || leaf.output() != first.advanced(ahead).output() {
                return None;
            }
        }
        first
    }
}

/// The bits of a leaf of `level` in which leaves that are alike agree: all but its output address; what is always 0 of that, too.
pub(super) fn beside_output<G: Geometry>(level: Level) -> u64 {
    let low = if matches!(G::HIGH_BITS, HighBits::None) { G::slot_bytes(level) - 1 } else { 0 };
    !G::OUTPUT_MASK | low
}

/// Whether `raw` maps what lies `index` leaves of `level` behind what `leaf` maps.
fn follows<G: Geometry>(leaf: Leaf, level: Level, index: u64, raw: u64) -> bool {
    G::decode_output(raw) == leaf.output().raw() + (index << G::shift(level))
}
