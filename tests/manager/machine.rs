//! What the manager does to the machine: [`World`] as its [`Machine`]. Its records are the target's instructions, and the model listens to all of
//! its CPUs.

use super::expansion;
use super::rig::{CODE, DATA, GIB, PAGE, Rig, request};
use super::step::{
    DSB_ISH, DSB_ISHST, DSB_NSH, is_marker, is_tlbi, store_word, store_zero_pair, stored_word, tlbi, zeroed_pair,
};
use super::world::World;
use breakwater::addr::{Frame, Level, VirtAddr, VirtSpan};
use breakwater::bbm::{Live, Permit, Reach};
use breakwater::geometry::{Geometry, Slot};
use breakwater::machine::{Footing, Machine, Maintenance, Reached, Simulated, Tlbi};
use breakwater::walk::ReadTable;
use breakwater_trace::{Event, HEADER, Reader};

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
        let (start, frame, bytes) = (frame.start(), frame.start().raw(), G::PAGE_BYTES);
        self.touch(frame);
        if self.vast.is_some_and(|vast| vast.contains(start)) && !start.is_aligned(2 << 20) {
            self.judged.zeroing += bytes / 16;
            return;
        }
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

    fn reached(&self, span: VirtSpan) -> impl Iterator<Item = Reached> + '_ {
        self.window.and_then(|offset| shown(offset, span)).into_iter()
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

const AT: u64 = 4 * GIB;

/// Tables in force for two CPUs, with a page of code that CPU 0 has just mapped.
fn code_for_two() -> Rig<Live> {
    let mut rig = Rig::live(Reach::Domain, 8);
    rig.map(request(AT, PAGE, GIB, CODE, Level::L3)).unwrap();
    rig
}

#[test]
fn good_a_fill_is_the_instructions_of_the_target() {
    let mut rig = Rig::live(Reach::ThisPe, 8);
    rig.map(request(AT, PAGE, GIB, DATA, Level::L3)).unwrap();
    let from = rig.world().now();
    rig.map(request(AT + PAGE, PAGE, GIB + PAGE, DATA, Level::L3)).unwrap();
    let events: Vec<Event> = rig.world().events_since(from).copied().collect();
    assert_eq!(stored_word(&events[0]).map(|(_, value)| value & 1), Some(1));
    assert_eq!(events[1..], [DSB_ISHST, Event::Isb, Event::Settled]);
}

#[test]
fn good_a_new_table_is_zeroed_by_sixteen_bytes_at_a_time() {
    let mut rig = Rig::live(Reach::ThisPe, 8);
    let from = rig.world().now();
    let table = rig.frames.take().unwrap();
    let table = std::mem::ManuallyDrop::new(rig.protocol.new_table(table, Level::L1, VirtAddr::at(0)));
    let steps = rig.world().events_since(from).filter(|event| !is_marker(event));
    let expected = (0..256).map(|pair| Some(table.frame().start().raw() + 16 * pair));
    assert!(steps.map(zeroed_pair).eq(expected));
}

#[test]
fn good_another_cpu_runs_new_code_after_its_own_isb() {
    let mut rig = code_for_two();
    rig.world_mut().emit(1, Event::Isb);
    rig.world_mut().fetch(1, AT);
    rig.check();
}

#[test]
fn bad_another_cpu_runs_new_code_without_its_isb() {
    let mut rig = code_for_two();
    rig.world_mut().fetch(1, AT);
    let complaint = rig.verdict().unwrap_err();
    assert!(complaint.contains("ISB by PE 1"), "{}", complaint.lines().next().unwrap());
}

#[test]
fn good_a_recording_is_a_trace_that_reads_back() {
    let mut rig = code_for_two();
    rig.world_mut().end();
    let trace = rig.world().trace();
    assert!(trace.starts_with(HEADER));
    let records: Vec<_> = Reader::new(trace.as_bytes()).collect::<Result<_, _>>().unwrap();
    assert_eq!(records, rig.world().records());
}
