//! How a machine is found: its features, its memory, the tables in force and its registers, as records that precede every step.

use super::bits::slot_bytes;
use super::expansion::{Translation, register};
use breakwater::descriptor::MAIR;
use breakwater::errata::Errata;
use breakwater_trace::{Event, Feature, MemoryKind, Record, Step};
use std::collections::BTreeMap;

/// The registers of src/el2/assembly.rs, for CPUs with 48-bit physical addresses.
pub(crate) const TRANSLATION: Translation =
    Translation { sctlr_on: 0x30cd_183d, tcr: 0x8085_3510, mair: MAIR, hcr: 1 << 31 };

/// Tables in force before the manager has made any, in frames side by side from the root on.
#[derive(Clone, Debug)]
pub(crate) struct FirstTables {
    root: u64,
    frames: BTreeMap<u64, Box<[u64; 512]>>,
}

impl FirstTables {
    /// An empty root at `root`.
    pub(crate) fn new(root: u64) -> Self {
        Self { root, frames: BTreeMap::from([(root, Box::new([0; 512]))]) }
    }

    /// Maps the page at `virt` with `descriptor`, in tables that are added as needed.
    pub(crate) fn map(&mut self, virt: u64, descriptor: u64) {
        let mut table = self.root;
        for level in 0..3 {
            let (next, index) =
                (self.root + 4096 * self.frames.len() as u64, (virt / slot_bytes(level)) as usize % 512);
            let word = &mut self.frames.get_mut(&table).expect("a table of these")[index];
            if *word == 0 {
                *word = next | 3;
                self.frames.insert(next, Box::new([0; 512]));
                table = next;
            } else {
                table = *word & !0xfff;
            }
        }
        self.frames.get_mut(&table).expect("a table of these")[(virt / 4096) as usize % 512] = descriptor;
    }

    /// The root's address.
    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    /// Each table's address and words.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (u64, &[u64; 512])> {
        self.frames.iter().map(|(&frame, words)| (frame, &**words))
    }

    /// The tables as the words of a trace.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        self.frames().flat_map(|(frame, words)| {
            words.iter().enumerate().map(move |(index, &value)| Record::Word { pa: frame + 8 * index as u64, value })
        })
    }
}

/// What a trace calls the errata that put a duty on the manager.
pub(crate) fn features_of(errata: Errata) -> impl Iterator<Item = Feature> {
    const NAMES: [(Errata, Feature); 6] = [
        (Errata::REPEAT_TLBI, Feature::RepeatTlbi),
        (Errata::ISB_BEFORE_MMU_OFF, Feature::IsbBeforeMmuOff),
        (Errata::DSB_BEFORE_HCR, Feature::HcrBarriers),
        (Errata::BBM_FOR_XN, Feature::BbmForXn),
        (Errata::BBM_ALWAYS, Feature::BbmAlways),
        (Errata::CIVAC_FOR_CVAC, Feature::CleanInvalidates),
    ];
    NAMES.into_iter().filter(move |(duty, _)| errata.contains(*duty)).map(|(_, feature)| feature)
}

/// A stretch of physical memory.
pub(crate) fn memory(start: u64, end_exclusive: u64, kind: MemoryKind) -> Record {
    Record::Memory { start, end_exclusive, kind }
}

/// CPU `cpu` with its MMU on, `root` in force.
pub(crate) fn found(cpu: u32, instruction: u64, root: u64) -> [Record; 5] {
    let Translation { sctlr_on, tcr, mair, hcr } = TRANSLATION;
    let registers =
        [("hcr_el2", hcr), ("mair_el2", mair), ("tcr_el2", tcr), ("ttbr0_el2", root), ("sctlr_el2", sctlr_on)];
    registers.map(|(name, value)| {
        let event = Event::Found { register: register(name), value };
        Record::Step(Step { cpu, instruction, pc: 0, event })
    })
}
