//! The tables in force, held against the declared map: the last of the four levels of verification, on the target.
//!
//! Why it exists: the manager may be wrong in the same way wherever it looks, and its model may be too. So this walker shares no code with
//! it: it starts at the root, reads every slot of every table that a walk can reach, and decodes the bits by itself (what it takes
//! from `descriptor.rs` is the vocabulary of declarations, and the value of MAIR_EL2).
//!
//! What must hold, and is a [`Finding`] otherwise:
//! - each byte that a leaf maps is declared, with that output address and exactly those attributes; what is declared is mapped, and what
//!   is declared to be a hole is one;
//! - no address is writable and executable, hierarchical bits of table descriptors counted; no frame is writable through one address
//!   and executable through another; no frame is mapped with two memory types or shareabilities; Device memory is execute-never;
//! - Normal memory lies in RAM and not in `no-map` regions; so do the tables, each of which is reached by one way only, is nowhere
//!   executable and, where mapped, Normal;
//! - leaves that say they are a contiguous run are one: aligned, whole, and alike but for their addresses;
//! - no descriptor has a bit that this image never writes: nT, nG, NS, DBM, PBHA, software bits, hierarchical bits,
//!   address bits below a block's alignment; AF and AP\[1\] are set; an invalid descriptor is 0: what was broken has been reclaimed.
//!
//! No bit of any slot is exempt but bit 55 of a table, the manager's mark of one that stays when it is empty: whichever one flips, a finding
//! follows (tests, `bad_every_bit_of_every_descriptor_counts`).

#![forbid(unsafe_code)]

mod bits;
mod finding;
mod judge;
mod walker;

pub use bits::Seen;
pub use finding::{Finding, Position};

use crate::addr::{Frame, PAGE_BYTES, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::descriptor::Attributes;
use crate::walk::ReadTable;

/// What a part of the map is meant to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Declared {
    /// What people call it.
    pub name: &'static str,
    /// Where it is, in whole pages.
    pub virt: VirtSpan,
    /// The physical address of its first byte, the others following; `None` for a hole, where nothing may be mapped.
    pub output: Option<PhysAddr>,
    /// Memory type and rights; of a hole, nothing.
    pub attributes: Attributes,
}

/// Scratch space of the audit: leaves that follow each other in virtual and physical addresses with the same attributes, or a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scratch {
    virt: VirtSpan,
    phys: PhysAddr,
    seen: Seen,
}

impl Scratch {
    /// Nothing.
    pub const EMPTY: Self = Self {
        virt: match VirtSpan::of(VirtAddr::at(0), 0) {
            Some(span) => span,
            None => panic!("an empty span at 0"),
        },
        phys: PhysAddr::at(0),
        seen: Seen::NOTHING,
    };

    const fn phys(&self) -> PhysSpan {
        // A leaf is aligned to its size and has at most 48 bits of address, so its end is at most 2^48; runs end where leaves do.
        match PhysSpan::of(self.phys, self.virt.bytes()) {
            Some(span) => span,
            None => unreachable!(),
        }
    }

    /// The virtual address of a byte of the run that lies at `phys`.
    fn virt_of(&self, phys: PhysAddr) -> VirtAddr {
        let offset = phys.raw().saturating_sub(self.phys.raw());
        self.virt.start().checked_add(offset).unwrap_or(self.virt.start())
    }

    /// The physical address of a byte of the run that lies at `virt`.
    fn phys_of(&self, virt: VirtAddr) -> PhysAddr {
        let offset = virt.raw().saturating_sub(self.virt.start().raw());
        self.phys.checked_add(offset).unwrap_or(self.phys)
    }
}

/// What the audit found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// 4 KiB pages that are mapped, those of blocks included.
    pub pages: u64,
    /// Leaves by level: 1 GiB blocks at 1, 2 MiB blocks at 2, pages at 3.
    pub leaves: [u64; 4],
    /// Tables, the root included.
    pub tables: u64,
    /// Findings.
    pub mismatches: u32,
    /// 4 KiB pages that are writable and executable through one address.
    pub writable_executable: u64,
    /// The first finding.
    pub first: Option<Finding>,
}

impl Audit {
    fn report(&mut self, finding: Finding) {
        self.mismatches = self.mismatches.saturating_add(1);
        self.first.get_or_insert(finding);
    }

    fn count_leaves(&mut self, level: crate::addr::Level, count: u64) {
        self.pages += count * (level.slot_bytes() / PAGE_BYTES);
        if let Some(leaves) = self.leaves.get_mut(level as usize) {
            *leaves += count;
        }
    }
}

/// What the machine has, for the audit's questions about physical addresses.
#[derive(Clone, Copy, Debug)]
struct Memory<'a> {
    ram: &'a [PhysSpan],
    no_map: &'a [PhysSpan],
}

impl Memory<'_> {
    /// The first part of `span` that is no RAM.
    fn outside_ram(&self, span: PhysSpan) -> Option<PhysSpan> {
        let mut position = span.start();
        while position < span.end_exclusive() {
            let Some(bank) = self.ram.iter().find(|bank| bank.contains(position)) else {
                let later = self.ram.iter().map(|bank| bank.start()).filter(|start| *start > position).min();
                let end_exclusive = later.map_or(span.end_exclusive(), |start| start.min(span.end_exclusive()));
                return PhysSpan::new(position, end_exclusive);
            };
            position = bank.end_exclusive();
        }
        None
    }

    /// The first part of `span` that must not be mapped as Normal memory.
    fn in_no_map(&self, span: PhysSpan) -> Option<PhysSpan> {
        self.no_map.iter().filter_map(|hole| hole.intersection(span)).min_by_key(|hole| hole.start())
    }
}

/// Audits the tables under `root` against `declared`, in any order. `ram` and `no_map` are what Normal memory may and may not lie in.
///
/// `scratch` holds one [`Scratch`] for each run of leaves and one for each table; too little is itself a finding. Work is bounded by the
/// tables it holds, cycles among them included.
pub fn audit(
    root: Frame,
    reader: &impl ReadTable,
    declared: &[Declared],
    ram: &[PhysSpan],
    no_map: &[PhysSpan],
    scratch: &mut [Scratch],
) -> Audit {
    let memory = Memory { ram, no_map };
    let mut walker = walker::Walker::new(reader, memory, scratch);
    walker.walk(root);
    let (mut audit, runs, tables) = walker.into_parts();
    judge::against_declarations(&mut audit, runs, declared);
    judge::rights_and_memory(&mut audit, runs, memory);
    judge::aliases(&mut audit, runs);
    judge::tables(&mut audit, runs, tables);
    audit
}

#[cfg(test)]
mod tests;
