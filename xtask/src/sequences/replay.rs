//! Reads a trace and asks every judge about every event.

use std::collections::HashSet;
use std::io::BufRead;

use anyhow::{Result, bail};
use breakwater_trace::names::Family;
use breakwater_trace::{Access, Call, Event, Operation, Reader, Record, Step};

use super::barriers::Invalidation;
use super::enable::{Cpu, Turn};
use super::lines::Lines;
use super::live::Live;
use super::reach::{Reach, Root};
use super::{Demands, Finding, Findings};
use crate::measure::Loaded;
use crate::measure::descriptor::{self, Kind};
use crate::measure::memory::{Change, Memory};

/// PSCI CPU_ON, as SMC32 and SMC64.
const CPU_ON: [u64; 2] = [0x8400_0003, 0xc400_0003];
/// What DC ZVA zeroes on every CPU that QEMU models.
const ZEROED_BYTES: u64 = 64;

struct Replay {
    memory: Memory,
    cpus: Vec<Cpu>,
    /// For each CPU: when it was released, in moments.
    released: Vec<u64>,
    last_release: u64,
    first_cpu: Option<u32>,
    reaches: Vec<Reach>,
    lines: Lines,
    live: Live,
    /// Moments are counted by line of the trace: the order that the recorder saw.
    now: u64,
    image: Option<(u64, u64)>,
    findings: Findings,
}

/// Replays `trace` over memory that holds `loaded`.
///
/// # Errors
/// A malformed or cut-off trace.
pub(super) fn replay(trace: impl BufRead, loaded: &[Loaded], demands: Demands) -> Result<Vec<Finding>> {
    let mut replay = Replay {
        memory: Memory::default(),
        cpus: Vec::new(),
        released: Vec::new(),
        last_release: 0,
        first_cpu: None,
        reaches: Vec::new(),
        lines: Lines::new(demands.line_bytes),
        live: Live::new(demands.repeat_tlbi),
        now: 0,
        image: loaded.first().map(|image| (image.pa, image.pa + image.bytes.len() as u64)),
        findings: Findings::default(),
    };
    for Loaded { pa, bytes } in loaded {
        replay.memory.declare_bytes(*pa, bytes);
    }
    let mut reader = Reader::new(trace);
    while let Some(record) = reader.next_record()? {
        match record {
            Record::Word { pa, value } => replay.memory.declare(pa, value),
            Record::Step(step) => replay.step(&step)?,
            Record::Memory { .. } | Record::Feature { .. } | Record::Count { .. } => {}
            Record::End(_) => {
                replay.live.end(&mut replay.findings);
                return Ok(replay.findings.found);
            }
        }
    }
    bail!("the trace breaks off after line {}: it has no end record", reader.line().saturating_sub(1))
}

impl Replay {
    fn step(&mut self, step: &Step) -> Result<()> {
        let cpu = step.cpu as usize;
        let first = *self.first_cpu.get_or_insert(step.cpu) == step.cpu;
        self.now += 1;
        while self.cpus.len() <= cpu {
            self.cpus.push(Cpu::default());
            self.released.push(0);
        }
        if matches!(step.event, Event::Start { .. }) {
            self.released[cpu] = self.last_release;
        }
        let on = self.cpus[cpu].on();
        let of_image = on || self.image.is_none_or(|(start, end)| start <= step.pc && step.pc < end);
        let turn = self.cpus[cpu].step(step, of_image, &mut self.findings);
        if let Some(turn) = turn {
            self.turned(step, turn);
        }
        match step.event {
            Event::Store(access) if !access.device => self.store(step, &access, on, first),
            Event::Store(access) | Event::Load(access) if on => self.live.used(step, access.va, &mut self.findings),
            Event::Load(access) if !access.device => {
                self.lines.loaded_uncached(step, access.pa, self.released[cpu], &mut self.findings);
            }
            Event::Maintain { operation, operand } => self.maintain(step, operation, operand, on, first),
            Event::Dsb(barrier) => {
                self.lines.barrier(step.cpu, self.now, barrier, true, first);
                self.live.dsb(step.cpu, self.now, barrier);
            }
            Event::Dmb(barrier) => self.lines.barrier(step.cpu, self.now, barrier, false, first),
            Event::Isb => self.live.isb(step.cpu),
            Event::Call { call: Call::Smc | Call::Hvc, arguments, .. } if CPU_ON.contains(&arguments[0]) => {
                self.last_release = self.now;
            }
            _ => {}
        }
        Ok(())
    }

    /// The tables that a CPU walks, as far as it walks any.
    fn reach_of(&self, cpu: u32) -> Option<&Reach> {
        let cpu = self.cpus.get(cpu as usize)?;
        let root = Root::new(cpu.ttbr0, cpu.tcr)?;
        self.reaches.iter().find(|reach| reach.root == root)
    }

    /// M changed: judges where the code stands, and brings the tables in force up to date.
    fn turned(&mut self, step: &Step, turn: Turn) {
        const IDENTITY: &str = "code that changes M runs at its physical address, executable in the root in force";
        if turn != Turn::Off {
            self.put_in_force(step);
        }
        let reach = self.reach_of(step.cpu);
        let stands = |pc| reach.and_then(|reach| reach.translate(&self.memory, pc)) == Some((pc, true));
        let in_place = stands(step.pc) && stands(step.pc + 4);
        let tables: HashSet<u64> = reach.map(|reach| reach.frames().collect()).unwrap_or_default();
        self.findings.require(in_place, step, IDENTITY);
        if turn == Turn::Off {
            return self.retire();
        }
        if turn == Turn::FirstOn && self.first_cpu == Some(step.cpu) {
            self.lines.first_enable(step, self.now, &tables, &mut self.findings);
        }
        self.live.shared |= self.cpus.iter().filter(|cpu| cpu.was_on).count() > 1;
    }

    fn put_in_force(&mut self, step: &Step) {
        let cpu = &self.cpus[step.cpu as usize];
        let Some(root) = Root::new(cpu.ttbr0, cpu.tcr) else {
            return self.findings.add(step, "the granule is 4 KiB, addresses have up to 48 bits", "");
        };
        if !self.reaches.iter().any(|reach| reach.root == root) {
            self.reaches.push(Reach::new(root, &self.memory));
        }
    }

    /// Forgets roots that no CPU walks.
    fn retire(&mut self) {
        let roots = self.cpus.iter().filter(|cpu| cpu.on()).filter_map(|cpu| Root::new(cpu.ttbr0, cpu.tcr));
        let roots: Vec<Root> = roots.collect();
        self.reaches.retain(|reach| roots.contains(&reach.root));
    }

    fn store(&mut self, step: &Step, access: &Access, on: bool, first: bool) {
        if on {
            self.lines.stored_cacheably(access.pa, access.bytes.into());
            self.vectors_are_mapped(step, access);
        } else {
            self.lines.stored_uncached(step, self.now, access.pa, first, &mut self.findings);
        }
        self.live.stored(step, self.now, access.pa, on.then_some(access.va), &mut self.findings);
        let changes = self.memory.store(access);
        self.changed(step, &changes);
    }

    /// Once a CPU runs elsewhere than at its physical addresses, its vectors must be where a fault can reach them.
    fn vectors_are_mapped(&mut self, step: &Step, access: &Access) {
        const VECTORS: &str = "VBAR_EL2 leads to executable memory before the first store at a virtual address";
        if access.va == access.pa {
            return;
        }
        let vectors = self.cpus[step.cpu as usize].vectors;
        let mapped = self.reach_of(step.cpu).and_then(|reach| reach.translate(&self.memory, vectors));
        self.findings.require(matches!(mapped, Some((_, true))), step, VECTORS);
    }

    fn changed(&mut self, step: &Step, changes: &[Change]) {
        for change in changes {
            let mut linked = false;
            let mut places = Vec::new();
            for reach in &mut self.reaches {
                reach.refresh(&self.memory);
                for place in reach.at(change.pa) {
                    linked |=
                        [change.old, change.new].iter().any(|word| descriptor::kind(*word, place.level) == Kind::Table);
                    if !places.contains(&place) {
                        places.push(place);
                    }
                }
                if linked {
                    reach.outdated();
                }
            }
            for place in places {
                self.live.changed((step, self.now), *change, place, &self.memory, &mut self.findings);
            }
        }
    }

    fn maintain(&mut self, step: &Step, operation: Operation, operand: u64, on: bool, first: bool) {
        if let Some(tlbi) = Invalidation::decode(operation, operand) {
            return self.live.invalidated(step, tlbi);
        }
        if operation.family() != Some(Family::Dc) {
            return;
        }
        let pa = match self.reach_of(step.cpu).filter(|_| on) {
            Some(reach) => reach.translate(&self.memory, operand).map(|(pa, _)| pa),
            None => Some(operand),
        };
        if !operation.zeroes() {
            return self.lines.maintained(step, self.now, operation, pa);
        }
        // DC ZVA is a store that the recorder cannot show.
        if let Some(pa) = pa.map(|pa| pa & !(ZEROED_BYTES - 1)) {
            if on {
                self.lines.stored_cacheably(pa, ZEROED_BYTES);
            } else {
                self.lines.stored_uncached(step, self.now, pa, first, &mut self.findings);
            }
            self.live.stored(step, self.now, pa, on.then_some(operand), &mut self.findings);
            let changes = self.memory.zero(pa, ZEROED_BYTES);
            self.changed(step, &changes);
        }
    }
}
