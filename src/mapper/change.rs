//! Requests that take away or change: unmap, protect, remap. Each leaf that they touch is wholly inside the span, or they refuse.

use super::{Cost, Error, Mapper, checked_pages, piece};
use crate::addr::{Frame, Level, PAGE_BYTES, PhysAddr, VirtAddr, VirtSpan};
use crate::bbm::{Broken, Changed, Filled, Invalidated, Live};
use crate::change::{Change, decide};
use crate::descriptor::{Attributes, Entry, Leaf};
use crate::machine::{Machine, Slot};

/// What becomes of a leaf at an address.
#[derive(Clone, Copy)]
enum Target {
    Nothing,
    Attributes(Attributes),
    Output { first: VirtAddr, output: PhysAddr, attributes: Attributes },
}

impl Target {
    /// The entry that `leaf` at `slot` is to become, or `None` when no leaf of its size can.
    fn of(self, slot: Slot, leaf: Leaf) -> Option<Entry> {
        match self {
            Self::Nothing => Some(Entry::Unused),
            Self::Attributes(attributes) => Some(Entry::Leaf(leaf.with(attributes))),
            Self::Output { first, output, attributes } => {
                let output = output.checked_add(slot.virt().raw() - first.raw())?;
                Leaf::new(slot.level(), output, attributes).map(Entry::Leaf)
            }
        }
    }
}

/// An unmap that is complete: the proof that no TLB translates through the span.
#[derive(Debug)]
pub struct Unmapped {
    /// What it did.
    pub cost: Cost,
    /// The proof, for whoever reuses the frames.
    pub proof: Invalidated,
}

impl<M: Machine> Mapper<'_, M, Live> {
    /// Unmaps every page of `virt`: breaks, invalidates, and gives the slots back as unused. Tables that become empty stay linked.
    ///
    /// # Errors
    /// [`Error::NotMapped`] when a page is not mapped, [`Error::WouldSplit`] when a block is covered in part, and others; the tables
    /// are then as before.
    pub fn unmap(&mut self, virt: VirtSpan) -> Result<Unmapped, Error> {
        let whole = checked_pages(virt)?;
        let leaves = self.plan_change(whole, Target::Nothing)?;
        let proof = self.break_all(whole, Target::Nothing);
        self.each_leaf_slot(whole, |mapper, slot| {
            if matches!(mapper.protocol.read(slot), Entry::Broken(_)) {
                mapper.protocol.reclaim(slot, &proof);
            }
        });
        self.protocol.claim_settled();
        Ok(Unmapped { cost: Cost { stores: 2 * leaves, frames: 0 }, proof })
    }

    /// Gives every page of `virt` other rights. In place where memory type and errata allow it, otherwise by break-before-make.
    ///
    /// # Errors
    /// As for [`Self::unmap`].
    pub fn protect(&mut self, virt: VirtSpan, attributes: Attributes) -> Result<Cost, Error> {
        self.replace(checked_pages(virt)?, Target::Attributes(attributes))
    }

    /// Maps every page of `virt`, which is mapped, to as many bytes from `output` on instead, by break-before-make. Leaves keep their
    /// size. While it runs, `virt` is not mapped: nothing that any online CPU stands on may lie there.
    ///
    /// # Errors
    /// As for [`Self::unmap`], and [`Error::OutputMisaligned`] when a block cannot map to its new output.
    pub fn remap(&mut self, virt: VirtSpan, output: PhysAddr, attributes: Attributes) -> Result<Cost, Error> {
        let whole = checked_pages(virt)?;
        if !output.is_aligned(PAGE_BYTES) {
            return Err(Error::Misaligned { virt, output: Some(output) });
        }
        self.check_output(virt, output)?;
        self.replace(whole, Target::Output { first: virt.start(), output, attributes })
    }

    fn replace(&mut self, whole: VirtSpan, target: Target) -> Result<Cost, Error> {
        self.plan_change(whole, target)?;
        let (leaves, in_place) = self.changing(whole, target);
        if in_place {
            let mut changed = Changed::none();
            self.each_leaf_slot(whole, |mapper, slot| mapper.change_in_place(slot, target, &mut changed));
            self.protocol.invalidate_changed(changed);
            self.protocol.claim_settled();
            return Ok(Cost { stores: leaves, frames: 0 });
        }
        let proof = self.break_all(whole, target);
        let mut filled = Filled::none();
        self.each_leaf_slot(whole, |mapper, slot| mapper.make_again(slot, target, &proof, &mut filled));
        self.protocol.complete(filled);
        self.protocol.claim_settled();
        Ok(Cost { stores: 2 * leaves, frames: 0 })
    }

    /// Breaks every leaf of `whole` that `target` changes; one that is so already stays, and nothing is owed for it.
    fn break_all(&mut self, whole: VirtSpan, target: Target) -> Invalidated {
        let mut broken = Broken::none();
        self.each_leaf_slot(whole, |mapper, slot| {
            if mapper.decide(slot, target) != Change::Nothing {
                mapper.protocol.break_leaf(slot, &mut broken);
            }
        });
        self.protocol.invalidate(broken)
    }

    /// What the leaf at `slot` needs to become what `target` says.
    fn decide(&self, slot: Slot, target: Target) -> Change {
        match self.protocol.read(slot) {
            Entry::Leaf(leaf) => match target.of(slot, leaf) {
                Some(new) => decide(Entry::Leaf(leaf), new, self.protocol.errata()),
                None => Change::Break,
            },
            entry => decide(entry, Entry::Unused, self.protocol.errata()),
        }
    }

    fn change_in_place(&mut self, slot: Slot, target: Target, changed: &mut Changed) {
        let entry = self.protocol.read(slot);
        if let Entry::Leaf(old) = entry
            && let Some(Entry::Leaf(new)) = target.of(slot, old)
            && old != new
        {
            self.protocol.change(slot, new, changed);
        }
    }

    fn make_again(&mut self, slot: Slot, target: Target, proof: &Invalidated, filled: &mut Filled<Live>) {
        // Breaking kept every bit but bit 0: what was there can still be read.
        if let Entry::Broken(raw) = self.protocol.read(slot)
            && let Entry::Leaf(old) = Entry::decode(raw | 1, slot.level())
            && let Some(Entry::Leaf(new)) = target.of(slot, old)
        {
            self.protocol.make(slot, new, proof, filled);
        }
    }

    /// Counts the leaves of `whole` that `target` changes, or says why it cannot.
    fn plan_change(&self, whole: VirtSpan, target: Target) -> Result<u64, Error> {
        let mut leaves = 0;
        let mut virt = whole.start();
        while virt < whole.end_exclusive() {
            let (slot, part, is_whole_slot) = self.leaf_slot(whole, virt);
            let leaf = match self.protocol.read(slot) {
                Entry::Leaf(leaf) => leaf,
                Entry::Unused | Entry::Table(_) => return Err(Error::NotMapped { virt }),
                entry => {
                    let Change::Refuse(why) = decide(entry, Entry::Unused, self.protocol.errata()) else {
                        return Err(Error::NotMapped { virt });
                    };
                    return Err(Error::Refused { slot, why });
                }
            };
            if !is_whole_slot {
                return Err(Error::WouldSplit { slot, part });
            }
            if let Some(output) = target.misaligned_output(slot, leaf) {
                return Err(Error::OutputMisaligned { slot, output });
            }
            leaves += 1;
            virt = part.end_exclusive();
        }
        Ok(leaves)
    }

    /// How many leaves of `whole` become others, and whether each of them can in place.
    fn changing(&self, whole: VirtSpan, target: Target) -> (u64, bool) {
        let (mut leaves, mut in_place) = (0, true);
        let mut virt = whole.start();
        while virt < whole.end_exclusive() {
            let (slot, part, _) = self.leaf_slot(whole, virt);
            match self.decide(slot, target) {
                Change::Nothing => {}
                Change::InPlace => leaves += 1,
                _ => (leaves, in_place) = (leaves + 1, false),
            }
            virt = part.end_exclusive();
        }
        (leaves, in_place)
    }

    /// Calls `each` with every slot of `whole` where the walk ends, as it ends when the call comes.
    fn each_leaf_slot(&mut self, whole: VirtSpan, mut each: impl FnMut(&mut Self, Slot)) {
        let mut virt = whole.start();
        while virt < whole.end_exclusive() {
            let (slot, part, _) = self.leaf_slot(whole, virt);
            each(self, slot);
            virt = part.end_exclusive();
        }
    }

    /// Where the walk for `virt` ends, the part of `whole` in that slot, and whether that is the whole slot.
    fn leaf_slot(&self, whole: VirtSpan, virt: VirtAddr) -> (Slot, VirtSpan, bool) {
        let mut table: Frame = self.tables.root();
        let mut level = Level::L0;
        loop {
            let slot = Slot::new(table, level, virt);
            match (self.protocol.read(slot), level.next()) {
                (Entry::Table(child), Some(next)) => (table, level) = (child, next),
                _ => {
                    let (part, is_whole_slot) = piece(whole, virt, level);
                    return (slot, part, is_whole_slot);
                }
            }
        }
    }
}

impl Target {
    /// The output that a leaf at `slot` would get but cannot take.
    fn misaligned_output(self, slot: Slot, leaf: Leaf) -> Option<PhysAddr> {
        match (self, self.of(slot, leaf)) {
            (Self::Output { first, output, .. }, None) => output.checked_add(slot.virt().raw().abs_diff(first.raw())),
            _ => None,
        }
    }
}
