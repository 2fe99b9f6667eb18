//! The rules, as automata: what is owed for each descriptor, table frame, control register and cache line.
//!
//! **Why it exists.** A boot that breaks the architecture's rules mostly works. This engine follows a trace and knows at each event what
//! the software still owes; it names the rule, the descriptor and the event that should have been there.
//!
//! **What must hold.** It keeps no cache contents. A [`Debt`](debt::Debt) is a descriptor that was replaced, with the PEs that may still see
//! it (its store has no DSB), hold it (no TLBI has completed), or run on it (no context synchronisation). A debt is a violation
//! only where it does harm: at once, when a second translation for its address could be cached beside it; when the software
//! claims that nothing is owed; when a frame leaves; when the address is used; at the end.
//!
//! **What it refuses.** Nothing. PEs beyond 128 are left unjudged; what a verdict would have to know besides is said ([`Unknown`]).

mod barriers;
mod cause;
mod change;
mod context;
mod debt;
mod debts;
mod explain;
mod fast;
mod holder;
mod leaves;
mod lines;
mod memory;
mod page;
mod pe;
mod registers;
mod report;
mod roots;
mod rule;
mod settle;
mod stores;
mod sweep;
mod switching;
mod trees;
mod unknown;
mod usage;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use breakwater_trace::{Call, End, Event, Family, Record, Step};

pub use self::cause::{At, Harm, Lack, Remedy, Side};
pub use self::report::{Doubt, NotKept, Violation};
pub use self::rule::{Origin, Rule};
pub use self::sweep::BySetAndWay;
pub use self::unknown::Unknown;

use self::context::{Context, Frames};
use self::debts::Debts;
use self::explain::StrangeAccess;
use self::fast::{FastMap, Uses, Wide};
use self::holder::Pes;
use self::leaves::{Outputs, Ranges};
use self::memory::Memory;
use self::pe::Pe;
use self::report::Report;
use self::unknown::EarlyLoad;
use crate::maintenance::ZeroedBlock;
use crate::params::Params;
use crate::regime::Control;
use crate::tables::Words;

/// The engine. Two are equal when they would judge every continuation alike; what they have reported does not count.
#[derive(Clone, Debug, Default)]
pub struct Obligations {
    params: Params,
    memory: Memory,
    ranges: Ranges,
    pes: Vec<Arc<Pe>>,
    /// PEs whose registers are being found.
    arriving: Pes,
    /// PEs that may translate.
    walking: Pes,
    /// PEs that have had their data caches on.
    cached: Pes,
    /// PEs of which a DSB has completed a sweep that is not settled.
    finished: Pes,
    /// The deepest level of caches that a DC by set and way has named.
    deepest: u8,
    contexts: Arc<Vec<Context>>,
    debts: Arc<Debts>,
    /// Where descriptors were broken and not made again, and by whom.
    broken: FastMap<u64, u32>,
    /// Which memory is a table; follows from contexts, memory and debts.
    frames: Arc<Frames>,
    /// What the leaves in force lead to; follows likewise.
    outputs: Arc<Outputs>,
    report: Report,
    /// Descriptors that this event may still visit.
    budget: u64,
    /// What a verdict would need besides; no part of a state.
    unknowns: Vec<Unknown>,
    /// Loads that a store may still explain; no part of a state either.
    early: Vec<EarlyLoad>,
    /// Accesses that a store may still explain, likewise.
    strange: Vec<StrangeAccess>,
    /// Where accesses lead is not asked.
    trusts_addresses: bool,
    uses: Uses,
    /// An event was seen: declarations stand before.
    begun: bool,
    /// Where the image lies that was entered with the MMU on, while it has not written a control yet: what runs
    /// elsewhere until then are the services of its firmware.
    served: Option<(u64, u64)>,
}

impl PartialEq for Obligations {
    fn eq(&self, other: &Self) -> bool {
        self.pes == other.pes
            && self.contexts == other.contexts
            && self.debts == other.debts
            && self.broken == other.broken
            && self.memory == other.memory
            && self.params == other.params
            && self.ranges == other.ranges
            && self.served == other.served
            && (self.cached, self.deepest) == (other.cached, other.deepest)
    }
}

impl Eq for Obligations {}

impl Hash for Obligations {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut wide = Wide::default();
        self.pes.hash(&mut wide);
        self.contexts.hash(&mut wide);
        self.debts.hash(&mut wide);
        fast::digest(&self.broken).hash(&mut wide);
        self.memory.hash(&mut wide);
        wide.lanes().hash(state);
    }
}

impl Obligations {
    /// The engine before the first record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The engine with `rule` switched off.
    #[must_use]
    pub fn without(rule: Rule) -> Self {
        let mut engine = Self::default();
        engine.report.off = Some(rule);
        engine
    }

    /// The engine that takes every physical address of an access for what a translation gave. For records that no
    /// machine made: the letters of an alphabet.
    #[must_use]
    pub const fn trusting_addresses(mut self) -> Self {
        self.trusts_addresses = true;
        self
    }

    /// Judges `record`, which stands on `line` of the trace.
    pub fn step(&mut self, line: u64, record: &Record) {
        self.report.at = At { line, ..At::default() };
        self.budget = context::MOST_SLOTS;
        if !tells_for_itself(record) {
            self.uses.change();
        }
        match record {
            Record::Word { pa, value } => self.declare_word(pa & !7, *value),
            Record::Memory { start, end_exclusive, kind } => self.ranges.add(*start, *end_exclusive, *kind),
            Record::Feature { cpu, feature } => {
                self.declare_feature(*cpu, *feature);
                self.weigh_features();
            }
            Record::Step(step) => {
                self.begun = true;
                self.event(line, step);
            }
            Record::Count { .. } => {}
            Record::End(end) => {
                self.give_up_loads();
                if *end == End::Exit {
                    self.arrive();
                    self.settle_sweeps();
                    self.report.at_end = true;
                    self.end();
                }
            }
        }
    }

    /// The distinct violations so far, in the order in which they were found; of many at one instruction, the first.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.report.violations
    }

    /// What was found and is not among the violations: of one rule, at one instruction of one PE, so many distinct ones are kept.
    #[must_use]
    pub fn not_kept(&self) -> Vec<NotKept> {
        self.report.not_kept()
    }

    /// TLBIs that only a branch orders behind the stores that they follow: no trace shows branches, so these are no violations.
    #[must_use]
    pub fn doubts(&self) -> &[Doubt] {
        self.report.doubts()
    }

    /// The violations since this was called last.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        self.report.take()
    }

    fn event(&mut self, line: u64, step: &Step) {
        let Step { cpu, pc, event, .. } = *step;
        if cpu >= 128 {
            return;
        }
        self.report.at = At { line, pe: cpu, pc };
        if self.pes.len() <= cpu as usize {
            self.pes.resize_with(cpu as usize + 1, Arc::default);
        }
        match event {
            Event::Start { exception_level } => return self.start(cpu, exception_level),
            Event::Found { register, value } => return self.found(cpu, register, value),
            _ => {}
        }
        if !self.pes[cpu as usize].exists {
            self.start(cpu, 2);
        }
        if self.arriving != 0 {
            self.arrive();
        }
        if !self.early.is_empty() {
            self.explain_loads(cpu, &event);
        }
        let is_awaited = self.strange.iter().any(|strange| strange.awaits(cpu));
        if self.is_service(pc, &event) {
            self.report.is_muted = true;
            self.act(step);
            self.report.is_muted = false;
            (self.debts, self.broken) = Default::default();
            return;
        }
        self.act(step);
        if is_awaited {
            self.explain_accesses(cpu, &event);
        }
    }

    /// `step` happens.
    fn act(&mut self, step: &Step) {
        let Step { cpu, pc, event, .. } = *step;
        if self.finished != 0 && sweep::ends_sweeps(&event) {
            self.settle_sweeps();
        }
        self.before(cpu, &event);
        if matches!(event, Event::Msr { .. } | Event::Maintain { .. }) {
            self.follow_level(cpu, pc, &event);
        }
        self.judge_code(cpu, pc);
        match event {
            Event::Store(access) => self.store(cpu, &access),
            Event::Load(access) => self.load(cpu, &access),
            Event::Msr { register, value } => self.msr(cpu, register, value),
            Event::Maintain { operation, operand } => self.maintain(cpu, operation, operand),
            Event::Dsb(barrier) => self.dsb(cpu, barrier),
            Event::Dmb(barrier) => self.dmb(cpu, barrier),
            Event::Isb => self.synchronise(cpu),
            Event::Eret { .. } | Event::Exception { .. } => self.change_level(cpu, pc, &event),
            Event::Take { pa, bytes } => self.take(pa, bytes),
            Event::Give { pa, bytes } => self.give(pa, bytes),
            Event::Settled => self.settled(cpu),
            Event::Enter { pa, bytes } => self.enter(cpu, pa, bytes),
            Event::Fetch { .. } => self.fetch(cpu, pc),
            Event::Start { .. } | Event::Found { .. } | Event::Mrs { .. } => {}
            Event::Call { call: Call::Smc, .. } if self.pes[cpu as usize].levels.is_el2() => self.judge_call(cpu),
            Event::Call { .. } => {}
        }
        self.watch_caches(cpu);
    }

    /// Whether an event at `pc` is of the firmware that serves the image. The first control that the image writes
    /// itself ends that.
    fn is_service(&mut self, pc: u64, event: &Event) -> bool {
        let Some((first, end)) = self.served else { return false };
        let is_outside = !(first..end).contains(&pc);
        if !is_outside && matches!(event, Event::Msr { register, .. } if Control::of(*register).is_some()) {
            self.served = None;
        }
        is_outside
    }

    fn pe(&mut self, pe: u32) -> &mut Pe {
        Arc::make_mut(&mut self.pes[pe as usize])
    }

    fn contexts(&mut self) -> &mut Vec<Context> {
        Arc::make_mut(&mut self.contexts)
    }

    fn debts(&mut self) -> &mut Debts {
        Arc::make_mut(&mut self.debts)
    }
}

impl Words for Obligations {
    fn word(&self, pa: u64) -> u64 {
        self.memory.read(pa).unwrap_or(0)
    }
}

/// Whether a use that found nothing before `record` finds nothing after it, or its own code says otherwise: it is a use
/// itself, the upkeep of lines, which uses do not ask for, or a DSB, of which most settle nothing, and which can harm a
/// later use only by what it does to debts.
fn tells_for_itself(record: &Record) -> bool {
    let Record::Step(step) = record else { return false };
    match step.event {
        Event::Store(_) | Event::Load(_) | Event::Fetch { .. } | Event::Mrs { .. } | Event::Dsb(_) => true,
        Event::Maintain { operation, .. } => matches!(operation.family(), Some(Family::Dc)),
        _ => false,
    }
}

/// What a reader of long traces may ask: what the engine looked at, so that the rest of a trace can be left out.
impl Obligations {
    /// How many violations were found, repetitions included.
    #[must_use]
    pub const fn reports(&self) -> u64 {
        self.report.times
    }

    /// The first byte of each 4 KiB of memory that is or was part of a table that a PE could walk or hold.
    pub fn pages_of_tables(&self) -> impl Iterator<Item = u64> {
        self.frames.ever().map(|page| page << memory::SHIFT)
    }

    /// Whether the word at `pa` is part of a table that a PE may walk or hold now.
    #[must_use]
    pub fn is_table(&self, pa: u64) -> bool {
        !self.frames.at(pa).is_empty()
    }

    /// The word at `pa`, a multiple of 8, if it is known.
    #[must_use]
    pub fn word(&self, pa: u64) -> Option<u64> {
        self.memory.read(pa)
    }

    /// Whether loads and stores of `pe` certainly go through caches.
    #[must_use]
    pub fn is_cached(&self, pe: u32) -> bool {
        self.pes.get(pe as usize).is_some_and(|state| Pe::caches(state))
    }

    /// Whether EL2's tables translate the accesses of `pe`.
    #[must_use]
    pub fn is_at_el2(&self, pe: u32) -> bool {
        self.pes.get(pe as usize).is_none_or(|state| state.levels.is_el2())
    }

    /// What a DC ZVA of `pe` zeroes.
    #[must_use]
    pub fn zeroed_block(&self, pe: u32) -> ZeroedBlock {
        self.pes.get(pe as usize).map(|state| state.zeroed_block).unwrap_or_default()
    }

    /// The physical address of `va` for `pe`, if its tables are known to map it.
    #[must_use]
    pub fn physical(&self, pe: u32, va: u64) -> Option<u64> {
        self.pes.get(pe as usize)?;
        self.translate(pe, va)
    }
}
