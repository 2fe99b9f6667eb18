//! The adapter between the manager and the model: a [`Machine`] on the host whose every step is a record of the trace format, and is judged
//! as it happens.
//!
//! Each method of the [`super::machine`] does exactly the instructions that boot/src/el2 does on the target, in the same order: a store is one
//! 8-byte store, a zeroed frame stores of sixteen bytes, a barrier or TLBI itself, a root switch the expansion of boot/mmu.S
//! ([`expansion`]). Loads of descriptors are not recorded: with the MMU on they owe nothing, and what they read is compared by the tests.
//!
//! [`Machine`]: breakwater::machine::Machine

use super::bits::Shape;
use super::expansion::Translation;
use super::start::{self, FirstTables};
use super::{expansion, raw};
use breakwater::addr::PhysSpan;
use breakwater::errata::Errata;
use breakwater::geometry::{Geometry, Granule4K, Slot};
use breakwater::machine::Footing;
use breakwater_oracle::obligations::Obligations;
use breakwater_trace::{End, Event, Feature, HEADER, MemoryKind, Record, Step};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::marker::PhantomData;
use std::sync::Arc;

/// The root that is in force at first; no supply holds its frames.
pub(crate) const FIRST_ROOT: u64 = 0x10_0000;
/// A page that the first tables map and no others: what a root switch leaves behind in a TLB.
const FIRST_PAGE: (u64, u64) = (0x5000_0000_0000, 0x1f_0000);
/// Where a machine without a layout reaches physical memory: beyond all input addresses, so that no request can break it.
const WINDOW: u64 = 1 << 60;
/// What memory holds that nobody has written: valid descriptors of the worst kind.
pub(crate) const POISON: u64 = 0xdead_beef_dead_beef;
/// Longer traces are written to a file instead of into a message.
const PRINTED_LINES: usize = 20_000;

/// A frame's words; `None` for all zero.
pub(crate) type Words = Option<Arc<[u64]>>;

/// How many steps were judged.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Judged {
    pub(crate) steps: u64,
    /// Those of them that zero a frame.
    pub(crate) zeroing: u64,
}

impl Judged {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { steps: self.steps + other.steps, zeroing: self.zeroing + other.zeroing }
    }
}

/// Names steps that never happen.
pub(crate) type Forgets = fn(&Event) -> bool;

/// Which frames the manager may touch: those of the image, and those that the directmap in force maps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reachable {
    pub(crate) image: PhysSpan,
    /// What is added to a physical address of the image to give its link address.
    pub(crate) link_offset: u64,
    /// What is added to a physical address to give its address in the directmap.
    pub(crate) directmap_offset: u64,
}

/// The machine, with tables of geometry `G`.
#[derive(Debug)]
pub(crate) struct World<G = Granule4K> {
    pub(super) memory: BTreeMap<u64, Words>,
    records: Vec<Record>,
    judge: Obligations,
    /// Instructions so far, by CPU.
    instructions: Vec<u64>,
    pub(super) judged: Judged,
    pub(super) root: u64,
    /// Steps that never happen, as if the manager had forgotten them.
    pub(crate) forgets: Option<Forgets>,
    pub(crate) reachable: Option<Reachable>,
    /// Frames that may never be zeroed or stored to.
    pub(crate) forbidden: Vec<PhysSpan>,
    /// Violations of `reachable` and `forbidden`, and stores to what is no table.
    pub(crate) trespasses: Vec<String>,
    /// What CPUs stand on.
    pub(crate) footings: Vec<Footing>,
    /// What is added to a frame's address to give the address at which the manager reaches it through its own tables, if it does.
    pub(crate) window: Option<u64>,
    /// RAM for data that is zeroed and never holds a table: of it, the record tells the first frame of each 2 MiB.
    pub(crate) vast: Option<PhysSpan>,
    geometry: PhantomData<G>,
}

impl World {
    /// A machine with a page mapped by the tables in force, the MMU on, one PE, whose errata are `errata`.
    pub(crate) fn new(errata: Errata) -> Self {
        Self::with_features(start::features_of(errata).map(|feature| (None, feature)))
    }
}

impl<G: Geometry> World<G> {
    /// How its tables are.
    pub(crate) const SHAPE: Shape = Shape::of::<G>();

    /// A machine like that with features by CPU; those that its tables need come besides.
    pub(crate) fn with_features(features: impl Iterator<Item = (Option<u32>, Feature)>) -> Self {
        let mut tables = FirstTables::shaped(Self::SHAPE, FIRST_ROOT);
        let shareable = if Self::SHAPE.has_ds() { 0 } else { 3 << 8 };
        let code = super::bits::attribute_bits(super::rig::CODE) & !(3 << 8) | shareable;
        tables.map(FIRST_PAGE.0, FIRST_PAGE.1 | code | 3);
        let all_is_ram = start::memory(0, 1 << Self::SHAPE.address_bits, MemoryKind::Ram);
        Self::found(
            start::features_for(Self::SHAPE).map(|feature| (None, feature)).chain(features),
            &[all_is_ram],
            &tables,
        )
    }

    /// A machine with this memory and these tables in force.
    pub(crate) fn found(
        features: impl Iterator<Item = (Option<u32>, Feature)>,
        memory: &[Record],
        tables: &FirstTables,
    ) -> Self {
        let mut world = Self {
            memory: tables.frames().map(|(frame, words)| (frame, Some(words.into()))).collect(),
            records: Vec::new(),
            judge: Obligations::new(),
            instructions: Vec::new(),
            judged: Judged::default(),
            root: tables.root(),
            forgets: None,
            reachable: None,
            forbidden: Vec::new(),
            trespasses: Vec::new(),
            footings: Vec::new(),
            window: None,
            vast: None,
            geometry: PhantomData,
        };
        features.for_each(|(cpu, feature)| world.record(Record::Feature { cpu, feature }));
        memory.iter().for_each(|stretch| world.record(stretch.clone()));
        tables.records().for_each(|word| world.record(word));
        world.find_pe(0);
        world
    }

    /// What CPU `cpu`, which comes now, gets wrong.
    pub(crate) fn note_errata(&mut self, cpu: u32, errata: Errata) {
        let features = start::features_of(errata);
        features.for_each(|feature| self.record(Record::Feature { cpu: Some(cpu), feature }));
    }

    /// CPU `cpu` is there, in the tables in force.
    pub(crate) fn find_pe(&mut self, cpu: u32) {
        let instruction = self.next_instruction(cpu);
        start::found(cpu, instruction, self.root, &Self::translation())
            .into_iter()
            .for_each(|record| self.record(record));
    }

    /// CPU `cpu` is started, and comes into the tables in force by boot/secondary.S.
    pub(crate) fn start_pe(&mut self, cpu: u32) {
        self.emit(cpu, Event::Start { exception_level: 2 });
        let steps = expansion::secondary(self.root, &Self::translation());
        steps.into_iter().for_each(|step| self.emit(cpu, step));
    }

    /// The registers of its CPUs.
    pub(crate) fn translation() -> Translation {
        start::translation(Self::SHAPE)
    }

    /// What must hold when a request returns: nothing is owed.
    pub(crate) fn settle(&mut self) {
        self.emit(0, Event::Settled);
    }

    /// The end of the recording: the machine has stopped by itself.
    pub(crate) fn end(&mut self) {
        for cpu in 0..self.instructions.len() {
            self.record(Record::Count { cpu: cpu as u32, instructions: self.instructions[cpu] });
        }
        self.record(Record::End(End::Exit));
    }

    /// The supply has handed `span` out.
    pub(crate) fn take(&mut self, span: PhysSpan) {
        self.emit(0, Event::Take { pa: span.start().raw(), bytes: span.bytes() });
    }

    /// The supply has taken `span` back.
    pub(crate) fn give(&mut self, span: PhysSpan) {
        self.emit(0, Event::Give { pa: span.start().raw(), bytes: span.bytes() });
    }

    /// Everything so far, the start included.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// How long the recording is: a place in it.
    pub(crate) fn now(&self) -> usize {
        self.records.len()
    }

    /// The steps since a place in the recording.
    pub(crate) fn events_since(&self, from: usize) -> impl Iterator<Item = &Event> {
        self.records[from..].iter().filter_map(super::step::event_of)
    }

    /// How many steps were judged.
    pub(crate) fn judged(&self) -> Judged {
        self.judged
    }

    /// What the judge and the windows have to complain of.
    fn complaints(&self) -> Vec<String> {
        let judged = self.judge.violations().iter().map(ToString::to_string);
        judged.chain(self.trespasses.iter().cloned()).collect()
    }

    /// Nothing was done that may not be; `when` says after what.
    ///
    /// # Panics
    /// With the complaints and the recording as a trace, ready for `cargo xtask judge`.
    pub(crate) fn assert_clean(&self, when: &str) {
        self.verdict().unwrap_or_else(|complaint| panic!("{when}: {complaint}"));
    }

    /// What is wrong, if something is, and the recording as a trace.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        if self.judge.violations().is_empty() && self.trespasses.is_empty() {
            return Ok(());
        }
        Err(format!("{}\n{}", self.complaints().join("\n"), self.trace()))
    }

    /// The recording in its text form, or where it was written because it is long.
    pub(crate) fn trace(&self) -> String {
        let mut text = format!("{HEADER}\n");
        self.records.iter().for_each(|record| writeln!(text, "{record}").expect("a string takes it"));
        if self.records.len() <= PRINTED_LINES {
            return text;
        }
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("counterexample.trace");
        match std::fs::write(&file, text) {
            Ok(()) => format!("the trace is in {}", file.display()),
            Err(error) => format!("the trace is long, and cannot be written: {error}"),
        }
    }

    /// The descriptor at a physical address.
    pub(crate) fn word(&self, address: u64) -> u64 {
        let offset = address & (Self::SHAPE.page_bytes() - 1);
        self.table(address - offset).map_or(POISON, |words| words[offset as usize / 8])
    }

    /// A frame's words, if anybody has written to it.
    pub(crate) fn table(&self, frame: u64) -> Option<&[u64]> {
        const ZEROS: &[u64] = &[0; 8192];
        self.memory.get(&frame).map(|words| words.as_deref().unwrap_or(&ZEROS[..Self::SHAPE.words()]))
    }

    /// Puts a descriptor into memory behind the manager's and the judge's back.
    pub(crate) fn plant(&mut self, slot: Slot, value: u64) {
        self.write(slot.address().raw(), value);
    }

    /// All of memory, to compare with later.
    pub(crate) fn snapshot(&self) -> BTreeMap<u64, Words> {
        self.memory.clone()
    }

    pub(super) fn write(&mut self, address: u64, value: u64) {
        let offset = address & (Self::SHAPE.page_bytes() - 1);
        let poison = || Some(vec![POISON; Self::SHAPE.words()].into());
        let words = self.memory.entry(address - offset).or_insert_with(poison);
        let words = words.get_or_insert_with(|| start::zeros(Self::SHAPE).into());
        Arc::make_mut(words)[offset as usize / 8] = value;
    }

    fn next_instruction(&mut self, cpu: u32) -> u64 {
        let cpu = cpu as usize;
        if self.instructions.len() <= cpu {
            self.instructions.resize(cpu + 1, 0);
        }
        self.instructions[cpu] += 1;
        self.instructions[cpu]
    }

    /// One step of a CPU.
    pub(crate) fn emit(&mut self, cpu: u32, event: Event) {
        self.emit_at(cpu, 0, event);
    }

    /// A CPU goes on at `pc`.
    pub(crate) fn fetch(&mut self, cpu: u32, pc: u64) {
        self.emit_at(cpu, pc, Event::Fetch { instructions: 1 });
    }

    fn emit_at(&mut self, cpu: u32, pc: u64, event: Event) {
        if self.forgets.is_some_and(|forgets| forgets(&event)) {
            return;
        }
        let instruction = self.next_instruction(cpu);
        self.record(Record::Step(Step { cpu, instruction, pc, event }));
        self.judged.steps += 1;
    }

    fn record(&mut self, record: Record) {
        // The header is line 1.
        self.judge.step(self.records.len() as u64 + 2, &record);
        self.records.push(record);
    }

    /// Where the manager reaches a frame.
    pub(super) fn address(&self, frame: u64) -> u64 {
        match self.reachable {
            None => self.window.unwrap_or(WINDOW) + frame,
            Some(Reachable { image, link_offset, .. })
                if image.start().raw() <= frame && frame < image.end_exclusive().raw() =>
            {
                frame.wrapping_add(link_offset)
            }
            Some(Reachable { directmap_offset, .. }) => frame + directmap_offset,
        }
    }

    /// The manager writes to a frame: may it?
    pub(super) fn touch(&mut self, frame: u64) {
        let holds = |span: &&PhysSpan| span.start().raw() <= frame && frame < span.end_exclusive().raw();
        if let Some(span) = self.forbidden.iter().find(holds) {
            self.trespasses.push(format!("{frame:#x} is written, of {span:?}"));
        }
        let Some(Reachable { image, directmap_offset, .. }) = self.reachable else { return };
        let mapped = || raw::translate(self, self.root, frame + directmap_offset) == Some(frame);
        if !holds(&&image) && !mapped() {
            self.trespasses.push(format!("{frame:#x} is written, where no window reaches"));
        }
    }
}
