//! Replays a trace and takes the figures.
//!
//! Memory is its caller's: who judges a recording knows it already, and a second copy would cost as much as the rest.

use rustc_hash::FxHashMap;
use std::io::BufRead;

use anyhow::{Context, Result, bail, ensure};
use breakwater_oracle::maintenance::stored_words;
use breakwater_oracle::regime::Control;
use breakwater_oracle::tables::{Memory, Root, Tree, WordChange, Words};
use breakwater_trace::{End, Event, Operation, Reader, Record, Register, Step};

use super::cpu::MeasuredCpu;
use super::history::{History, StoredTwice, TableStores};
use super::live::Live;
use super::result::{Measurement, Milestone, RootSwitch};
use crate::loader::Loaded;

/// A straight run is a translation block of QEMU's, which never grows longer.
const LONGEST_RUN: u64 = 512;

/// A replay in progress.
#[derive(Default)]
pub(crate) struct Replay {
    cpus: Vec<MeasuredCpu>,
    boot_cpu: Option<u32>,
    /// The trees below all roots in force.
    trees: FxHashMap<Root, Tree>,
    live: Live,
    live_stores: u64,
    /// Until the boot CPU's first switch, where stores to tables are asked for.
    history: Option<History>,
    first_tables: TableStores,
    runtime_tables: TableStores,
    stored_twice: Vec<StoredTwice>,
    runtime_root: Option<RootSwitch>,
    image: (u64, u64),
    entered: Option<u64>,
    /// Executions by address, up to the runtime root, and the run of instructions that is under way.
    profile: FxHashMap<u64, u64>,
    run: Option<(u64, u64, u64)>,
}

/// What a replay found, and how often the boot CPU executed each address before its runtime root was in force.
pub(super) struct Replayed {
    pub(super) measurement: Measurement,
    pub(super) profile: FxHashMap<u64, u64>,
}

/// Replays `trace` over memory that holds `loaded`; the first of them is the image.
///
/// # Errors
/// A malformed or cut-off trace, with its line; an unsupported translation regime; more stores before the first root
/// switch than are remembered; a load address that is no multiple of 8.
pub(super) fn replay(trace: impl BufRead, loaded: &[Loaded]) -> Result<Replayed> {
    let mut replay = Replay { history: Some(History::default()), ..Replay::new(loaded)? };
    let mut memory = Memory::default();
    loaded.iter().for_each(|file| file.declare(&mut memory));
    let mut reader = Reader::new(trace);
    while let Some(record) = reader.next_record()? {
        if let Record::End(end) = record {
            return Ok(replay.finish(end));
        }
        let changes = replay.changes(&record, &memory);
        changes.iter().for_each(|change| memory.declare(change.pa, change.new));
        if let Record::Word { pa, value } = record {
            memory.declare(pa, value);
        }
        replay.record(&record, &changes, &memory).with_context(|| format!("trace line {}", reader.line()))?;
    }
    bail!("the trace breaks off after line {}: it has no end record", reader.line().saturating_sub(1))
}

impl Replay {
    /// Before the first record, with `loaded` in memory; the first of them is the image. Stores to tables are not
    /// counted: for that all stores up to the first root switch are needed, and a kernel that switches late, or never,
    /// has hundreds of millions.
    ///
    /// # Errors
    /// A load address that is no multiple of 8.
    pub(crate) fn new(loaded: &[Loaded]) -> Result<Self> {
        let mut replay = Self::default();
        for file in loaded {
            ensure!(file.pa.is_multiple_of(8), "the load address {:#x} is no multiple of 8", file.pa);
        }
        if let Some(Loaded { pa, bytes }) = loaded.first() {
            replay.image = (*pa, *pa + bytes.len() as u64);
        }
        Ok(replay)
    }

    /// What `record`, which comes next, does to the words of `memory`. Without a history only those of tables count.
    pub(crate) fn changes(&self, record: &Record, memory: &impl Words) -> Vec<WordChange> {
        let Record::Step(step) = record else { return Vec::new() };
        // Nearly no store is to a table.
        let counts = |pa: &u64| self.history.is_some() || self.trees.values().any(|tree| tree.reads(*pa));
        let change = |(pa, mask, bits): (u64, u64, u64)| {
            let old = memory.word(pa);
            WordChange { pa, old, new: (old & !mask) | bits }
        };
        match step.event {
            Event::Store(access) if !access.device => {
                stored_words(&access).filter(|(pa, ..)| counts(pa)).map(change).collect()
            }
            Event::Maintain { operation, operand } if operation.zeroes() => {
                let Some((first, bytes)) = self.zeroed(step, operand, memory) else { return Vec::new() };
                let words = (first..first + bytes).step_by(8).filter(counts);
                words.map(|pa| change((pa, u64::MAX, 0))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Follows one record, but for the last, over `memory` after it. `changes` are [`Replay::changes`] of it.
    ///
    /// # Errors
    /// An unsupported translation regime; a CPU whose instruction numbers go backwards; more stores than are
    /// remembered.
    pub(crate) fn record(&mut self, record: &Record, changes: &[WordChange], memory: &impl Words) -> Result<()> {
        match record {
            Record::Word { .. } | Record::Memory { .. } | Record::Feature { .. } | Record::End(_) => {}
            Record::Step(step) => self.step(step, changes, memory)?,
            Record::Count { cpu, instructions } => self.cpu(*cpu).account(*instructions)?,
        }
        Ok(())
    }

    /// What was measured, without the profile.
    pub(crate) fn measured(self, end: End) -> Measurement {
        self.finish(end).measurement
    }

    fn cpu(&mut self, cpu: u32) -> &mut MeasuredCpu {
        for index in self.cpus.len() as u32..=cpu {
            self.cpus.push(MeasuredCpu::new(index));
        }
        &mut self.cpus[cpu as usize]
    }

    fn step(&mut self, step: &Step, changes: &[WordChange], memory: &impl Words) -> Result<()> {
        let Step { cpu, instruction, pc, event } = *step;
        self.boot_cpu.get_or_insert(cpu);
        // These come before the instruction that they name; every other event comes with it.
        let before =
            matches!(event, Event::Start { .. } | Event::Found { .. } | Event::Fetch { .. } | Event::Exception { .. });
        let executed = if before { instruction.saturating_sub(1) } else { instruction };
        let state = self.cpu(cpu);
        state.account(executed)?;
        state.levels.follow(pc, &event);
        match event {
            Event::Start { exception_level } => self.cpu(cpu).figures.start = Some((pc, exception_level)),
            Event::Found { register, value } | Event::Msr { register, value } => {
                self.write_register(step, register, value, memory)?;
            }
            Event::Store(access) => {
                state.levels.note_access(access.va, access.pa);
                state.accessed(true);
                self.changed(step, changes, memory)?;
            }
            Event::Load(access) => {
                state.levels.note_access(access.va, access.pa);
                state.accessed(false);
            }
            Event::Maintain { operation, .. } => self.maintain(step, operation, changes, memory)?,
            Event::Dsb(barrier) if barrier.orders_everything() => self.live.synchronised(cpu),
            Event::Isb => self.synchronise(cpu, instruction, memory)?,
            Event::Exception { .. } => self.cpu(cpu).figures.exceptions += 1,
            Event::Fetch { instructions } => self.fetch(step, u64::from(instructions)),
            _ => {}
        }
        Ok(())
    }

    fn write_register(&mut self, step: &Step, register: Register, value: u64, memory: &impl Words) -> Result<()> {
        let Step { cpu: index, instruction, pc, event } = *step;
        let was_on = self.cpu(index).regime.mmu_on();
        let cpu = self.cpu(index);
        cpu.zeroed_block.find(register, value);
        match (Control::of(register), event) {
            (Some(Control::Sctlr), Event::Msr { .. }) => cpu.set_sctlr(instruction, pc, value),
            (Some(Control::Ttbr0), Event::Msr { .. }) => cpu.set_ttbr0(instruction, pc, value),
            (Some(control), _) => cpu.regime.set(control, value),
            (None, _) => return Ok(()),
        }
        self.put_in_force(index, matches!(event, Event::Found { .. }), memory)?;
        let on = self.cpu(index).regime.mmu_on();
        if !was_on && on && self.cpu(index).figures.enables.len() == 1 && self.boot_cpu == Some(index) {
            self.first_tables = self.stores_to_root_of(index);
        }
        Ok(())
    }

    /// Brings the set of trees, and every CPU's exposure, in line with the registers. While their first values are being
    /// declared, one by one, they need not make sense.
    fn put_in_force(&mut self, index: u32, declaring: bool, memory: &impl Words) -> Result<()> {
        let cpu = self.cpu(index);
        cpu.root = match Root::of(&cpu.regime) {
            _ if !cpu.regime.mmu_on() => None,
            Err(_) if declaring => None,
            root => Some(root.map_err(anyhow::Error::msg)?),
        };
        if let Some(root) = cpu.root {
            self.trees.entry(root).or_insert_with(|| Tree::new(root, memory));
        }
        let in_force: Vec<Root> = self.cpus.iter().filter_map(|cpu| cpu.root).collect();
        self.trees.retain(|root, _| in_force.contains(root));
        self.expose(index, memory);
        Ok(())
    }

    /// Tells every CPU whether its tables hold a writable and executable leaf, after an event of CPU `own`.
    fn expose(&mut self, own: u32, memory: &impl Words) {
        for tree in self.trees.values_mut() {
            tree.refresh(memory);
        }
        for cpu in &mut self.cpus {
            let tree = cpu.root.and_then(|root| self.trees.get(&root));
            cpu.expose(tree.and_then(Tree::exposed), cpu.figures.cpu == own);
        }
    }

    fn changed(&mut self, step: &Step, changes: &[WordChange], memory: &impl Words) -> Result<()> {
        let mut touched = false;
        for change in changes {
            if let Some(history) = &mut self.history {
                history.add(change.pa, step.instruction, change.new)?;
            }
            let place = |tree: &Tree| Some((*tree.format(), tree.level_of(change.pa)?));
            if let Some((format, level)) = self.trees.values().find_map(place) {
                self.live.changed(step, *change, &format, level);
                self.live_stores += 1;
            }
            for tree in self.trees.values_mut() {
                touched |= tree.follow(*change);
            }
        }
        if touched {
            self.expose(step.cpu, memory);
        }
        Ok(())
    }

    fn maintain(
        &mut self,
        step: &Step,
        operation: Operation,
        changes: &[WordChange],
        memory: &impl Words,
    ) -> Result<()> {
        if operation.invalidates_el2() {
            self.live.invalidated(step.cpu);
        }
        if operation.zeroes() {
            self.cpu(step.cpu).accessed(true);
            self.changed(step, changes, memory)?;
        }
        Ok(())
    }

    /// What a DC ZVA of this CPU zeroes: where, and how many bytes. An unmapped address faults instead.
    fn zeroed(&self, step: &Step, operand: u64, memory: &impl Words) -> Option<(u64, u64)> {
        let cpu = self.cpus.get(step.cpu as usize)?;
        let mut levels = cpu.levels.clone();
        levels.follow(step.pc, &step.event);
        let va = cpu.zeroed_block.start(operand);
        let pa = match cpu.root.and_then(|root| self.trees.get(&root)) {
            _ if !levels.is_el2() => levels.physical(va, cpu.regime.hcr)?,
            Some(tree) => tree.translate(memory, va)?,
            None => va,
        };
        Some((pa, cpu.zeroed_block.bytes()))
    }

    fn stores_to_root_of(&self, cpu: u32) -> TableStores {
        let root = self.cpus[cpu as usize].root;
        let tree = root.and_then(|root| self.trees.get(&root));
        match (&self.history, tree) {
            (Some(history), Some(tree)) => history.stores_to(tree),
            _ => TableStores::default(),
        }
    }

    fn synchronise(&mut self, index: u32, instruction: u64, memory: &impl Words) -> Result<()> {
        let switch = self.cpu(index).synchronised(instruction);
        if self.boot_cpu != Some(index) || self.runtime_root.is_some() || switch.is_none() {
            return Ok(());
        }
        self.runtime_root = switch;
        self.runtime_tables = self.stores_to_root_of(index);
        let tree = self.cpu(index).root.and_then(|root| self.trees.get(&root));
        if let (Some(history), Some(tree)) = (&self.history, tree) {
            self.stored_twice = history.stored_twice(tree, memory);
        }
        self.history = None;
        self.end_run(instruction.saturating_add(1));
        Ok(())
    }

    fn fetch(&mut self, step: &Step, instructions: u64) {
        if self.boot_cpu != Some(step.cpu) || self.runtime_root.is_some() {
            return;
        }
        self.end_run(step.instruction);
        self.run = Some((step.pc, step.instruction, instructions.min(LONGEST_RUN)));
        if (self.image.0..self.image.1).contains(&step.pc) {
            self.entered.get_or_insert(step.instruction);
        }
    }

    /// Counts the run under way; `next` is the ordinal of the first instruction that no longer belongs to it.
    fn end_run(&mut self, next: u64) {
        let Some((pc, first, longest)) = self.run.take() else { return };
        for index in 0..next.saturating_sub(first).min(longest) {
            *self.profile.entry(pc.wrapping_add(4 * index)).or_insert(0) += 1;
        }
    }

    fn finish(self, end: End) -> Replayed {
        let milestones = self.milestones();
        let measurement = Measurement {
            end,
            exit_status: None,
            boot_cpu: self.boot_cpu.unwrap_or(0),
            to_runtime_root: self.runtime_root.map(|switch| switch.in_force),
            first_tables: self.first_tables,
            runtime_tables: self.runtime_tables,
            live_stores: self.live_stores,
            milestones,
            profile: Vec::new(),
            stored_twice: self.stored_twice,
            live_changes: self.live.found,
            cpus: self.cpus.into_iter().map(|cpu| cpu.figures).collect(),
        };
        Replayed { measurement, profile: self.profile }
    }

    fn milestones(&self) -> Vec<Milestone> {
        let boot = self.boot_cpu.and_then(|cpu| self.cpus.get(cpu as usize));
        let enable = boot.and_then(|cpu| cpu.figures.enables.first()).map(|enable| enable.instruction);
        let (first, runtime, switch) = (self.first_tables, self.runtime_tables, self.runtime_root);
        let stores = |tables: TableStores, at: u64| (tables.stores > 0).then_some(at);
        let points = [
            ("first instruction", boot.map(|_| 1)),
            ("image entered", self.entered),
            ("first store to the first tables", stores(first, first.first)),
            ("last store to the first tables", stores(first, first.last)),
            ("MMU on", enable),
            ("first store to the runtime tables", stores(runtime, runtime.first)),
            ("last store to the runtime tables", stores(runtime, runtime.last)),
            ("switch begins", switch.map(|switch| switch.began)),
            ("MMU on again", switch.filter(|switch| !switch.mmu_on).map(|switch| switch.began + switch.mmu_off)),
            ("runtime root in force", switch.map(|switch| switch.in_force)),
        ];
        let reached = points.into_iter().filter_map(|(name, at)| at.map(|instruction| Milestone { name, instruction }));
        let mut milestones: Vec<_> = reached.collect();
        milestones.sort_by_key(|milestone| milestone.instruction);
        milestones
    }
}
