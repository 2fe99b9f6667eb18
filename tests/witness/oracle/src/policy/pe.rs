//! One PE of a concrete part: its registers, its TLB, its walk cache, and what an access makes of them.
//!
//! A register write is in force at once, a TLBI acts at once, an entry is made when an access (or the part's own guess)
//! needs it. Turning the MMU off clears nothing (RNDCMB), and no entry carries the root it came from (EL2 has no ASID).

use crate::descriptor::{Descriptor, Format, Leaf, TableDescriptor};
use crate::level::Levels;
use crate::maintenance::{Invalidation, TlbiTarget, ZeroedBlock};
use crate::params::Features;
use crate::regime::{Control, Controls, MemoryType};

use super::cache::{Cache, Random, base_of};
use super::memory::Memory;
use super::{Ahead, Core};

/// What a TLB entry says of its span, rights being those of the whole walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TlbEntry {
    /// Physical address of the first byte of the span.
    output: u64,
    memory_type: MemoryType,
    shareability: u8,
    writable: bool,
    executable: bool,
    level: i8,
}

/// What a walk cache says of a span: where the next table is, and the rights taken away so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Link {
    table: TableDescriptor,
    level: i8,
}

/// Where an access went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Translated {
    /// To this physical address.
    To {
        /// Physical address.
        pa: u64,
        /// Whether a store may.
        writable: bool,
        /// Whether a fetch may.
        executable: bool,
    },
    /// A descriptor at `pa` faults.
    Fault {
        /// Physical address of the descriptor.
        pa: u64,
    },
    /// The walk met memory that the trace does not tell of, or an address outside the input range.
    Unknown,
}

/// Several entries of one TLB match, so the part has no single answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Conflict {
    /// Log2 of the smallest span, and where it leads.
    pub(super) smaller: (u8, u64),
    /// The next larger.
    pub(super) larger: (u8, u64),
}

/// One PE.
pub(super) struct Pe {
    part: Core,
    controls: Controls,
    /// What its DC ZVA zeroes.
    pub(super) zeroed_block: ZeroedBlock,
    /// At another level than EL2 nothing is translated.
    pub(super) levels: Levels,
    format: Option<Format>,
    contiguous: bool,
    leaves: Cache<TlbEntry>,
    links: Cache<Link>,
    random: Random,
    used: Used,
}

/// Pages of code that a predictor remembers.
const REMEMBERED: usize = 4;

/// Where the PE was lately: what guesses start from.
#[derive(Clone, Default)]
struct Used {
    data: Option<u64>,
    /// The latest first, none twice.
    code: [Option<u64>; REMEMBERED],
}

impl Used {
    fn note(&mut self, page: u64, is_code: bool) {
        if !is_code {
            self.data = Some(page);
        } else if self.code[0] != Some(page) {
            let known = self.code.iter().position(|known| *known == Some(page));
            self.code[..=known.unwrap_or(REMEMBERED - 1)].rotate_right(1);
            self.code[0] = Some(page);
        }
    }
}

/// A walk that met a leaf: its entry, the log2 of its span, and the links on the way.
struct Walked {
    entry: TlbEntry,
    shift: u8,
}

impl Pe {
    /// Holds nothing that was cached.
    pub(super) fn forget(&mut self) {
        self.leaves.invalidate(|_, _, _| true);
        self.links.invalidate(|_, _, _| true);
    }

    pub(super) fn new(part: Core, seed: u64, features: &Features) -> Self {
        let (leaves, links) = (Cache::new(part.leaves), Cache::new(part.links));
        let controls = Controls::default();
        let mut new = Self {
            part,
            controls,
            levels: Levels::default(),
            zeroed_block: ZeroedBlock::default(),
            format: None,
            contiguous: false,
            leaves,
            links,
            random: Random(seed),
            used: Used::default(),
        };
        new.decode(features);
        new
    }

    /// Reads the format anew: a control or a feature has changed.
    pub(super) fn decode(&mut self, features: &Features) {
        self.contiguous = features.contiguous;
        self.format = self.controls.format(features).ok().filter(|_| !self.controls.e2h());
    }

    pub(super) fn set(&mut self, control: Control, value: u64, features: &Features) {
        self.controls.set(control, value);
        self.decode(features);
    }

    /// Whether accesses are translated, by a regime that is followed.
    pub(super) fn translates(&self) -> bool {
        self.controls.mmu_on() && self.levels.is_el2() && self.format.is_some()
    }

    /// The physical address of `va` where these tables do not translate it.
    pub(super) fn physical(&self, va: u64) -> Option<u64> {
        if self.levels.is_el2() { Some(va) } else { self.levels.physical(va, self.controls.hcr) }
    }

    pub(super) const fn format(&self) -> Option<&Format> {
        self.format.as_ref()
    }

    /// What memory says of `va` now, no cache asked.
    pub(super) fn fresh(&self, va: u64, memory: &Memory) -> Translated {
        let Some(format) = self.format else { return Translated::Unknown };
        let Some(va) = self.controls.input(va, &format) else { return Translated::Unknown };
        let (start, rights) = self.root(&format);
        match self.walk(va, start, rights, memory, |_, _| ()) {
            Ok(walked) => walked.entry.translate(va, walked.shift),
            Err(other) => other,
        }
    }

    /// The level and the table where a walk from TTBR0_EL2 begins.
    fn root(&self, format: &Format) -> (i8, TableDescriptor) {
        let next = self.controls.root(format);
        (format.start_level, TableDescriptor { next, no_write: false, no_execute: false })
    }

    /// Translates as this part does, with what its caches hold, and lets them take what they take.
    pub(super) fn access(&mut self, va: u64, is_code: bool, memory: &Memory) -> Result<Translated, Conflict> {
        let Some(va) = self.format.and_then(|format| self.controls.input(va, &format)) else {
            return Ok(Translated::Unknown);
        };
        let (first, second) = {
            let mut matching = self.leaves.matching(va);
            (matching.next(), matching.next())
        };
        if let (Some((shift, entry)), Some((larger, other))) = (first, second) {
            let leads = |entry: TlbEntry, shift| (shift, entry.output);
            return Err(Conflict { smaller: leads(entry, shift), larger: leads(other, larger) });
        }
        self.used.note(va & !(self.page_bytes() - 1), is_code);
        Ok(match first {
            Some((shift, entry)) => {
                self.leaves.used(va, shift);
                entry.translate(va, shift)
            }
            None => self.fill(va, memory),
        })
    }

    pub(super) fn page_bytes(&self) -> u64 {
        self.format.map_or(4096, |format| format.granule.page_bytes())
    }

    /// Translates ahead of need, as often as not, what this part expects and no entry has yet.
    pub(super) fn guess(&mut self, memory: &Memory) {
        let (page, code) = (self.page_bytes(), self.used.code);
        let next = |page_va: Option<u64>| page_va.and_then(|va| va.checked_add(page));
        let previous = |page_va: Option<u64>| page_va.and_then(|va| va.checked_sub(page));
        let (here, data) = (code[0], self.used.data);
        let expected = match self.part.ahead {
            Ahead::Nothing => return,
            Ahead::Neighbours => [next(here), previous(here), next(data), previous(data)],
            Ahead::Predicted => [next(here), code[1], code[2], code[3]],
        };
        let chance = self.random.next();
        for (place, va) in expected.into_iter().enumerate() {
            let va = va.filter(|_| chance >> place & 1 != 0);
            let input = va.zip(self.format).and_then(|(va, format)| self.controls.input(va, &format));
            if let Some(va) = input.filter(|va| self.leaves.matching(*va).next().is_none()) {
                self.fill(va, memory);
            }
        }
    }

    /// Walks from the deepest link that the walk cache has, and enters what the walk met.
    fn fill(&mut self, va: u64, memory: &Memory) -> Translated {
        let Some(format) = self.format else { return Translated::Unknown };
        let deepest = self.links.matching(va).next();
        if let Some((shift, _)) = deepest {
            self.links.used(va, shift);
        }
        let (level, table) = deepest.map_or_else(|| self.root(&format), |(_, link)| (link.level + 1, link.table));
        let mut met = [None; 4];
        let walked = self.walk(va, level, table, memory, |level, table| {
            met[(level + 1) as usize] = Some(Link { table, level });
        });
        for link in met.into_iter().flatten() {
            self.links.enter(va, format.shift(link.level), link, &mut self.random);
        }
        match walked {
            Ok(Walked { entry, shift }) => {
                self.leaves.enter(va, shift, entry, &mut self.random);
                entry.translate(va, shift)
            }
            Err(other) => other,
        }
    }

    /// Walks for `va` from a `table` of `level`; `met` hears of each link, its rights those of the walk so far.
    fn walk(
        &self,
        va: u64,
        level: i8,
        mut table: TableDescriptor,
        memory: &Memory,
        mut met: impl FnMut(i8, TableDescriptor),
    ) -> Result<Walked, Translated> {
        let Some(format) = self.format else { return Err(Translated::Unknown) };
        for level in level..=3 {
            let pa = table.next + 8 * format.index(va, level);
            let Some(word) = memory.word(pa) else { return Err(Translated::Unknown) };
            let word = if self.controls.big_endian() { word.swap_bytes() } else { word };
            let descriptor = format.decode(word, level);
            match descriptor {
                Descriptor::Table(TableDescriptor { next, no_write, no_execute }) => {
                    table = TableDescriptor {
                        next,
                        no_write: table.no_write || no_write,
                        no_execute: table.no_execute || no_execute,
                    };
                    met(level, table);
                }
                Descriptor::Leaf(leaf) if format.may_be_cached(descriptor) => {
                    return Ok(self.walked(va, leaf, level, table, &format));
                }
                Descriptor::Leaf(_) | Descriptor::Invalid => return Err(Translated::Fault { pa }),
            }
        }
        Err(Translated::Unknown)
    }

    /// The entry that `leaf` becomes: of its own span, or of its whole contiguous run where this part makes use of the
    /// hint.
    fn walked(&self, va: u64, leaf: Leaf, level: i8, above: TableDescriptor, format: &Format) -> Walked {
        let own = format.shift(level);
        let is_run = leaf.contiguous && self.contiguous && self.part.joins_runs;
        let shift = if is_run { own + format.run_entries(level).ilog2() as u8 } else { own };
        let output = leaf.output.saturating_sub(base_of(va, own) - base_of(va, shift));
        let writable = leaf.writable && !above.no_write;
        let executable = leaf.executable && !above.no_execute && !(writable && self.controls.wxn());
        let memory_type = MemoryType::of(self.controls.mair, leaf.attr_index);
        let entry = TlbEntry { output, memory_type, shareability: leaf.shareability, writable, executable, level };
        Walked { entry, shift }
    }

    /// Drops what `invalidation` names.
    pub(super) fn invalidate(&mut self, invalidation: &Invalidation) {
        let (wanted, level) = match invalidation.target {
            TlbiTarget::All => ((0, u64::MAX), None),
            TlbiTarget::Page { va, level } => ((va, va), level),
            TlbiTarget::Range { first, last, level } => ((first, last), level),
            TlbiTarget::Nothing(_) => return,
        };
        let overlaps = |first, last| first <= wanted.1 && wanted.0 <= last;
        let is_level = |entry: &TlbEntry| level.is_none_or(|level| level == entry.level);
        self.leaves.invalidate(|first, last, entry| overlaps(first, last) && is_level(entry));
        if !invalidation.last_level_only && level.is_none() {
            self.links.invalidate(|first, last, _| overlaps(first, last));
        }
    }
}

impl TlbEntry {
    const fn translate(&self, va: u64, shift: u8) -> Translated {
        let pa = self.output + (va - base_of(va, shift));
        Translated::To { pa, writable: self.writable, executable: self.executable }
    }
}
