//! What the manager itself needs of the tables that it edits: the addresses through which it reaches tables, and the frames that become
//! tables. A request that would take them away is refused, by whichever of its parts.
//!
//! What it costs: nothing but the question where the window is, for a request that does not touch it; a look at all tables for one that does.

#![forbid(unsafe_code)]

use super::{Error, Mapper};
use crate::addr::{Frame, Level, PhysSpan, VirtAddr, VirtSpan};
use crate::bbm::{Geo, Live};
use crate::descriptor::{Access, Attributes, Entry, Leaf, Rights, TABLE_BITS};
use crate::frames::Supply;
use crate::geometry::{Geometry, Slot};
use crate::machine::{Footing, Machine, Reached};

impl<M: Machine, S, F: Supply<M>> Mapper<'_, M, S, F> {
    /// Whether `span` is part of the window, or of what is never mapped.
    #[inline(always)]
    pub(super) fn is_window(&self, span: VirtSpan) -> bool {
        self.protocol.machine().is_reached(span)
    }

    /// Refuses to map `virt` to `outputs` where the manager reaches other frames by those addresses, or where nothing
    /// may ever be mapped. So the window shows what the manager takes it for, or nothing, which faults: what it stores
    /// can hit no other memory.
    #[inline(always)]
    pub(super) fn check_shows(&self, virt: VirtSpan, outputs: PhysSpan) -> Result<(), Error> {
        if self.is_window(virt) { self.look_what_it_shows(virt, outputs) } else { Ok(()) }
    }

    #[inline(never)]
    fn look_what_it_shows(&self, virt: VirtSpan, outputs: PhysSpan) -> Result<(), Error> {
        let machine = self.protocol.machine();
        if let Some(guard) = machine.guard(virt) {
            return Err(Error::Guarded { virt, guard });
        }
        for Reached { virt: at, phys } in machine.reached(virt) {
            let ahead = at.raw() - virt.start().raw();
            if outputs.start().checked_add(ahead) != Some(phys.start()) {
                return Err(Error::Misdirected { virt, output: outputs.start(), shows: (at, phys) });
            }
        }
        Ok(())
    }
}

/// As what the window shows tables: walks read them so, too.
const TABLES: Attributes = Attributes::Normal(Access::ReadWrite);

impl<M: Machine, F: Supply<M>> Mapper<'_, M, Live, F> {
    /// Refuses to break `broken`, or to take rights from it, where that is the window to a table or to a frame of the supply.
    pub(super) fn check_window(&self, broken: VirtSpan) -> Result<(), Error> {
        if !self.is_window(broken) {
            return Ok(());
        }
        self.check_tables(broken, self.root_slot(VirtAddr::at(0)))?;
        let former = self.protocol.upcoming_free(self.frames.tables()).map(|frame| self.table_span(frame));
        self.frames
            .spans()
            .chain(former)
            .try_for_each(|free| self.check_reached(broken, free, "the window to a free frame"))
    }

    /// The same for the table of slot `zero` and those below it.
    fn check_tables(&self, broken: VirtSpan, zero: Slot) -> Result<(), Error> {
        self.check_reached(broken, self.table_span(zero.table()), "the window to a table")?;
        let (mut at, has_tables) = (0, zero.level() != Level::L3);
        while has_tables && let Some(used) = self.protocol.first_used(zero, at, zero.slots()) {
            let slot = zero.step(used);
            let raw = self.protocol.raw(slot);
            at = used + 1;
            let child = Entry::table_in::<Geo<M>>(raw, slot.level());
            match child.and_then(|child| slot.below(child, slot.virt())) {
                Some(below) => self.check_tables(broken, below)?,
                None if raw & TABLE_BITS == TABLE_BITS => {} // a table with bits of somebody else's
                // A leaf, and the leaves that follow: no tables.
                None => at += self.protocol.alike(zero, at, zero.slots(), (TABLE_BITS, raw & TABLE_BITS)),
            }
        }
        Ok(())
    }

    fn check_reached(&self, broken: VirtSpan, frames: PhysSpan, name: &'static str) -> Result<(), Error> {
        let shown = |part: Reached| Some((part, part.phys.intersection(frames)?));
        let Some((part, frames)) = self.protocol.machine().reached(broken).find_map(shown) else { return Ok(()) };
        let virt = VirtSpan::of(part.virt_of(frames), frames.bytes()).unwrap_or(broken);
        Err(Error::WouldBreakSelf { virt: broken, footing: Footing { name, virt } })
    }

    fn table_span(&self, table: Frame) -> PhysSpan {
        PhysSpan::of(table.start(), Geo::<M>::PAGE_BYTES).unwrap_or(PhysSpan::EMPTY)
    }

    /// Refuses frames as free that the window, which lies in `window`, does not show to be written.
    ///
    /// # Errors
    /// [`Error::NotMapped`] with the slot where the walk for the first of them ends.
    pub(crate) fn check_shown(&self, frames: PhysSpan, window: VirtSpan) -> Result<(), Error> {
        for part in self.protocol.machine().reached(window) {
            let Some(shown) = part.phys.intersection(frames) else { continue };
            let start = part.virt_of(shown);
            let end = start.raw() + shown.bytes();
            let mut virt = start;
            while let Some(step) = self.walk(virt).last().filter(|_| virt.raw() < end) {
                let written = |leaf: Leaf| {
                    leaf.attributes().rights().contains(Rights::WRITE) && leaf.attributes().same_memory_type(TABLES)
                };
                if !matches!(step.entry, Entry::Leaf(leaf) if written(leaf)) {
                    return Err(Error::NotMapped { slot: step.slot });
                }
                virt = step.slot.span().end_exclusive();
            }
        }
        Ok(())
    }
}
