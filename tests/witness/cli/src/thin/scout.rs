//! The first pass: what the oracle looks at.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use breakwater_oracle::maintenance::{Ordering, Reach, stored_words};
use breakwater_oracle::obligations::Obligations;
use breakwater_trace::{Access, Event, Record, Step};
use rustc_hash::FxHashMap;

/// Log2 of the bytes of memory that are kept or not together; the oracle's pages are as large.
pub(super) const SHIFT: u32 = 12;
/// Words of it.
const WORDS: usize = 1 << (SHIFT - 3);
/// Bytes of a block of level 1 and of level 2, with a granule of 4 KiB; larger ones are taken for these, and the judgement is compared.
const BLOCKS: [u64; 2] = [1 << 30, 1 << 21];
/// Descriptors: valid, page or table, AP\[2\], output address.
const VALID: u64 = 1;
const NO_BLOCK: u64 = 2;
const READ_ONLY: u64 = 1 << 7;
const OUTPUT: u64 = 0xffff_ffff_f000;

/// What the second pass has to keep.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// Lines that stay whatever they are.
    pub(super) lines: HashSet<u64>,
    /// Pages that are part of a table at any time.
    pub(super) tables: HashSet<u64>,
    /// Memory whose contents decide whether a change of output address is one.
    pub(super) compared: Vec<Range<u64>>,
    /// Pages that are touched with caches off.
    pub(super) uncached: HashSet<u64>,
    /// Words that a CPU loads after another has stored them.
    pub(super) shared: HashSet<u64>,
}

impl Interest {
    /// Whether what `pa` holds can matter.
    pub(super) fn has_contents(&self, pa: u64) -> bool {
        self.tables.contains(&(pa >> SHIFT)) || self.compared.iter().any(|range| range.contains(&pa))
    }
}

/// What one CPU did last.
#[derive(Clone, Copy, Debug, Default)]
struct LastSteps {
    /// The line of its last event that counts for what stands directly before another.
    previous: Option<u64>,
    /// SCTLR_EL2.M as written.
    mmu_on: bool,
    /// Its first store since the DSB that completed those before.
    store: Option<u64>,
    /// That DSB.
    dsb: Option<u64>,
}

/// Who stored each word last, and who has loaded it since. A firmware that unpacks itself stores millions of words.
#[derive(Debug, Default)]
struct Writers {
    /// By page: for each word the number of its CPU and 1, or 0.
    pages: FxHashMap<u64, Box<[u8; WORDS]>>,
    /// Words that other CPUs have loaded since: which.
    loaded: FxHashMap<u64, u128>,
}

impl Writers {
    /// `cpu` stores the word at `pa`.
    fn store(&mut self, cpu: u32, pa: u64) {
        let page = self.pages.entry(pa >> SHIFT).or_insert_with(|| Box::new([0; WORDS]));
        page[(pa >> 3) as usize % WORDS] = cpu as u8 + 1;
        if !self.loaded.is_empty() {
            self.loaded.remove(&pa);
        }
    }

    /// Whether `cpu` loads the word at `pa` for the first time since another has stored it.
    fn is_new(&mut self, cpu: u32, pa: u64) -> bool {
        let writer = self.pages.get(&(pa >> SHIFT)).map_or(0, |page| page[(pa >> 3) as usize % WORDS]);
        if writer == 0 || u32::from(writer) == cpu + 1 {
            return false;
        }
        let bit = 1_u128.checked_shl(cpu).unwrap_or(0);
        let loaded_by = self.loaded.entry(pa).or_default();
        std::mem::replace(loaded_by, *loaded_by | bit) & bit == 0
    }
}

/// The first pass.
#[derive(Debug, Default)]
pub(super) struct Scout {
    engine: Obligations,
    interest: Interest,
    cpus: Vec<LastSteps>,
    writers: Writers,
    /// Where pages lead at other levels than EL2, as CPUs have shown it last: maintenance by address is applied there.
    shown: HashMap<(u32, u64), u64>,
    /// What leaves that were read-only led to, by their slot.
    outputs: HashMap<u64, Vec<Range<u64>>>,
}

impl Scout {
    /// Judges one record and notes what it takes.
    pub(super) fn record(&mut self, line: u64, record: &Record) {
        let Record::Step(step) = record else { return self.engine.step(line, record) };
        let said = |engine: &Obligations| (engine.reports(), engine.unknowns().len());
        let before = said(&self.engine);
        self.access(line, step);
        let slot = match step.event {
            Event::Store(Access { bytes: 8, pa, device: false, .. }) if pa & 7 == 0 && self.engine.is_table(pa) => {
                Some(pa)
            }
            _ => None,
        };
        slot.into_iter().for_each(|pa| self.output(pa));
        let cached = self.engine.is_cached(step.cpu);
        self.engine.step(line, record);
        slot.into_iter().for_each(|pa| self.output(pa));
        match step.event {
            // Asked afterwards: with its first event alone a CPU's tables are known.
            Event::Maintain { operation, operand } if operation.zeroes() && !cached => {
                let page = self.engine.physical(step.cpu, operand).map(|pa| pa >> SHIFT);
                self.interest.uncached.extend(page);
            }
            _ => {}
        }
        self.neighbours(line, step, said(&self.engine) != before);
    }

    /// What was found, and the judgement.
    pub(super) fn into_interest(mut self) -> (Interest, Obligations) {
        self.interest.tables = self.engine.pages_of_tables().map(|pa| pa >> SHIFT).collect();
        // What a violation comes from, and what would mend it, is said again.
        let told = self.engine.violations().iter().flat_map(|violation| [violation.line, violation.remedy.at.line]);
        self.interest.lines.extend(told);
        (self.interest, self.engine)
    }

    fn cpu(&mut self, cpu: u32) -> &mut LastSteps {
        let index = cpu as usize;
        if self.cpus.len() <= index {
            self.cpus.resize(index + 1, LastSteps::default());
        }
        &mut self.cpus[index]
    }

    /// Loads and stores: with caches off, and of what other CPUs stored.
    fn access(&mut self, line: u64, step: &Step) {
        let cached = self.engine.is_cached(step.cpu);
        match step.event {
            Event::Store(access) | Event::Load(access) if !access.device => {
                let page = (step.cpu, access.va >> SHIFT);
                if !self.engine.is_at_el2(step.cpu)
                    && self.shown.insert(page, access.pa >> SHIFT) != Some(access.pa >> SHIFT)
                {
                    self.interest.lines.insert(line);
                }
                for (pa, ..) in stored_words(&access) {
                    if !cached {
                        self.interest.uncached.insert(pa >> SHIFT);
                    }
                    if matches!(step.event, Event::Store(_)) {
                        self.writers.store(step.cpu, pa);
                    } else {
                        self.loaded(line, step.cpu, pa);
                    }
                }
            }
            _ => {}
        }
    }

    /// A load of what another CPU stored tells which came first; a second one of the same store tells nothing more.
    fn loaded(&mut self, line: u64, cpu: u32, pa: u64) {
        if self.writers.is_new(cpu, pa) {
            self.interest.lines.insert(line);
            self.interest.shared.insert(pa);
        }
    }

    /// A slot of a table holds a leaf that cannot be written through: if it leads to two places in turn, their contents are compared.
    fn output(&mut self, slot: u64) {
        let Some(word) = self.engine.word(slot).filter(|word| word & VALID != 0 && word & READ_ONLY != 0) else {
            return;
        };
        let output = word & OUTPUT;
        let size = match BLOCKS.into_iter().find(|size| output.is_multiple_of(*size)) {
            Some(size) if word & NO_BLOCK == 0 => size,
            _ => 1 << SHIFT,
        };
        let known = self.outputs.entry(slot).or_default();
        let range = output..output.saturating_add(size);
        if !known.contains(&range) {
            known.push(range);
            if known.len() > 1 {
                self.interest.compared.extend(known.iter().cloned());
            }
        }
    }

    /// What stands directly before, where that is judged, and whether stores were complete when the MMU is turned off. What stands directly
    /// after a register stays in any case, as the first of its kind since a change; so does the DSB after a store with caches off.
    fn neighbours(&mut self, line: u64, step: &Step, reported: bool) {
        let cpu = *self.cpu(step.cpu);
        let is_msr = matches!(step.event, Event::Msr { .. });
        let turns_off = match step.event {
            Event::Msr { register, value } | Event::Found { register, value }
                if register.name() == Some("sctlr_el2") =>
            {
                self.cpu(step.cpu).mmu_on = value & 1 != 0;
                cpu.mmu_on && value & 1 == 0
            }
            _ => false,
        };
        let lines = &mut self.interest.lines;
        if reported {
            lines.insert(line);
        }
        if reported || is_msr {
            lines.extend(cpu.previous);
        }
        if turns_off {
            lines.extend(cpu.store.or(cpu.dsb));
        }
        let state = self.cpu(step.cpu);
        match step.event {
            Event::Fetch { .. } | Event::Settled | Event::Enter { .. } | Event::Take { .. } | Event::Give { .. } => {
                return;
            }
            Event::Dsb(barrier) => state.dsb(line, &Ordering::of(barrier)),
            Event::Store(Access { device: false, .. }) => state.store = state.store.or(Some(line)),
            Event::Maintain { operation, .. } if operation.zeroes() => state.store = state.store.or(Some(line)),
            _ => {}
        }
        state.previous = Some(line);
    }
}

impl LastSteps {
    /// A DSB on `line`.
    fn dsb(&mut self, line: u64, ordering: &Ordering) {
        if ordering.stores && ordering.reach != Reach::Own {
            (self.store, self.dsb) = (None, Some(line));
        }
    }
}
