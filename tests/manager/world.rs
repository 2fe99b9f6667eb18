//! A machine on the host: frames of memory, and a log of every step, each of which goes past the judge.

use super::event::{Dsb, Event};
use super::judge::Judge;
use breakwater::addr::{Frame, PhysSpan};
use breakwater::bbm::Permit;
use breakwater::errata::Errata;
use breakwater::machine::{Machine, Maintenance, Slot, Tlbi};
use breakwater::walk::ReadTable;
use std::collections::HashMap;

use super::raw;

/// The frame of the root that is in force at first; no supply holds it.
pub(crate) const FIRST_ROOT: u64 = 0x10_0000;
/// What memory holds that nobody has written: valid descriptors of the worst kind.
const POISON: u64 = 0xdead_beef_dead_beef;

/// A frame's words; `None` for all zero.
type Words = Option<Box<[u64; 512]>>;

/// What becomes of one step on its way to the judge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutation {
    /// The judge does not see it.
    Delete,
    /// The judge sees a weaker one: a local TLBI for a broadcast, a TLBI of the next page, a local or store-only barrier.
    Weaken,
}

/// Which frames the manager may touch: those of the image, and those that the directmap in force maps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reachable {
    pub(crate) image: PhysSpan,
    /// What is added to a physical address to give its address in the directmap.
    pub(crate) directmap_offset: u64,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct World {
    memory: HashMap<u64, Words>,
    /// Every step so far, those included that are kept from the judge.
    pub(crate) log: Vec<Event>,
    pub(crate) judge: Judge,
    /// How long the log was each time that nothing was to be owed.
    pub(crate) settled_at: Vec<usize>,
    pub(crate) mutation: Option<(usize, Mutation)>,
    pub(crate) reachable: Option<Reachable>,
    /// Frames that may never be zeroed or stored to.
    pub(crate) forbidden: Vec<PhysSpan>,
    /// Violations of `reachable` and `forbidden`.
    pub(crate) trespasses: Vec<String>,
}

impl World {
    /// A machine with an empty root in force, the MMU on, one PE, whose errata are `errata`.
    pub(crate) fn new(errata: Errata) -> Self {
        Self::with_root(errata, FIRST_ROOT)
    }

    /// The same with the root in a frame of the caller's.
    pub(crate) fn with_root(errata: Errata, root: u64) -> Self {
        let mut judge = Judge::new(root);
        judge.flaws.repeat_tlbi = errata.contains(Errata::REPEAT_TLBI);
        judge.flaws.always_break = errata.contains(Errata::BBM_ALWAYS);
        judge.flaws.break_for_execute_never = errata.contains(Errata::BBM_FOR_XN);
        judge.flaws.isb_before_mmu_off = errata.contains(Errata::ISB_BEFORE_MMU_OFF);
        Self {
            memory: HashMap::from([(root, None)]),
            log: Vec::new(),
            judge,
            settled_at: Vec::new(),
            mutation: None,
            reachable: None,
            forbidden: Vec::new(),
            trespasses: Vec::new(),
        }
    }

    /// What must hold when a request returns: nothing is owed.
    pub(crate) fn settle(&mut self) {
        self.judge.end_of_request();
        self.settled_at.push(self.log.len());
    }

    /// The descriptor at a physical address.
    pub(crate) fn word(&self, address: u64) -> u64 {
        match self.memory.get(&(address & !0xfff)) {
            None => POISON,
            Some(words) => words.as_ref().map_or(0, |words| words[(address & 0xfff) as usize / 8]),
        }
    }

    /// Puts a descriptor into memory as if it had always been there.
    pub(crate) fn plant(&mut self, slot: Slot, value: u64) {
        self.write(slot.address().raw(), value);
        self.judge.plant(slot.address().raw(), value);
    }

    /// All of memory, to compare with later.
    pub(crate) fn snapshot(&self) -> HashMap<u64, Words> {
        self.memory.clone()
    }

    fn write(&mut self, address: u64, value: u64) {
        let words = self.memory.entry(address & !0xfff).or_insert_with(|| Some(Box::new([POISON; 512])));
        words.get_or_insert_with(|| Box::new([0; 512]))[(address & 0xfff) as usize / 8] = value;
    }

    fn emit(&mut self, event: Event) {
        let mutation = self.mutation.filter(|&(at, _)| at == self.log.len()).map(|(_, mutation)| mutation);
        self.log.push(event);
        match mutation {
            None => self.judge.step(event),
            Some(Mutation::Delete) => {}
            Some(Mutation::Weaken) => self.judge.step(weakened(event)),
        }
    }

    fn touch(&mut self, frame: u64) {
        if let Some(span) =
            self.forbidden.iter().find(|span| span.start().raw() <= frame && frame < span.end_exclusive().raw())
        {
            self.trespasses.push(format!("{frame:#x} is written, of {span:?}"));
        }
        let Some(Reachable { image, directmap_offset }) = self.reachable else { return };
        let in_image = image.start().raw() <= frame && frame < image.end_exclusive().raw();
        let mapped = || raw::translate(self, self.judge.root(), frame + directmap_offset) == Some(frame);
        if !in_image && !mapped() {
            self.trespasses.push(format!("{frame:#x} is written, where no window reaches"));
        }
    }
}

/// A step that looks like `event` and does less.
pub(crate) fn weakened(event: Event) -> Event {
    match event {
        Event::Dsb(Dsb::Ish) => Event::Dsb(Dsb::Nsh),
        Event::Dsb(Dsb::Nsh) => Event::Dsb(Dsb::IshSt),
        Event::TlbiAll { broadcast: true } => Event::TlbiAll { broadcast: false },
        Event::TlbiLeafVa { broadcast: true, operand } => Event::TlbiLeafVa { broadcast: false, operand },
        Event::TlbiLeafVa { broadcast: false, operand } => {
            // The address unshifted by one bit too few: what a wrong shift gives.
            Event::TlbiLeafVa { broadcast: false, operand: operand << 1 }
        }
        other => other,
    }
}

impl Machine for World {
    fn load(&self, slot: Slot) -> u64 {
        self.word(slot.address().raw())
    }

    fn store(&mut self, _: &Permit, slot: Slot, descriptor: u64) {
        let address = slot.address().raw();
        self.touch(address & !0xfff);
        self.write(address, descriptor);
        self.emit(Event::Store { address, level: slot.level() as u8, value: descriptor });
    }

    fn zero_frame(&mut self, _: &Permit, frame: Frame) {
        let frame = frame.start().raw();
        self.touch(frame);
        self.memory.insert(frame, None);
        self.emit(Event::Zero { frame });
    }

    fn dsb_ishst(&mut self) {
        self.emit(Event::Dsb(Dsb::IshSt));
    }

    fn dsb_ish(&mut self) {
        self.emit(Event::Dsb(Dsb::Ish));
    }

    fn dsb_nsh(&mut self) {
        self.emit(Event::Dsb(Dsb::Nsh));
    }

    fn isb(&mut self) {
        self.emit(Event::Isb);
    }

    fn tlbi(&mut self, _: &Permit, operation: Tlbi) {
        let broadcast = operation.is_broadcast();
        self.emit(match operation {
            Tlbi::All | Tlbi::AllBroadcast => Event::TlbiAll { broadcast },
            Tlbi::LeafVa(operand) | Tlbi::LeafVaBroadcast(operand) => {
                Event::TlbiLeafVa { broadcast, operand: operand.raw() }
            }
        });
    }

    /// arm-rules.md, Root switch, as boot/mmu.S has it.
    fn switch_root(&mut self, _: &Permit, root: Frame) -> Maintenance {
        let steps = [
            Event::Dsb(Dsb::Ish),
            Event::Isb,
            Event::MmuOff,
            Event::Isb,
            Event::TlbiAll { broadcast: false },
            Event::Dsb(Dsb::Nsh),
            Event::Isb,
            Event::Ttbr { root: root.start().raw() },
            Event::Isb,
            Event::MmuOn,
            Event::Isb,
        ];
        steps.into_iter().for_each(|step| self.emit(step));
        Maintenance { tlbis: 1, dsbs: 2, isbs: 5 }
    }
}

impl ReadTable for World {
    fn descriptor(&self, table: Frame, index: usize) -> u64 {
        self.word(table.start().raw() + 8 * index as u64)
    }
}
