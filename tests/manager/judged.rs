//! A machine with tables of any geometry that is judged as it goes, and of which a copy can be taken: for claims that are made over and
//! over from the same beginning.
//!
//! Each method is the instructions of boot/src/el2, as in [`super::world`]; what that one remembers of the past is left out here. The formats
//! are read by the model's decoder, which knows nothing of the manager.

use super::expansion::{self, Translation};
use super::step::tlbi;
use breakwater::addr::{Frame, Level, VirtAddr, VirtSpan};
use breakwater::bbm::Permit;
use breakwater::descriptor::MAIR;
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater::geometry::{Geometry, HighBits, Slot};
use breakwater::machine::{Footing, Machine, Maintenance, Reached, Simulated, Tlbi};
use breakwater_oracle::descriptor::Format;
use breakwater_oracle::obligations::{Obligations, Rule};
use breakwater_oracle::params;
use breakwater_oracle::regime::Controls;
use breakwater_trace::{Access, Event, Feature, MemoryKind, Record, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::marker::PhantomData;

/// The root in force at first, which is empty.
const FIRST_ROOT: u64 = 0x10_0000;
/// What memory holds that nobody has written.
const POISON: u64 = 0xdead_beef_dead_beef;
/// Where the machine reaches physical memory, for the record: through no table.
const WINDOW: u64 = 1 << 60;

/// What happened, counted by the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counted {
    /// Descriptors stored, links between free frames not counted.
    pub(crate) stores: u64,
    pub(crate) zeroed: u64,
    pub(crate) released: u64,
    pub(crate) tlbis: u32,
    pub(crate) dsbs: u32,
    pub(crate) isbs: u32,
    /// Steps of any kind.
    pub(crate) steps: u64,
}

/// The machine.
#[derive(Clone)]
pub(crate) struct Judged<G> {
    memory: BTreeMap<u64, Vec<u64>>,
    /// Nobody, while a beginning that was judged once is made again.
    judge: Option<Obligations>,
    line: u64,
    instructions: [u64; 2],
    free: BTreeSet<u64>,
    /// Names steps that never happen, as if the manager had forgotten them.
    pub(crate) forgets: Option<fn(&Event) -> bool>,
    /// The last steps, for whoever reads a complaint.
    log: Vec<Record>,
    pub(crate) counted: Counted,
    /// What CPUs stand on.
    pub(crate) footings: Vec<Footing>,
    /// What is never mapped.
    pub(crate) guards: Vec<Footing>,
    /// What is added to a frame's address to give its window, where that is through these tables.
    pub(crate) window: Option<u64>,
    /// The window to physical memory, through these tables, where it is not one offset.
    pub(crate) parts: Vec<Reached>,
    geometry: PhantomData<G>,
}

/// TCR_EL2 and how the model reads tables under it.
pub(crate) fn format<G: Geometry>() -> Format {
    let wide = G::OUTPUT_BITS == 52;
    let physical_bits = if wide { 52 } else { 48 };
    let features = params::Features { lpa2: wide, physical_bits, ..params::Features::default() };
    let controls = Controls { tcr: translation::<G>().tcr, ..Controls::default() };
    controls.format(&features).expect("a format that the architecture has")
}

/// The registers of boot/src/el2/assembly.rs, for this geometry.
pub(crate) fn translation<G: Geometry>() -> Translation {
    let granule = [0, 0, 2, 1][G::TLBI_GRANULE as usize];
    let size = if G::OUTPUT_BITS == 52 { 6 } else { 5 };
    let ds = u64::from(G::HIGH_BITS == HighBits::Shareability) << 32;
    let inner_write_back = 0x3500;
    let tcr = 1 << 31 | 1 << 23 | ds | size << 16 | granule << 14 | inner_write_back | (64 - u64::from(G::INPUT_BITS));
    Translation { sctlr_on: 0x30cd_183d, tcr, mair: MAIR, hcr: 1 << 31 }
}

/// What the trace calls features and errata.
fn facts(features: Features, errata: Errata) -> impl Iterator<Item = Feature> {
    const NAMES: [(Features, Feature); 3] =
        [(Features::TTL, Feature::Ttl), (Features::TLBIRANGE, Feature::TlbiRange), (Features::RESIZE, Feature::Bbm(2))];
    const ERRATA: [(Errata, Feature); 3] = [
        (Errata::REPEAT_TLBI, Feature::RepeatTlbi),
        (Errata::BBM_ALWAYS, Feature::BbmAlways),
        (Errata::BBM_FOR_XN, Feature::BbmForXn),
    ];
    let features = NAMES.into_iter().filter(move |(feature, _)| features.contains(*feature)).map(|(_, name)| name);
    features.chain(ERRATA.into_iter().filter(move |(erratum, _)| errata.contains(*erratum)).map(|(_, name)| name))
}

impl<G: Geometry> Judged<G> {
    /// A machine whose CPU 0 translates by an empty root.
    pub(crate) fn new(features: Features, errata: Errata) -> Self {
        let mut machine = Self { judge: Some(Obligations::new()), ..Self::mute() };
        for feature in facts(features, errata) {
            machine.record(Record::Feature { cpu: None, feature });
        }
        if G::OUTPUT_BITS == 52 {
            machine.record(Record::Feature { cpu: None, feature: Feature::PhysicalBits(52) });
            machine.record(Record::Feature { cpu: None, feature: Feature::Lpa2 });
        }
        machine.record(Record::Memory { start: 0, end_exclusive: 1 << 52, kind: MemoryKind::Ram });
        for index in 0..G::slots(G::ROOT) {
            machine.record(Record::Word { pa: FIRST_ROOT + 8 * index, value: 0 });
        }
        let Translation { sctlr_on, tcr, mair, hcr } = translation::<G>();
        let registers = [("hcr_el2", hcr), ("mair_el2", mair), ("tcr_el2", tcr), ("ttbr0_el2", FIRST_ROOT)];
        for (name, value) in registers.into_iter().chain([("sctlr_el2", sctlr_on)]) {
            machine.emit(0, Event::Found { register: expansion::register(name), value });
        }
        machine
    }

    /// The same, judged by nobody.
    pub(crate) fn mute() -> Self {
        Self {
            memory: BTreeMap::new(),
            judge: None,
            line: 1,
            instructions: [0; 2],
            free: BTreeSet::new(),
            forgets: None,
            log: Vec::new(),
            counted: Counted::default(),
            footings: Vec::new(),
            guards: Vec::new(),
            window: None,
            parts: Vec::new(),
            geometry: PhantomData,
        }
    }

    /// CPU 1 comes into the tables in force by boot/secondary.S.
    pub(crate) fn start_second(&mut self, root: u64) {
        self.emit(1, Event::Start { exception_level: 2 });
        expansion::secondary(root, &translation::<G>()).into_iter().for_each(|event| self.emit(1, event));
    }

    /// What is wrong, if something is, with the steps since the last [`Self::forget`].
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let violations = self.judge.as_ref().expect("a judge").violations();
        if violations.is_empty() {
            return Ok(());
        }
        let mut text: String = violations.iter().map(|violation| format!("{violation}\n")).collect();
        for record in self.log.iter().filter(|record| !is_zeroing(record)).take(200) {
            writeln!(text, "{record}").expect("a string takes it");
        }
        Err(text)
    }

    /// The rules that were broken.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        self.judge.as_ref().expect("a judge").violations().iter().map(|violation| violation.rule).collect()
    }

    /// Drops the log.
    pub(crate) fn forget(&mut self) {
        self.log.clear();
    }

    /// The steps since [`Self::forget`].
    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.log.iter().filter_map(|record| match record {
            Record::Step(Step { event, .. }) => Some(event),
            _ => None,
        })
    }

    /// All of memory that was written.
    pub(crate) fn memory(&self) -> &BTreeMap<u64, Vec<u64>> {
        &self.memory
    }

    /// Stores `value` at `slot`, as somebody who is not the manager.
    pub(crate) fn plant(&mut self, slot: Slot, value: u64) {
        self.put(slot, value);
    }

    fn put(&mut self, slot: Slot, value: u64) {
        let (pa, frame) = (slot.address().raw(), slot.table().start().raw());
        let words = self.memory.entry(frame).or_insert_with(|| vec![POISON; (G::PAGE_BYTES / 8) as usize]);
        words[(pa - frame) as usize / 8] = value;
        self.emit(
            0,
            Event::Store(Access { bytes: 8, va: WINDOW + pa, pa, value: [value, 0], device: false, release: false }),
        );
    }

    /// One step of a CPU.
    pub(crate) fn emit(&mut self, cpu: u32, event: Event) {
        self.emit_at(cpu, 0, event);
    }

    /// One step of a CPU at `pc`.
    pub(crate) fn emit_at(&mut self, cpu: u32, pc: u64, event: Event) {
        if self.forgets.is_some_and(|forgets| forgets(&event)) {
            return;
        }
        self.counted.steps += 1;
        let instruction = &mut self.instructions[cpu as usize];
        *instruction += 1;
        let step = Step { cpu, instruction: *instruction, pc, event };
        self.record(Record::Step(step));
    }

    fn record(&mut self, record: Record) {
        self.line += 1;
        if let Some(judge) = &mut self.judge {
            judge.step(self.line, &record);
            self.log.push(record);
        }
    }
}

fn is_zeroing(record: &Record) -> bool {
    matches!(record, Record::Step(Step { event: Event::Store(Access { bytes: 16, .. }), .. }))
}

impl<G: Geometry> Simulated for Judged<G> {}

impl<G: Geometry> Machine for Judged<G> {
    type Geometry = G;

    fn load(&self, slot: Slot) -> u64 {
        let frame = slot.table().start().raw();
        self.memory.get(&frame).map_or(POISON, |words| words[slot.index()])
    }

    fn store(&mut self, _: &Permit, slot: Slot, descriptor: u64) {
        if !self.free.contains(&slot.table().start().raw()) {
            self.counted.stores += 1;
        }
        self.put(slot, descriptor);
    }

    fn zero_frame(&mut self, _: &Permit, frame: Frame) {
        let pa = frame.start().raw();
        self.counted.zeroed += 1;
        self.free.remove(&pa);
        self.memory.insert(pa, vec![0; (G::PAGE_BYTES / 8) as usize]);
        self.emit(0, Event::Take { pa, bytes: G::PAGE_BYTES });
        for pa in (pa..pa + G::PAGE_BYTES).step_by(16) {
            self.emit(
                0,
                Event::Store(Access { bytes: 16, va: WINDOW + pa, pa, value: [0, 0], device: false, release: false }),
            );
        }
    }

    fn dsb_ishst(&mut self) {
        self.counted.dsbs += 1;
        self.emit(0, expansion::dsb(10));
    }

    fn dsb_ish(&mut self) {
        self.counted.dsbs += 1;
        self.emit(0, expansion::dsb(11));
    }

    fn dsb_nsh(&mut self) {
        self.counted.dsbs += 1;
        self.emit(0, expansion::DSB_NSH);
    }

    fn isb(&mut self) {
        self.counted.isbs += 1;
        self.emit(0, Event::Isb);
    }

    fn tlbi(&mut self, _: &Permit, operation: Tlbi) {
        self.counted.tlbis += 1;
        self.emit(0, tlbi(operation));
    }

    fn switch_root(&mut self, _: &Permit, root: Frame) -> Maintenance {
        let steps = expansion::switch_root(root.start().raw(), translation::<G>().sctlr_on);
        steps.into_iter().for_each(|step| self.emit(0, step));
        Maintenance::default()
    }

    fn footing(&self, span: VirtSpan) -> Option<Footing> {
        self.footings.iter().copied().find(|footing| footing.virt.intersection(span).is_some())
    }

    fn reached(&self, span: VirtSpan) -> impl Iterator<Item = Reached> + '_ {
        let one = self.window.and_then(|offset| super::machine::shown(offset, span));
        one.into_iter().chain(self.parts.iter().filter_map(move |part| Reached::of(part.virt, part.phys, span)))
    }

    fn guard(&self, span: VirtSpan) -> Option<Footing> {
        self.guards.iter().copied().find(|guard| guard.virt.intersection(span).is_some())
    }

    fn released(&mut self, frame: Frame) {
        let pa = frame.start().raw();
        self.counted.released += 1;
        self.free.insert(pa);
        self.emit(0, Event::Give { pa, bytes: G::PAGE_BYTES });
    }

    fn settled(&mut self) {
        self.emit(0, Event::Settled);
    }
}

/// The slot of `level` for `virt` in the tables under `root`.
pub(crate) fn slot_in<G: Geometry>(machine: &Judged<G>, root: Frame, level: Level, virt: u64) -> Slot {
    let (virt, format) = (VirtAddr::at(virt), format::<G>());
    let mut slot = G::slot(root, G::ROOT, virt);
    while slot.level() < level {
        let word = machine.load(slot);
        let breakwater_oracle::descriptor::Descriptor::Table(table) = format.decode(word, slot.level() as i8) else {
            panic!("{slot} leads to no table: {word:#x}");
        };
        let next = slot.level().next().expect("a level below");
        slot = G::slot(Frame::containing(breakwater::addr::PhysAddr::at(table.next)), next, virt);
    }
    slot
}
