//! What a measurement says.

use std::collections::HashMap;

use breakwater_trace::End;
use rustc_hash::FxHashMap;

use crate::names::Names;

pub use super::history::{StoredTwice, TableStores};
pub use super::live::LiveChange;
pub use breakwater_oracle::tables::Exposed;

/// A point on the boot CPU's way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Milestone {
    /// What happened.
    pub name: &'static str,
    /// The ordinal of the instruction that did it.
    pub instruction: u64,
}

/// M went from 0 to 1: what the regime's registers held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Enable {
    /// Ordinal of the instruction.
    pub instruction: u64,
    /// Its address.
    pub pc: u64,
    /// SCTLR_EL2 as written.
    pub sctlr: u64,
    /// TTBR0_EL2.
    pub ttbr0: u64,
    /// TCR_EL2.
    pub tcr: u64,
    /// MAIR_EL2.
    pub mair: u64,
    /// True if SCTLR_EL2.WXN was set by an earlier write, with M = 0.
    pub wxn_before: bool,
}

/// Another root, or the same one after a while with the MMU off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RootSwitch {
    /// TTBR0_EL2 before.
    pub from: u64,
    /// TTBR0_EL2 after.
    pub to: u64,
    /// Ordinal of the instruction that cleared M, or that wrote TTBR0_EL2 with the MMU on.
    pub began: u64,
    /// Its address.
    pub pc: u64,
    /// True if TTBR0_EL2 was written with the MMU on.
    pub mmu_on: bool,
    /// Instructions executed with M = 0, the one that sets M included.
    pub mmu_off: u64,
    /// Loads among them.
    pub loads: u64,
    /// Stores among them.
    pub stores: u64,
    /// Ordinal of the ISB after which the root is in force.
    pub in_force: u64,
}

/// The figures of one CPU.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuFigures {
    /// Its index.
    pub cpu: u32,
    /// Where it executed its first instruction, and at which exception level, if it ever did.
    pub start: Option<(u64, u8)>,
    /// Instructions executed.
    pub instructions: u64,
    /// Those with M = 1.
    pub mmu_on: u64,
    /// Those with M = 1 and WXN = 0 while some leaf is writable and executable in effective rights.
    pub writable_executable: u64,
    /// The last of them.
    pub writable_executable_until: u64,
    /// Those with M = 1 while some leaf is writable and executable but for WXN.
    pub writable_executable_leaves: u64,
    /// One such leaf.
    pub writable_executable_leaf: Option<Exposed>,
    /// Each time M went from 0 to 1.
    pub enables: Vec<Enable>,
    /// Each root switch.
    pub switches: Vec<RootSwitch>,
    /// Exceptions taken to EL2.
    pub exceptions: u64,
}

/// Where instructions went before the runtime root was in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// Symbol, or page of code where there is none.
    pub place: String,
    /// Instructions.
    pub instructions: u64,
}

/// Everything measured from one trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measurement {
    /// Why the recording ended.
    pub end: End,
    /// QEMU's exit status, where it was run here and had one.
    pub exit_status: Option<i32>,
    /// The CPU that executed the first instruction.
    pub boot_cpu: u32,
    /// Instructions of the boot CPU from its first to the ISB after which its second root is in force, both included.
    pub to_runtime_root: Option<u64>,
    /// Stores to the first tables, until the MMU was on.
    pub first_tables: TableStores,
    /// Stores to the runtime tables, until they were in force.
    pub runtime_tables: TableStores,
    /// Stores to words of tables in force.
    pub live_stores: u64,
    /// The boot CPU's way to the runtime root, in order.
    pub milestones: Vec<Milestone>,
    /// The same instructions by symbol, most first, when fetches were recorded.
    pub profile: Vec<Share>,
    /// Slots of the runtime tables stored more than once before they were in force.
    pub stored_twice: Vec<StoredTwice>,
    /// Live descriptors replaced without break-before-make.
    pub live_changes: Vec<LiveChange>,
    /// Every CPU that appears in the trace.
    pub cpus: Vec<CpuFigures>,
}

/// What a measurement must keep to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest [`Measurement::to_runtime_root`].
    pub to_runtime_root: u64,
    /// Largest [`RootSwitch::mmu_off`].
    pub mmu_off: u64,
}

impl Limits {
    /// What this project promises of its image: 2 % more than the 8,795 instructions of the pinned compiler; and the
    /// window of its root switch, to the instruction.
    pub const PROMISED: Self = Self { to_runtime_root: 8_970, mmu_off: 7 };
    /// What another compiler may take.
    pub const OF_ANY_COMPILER: Self = Self { to_runtime_root: 10_000, ..Self::PROMISED };
}

impl Measurement {
    /// Every promise that this measurement breaks, in words; empty if it keeps them all.
    pub fn broken_promises(&self, limits: Limits) -> Vec<String> {
        let mut broken = Vec::new();
        match self.to_runtime_root {
            None => broken.push("the boot CPU never had a second root in force".into()),
            Some(instructions) if instructions > limits.to_runtime_root => broken
                .push(format!("{instructions} instructions to the runtime root, more than {}", limits.to_runtime_root)),
            Some(_) => {}
        }
        for twice in &self.stored_twice {
            broken.push(format!("slot {:#x} of the runtime tables was stored {} times", twice.slot, twice.stores));
        }
        for change in &self.live_changes {
            let LiveChange { cpu, pc, slot, old, new, missing, .. } = change;
            broken.push(format!(
                "CPU {cpu} at {pc:#x} changed live slot {slot:#x} from {old:#x} to {new:#x} without {missing}"
            ));
        }
        for cpu in &self.cpus {
            cpu.broken_promises(limits, &mut broken);
        }
        broken
    }
}

impl CpuFigures {
    fn broken_promises(&self, limits: Limits, broken: &mut Vec<String>) {
        let Self { cpu, writable_executable_leaves: exposed, .. } = self;
        if let (1.., Some(leaf)) = (*exposed, self.writable_executable_leaf) {
            let Exposed { va, descriptor, .. } = leaf;
            broken.push(format!(
                "CPU {cpu}: {exposed} instructions with {va:#x} writable and executable ({descriptor:#x})"
            ));
        }
        if self.start.is_some() && self.enables.is_empty() {
            broken.push(format!("CPU {cpu} never turned its MMU on"));
        }
        for enable in self.enables.iter().filter(|enable| !enable.wxn_before) {
            broken.push(format!("CPU {cpu}: WXN was not in force before M at instruction {}", enable.instruction));
        }
        for switch in &self.switches {
            let RootSwitch { began, mmu_off, loads, stores, .. } = switch;
            if switch.mmu_on {
                broken.push(format!("CPU {cpu}: root switched with the MMU on at instruction {began}"));
            }
            if *mmu_off > limits.mmu_off {
                broken
                    .push(format!("CPU {cpu}: {mmu_off} instructions with the MMU off, more than {}", limits.mmu_off));
            }
            if loads + stores > 0 {
                broken.push(format!(
                    "CPU {cpu}: {loads} loads and {stores} stores with the MMU off at instruction {began}"
                ));
            }
        }
    }
}

/// Sums a profile by symbol, or by page where there is none, most first.
pub(super) fn shares(profile: &FxHashMap<u64, u64>, names: &Names) -> Vec<Share> {
    let mut by_name: HashMap<String, u64> = HashMap::new();
    for (pc, executions) in profile {
        let place = names.place(*pc).map_or_else(|| format!("page {:#x}", pc & !0xfff), |(name, _)| name.to_owned());
        *by_name.entry(place).or_default() += executions;
    }
    let shares = by_name.into_iter().map(|(place, instructions)| Share { place, instructions });
    let mut shares: Vec<_> = shares.collect();
    shares.sort_by(|one, other| other.instructions.cmp(&one.instructions).then(one.place.cmp(&other.place)));
    shares
}
