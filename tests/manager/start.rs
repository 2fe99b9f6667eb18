//! How a machine is found: its features, its memory, the tables in force and its registers, as records that precede every step.

use super::bits::{K4, Shape};
use super::expansion::{Translation, register};
use breakwater::descriptor::MAIR;
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater_trace::{Event, Feature, MemoryKind, Record, Step};
use std::collections::BTreeMap;

/// The registers of boot/src/el2/assembly.rs, for CPUs with 48-bit physical addresses.
pub(crate) const TRANSLATION: Translation =
    Translation { sctlr_on: 0x30cd_183d, tcr: 0x8085_3510, mair: MAIR, hcr: 1 << 31 };

/// The same for tables of another shape: T0SZ, TG0, PS and DS of TCR_EL2.
pub(crate) const fn translation(shape: Shape) -> Translation {
    let (size, wide) = (64 - shape.address_bits as u64, shape.address_bits == 52);
    let granule = match shape.page_shift {
        12 => 0,
        14 => 2,
        _ => 1,
    };
    let (addresses, ds) = (if wide { 6 } else { 5 }, shape.has_ds() as u64);
    let others = TRANSLATION.tcr & !(0x3f | 3 << 14 | 7 << 16);
    Translation { tcr: others | size | granule << 14 | addresses << 16 | ds << 32, ..TRANSLATION }
}

/// What CPUs must have for tables of this shape; and the manager keeps more rules of a root switch than the architecture has.
pub(crate) fn features_for(shape: Shape) -> impl Iterator<Item = Feature> {
    let wide = (shape.address_bits == 52).then_some(Feature::PhysicalBits(52));
    wide.into_iter().chain(shape.has_ds().then_some(Feature::Lpa2)).chain([Feature::StrictSwitch])
}

/// Tables in force before the manager has made any, in frames side by side from the root on.
#[derive(Clone, Debug)]
pub(crate) struct FirstTables {
    shape: Shape,
    root: u64,
    frames: BTreeMap<u64, Box<[u64]>>,
}

impl FirstTables {
    /// An empty root at `root`, of what boots.
    pub(crate) fn new(root: u64) -> Self {
        Self::shaped(K4, root)
    }

    /// The same of another shape.
    pub(crate) fn shaped(shape: Shape, root: u64) -> Self {
        Self { shape, root, frames: BTreeMap::from([(root, zeros(shape))]) }
    }

    /// Maps the page at `virt` with `descriptor`, in tables that are added as needed.
    pub(crate) fn map(&mut self, virt: u64, descriptor: u64) {
        let (shape, mut table) = (self.shape, self.root);
        for level in shape.root_level()..3 {
            let next = self.root + shape.page_bytes() * self.frames.len() as u64;
            let word = &mut self.frames.get_mut(&table).expect("a table of these")[shape.index(virt, level)];
            if *word == 0 {
                *word = next | 3;
                self.frames.insert(next, zeros(shape));
                table = next;
            } else {
                table = shape.output(*word);
            }
        }
        self.frames.get_mut(&table).expect("a table of these")[shape.index(virt, 3)] = descriptor;
    }

    /// The root's address.
    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    /// Each table's address and words.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (u64, &[u64])> {
        self.frames.iter().map(|(&frame, words)| (frame, &**words))
    }

    /// The tables as the words of a trace.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        self.frames().flat_map(|(frame, words)| {
            words.iter().enumerate().map(move |(index, &value)| Record::Word { pa: frame + 8 * index as u64, value })
        })
    }
}

/// The words of an empty table.
pub(crate) fn zeros(shape: Shape) -> Box<[u64]> {
    vec![0; shape.words()].into_boxed_slice()
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

/// What a trace calls the optional features that the manager uses; those that only attributes need have no name there.
pub(crate) fn features_in(features: Features) -> impl Iterator<Item = Feature> {
    const NAMES: [(Features, Feature); 3] =
        [(Features::TLBIRANGE, Feature::TlbiRange), (Features::TTL, Feature::Ttl), (Features::RESIZE, Feature::Bbm(3))];
    NAMES.into_iter().filter(move |(name, _)| features.contains(*name)).map(|(_, feature)| feature)
}

/// A stretch of physical memory.
pub(crate) fn memory(start: u64, end_exclusive: u64, kind: MemoryKind) -> Record {
    Record::Memory { start, end_exclusive, kind }
}

/// CPU `cpu` with its MMU on, `root` in force.
pub(crate) fn found(cpu: u32, instruction: u64, root: u64, to: &Translation) -> [Record; 5] {
    let Translation { sctlr_on, tcr, mair, hcr } = *to;
    let registers =
        [("hcr_el2", hcr), ("mair_el2", mair), ("tcr_el2", tcr), ("ttbr0_el2", root), ("sctlr_el2", sctlr_on)];
    registers.map(|(name, value)| {
        let event = Event::Found { register: register(name), value };
        Record::Step(Step { cpu, instruction, pc: 0, event })
    })
}
