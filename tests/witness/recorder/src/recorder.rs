//! What is written down, and when.
//!
//! QEMU calls from every CPU's thread; one lock keeps lines whole and, within a CPU, in order. Across CPUs the order is that of the
//! callbacks' arrival. What is known per translated instruction is kept in a table of sites, so that QEMU carries a
//! number instead of a pointer.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use breakwater_trace::{Atomic, Call, Decoded, End, Event, MOST_CPUS, Record, Register, Step, decode};

use crate::atomics::Atomics;
use crate::ffi::{self, Access, Block, Counter, Registers};
use crate::log::{Log, Site};
use crate::options::{Entry, Loads, Options, Runs};
use crate::repeats::Fetches;
use crate::shared::Shared;

/// Registers whose first values are written down, as far as QEMU shows them. VPIDR_EL2 and VMPIDR_EL2 are there for what QEMU resets them
/// to: MIDR_EL1 and MPIDR_EL1, which it does not show.
const FOUND: [&str; 21] = [
    "sctlr_el2",
    "sctlr_el1",
    "sctlr_el3",
    "hcr_el2",
    "tcr_el2",
    "tcr2_el2",
    "ttbr0_el2",
    "mair_el2",
    "vbar_el2",
    "midr_el1",
    "mpidr_el1",
    "vpidr_el2",
    "vmpidr_el2",
    "ctr_el0",
    "dczid_el0",
    "id_aa64isar0_el1",
    "id_aa64mmfr0_el1",
    "id_aa64mmfr1_el1",
    "id_aa64mmfr2_el1",
    "id_aa64mmfr3_el1",
    "id_aa64mmfr4_el1",
];

/// Set in a site's number, as QEMU carries it, where the instruction is [`Atomic`].
const ATOMIC: u32 = 1 << 31;

/// The vectors of one exception level take 2 KiB, each slot 128 bytes.
const VECTORS_BYTES: u64 = 0x800;
const VECTOR_BYTES: u64 = 0x80;

/// Bytes of memory read at a time.
const PAGE: usize = 4096;

static SESSION: OnceLock<Session> = OnceLock::new();

/// Everything that lives from installation to exit.
struct Session {
    options: Options,
    counter: Counter,
    registers: OnceLock<Registers>,
    /// What is judged has been entered. Until then fetches and loads, which are judged alone, are of no interest.
    entered: AtomicBool,
    /// Per CPU: SCTLR_EL2.M. Outside the lock, because every load asks.
    mmu_on: Vec<AtomicBool>,
    /// Per CPU: it executes at another level than EL2, whose fetches and cached loads EL2's tables have no part in.
    elsewhere: Vec<AtomicBool>,
    atomics: Atomics,
    /// With `loads=shared`, on a machine with more than one CPU.
    shared: Option<Shared>,
    /// With `fetches=pages`.
    fetches: Option<Fetches>,
    log: Mutex<Log>,
}

/// Starts a session; the reason if it cannot be.
pub(crate) fn install(usable: bool, cpus: usize, arguments: &[String]) -> Result<(), String> {
    if !usable {
        return Err("only qemu-system-aarch64 can be recorded".into());
    }
    let options = Options::parse(arguments)?;
    if cpus > MOST_CPUS as usize {
        return Err(format!("a trace has at most {MOST_CPUS} CPUs, and this machine may have {cpus}"));
    }
    let file = File::create(&options.out).map_err(|error| format!("{}: {error}", options.out.display()))?;
    let log = Log::new(file, &options, cpus);
    let shared = (options.loads == Loads::Shared && cpus > 1).then(|| Shared::new(cpus));
    let fetches = (options.fetches == Runs::Pages).then(|| Fetches::new(cpus));
    let session = Session {
        entered: AtomicBool::new(options.entries.is_empty()),
        options,
        fetches,
        counter: Counter::new(),
        registers: OnceLock::new(),
        mmu_on: (0..cpus).map(|_| AtomicBool::new(false)).collect(),
        elsewhere: (0..cpus).map(|_| AtomicBool::new(false)).collect(),
        atomics: Atomics::new(cpus),
        shared,
        log: Mutex::new(log),
    };
    SESSION.set(session).map_err(|_| "installed twice".into())
}

/// The session; callbacks come only after a successful [`install`].
fn session() -> &'static Session {
    SESSION.get().expect("QEMU calls back only after installation")
}

/// A CPU came into being (it may be off for long).
pub(crate) fn appeared(_cpu: u32, list: impl FnOnce() -> Registers) {
    session().registers.get_or_init(list);
}

/// Code was translated: decides what is to be reported of it.
pub(crate) fn translated(block: &Block<'_>) {
    let session = session();
    let mut log = session.log();
    let run = block.instructions().count() as u32;
    let mut follows_read = false;
    for (index, instruction) in block.instructions().enumerate() {
        let (pc, word) = (instruction.va(), instruction.word());
        let (decoded, atomic) = (decode(word), Atomic::of(word));
        let site = log.site(pc, word, if index == 0 { run } else { 0 });
        if index == 0 {
            follows_read = log.blocks.follows_read(pc);
            block.report_start(&session.counter, site);
            if let Some(limit) = session.options.limit {
                block.report_limit(&session.counter, limit);
            }
            if let Some(fetches) = &session.fetches {
                fetches.begins(site, pc);
            }
            // A vector's fetch comes after the exception: the instruction itself tells of both.
            if session.options.fetches != Runs::Never && !pc.is_multiple_of(VECTOR_BYTES) {
                block.report_fetch(site);
            }
        }
        if session.options.entries.iter().any(|entry| entry.may_be(pc, word)) {
            instruction.report_entry_of_image(site);
        }
        if session.options.until.contains(&pc) {
            instruction.report_limit();
        }
        instruction.count(&session.counter);
        if index == 0 && pc.is_multiple_of(VECTOR_BYTES) {
            instruction.report_entry(site);
        }
        if decoded.is_some() || atomic.is_some() || follows_read {
            instruction.report_execution(site);
        }
        follows_read = decoded.is_some_and(reads_dczid);
        if follows_read && index as u32 + 1 == run {
            log.blocks.ends_with_read(pc.wrapping_add(4));
        }
        let access = site | if atomic.is_some() { ATOMIC } else { 0 };
        instruction.report_loads(access);
        instruction.report_stores(access);
    }
}

/// Whether an instruction reads DCZID_EL0.
fn reads_dczid(decoded: Decoded) -> bool {
    matches!(decoded, Decoded::Mrs { register, .. } if register.name() == Some("dczid_el0"))
}

/// A CPU is about to execute its first instruction.
pub(crate) fn started(cpu: u32, site: u32) {
    let session = session();
    let mut log = session.log();
    let pc = log.sites[site as usize].pc;
    if let Some(shared) = &session.shared {
        shared.starts();
    }
    let exception_level = session.exception_level();
    session.goes_to(cpu, exception_level);
    let shown = |name| session.registers.get().and_then(|registers| registers.read(name));
    log.blocks.starts(cpu, shown("midr_el1").or_else(|| shown("vpidr_el2")), shown("dczid_el0"));
    session.write(&mut log, Step { cpu, instruction: 1, pc, event: Event::Start { exception_level } });
    for name in FOUND {
        if let (Some(value), Some(register)) = (shown(name), Register::from_text(name)) {
            session.take_effect(&mut log, cpu, name, value);
            session.write(&mut log, Step { cpu, instruction: 1, pc, event: Event::Found { register, value } });
        }
    }
}

/// A straight run of instructions begins.
pub(crate) fn fetched(cpu: u32, site: u32) {
    let session = session();
    if session.fetch_tells(cpu, site) {
        // The run's first instruction has not been counted yet.
        session.write_fetch(&mut session.log(), cpu, site, session.counter.of(cpu) + 1);
    }
}

/// An instruction at an address that may be a vector is about to execute: a run begins, perhaps with an exception.
pub(crate) fn entered(cpu: u32, site: u32) {
    let session = session();
    let mut log = session.log();
    let pc = log.sites[site as usize].pc;
    if let Some(event) = session.exception(&log, cpu, pc) {
        if let Event::Exception { to, .. } = event {
            session.goes_to(cpu, to);
        }
        session.write_now(&mut log, cpu, pc, event);
    }
    if session.options.fetches != Runs::Never && session.fetch_tells(cpu, site) {
        session.write_fetch(&mut log, cpu, site, session.counter.of(cpu));
    }
}

/// An instruction is about to execute that may be the first of what is judged; `read` tells what memory holds at a
/// virtual address.
pub(crate) fn may_enter(cpu: u32, site: u32, read: impl Fn(u64, usize) -> Option<Vec<u8>>) {
    let session = session();
    let mut log = session.log();
    if session.has_entered() {
        return;
    }
    let pc = log.sites[site as usize].pc;
    let holds = |words: &[u32]| {
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        read(pc, code.len()).is_some_and(|read| read == code)
    };
    let mut images = session.options.entries.iter().filter_map(|entry| match entry {
        Entry::At(address) => (*address == pc).then_some((0, 0)),
        Entry::Code { offset, bytes, words } => holds(words).then(|| (pc.wrapping_sub(*offset), *bytes)),
    });
    let Some((pa, bytes)) = images.next() else { return };
    session.entered.store(true, Ordering::Relaxed);
    // This instruction has not been counted yet.
    let instruction = session.counter.of(cpu) + 1;
    session.write(&mut log, Step { cpu, instruction, pc, event: Event::Enter { pa, bytes } });
    // A device may have written it, which no recording shows.
    for (at, page) in (pa..pa + bytes).step_by(PAGE).map(|at| (at, read(at, PAGE.min((pa + bytes - at) as usize)))) {
        for (word, pa) in page.unwrap_or_default().chunks_exact(8).zip((at..).step_by(8)) {
            let value = u64::from_le_bytes(word.try_into().unwrap_or_default());
            log.record(&Record::Word { pa, value });
        }
    }
}

/// An instruction of interest is about to execute.
pub(crate) fn executes(cpu: u32, site: u32) {
    let session = session();
    let mut log = session.log();
    let Site { pc, decoded, atomic, .. } = log.sites[site as usize];
    let is_el2 = !session.elsewhere.get(cpu as usize).is_some_and(|flag| flag.load(Ordering::Relaxed));
    let read = log.blocks.has_read(cpu, pc, is_el2, |rt| session.general(rt));
    session.write_block(&mut log, cpu, pc, read);
    if let Some(atomic) = atomic {
        return session.atomics.begins(cpu, operand(session, atomic));
    }
    let Some(decoded) = decoded else { return };
    let event = match decoded {
        Decoded::Msr { register, rt } => {
            let value = session.general(rt);
            session.take_effect(&mut log, cpu, register.name().unwrap_or_default(), value);
            Event::Msr { register, value }
        }
        Decoded::Mrs { register, rt } => {
            if reads_dczid(decoded) {
                log.blocks.reads(cpu, pc, rt);
            }
            Event::Mrs { register }
        }
        Decoded::Maintain { operation, rt } => {
            if operation.zeroes() {
                let known = log.blocks.zeroes(cpu);
                session.write_block(&mut log, cpu, pc, known);
            }
            Event::Maintain { operation, operand: session.general(rt) }
        }
        Decoded::Dsb(barrier) => Event::Dsb(barrier),
        Decoded::Dmb(barrier) => Event::Dmb(barrier),
        Decoded::Isb => Event::Isb,
        Decoded::Eret => {
            let to = session.return_level();
            session.goes_to(cpu, to);
            Event::Eret { to: Some(to) }
        }
        Decoded::Call { call, immediate } => call_event(session, call, immediate),
    };
    session.write_now(&mut log, cpu, pc, event);
}

/// What an atomic instruction is about to compare with, or to change a word by.
fn operand(session: &Session, atomic: Atomic) -> [u64; 2] {
    match atomic {
        Atomic::CompareAndSwap { rs, pair, bytes } => {
            let second = if pair { session.general(rs + 1) } else { 0 };
            Atomic::expected(bytes, pair, [session.general(rs), second])
        }
        Atomic::Update { rs, .. } => [session.general(rs), 0],
        Atomic::LoadExclusive | Atomic::StoreExclusive => [0; 2],
    }
}

/// A call with its first four arguments.
fn call_event(session: &Session, call: Call, immediate: u16) -> Event {
    let arguments = [0, 1, 2, 3].map(|rt| session.general(rt));
    Event::Call { call, immediate, arguments }
}

/// A load was performed.
pub(crate) fn loaded(cpu: u32, site: u32, access: &Access<'_>) {
    let session = session();
    let is_atomic = site & ATOMIC != 0;
    let loads = session.loads(cpu);
    if !is_atomic && loads == Loads::Never {
        return;
    }
    let read = access.read();
    // Most loads end here, without a lock that they share.
    if !is_atomic && !session.wants(loads, cpu, read.as_ref()) {
        return;
    }
    let mut log = session.log();
    let Site { pc, atomic, .. } = log.sites[(site & !ATOMIC) as usize];
    let Some(access) = read else { return log.unplaced(cpu, pc) };
    let event = match atomic {
        Some(atomic) => {
            let load = session.atomics.load(cpu, atomic, access);
            load.filter(|access| session.wants(loads, cpu, Some(access))).map(Event::Load)
        }
        None => Some(Event::Load(access)),
    };
    if let Some(event) = event {
        session.write_now(&mut log, cpu, pc, event);
    }
}

/// A store was performed.
pub(crate) fn stored(cpu: u32, site: u32, access: &Access<'_>) {
    let session = session();
    let read = access.read();
    let mut log = session.log();
    let Site { pc, atomic, releases, .. } = log.sites[(site & !ATOMIC) as usize];
    let Some(access) = read else { return log.unplaced(cpu, pc) };
    let access = match atomic {
        Some(atomic) => session.atomics.store(cpu, atomic, access),
        None => Some(access),
    };
    let Some(access) = access else { return };
    let access = breakwater_trace::Access { release: releases, ..access };
    if let Some(shared) = &session.shared {
        shared.stored(cpu, &access);
    }
    session.write_now(&mut log, cpu, pc, Event::Store(access));
}

/// The instruction limit was reached.
pub(crate) fn reached_limit() {
    let session = session();
    session.end(&mut session.log(), End::Limit);
}

/// QEMU exits.
pub(crate) fn exited() {
    let session = session();
    session.end(&mut session.log(), End::Exit);
}

impl Session {
    /// The log; a thread that panicked with it held has aborted the process.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_entered(&self) -> bool {
        self.entered.load(Ordering::Relaxed)
    }

    /// Which loads of `cpu` are written at the moment: none, all, or those that tell something.
    fn loads(&self, cpu: u32) -> Loads {
        let is = |flags: &[AtomicBool]| flags.get(cpu as usize).is_some_and(|flag| flag.load(Ordering::Relaxed));
        let past_caches = !is(&self.mmu_on) && !is(&self.elsewhere);
        match self.options.loads {
            _ if !self.has_entered() => Loads::Never,
            Loads::MmuOff | Loads::Shared if past_caches => Loads::Always,
            Loads::Shared if self.shared.as_ref().is_some_and(Shared::several) => Loads::Shared,
            Loads::MmuOff | Loads::Shared => Loads::Never,
            always => always,
        }
    }

    /// Whether this load is to be written, where `loads` are. One that QEMU cannot place is.
    fn wants(&self, loads: Loads, cpu: u32, access: Option<&breakwater_trace::Access>) -> bool {
        match (loads, &self.shared, access) {
            (Loads::Always, ..) | (Loads::Shared, _, None) => true,
            (Loads::Shared, Some(shared), Some(access)) => !access.device && shared.tells(cpu, access),
            _ => false,
        }
    }

    /// A register of the executing CPU, 0 where QEMU does not show it.
    fn read(&self, name: &str) -> u64 {
        self.registers.get().and_then(|registers| registers.read(name)).unwrap_or(0)
    }

    /// PSTATE.EL of the executing CPU.
    fn exception_level(&self) -> u8 {
        (self.read("cpsr") >> 2 & 3) as u8
    }

    /// The level that an ERET of the executing CPU leads to. AArch32 is below EL2, but for Hyp mode.
    fn return_level(&self) -> u8 {
        let level = self.exception_level();
        let spsr = self.read(["spsr_el1", "spsr_el1", "spsr_el2", "spsr_el3"][usize::from(level)]);
        match spsr & 0x1f {
            0x1a => 2,
            0x10..=0x1f => 1,
            // A return to a higher level is illegal, and goes nowhere.
            mode => ((mode >> 2) as u8).min(level),
        }
    }

    /// The executing CPU is at this level from its next instruction on.
    fn goes_to(&self, cpu: u32, exception_level: u8) {
        if let Some(elsewhere) = self.elsewhere.get(cpu as usize) {
            elsewhere.store(exception_level != 2, Ordering::Relaxed);
        }
    }

    /// The exception that led to `pc`, if one did: the first instruction of a vector of EL2 or EL3 is about to execute.
    fn exception(&self, log: &Log, cpu: u32, pc: u64) -> Option<Event> {
        let vectors = log.vectors.get(cpu as usize).copied().unwrap_or(0);
        let of_el3 = log.vectors_of_el3.get(cpu as usize).copied().flatten();
        let is_in = |vectors: u64| pc.wrapping_sub(vectors) < VECTORS_BYTES;
        if !is_in(vectors) && !of_el3.is_some_and(is_in) {
            return None;
        }
        // Other levels may execute at the same virtual address.
        let (to, [syndrome, link, fault_address]) = match self.exception_level() {
            2 if is_in(vectors) => (2, ["esr_el2", "elr_el2", "far_el2"]),
            3 if of_el3.is_some_and(is_in) => (3, ["esr_el3", "elr_el3", "far_el3"]),
            _ => return None,
        };
        let syndrome = self.read(syndrome);
        // Code may lie at address 0, where the vectors are until VBAR_EL2 is written: nothing was taken to EL2 before
        // there is a syndrome.
        if vectors == 0 && to == 2 && syndrome == 0 {
            return None;
        }
        Some(Event::Exception { to, syndrome, link: self.read(link), fault_address: self.read(fault_address) })
    }

    /// Whether the straight run that begins is to be written. Only EL2's are judged.
    fn fetch_tells(&self, cpu: u32, site: u32) -> bool {
        self.has_entered()
            && self.fetches.as_ref().is_none_or(|fetches| {
                let elsewhere = self.elsewhere.get(cpu as usize).is_some_and(|flag| flag.load(Ordering::Relaxed));
                !elsewhere && fetches.tells(cpu, site)
            })
    }

    fn write_fetch(&self, log: &mut Log, cpu: u32, site: u32, instruction: u64) {
        let Site { pc, run, .. } = log.sites[site as usize];
        self.write(log, Step { cpu, instruction, pc, event: Event::Fetch { instructions: run } });
    }

    /// General register `number`; 31 reads as zero.
    fn general(&self, number: u8) -> u64 {
        self.registers.get().and_then(|registers| registers.read_general(number)).unwrap_or(0)
    }

    /// Follows the registers that decide what is reported at all.
    fn take_effect(&self, log: &mut Log, cpu: u32, register: &str, value: u64) {
        match register {
            "sctlr_el2" => {
                if let Some(on) = self.mmu_on.get(cpu as usize) {
                    on.store(value & 1 != 0, Ordering::Relaxed);
                }
            }
            "vbar_el3" => {
                if let Some(vectors) = log.vectors_of_el3.get_mut(cpu as usize) {
                    *vectors = Some(value & !(VECTORS_BYTES - 1));
                }
            }
            "vbar_el2" => {
                if let Some(vectors) = log.vectors.get_mut(cpu as usize) {
                    *vectors = value & !(VECTORS_BYTES - 1);
                }
            }
            _ => {}
        }
    }

    /// Writes DCZID_EL0 of `cpu`, which is about to execute the instruction at `pc`, if there is something to write.
    fn write_block(&self, log: &mut Log, cpu: u32, pc: u64, dczid: Option<u64>) {
        if let (Some(value), Some(register)) = (dczid, Register::from_text("dczid_el0")) {
            self.write_now(log, cpu, pc, Event::Found { register, value });
        }
    }

    /// Writes an event of the instruction that `cpu` is executing.
    fn write_now(&self, log: &mut Log, cpu: u32, pc: u64, event: Event) {
        let instruction = self.counter.of(cpu);
        self.write(log, Step { cpu, instruction, pc, event });
    }

    fn write(&self, log: &mut Log, step: Step) {
        // Nearly every event: it is written, and nothing else is.
        if log.repeats.only_changes(&step.event) {
            self.put(log, step);
        } else {
            self.write_what_is_due(log, step);
        }
        if log.written > self.options.cap_bytes {
            self.end(log, End::Cap);
        }
    }

    fn put(&self, log: &mut Log, step: Step) {
        if let Some(fetches) = &self.fetches {
            fetches.happened(&step.event);
        }
        log.record(&Record::Step(step));
    }

    fn write_what_is_due(&self, log: &mut Log, step: Step) {
        let mut due = std::mem::take(&mut log.due);
        log.repeats.happens(step, |step| due.push(*step));
        for step in due.drain(..) {
            self.put(log, step);
        }
        log.due = due;
    }

    /// Writes the counts and the reason, once, and stops a machine that has not stopped by itself.
    fn end(&self, log: &mut Log, reason: End) {
        if log.ended {
            return;
        }
        let mut held = Vec::new();
        log.repeats.let_go(|step| held.push(*step));
        for step in held {
            log.record(&Record::Step(step));
        }
        for cpu in 0..ffi::cpus() {
            let instructions = self.counter.of(cpu);
            log.record(&Record::Count { cpu, instructions });
        }
        log.record(&Record::End(reason));
        log.ended = true;
        if let Err(error) = log.flush() {
            ffi::say(&format!("breakwater-recorder: {}: {error}", self.options.out.display()));
        }
        if reason != End::Exit {
            ffi::stop_machine();
        }
    }
}
