//! What can only be said with the tables at hand: which stores go to tables, which of those break a descriptor, and while which
//! instructions memory was both writable and executable.
//!
//! A frame is known to be a table only once a root leads to it. So the stores to every frame are remembered, a few runs a
//! frame, and handed out when the frame turns out to be one.

use breakwater_oracle::descriptor::Descriptor;
use breakwater_oracle::maintenance::ZeroedBlock;
use breakwater_oracle::regime::{Control, Controls};
use breakwater_oracle::tables::{Memory, Root, Tree, WordChange};
use breakwater_trace::{Access, Event, Register, Step};
use rustc_hash::{FxHashMap, FxHashSet};

use super::mark::{MarkKind, Point, Run};
use crate::loader::Loaded;

const FRAME: u64 = !0xfff;
/// Instructions between two stores to a frame beyond which they are different uses of it.
const SAME_USE: u64 = 50_000;
/// Uses of one frame that are remembered: the last ones.
const MOST_USES: usize = 4;

/// What a CPU translates by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct TranslationState {
    /// SCTLR_EL2.M.
    pub(super) is_on: bool,
    /// SCTLR_EL2.WXN.
    pub(super) wxn: bool,
    /// TTBR0_EL2.
    pub(super) ttbr0: u64,
    /// The tables in force hold a leaf that is writable and executable, WXN aside.
    pub(super) is_exposed: bool,
}

#[derive(Clone, Copy, Default)]
struct TranslatingCpu {
    controls: Controls,
    zeroed_block: ZeroedBlock,
    root: Option<Root>,
}

/// Stores of one CPU to one frame, close to each other.
struct Use {
    cpu: u32,
    run: Run,
}

/// Memory, the trees below every root in force, and who uses which.
#[derive(Default)]
pub(super) struct Follow {
    memory: Memory,
    cpus: Vec<TranslatingCpu>,
    trees: FxHashMap<Root, Tree>,
    uses: FxHashMap<u64, Vec<Use>>,
    /// Frames of the trees in force.
    tables: FxHashSet<u64>,
    /// Fills that became known and were not asked for yet.
    filled: Vec<(u32, Run)>,
}

impl Follow {
    /// What memory holds before the first instruction.
    pub(super) fn declare_file(&mut self, file: &Loaded) {
        file.declare(&mut self.memory);
    }

    /// The word at `pa`, a multiple of 8, holds `value` before the first instruction.
    pub(super) fn declare(&mut self, pa: u64, value: u64) {
        self.memory.declare(pa & !7, value);
    }

    /// Follows one step; the kinds of table stores that it was, one for each descriptor.
    pub(super) fn step(&mut self, line: u64, step: &Step) -> Vec<MarkKind> {
        match step.event {
            Event::Found { register, value } | Event::Msr { register, value } => {
                self.write_register(step.cpu, register, value);
                Vec::new()
            }
            Event::Store(access) if !access.device => self.store(line, step, &access),
            Event::Maintain { operation, operand } if operation.zeroes() => self.zero(line, step, operand),
            _ => Vec::new(),
        }
    }

    /// What CPU `cpu` translates by now.
    pub(super) fn state(&self, cpu: u32) -> TranslationState {
        let Some(cpu) = self.cpus.get(cpu as usize) else { return TranslationState::default() };
        let Controls { ttbr0, .. } = cpu.controls;
        let is_on = cpu.controls.mmu_on();
        let leaf = cpu.root.and_then(|root| self.trees.get(&root)?.exposed());
        TranslationState { is_on, wxn: cpu.controls.wxn(), ttbr0, is_exposed: is_on && leaf.is_some() }
    }

    /// The fills that became known since this was called last, and whose they are.
    pub(super) fn take_fills(&mut self) -> Vec<(u32, Run)> {
        std::mem::take(&mut self.filled)
    }

    fn write_register(&mut self, cpu: u32, register: Register, value: u64) {
        let index = cpu as usize;
        if self.cpus.len() <= index {
            self.cpus.resize_with(index + 1, TranslatingCpu::default);
        }
        let cpu = &mut self.cpus[index];
        cpu.zeroed_block.find(register, value);
        let Some(control) = Control::of(register) else { return };
        cpu.controls.set(control, value);
        // A regime that is not understood is not followed: its stores are then no table stores.
        cpu.root = cpu.controls.mmu_on().then(|| Root::of(&cpu.controls).ok()).flatten();
        if let Some(root) = cpu.root {
            self.trees.entry(root).or_insert_with(|| Tree::new(root, &self.memory));
        }
        let in_force: Vec<Root> = self.cpus.iter().filter_map(|cpu| cpu.root).collect();
        self.trees.retain(|root, _| in_force.contains(root));
        self.refresh();
    }

    /// Brings the trees up to date, and finds the frames that have become tables.
    fn refresh(&mut self) {
        for tree in self.trees.values_mut() {
            tree.refresh(&self.memory);
        }
        let tables: FxHashSet<u64> = self.trees.values().flat_map(Tree::frames).collect();
        for frame in tables.difference(&self.tables) {
            let uses = self.uses.remove(frame).unwrap_or_default();
            self.filled.extend(uses.into_iter().map(|Use { cpu, run }| (cpu, run)));
        }
        self.tables = tables;
    }

    fn store(&mut self, line: u64, step: &Step, access: &Access) -> Vec<MarkKind> {
        let changes = self.memory.store(access);
        self.changed(line, step, &changes)
    }

    fn zero(&mut self, line: u64, step: &Step, operand: u64) -> Vec<MarkKind> {
        let TranslatingCpu { zeroed_block: block, root, .. } =
            self.cpus.get(step.cpu as usize).copied().unwrap_or_default();
        let va = block.start(operand);
        let pa = match root.and_then(|root| self.trees.get(&root)) {
            Some(tree) => tree.translate(&self.memory, va),
            None => Some(va),
        };
        // An unmapped address faults instead of being zeroed.
        let Some(pa) = pa else { return Vec::new() };
        let changes = self.memory.zero(pa, block.bytes());
        self.changed(line, step, &changes)
    }

    fn changed(&mut self, line: u64, step: &Step, changes: &[WordChange]) -> Vec<MarkKind> {
        let mut kinds = Vec::new();
        let mut touched = false;
        for change in changes {
            let place = |tree: &Tree| Some((*tree.format(), tree.level_of(change.pa)?));
            if let Some((format, level)) = self.trees.values().find_map(place) {
                let is_valid = |word| format.decode(word, level) != Descriptor::Invalid;
                let broke = is_valid(change.old) && !is_valid(change.new);
                kinds.push(if broke { MarkKind::Break } else { MarkKind::Store });
                for tree in self.trees.values_mut() {
                    touched |= tree.follow(*change);
                }
            } else {
                self.remember(line, step, change.pa & FRAME);
            }
        }
        if touched {
            self.refresh();
        }
        kinds
    }

    fn remember(&mut self, line: u64, step: &Step, frame: u64) {
        let one = Run::new(MarkKind::Fill, None, Point { line, instruction: step.instruction });
        let uses = self.uses.entry(frame).or_default();
        let same = uses.last_mut().filter(|last| {
            last.cpu == step.cpu && step.instruction.saturating_sub(last.run.last.instruction) <= SAME_USE
        });
        match same {
            Some(last) => last.run.absorb(&one),
            None => {
                if uses.len() >= MOST_USES {
                    uses.remove(0);
                }
                uses.push(Use { cpu: step.cpu, run: one });
            }
        }
    }
}
