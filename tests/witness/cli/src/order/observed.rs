//! What a recording shows of the order between CPUs, found while it is read.
//!
//! Two kinds of edges. A load that returns what another CPU stored is after that store; in a tie between stores of one CPU, after the first
//! of them, and in one between CPUs, or with what was there before, after none. And a CPU's start is after the PSCI CPU_ON that named it: by
//! the affinity in `found vmpidr_el2` (or `mpidr_el1`), and where a trace does not have that, after the first of the calls with its entry point,
//! if they are all of one CPU.
//!
//! A store's line may stand after that of the load that saw it. So a load waits until each other CPU has been heard of once more.
//! By a barrier nobody is heard of: the recorder holds back those of a CPU that waits, and may write one after a load that
//! it was before. It writes them before any store, so that a barrier's line says as much of stores as another's.

use std::collections::HashMap;

use breakwater_trace::{Access, Call, Event, Record, Step};

use super::history::{History, Load, Source, Store, WordPart};
use super::{Edge, Moment};
use breakwater_oracle::obligations::Obligations;
use breakwater_oracle::tables::{Memory, Words};

/// PSCI CPU_ON for 32-bit and 64-bit callers.
const CPU_ON: [u64; 2] = [0x8400_0003, 0xc400_0003];
/// Aff3 and Aff2 to Aff0 of an MPIDR.
const AFFINITY: u64 = 0xff_00ff_ffff;
/// So many loads wait for one CPU; a CPU that is silent for so long has nothing to say of them.
const MOST_WAITING: usize = 1 << 14;

/// A load's bytes, and where each may have come from.
struct UnresolvedLoad {
    load: Load,
    sources: [Source; 8],
    /// CPUs that have not been heard of since.
    waits_for: u32,
}

/// A CPU as heard of so far.
#[derive(Default)]
struct HeardCpu {
    exists: bool,
    /// The instruction under way, the line of the last event, and that of the last event of an earlier instruction.
    instruction: u64,
    last: u64,
    since: u64,
    /// The last two, barriers aside.
    heard_last: u64,
    heard_since: u64,
    /// Its start, until it is known who started it.
    arrived: Option<(Moment, u64)>,
    /// Loads that wait for its next instruction, and those that wait for the end of this one.
    waiting: Vec<usize>,
    offered: Vec<usize>,
}

/// A CPU_ON.
struct On {
    at: Moment,
    affinity: u64,
    entry: u64,
}

/// Finds edges.
#[derive(Default)]
pub(crate) struct Observed {
    /// What was in memory when a second CPU came ...
    before: Memory,
    /// ... or the oracle of then, which knows it.
    oracle: Option<Obligations>,
    several: bool,
    cpus: Vec<HeardCpu>,
    words: HashMap<u64, History>,
    pending: HashMap<usize, UnresolvedLoad>,
    next: usize,
    calls: Vec<On>,
    edges: Vec<Edge>,
}

/// Whether a CPU turns another on.
const fn calls_another(step: &Step) -> bool {
    let Event::Call { call: Call::Smc | Call::Hvc, arguments: [x0, ..], .. } = step.event else { return false };
    x0 == CPU_ON[0] || x0 == CPU_ON[1]
}

/// The edges of a whole recording, whose declarations come first.
pub(crate) fn observed<'a>(records: impl IntoIterator<Item = (u64, &'a Record)>) -> Vec<Edge> {
    let mut observed = Observed::default();
    records.into_iter().for_each(|(line, record)| observed.record(line, record));
    observed.finish()
}

impl Observed {
    /// Whether there are several CPUs once this record is read: a second one was heard of, or called. Until then there
    /// is one order.
    pub(crate) fn becomes_several(&mut self, record: &Record) -> bool {
        let Record::Step(step) = record else { return self.several };
        let index = step.cpu as usize;
        self.several |=
            calls_another(step) || self.cpus.iter().enumerate().any(|(cpu, seen)| cpu != index && seen.exists);
        if !self.several && self.cpus.get(index).is_none_or(|cpu| !cpu.exists) {
            self.cpus.resize_with(index + 1, HeardCpu::default);
            self.cpus[index].exists = true;
        }
        self.several
    }

    /// From here on there are several CPUs; `oracle` has judged all records before, and knows what was in memory.
    pub(crate) fn begin(&mut self, oracle: Obligations) {
        self.oracle = Some(oracle);
    }

    /// What was in memory when a second CPU came.
    fn initial(&self, pa: u64) -> u64 {
        match &self.oracle {
            Some(oracle) => oracle.word(pa).unwrap_or(0),
            None => self.before.word(pa),
        }
    }

    /// The next record, which stands on `line`; declarations first.
    pub(crate) fn record(&mut self, line: u64, record: &Record) {
        match record {
            Record::Word { pa, value } => self.before.declare(*pa, *value),
            Record::Step(step) => self.step(line, step),
            _ => {}
        }
    }

    /// The edges, at the end of the recording.
    pub(crate) fn finish(mut self) -> Vec<Edge> {
        for cpu in 0..self.cpus.len() {
            self.name_starter(cpu, None);
        }
        let pending: Vec<UnresolvedLoad> = self.pending.drain().map(|(_, pending)| pending).collect();
        pending.iter().for_each(|pending| self.resolve(pending));
        self.edges.sort_unstable();
        self.edges.dedup();
        self.edges
    }

    fn step(&mut self, line: u64, step: &Step) {
        let index = step.cpu as usize;
        let is_barrier = matches!(step.event, Event::Dsb(_) | Event::Dmb(_) | Event::Isb);
        self.arrive(index, line, step.instruction, is_barrier);
        let at = Moment { cpu: step.cpu, line };
        match step.event {
            Event::Start { .. } => self.cpus[index].arrived = Some((at, step.pc)),
            Event::Found { register, value } => {
                if matches!(register.name(), Some("vmpidr_el2" | "mpidr_el1")) {
                    self.name_starter(index, Some(value & AFFINITY));
                }
            }
            _ => self.name_starter(index, None),
        }
        match step.event {
            Event::Store(access) if !access.device => self.store(at, &access),
            Event::Load(access) if !access.device && self.several => self.load(at, &access),
            Event::Call { arguments: [_, x1, x2, _], .. } if calls_another(step) => {
                self.several = true;
                self.calls.push(On { at, affinity: x1 & AFFINITY, entry: x2 });
            }
            _ => {}
        }
        let cpu = &mut self.cpus[index];
        cpu.last = line;
        if !is_barrier {
            cpu.heard_last = line;
        }
    }

    /// A CPU is heard of: if by a new instruction, whatever its last one may have stored is known.
    fn arrive(&mut self, index: usize, line: u64, instruction: u64, is_barrier: bool) {
        if self.cpus.len() <= index {
            self.cpus.resize_with(index + 1, HeardCpu::default);
        }
        if !self.cpus[index].exists {
            self.several |= self.cpus.iter().any(|cpu| cpu.exists);
        }
        let cpu = &mut self.cpus[index];
        if !cpu.exists {
            // Before its first event it has done nothing.
            (cpu.exists, cpu.instruction) = (true, instruction);
            (cpu.since, cpu.heard_last, cpu.heard_since) = (line, line, line);
        } else if cpu.instruction != instruction {
            (cpu.instruction, cpu.since) = (instruction, cpu.last);
            if is_barrier {
                return;
            }
            cpu.heard_since = cpu.heard_last;
            let heard = std::mem::replace(&mut cpu.offered, std::mem::take(&mut cpu.waiting));
            self.heard(&heard);
        }
    }

    /// One CPU less to wait for.
    fn heard(&mut self, loads: &[usize]) {
        for load in loads {
            let Some(pending) = self.pending.get_mut(load) else { continue };
            pending.waits_for -= 1;
            if pending.waits_for == 0
                && let Some(pending) = self.pending.remove(load)
            {
                self.resolve(&pending);
            }
        }
    }

    fn store(&mut self, at: Moment, access: &Access) {
        let cpu = &self.cpus[at.cpu as usize];
        for part in WordPart::all(access) {
            if !self.several {
                let old = self.before.word(part.pa);
                self.before.declare(part.pa, part.over(old));
                continue;
            }
            for load in cpu.offered.iter().chain(&cpu.waiting) {
                let seen = |pending: &&mut UnresolvedLoad| {
                    pending.load.part.pa == part.pa && cpu.heard_since < pending.load.at.line
                };
                if let Some(pending) = self.pending.get_mut(load).filter(seen) {
                    pending.may_be(at, part);
                }
            }
            self.words.entry(part.pa).or_default().add(Store { at, since: cpu.since, part });
        }
    }

    fn load(&mut self, at: Moment, access: &Access) {
        let since = self.cpus[at.cpu as usize].since;
        for part in WordPart::all(access) {
            let load = Load { at, since, part };
            let initial = self.initial(part.pa);
            let nothing = History::default();
            let history = self.words.get(&part.pa).unwrap_or(&nothing);
            let mut sources = [Source::Several; 8];
            for index in (0..8).filter(|index| part.bytes & (1 << index) != 0) {
                sources[index as usize] = history.source(&load, index, (initial >> (8 * index)) as u8);
            }
            let own = |source: &Source| matches!(source, Source::Store(store) if store.cpu == at.cpu);
            if !sources.iter().all(|source| *source == Source::Several || own(source)) {
                self.wait(UnresolvedLoad { load, sources, waits_for: 0 });
            }
        }
    }

    /// Lets a load wait for every other CPU's next instruction.
    fn wait(&mut self, mut pending: UnresolvedLoad) {
        let load = self.next;
        self.next += 1;
        let own = pending.load.at.cpu as usize;
        let mut silent = Vec::new();
        for (_, cpu) in self.cpus.iter_mut().enumerate().filter(|(index, cpu)| *index != own && cpu.exists) {
            pending.waits_for += 1;
            cpu.waiting.push(load);
            if cpu.waiting.len() > MOST_WAITING {
                silent.append(&mut cpu.waiting);
            }
        }
        if pending.waits_for == 0 {
            return self.resolve(&pending);
        }
        self.pending.insert(load, pending);
        self.heard(&silent);
    }

    /// Makes edges of what is known of a load: at most one for each CPU.
    fn resolve(&mut self, pending: &UnresolvedLoad) {
        let mut latest: Vec<Moment> = Vec::new();
        for source in pending.sources {
            let Source::Store(store) = source else { continue };
            match latest.iter_mut().find(|known| known.cpu == store.cpu) {
                Some(known) => *known = store.max(*known),
                None if store.cpu != pending.load.at.cpu => latest.push(store),
                None => {}
            }
        }
        self.edges.extend(latest.into_iter().map(|before| Edge { before, after: pending.load.at }));
    }

    /// Finds the call that started a CPU: of its affinity, if that is known.
    fn name_starter(&mut self, index: usize, affinity: Option<u64>) {
        let Some((start, pc)) = self.cpus[index].arrived.take() else { return };
        let call = match affinity {
            Some(affinity) => self.calls.iter().rev().find(|call| call.affinity == affinity),
            None => {
                let mut calls = self.calls.iter().filter(|call| call.entry == pc);
                let first = calls.next();
                first.filter(|first| calls.all(|call| call.at.cpu == first.at.cpu))
            }
        };
        if let Some(before) = call.map(|call| call.at).filter(|before| before.cpu != start.cpu) {
            self.edges.push(Edge { before, after: start });
        }
    }
}

impl UnresolvedLoad {
    /// A store whose line came later may be where the value is from.
    fn may_be(&mut self, at: Moment, stored: WordPart) {
        for index in 0..8 {
            let byte = self.load.part.byte(index);
            if byte.is_some() && stored.byte(index) == byte {
                let source = &mut self.sources[index as usize];
                *source = source.or(at);
            }
        }
    }
}
