//! A whole machine of one kind of part, driven by a trace until it crashes or the trace ends.

use core::fmt;
use std::collections::BTreeMap;

use breakwater_trace::{Access, Event, Operation, Record, Step};

use crate::maintenance::{Invalidation, Reach, stored_words};
use crate::params::Params;
use crate::regime::{Control, Controls};

use super::Policy;
use super::memory::Memory;
use super::pe::{Conflict, Pe, Translated};

/// TCR_EL2 of the 4 KiB granule and 48 bits.
const PLAIN_TCR: u64 = 16;

/// The first thing that goes wrong on a part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crash {
    /// The line of the trace.
    pub line: u64,
    /// The PE.
    pub pe: u32,
    /// The virtual address of the access.
    pub va: u64,
    /// What happened, in a few words.
    pub what: String,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, pe, va, what } = self;
        write!(f, "line {line}: CPU {pe} at {va:#x}: {what}")
    }
}

/// Replays `records` on parts of the kind `policy`: the first crash, if there is one. Lines are counted as in a file
/// without comments: the header is line 1, the first record line 2.
///
/// The same `seed` gives the same run; only [`Policy::is_random`] ones look at it.
pub fn replay<'a>(policy: Policy, seed: u64, records: impl IntoIterator<Item = &'a Record>) -> Option<Crash> {
    replay_lines(policy, seed, (2..).zip(records))
}

/// [`replay`], each record with the line it stands on.
pub fn replay_lines<'a>(
    policy: Policy,
    seed: u64,
    records: impl IntoIterator<Item = (u64, &'a Record)>,
) -> Option<Crash> {
    let mut replay = Replay::new(policy, seed);
    records.into_iter().find_map(|(line, record)| replay.step(line, record))
}

/// [`replay`] of a trace that is too long to be held in memory, record by record.
pub struct Replay(Replays);

impl Replay {
    /// Parts of the kind `policy` before the first record.
    #[must_use]
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self(Replays::new([(policy, seed)]))
    }

    /// The next record, and the crash it leads to. What happens after a crash means nothing, until what is judged is
    /// entered.
    pub fn step(&mut self, line: u64, record: &Record) -> Option<Crash> {
        let mut first = None;
        self.0.step(line, record, |_, crash| first = Some(crash));
        first
    }
}

/// Several machines that follow one trace, each of parts of one kind. They have one memory: what is stored goes where
/// the trace says.
pub struct Replays {
    memory: Memory,
    params: Params,
    machines: Vec<Machine>,
}

/// Where and how an access went wrong.
struct Went {
    va: u64,
    what: String,
}

/// Why bytes are accessed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Load,
    Store,
    Fetch,
    /// The later pages of a straight run: perhaps not reached, so a fault there means nothing.
    FetchAhead,
}

struct Machine {
    policy: Policy,
    seed: u64,
    pes: BTreeMap<u32, Pe>,
}

impl Replays {
    /// Machines of these kinds, each with its seed, before the first record.
    #[must_use]
    pub fn new(kinds: impl IntoIterator<Item = (Policy, u64)>) -> Self {
        let machine = |(policy, seed)| Machine { policy, seed, pes: BTreeMap::new() };
        let machines = kinds.into_iter().map(machine).collect();
        Self { memory: Memory::default(), params: Params::default(), machines }
    }

    /// The next record; `crashed` is told which machine crashes at it, and how.
    pub fn step(&mut self, line: u64, record: &Record, mut crashed: impl FnMut(usize, Crash)) {
        let Self { memory, params, machines } = self;
        match record {
            Record::Word { pa, value } => memory.set(*pa, u64::MAX, *value),
            Record::Feature { cpu, feature } => {
                params.set(*cpu, *feature);
                for (cpu, pe) in machines.iter_mut().flat_map(|machine| &mut machine.pes) {
                    pe.decode(params.of(*cpu));
                }
            }
            Record::Step(step) => {
                for (number, machine) in machines.iter_mut().enumerate() {
                    if let Err(Went { va, what }) = machine.event(step, memory, params) {
                        crashed(number, Crash { line, pe: step.cpu, va, what });
                    }
                }
                self.store(step);
                for pe in self.machines.iter_mut().filter_map(|machine| machine.pes.get_mut(&step.cpu)) {
                    if pe.translates() {
                        pe.guess(&self.memory);
                    }
                }
            }
            Record::Memory { .. } | Record::Count { .. } | Record::End(_) => {}
        }
    }

    /// What `step` stores.
    fn store(&mut self, step: &Step) {
        match &step.event {
            Event::Store(access) if !access.device => {
                stored_words(access).for_each(|(pa, mask, value)| self.memory.set(pa, mask, value));
            }
            // Where the tables lead that all machines walk.
            Event::Maintain { operation, operand } if operation.zeroes() => {
                let Some(pe) = self.machines.first_mut().and_then(|machine| machine.pes.get_mut(&step.cpu)) else {
                    return;
                };
                let block = pe.zeroed_block;
                let va = block.start(*operand);
                let pa = match pe.translates().then(|| pe.fresh(va, &self.memory)) {
                    Some(Translated::To { pa, .. }) => pa,
                    Some(Translated::Fault { .. } | Translated::Unknown) => return,
                    None => match pe.physical(va) {
                        Some(pa) => pa,
                        None => return,
                    },
                };
                block.words(pa).for_each(|(word, mask, value)| self.memory.set(word, mask, value));
            }
            _ => {}
        }
    }
}

impl Machine {
    fn event(&mut self, step: &Step, memory: &Memory, params: &Params) -> Result<(), Went> {
        let features = *params.of(step.cpu);
        let seed = self.seed ^ u64::from(step.cpu) << 32;
        let part = self.policy.part();
        let pe = self.pes.entry(step.cpu).or_insert_with(|| Pe::new(part, seed, &features));
        pe.levels.follow(step.pc, &step.event);
        match &step.event {
            Event::Found { register, value } | Event::Msr { register, value } => {
                pe.zeroed_block.find(*register, *value);
                if let Some(control) = Control::of(*register) {
                    pe.set(control, *value, &features);
                }
            }
            Event::Load(access) => Self::data(pe, memory, access, Purpose::Load)?,
            Event::Store(access) => Self::data(pe, memory, access, Purpose::Store)?,
            Event::Fetch { instructions } => Self::fetch(pe, memory, step.pc, *instructions)?,
            Event::Maintain { operation, operand } if operation.zeroes() => {
                let block = pe.zeroed_block;
                touch(pe, memory, block.start(*operand), Some(block.bytes()), Purpose::Store)?;
            }
            Event::Maintain { operation, operand } => self.maintain(step.cpu, *operation, *operand, params),
            // Whatever the loader did to them, TLBs hold what the tables say.
            Event::Enter { .. } => self.pes.values_mut().for_each(Pe::forget),
            _ => {}
        }
        Ok(())
    }

    fn data(pe: &mut Pe, memory: &Memory, access: &Access, purpose: Purpose) -> Result<(), Went> {
        pe.levels.note_access(access.va, access.pa);
        let bytes = if access.device { None } else { Some(u64::from(access.bytes)) };
        touch(pe, memory, access.va, bytes, purpose)
    }

    /// A straight run: each page once, the first instruction for certain.
    fn fetch(pe: &mut Pe, memory: &Memory, pc: u64, instructions: u32) -> Result<(), Went> {
        let page = pe.page_bytes();
        let end = pc.saturating_add(4 * u64::from(instructions));
        let (mut va, mut purpose) = (pc, Purpose::Fetch);
        while va < end {
            let next = (va | (page - 1)).saturating_add(1).min(end);
            touch(pe, memory, va, Some(next - va), purpose)?;
            (va, purpose) = (next, Purpose::FetchAhead);
        }
        Ok(())
    }

    fn maintain(&mut self, cpu: u32, operation: Operation, operand: u64, params: &Params) {
        let features = params.of(cpu);
        let own = self.pes.get(&cpu).and_then(Pe::format).copied();
        // Before TCR_EL2 is set ALLE2 must still be heard; it does not depend on the format.
        let plain = || Controls { tcr: PLAIN_TCR, ..Controls::default() }.format(features).ok();
        let decoded = own.or_else(plain).and_then(|format| Invalidation::decode(operation, operand, &format, features));
        let Some(invalidation) = decoded else { return };
        for (other, pe) in &mut self.pes {
            let is_reached = *other == cpu || invalidation.reach != Reach::Own;
            if is_reached && (!invalidation.is_range || params.of(*other).tlbi_range) {
                pe.invalidate(&invalidation);
            }
        }
    }
}

/// An access to `bytes` bytes of memory, or to a device if there is no such number: as the part translates it, against
/// what the tables say.
fn touch(pe: &mut Pe, memory: &Memory, va: u64, bytes: Option<u64>, purpose: Purpose) -> Result<(), Went> {
    if !pe.translates() {
        return Ok(());
    }
    let went = |what: String| Err(Went { va, what });
    let is_code = matches!(purpose, Purpose::Fetch | Purpose::FetchAhead);
    match pe.access(va, is_code, memory) {
        Err(Conflict { smaller, larger }) => went(format!(
            "TLB conflict: an entry of {} to {:#x} and one of {} to {:#x}",
            size(smaller.0),
            smaller.1,
            size(larger.0),
            larger.1
        )),
        Ok(used) => match wrong(used, pe.fresh(va, memory), memory, bytes, purpose) {
            Some(what) => went(what),
            None => Ok(()),
        },
    }
}

/// What is wrong with `used`, given what the tables say.
fn wrong(used: Translated, says: Translated, memory: &Memory, bytes: Option<u64>, purpose: Purpose) -> Option<String> {
    let permits = |writable, executable| match purpose {
        Purpose::Load => true,
        Purpose::Store => writable,
        Purpose::Fetch | Purpose::FetchAhead => executable,
    };
    match (used, says) {
        (_, Translated::Unknown) => None,
        (Translated::To { pa, writable, executable }, Translated::To { pa: said, writable: w, executable: x }) => {
            if !permits(w, x) {
                return None;
            }
            if !permits(writable, executable) {
                return Some("permission fault by a stale entry: the tables permit it".to_owned());
            }
            let is_read = purpose != Purpose::Store;
            let is_alike = || is_read && bytes.is_some_and(|bytes| memory.is_same(pa, said, bytes));
            (pa != said && !is_alike()).then(|| format!("stale translation to {pa:#x}, the tables say {said:#x}"))
        }
        (_, Translated::Fault { .. }) if purpose == Purpose::FetchAhead => None,
        (Translated::To { pa, .. }, Translated::Fault { .. }) => {
            Some(format!("stale translation to {pa:#x}, the tables say nothing"))
        }
        (Translated::Fault { pa }, Translated::Fault { .. }) => {
            memory.is_broken(pa).then(|| format!("translation fault: the entry at {pa:#x} is broken"))
        }
        (Translated::Fault { .. } | Translated::Unknown, Translated::To { writable, executable, .. }) => {
            let what = "translation fault by a stale walk cache: the tables say otherwise";
            permits(writable, executable).then(|| what.to_owned())
        }
        (Translated::Unknown, Translated::Fault { .. }) => None,
    }
}

/// A span of 2^`shift` bytes, in words.
fn size(shift: u8) -> String {
    match shift {
        0..20 => format!("{} KiB", 1_u64 << (shift - 10)),
        20..30 => format!("{} MiB", 1_u64 << (shift - 20)),
        _ => format!("{} GiB", 1_u64 << (shift - 30)),
    }
}
