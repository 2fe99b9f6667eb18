//! The second pass: what stays.

use std::collections::HashMap;

use breakwater_oracle::maintenance::stored_words;
use breakwater_oracle::obligations::Obligations;
use breakwater_trace::{Access, Barrier, Event, Operation, Record, Step};

use super::scout::{Interest, SHIFT};

/// A moment: how many kept events that count were before.
type Moment = u64;

/// Kinds of DSB and DMB: CRm, the nXS form, and which of the two it is.
const BARRIERS: usize = 64;

/// What one CPU did when.
#[derive(Clone, Debug)]
struct Lane {
    /// The last one kept of each kind of DSB and DMB.
    barriers: [Moment; BARRIERS],
    isb: Moment,
    /// A register was written, and context not synchronised since.
    wrote: bool,
    /// Pages used: the last use kept, of instructions and of data.
    uses: HashMap<(u64, bool), Moment>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { barriers: [0; BARRIERS], isb: 0, wrote: false, uses: HashMap::new() }
    }
}

/// The second pass.
#[derive(Debug)]
pub(super) struct Sieve {
    /// Judges what was kept.
    engine: Obligations,
    interest: Interest,
    lanes: Vec<Lane>,
    now: Moment,
    /// When tables, registers, caches or TLBs last changed.
    changed: Moment,
    /// The same, or when a DSB was last kept: what another CPU's ISB waits for.
    completed: Moment,
    /// The same, or when an ISB was last kept: what a use waits for.
    synchronised: Moment,
    /// Words of pages touched with caches off, by page, that were stored with caches on since something else happened to their lines.
    dirty: HashMap<u64, [u64; 8]>,
}

impl Sieve {
    /// A sieve that keeps what is of `interest`.
    pub(super) fn new(interest: Interest) -> Self {
        Self {
            engine: Obligations::new(),
            interest,
            lanes: Vec::new(),
            now: 1,
            changed: 1,
            completed: 1,
            synchronised: 1,
            dirty: HashMap::new(),
        }
    }

    /// Whether `record` stays; it is judged if it does.
    pub(super) fn keeps(&mut self, line: u64, record: &Record) -> bool {
        let keep = match record {
            Record::Word { pa, .. } => self.interest.has_contents(*pa),
            Record::Step(step) => self.keeps_step(step) | self.interest.lines.contains(&line),
            _ => true,
        };
        if keep {
            self.engine.step(line, record);
        }
        keep
    }

    /// The judgement of what was kept.
    pub(super) fn into_engine(self) -> Obligations {
        self.engine
    }

    fn lane(&mut self, cpu: u32) -> &mut Lane {
        let index = cpu as usize;
        if self.lanes.len() <= index {
            self.lanes.resize_with(index + 1, Lane::default);
        }
        &mut self.lanes[index]
    }

    /// Something changed that barriers and uses depend on.
    fn change(&mut self) -> bool {
        self.now += 1;
        (self.changed, self.completed, self.synchronised) = (self.now, self.now, self.now);
        true
    }

    fn keeps_step(&mut self, step: &Step) -> bool {
        let cpu = step.cpu;
        match step.event {
            Event::Start { .. } | Event::Found { .. } | Event::Call { .. } => self.change(),
            Event::Take { .. } | Event::Give { .. } | Event::Settled | Event::Enter { .. } => self.change(),
            Event::Msr { .. } => {
                self.lane(cpu).wrote = true;
                self.change()
            }
            Event::Eret { .. } | Event::Exception { .. } => {
                self.lane(cpu).wrote = false;
                self.change()
            }
            Event::Mrs { .. } => true,
            Event::Maintain { operation, operand } => self.keeps_maintenance(cpu, operation, operand),
            Event::Dsb(barrier) => self.keeps_dsb(cpu, barrier),
            Event::Dmb(barrier) => self.is_first(cpu, BARRIERS / 2 + usize::from(barrier.crm & 15)),
            Event::Isb => self.keeps_isb(cpu),
            Event::Fetch { .. } => self.is_first_use(cpu, step.pc, true),
            Event::Store(access) => self.keeps_store(cpu, &access) | self.is_first_use(cpu, access.va, false),
            Event::Load(access) => {
                let tells = !self.engine.is_cached(cpu) || self.engine.contradicts(cpu, &access);
                tells | self.is_first_use(cpu, access.va, false)
            }
        }
    }

    /// Whether this CPU had no such barrier since anything changed.
    fn is_first(&mut self, cpu: u32, kind: usize) -> bool {
        let (now, changed) = (self.now, self.changed);
        let last = &mut self.lane(cpu).barriers[kind % BARRIERS];
        let first = *last < changed;
        *last = now;
        first
    }

    fn keeps_dsb(&mut self, cpu: u32, barrier: Barrier) -> bool {
        let first = self.is_first(cpu, usize::from(barrier.crm & 15) + 16 * usize::from(barrier.without_xs));
        if first {
            self.now += 1;
            (self.completed, self.synchronised) = (self.now, self.now);
        }
        first
    }

    fn keeps_isb(&mut self, cpu: u32) -> bool {
        let (now, completed) = (self.now, self.completed);
        let lane = self.lane(cpu);
        let first = lane.isb < completed;
        lane.isb = now;
        if std::mem::take(&mut lane.wrote) {
            return self.change();
        }
        if first {
            self.now += 1;
            self.synchronised = self.now;
        }
        first
    }

    /// Whether this CPU did not use the page of `va` since anything changed, completed or was synchronised.
    fn is_first_use(&mut self, cpu: u32, va: u64, is_fetch: bool) -> bool {
        let (now, synchronised) = (self.now, self.synchronised);
        let last = self.lane(cpu).uses.insert((va >> SHIFT, is_fetch), now);
        last.is_none_or(|last| last < synchronised)
    }

    fn keeps_store(&mut self, cpu: u32, access: &Access) -> bool {
        if access.device {
            return !self.engine.is_cached(cpu);
        }
        // Every word counts: those of one store may lie in two pages.
        stored_words(access).fold(false, |keep, (pa, ..)| self.keeps_word(cpu, pa) | keep)
    }

    fn keeps_word(&mut self, cpu: u32, pa: u64) -> bool {
        let page = pa >> SHIFT;
        let is_uncached = self.interest.uncached.contains(&page);
        if !self.engine.is_cached(cpu) {
            self.dirty.remove(&page);
            return self.change();
        }
        if self.interest.tables.contains(&page) {
            return self.change();
        }
        is_uncached && self.is_newly_dirty(page, pa)
            || self.interest.has_contents(pa)
            || self.interest.shared.contains(&pa)
    }

    fn is_newly_dirty(&mut self, page: u64, pa: u64) -> bool {
        let words = self.dirty.entry(page).or_default();
        let (index, bit) = ((pa >> 9 & 7) as usize, 1 << (pa >> 3 & 63));
        let newly = words[index] & bit == 0;
        words[index] |= bit;
        newly
    }

    fn keeps_maintenance(&mut self, cpu: u32, operation: Operation, operand: u64) -> bool {
        if operation.invalidates_el2() {
            return self.change();
        }
        if operation.zeroes() {
            let block = self.engine.zeroed_block(cpu);
            if block.doubt().is_some() {
                return self.change();
            }
            let pa = self.engine.physical(cpu, block.start(operand)).filter(|_| self.engine.is_cached(cpu));
            let Some(pa) = pa else { return self.change() };
            return block.words(pa).fold(false, |keep, (word, ..)| self.keeps_word(cpu, word) | keep)
                | self.is_first_use(cpu, operand, false);
        }
        match operation.name() {
            Some("isw" | "csw" | "cisw") => {
                self.dirty.clear();
                self.change()
            }
            Some("ivac" | "civac" | "cvac" | "cvap" | "cvadp") => {
                match self.engine.physical(cpu, operand).map(|pa| pa >> SHIFT) {
                    Some(page) if !self.interest.uncached.contains(&page) => return false,
                    Some(page) => drop(self.dirty.remove(&page)),
                    // A CPU whose tables are known only with this event: any page may be meant.
                    None => self.dirty.clear(),
                }
                self.change()
            }
            _ => true,
        }
    }
}
