//! How many bytes a DC ZVA zeroes, which QEMU 10 shows nobody: neither what is stored nor DCZID_EL0.
//!
//! Why it exists: a judge that takes a block of 256 bytes for one of 64 overlooks three quarters of it. Software has to
//! ask too, and so the answer passes by: it is in a general register once an MRS of DCZID_EL0 has executed. What a CPU has
//! read is written down when the next instruction is about to execute; and of a CPU that zeroes without having asked,
//! before it does, what another one of the same model has read.
//!
//! What must hold: nothing is written down that nobody has read. A block of unknown size is the judge's affair.

use std::collections::{HashMap, HashSet};

/// DCZID_EL0.DZP: DC ZVA is prohibited. Below EL2 it speaks of that level alone.
const DZP: u64 = 1 << 4;
/// The largest DCZID_EL0.BS, bits 3:0: 2 KiB.
const LARGEST: u64 = 9;

/// An MRS of DCZID_EL0 that is about to execute.
#[derive(Clone, Copy)]
struct Reading {
    /// The instruction after it.
    next: u64,
    /// The general register.
    rt: u8,
}

/// One CPU.
#[derive(Clone, Default)]
struct Zeroing {
    /// MIDR_EL1, if QEMU shows it.
    model: Option<u64>,
    reading: Option<Reading>,
    /// What was written down last.
    told: Option<u64>,
}

/// What is known of all CPUs.
pub(crate) struct Blocks {
    cpus: Vec<Zeroing>,
    /// BS by model.
    models: HashMap<u64, u64>,
    /// Where a translation block begins after one that ended with such an MRS.
    ends: HashSet<u64>,
}

impl Blocks {
    /// Nothing known.
    pub(crate) fn new(cpus: usize) -> Self {
        Self { cpus: vec![Zeroing::default(); cpus], models: HashMap::new(), ends: HashSet::new() }
    }

    /// `cpu` begins: of this model, and with this value if QEMU shows it.
    pub(crate) fn starts(&mut self, cpu: u32, model: Option<u64>, told: Option<u64>) {
        if let Some(cpu) = self.cpus.get_mut(cpu as usize) {
            *cpu = Zeroing { model, reading: None, told };
        }
    }

    /// A translation block ends with an MRS of the register; `next` is the instruction after it.
    pub(crate) fn ends_with_read(&mut self, next: u64) {
        self.ends.insert(next);
    }

    /// Whether the block that begins at `pc` comes after one of those.
    pub(crate) fn follows_read(&self, pc: u64) -> bool {
        self.ends.contains(&pc)
    }

    /// `cpu` is about to execute the MRS at `pc`, into general register `rt`.
    pub(crate) fn reads(&mut self, cpu: u32, pc: u64, rt: u8) {
        if let Some(cpu) = self.cpus.get_mut(cpu as usize) {
            cpu.reading = Some(Reading { next: pc.wrapping_add(4), rt });
        }
    }

    /// `cpu` is about to execute the instruction at `pc`: what it has just read, if that is to be written down. Nothing
    /// after an MRS that faulted, which another instruction follows. `general` is the value of a general register.
    pub(crate) fn has_read(&mut self, cpu: u32, pc: u64, is_el2: bool, general: impl Fn(u8) -> u64) -> Option<u64> {
        let cpu = self.cpus.get_mut(cpu as usize)?;
        let Reading { rt, .. } = cpu.reading.take_if(|reading| reading.next == pc)?;
        let value = general(rt);
        // Of another value nobody knows what it means, or where it comes from.
        let is_known = value & !DZP <= LARGEST && (is_el2 || value & DZP == 0);
        if !is_known || cpu.told == Some(value) {
            return None;
        }
        cpu.model.and_then(|model| self.models.insert(model, value & !DZP));
        cpu.told = Some(value);
        cpu.told
    }

    /// `cpu` is about to execute a DC ZVA: what is to be written down before.
    pub(crate) fn zeroes(&mut self, cpu: u32) -> Option<u64> {
        let cpu = self.cpus.get_mut(cpu as usize).filter(|cpu| cpu.told.is_none())?;
        cpu.told = self.models.get(&cpu.model?).copied();
        cpu.told
    }
}
