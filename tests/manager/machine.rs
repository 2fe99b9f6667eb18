//! What the manager does to the machine: [`World`] as its [`Machine`].

use super::expansion;
use super::step::{DSB_ISH, DSB_ISHST, DSB_NSH, is_tlbi, store_word, store_zero_pair, tlbi};
use super::world::World;
use breakwater::addr::{Frame, VirtAddr, VirtSpan};
use breakwater::bbm::Permit;
use breakwater::geometry::{Geometry, Slot};
use breakwater::machine::{Footing, Machine, Maintenance, Reached, Simulated, Tlbi};
use breakwater::walk::ReadTable;
use breakwater_trace::Event;

impl<G: Geometry> Machine for World<G> {
    type Geometry = G;

    fn load(&self, slot: Slot) -> u64 {
        self.word(slot.address().raw())
    }

    fn store(&mut self, _: &Permit, slot: Slot, descriptor: u64) {
        let (pa, frame) = (slot.address().raw(), slot.table().start().raw());
        self.touch(frame);
        if !self.memory.contains_key(&frame) {
            self.trespasses.push(format!("store to {pa:#x}, where no table is"));
        }
        self.write(pa, descriptor);
        let va = self.address(frame) + (pa - frame);
        self.emit(0, store_word(va, pa, descriptor));
    }

    fn zero_frame(&mut self, _: &Permit, frame: Frame) {
        let (frame, bytes) = (frame.start().raw(), G::PAGE_BYTES);
        self.touch(frame);
        self.memory.insert(frame, None);
        self.emit(0, Event::Take { pa: frame, bytes });
        let va = self.address(frame);
        for offset in (0..bytes).step_by(16) {
            self.emit(0, store_zero_pair(va + offset, frame + offset));
        }
        self.judged.zeroing += bytes / 16;
    }

    fn dsb_ishst(&mut self) {
        self.emit(0, DSB_ISHST);
    }

    fn dsb_ish(&mut self) {
        self.emit(0, DSB_ISH);
    }

    fn dsb_nsh(&mut self) {
        self.emit(0, DSB_NSH);
    }

    fn isb(&mut self) {
        self.emit(0, Event::Isb);
    }

    fn tlbi(&mut self, _: &Permit, operation: Tlbi) {
        self.emit(0, tlbi(operation));
    }

    fn switch_root(&mut self, _: &Permit, root: Frame) -> Maintenance {
        self.root = root.start().raw();
        let steps = expansion::switch_root(self.root, Self::translation().sctlr_on);
        let count = |is: fn(&Event) -> bool| steps.iter().filter(|&step| is(step)).count() as u32;
        let done = Maintenance {
            tlbis: count(is_tlbi),
            dsbs: count(|step| matches!(step, Event::Dsb(_))),
            isbs: count(|step| *step == Event::Isb),
        };
        steps.into_iter().for_each(|step| self.emit(0, step));
        done
    }

    fn footing(&self, span: VirtSpan) -> Option<Footing> {
        self.footings.iter().copied().find(|footing| footing.virt.intersection(span).is_some())
    }

    fn reached(&self, span: VirtSpan) -> [Option<Reached>; 2] {
        [self.window.and_then(|offset| shown(offset, span)), None]
    }

    fn released(&mut self, frame: Frame) {
        self.emit(0, Event::Give { pa: frame.start().raw(), bytes: G::PAGE_BYTES });
    }

    fn settled(&mut self) {
        self.settle();
    }
}

impl<G: Geometry> Simulated for World<G> {}

/// What a window of 64 GiB of memory from address 0 on, which begins at `offset`, shows in `span`.
pub(super) fn shown(offset: u64, span: VirtSpan) -> Option<Reached> {
    Reached::of(VirtAddr::at(offset), super::rig::phys(0, 64 << 30), span)
}

impl ReadTable for World {
    fn descriptor(&self, table: Frame, index: usize) -> u64 {
        self.word(table.start().raw() + 8 * index as u64)
    }
}
