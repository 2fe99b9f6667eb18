//! The other CPUs: their records, how they are started, and what they do until someone has work for them.

use super::guarded::store_or_fault;
use super::image::Known;
use super::instruction::{self, LINE_NAME, Line};
use super::memory::El2;
use super::phys_to_virt::PhysToVirt;
use super::registers::{self, Deadline, Translation};
use super::room::Room;
use super::{Start, image, power};
use breakwater::addr::{Frame, PAGE_BYTES, VirtAddr, VirtSpan};
use breakwater::device_tree::CpuNode;
use breakwater::features::{CpuFeatures, RELIED_ON};
use breakwater::frames::FrameSupply;
use breakwater::refusal::Cause;
use breakwater::regions::Failure;
use breakwater::regions::stacks::MappedStacks;
use breakwater::starting::{self, LeftOff, ReleaseAddress};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use spin::{Mutex, Once};
use static_assertions::const_assert_eq;

/// How often firmware is asked whether a CPU that has not reported yet is off again, in milliseconds.
const OFF_AGAIN_MS: u64 = 100;

const NOT_STARTED: u32 = 0;
const ONLINE: u32 = 1;
const UNSUITED: u32 = 2;

/// What one CPU and the others know of each other. secondary.S reads the first two words, and writes `refused` with its MMU off.
#[derive(Debug)]
#[repr(C, align(128))]
struct CpuRecord {
    stack_top: AtomicU64,
    exception_stack_top: AtomicU64,
    state: AtomicU32,
    affinity: AtomicU64,
    work: AtomicUsize,
    argument: AtomicUsize,
    /// Whether the boot CPU still hopes for it, which alone looks here.
    awaited: AtomicBool,
    /// Whose record this is, and what stopped it: read and written as Device memory, so no CPU may hold it dirty.
    refused: Line,
}

/// Where secondary.S leaves the cause of a refusal, from the start of a record.
pub(super) const CPU_RECORD_REFUSED: usize = core::mem::offset_of!(CpuRecord, refused);
/// Where secondary.S finds whose record it is, from its start.
pub(super) const CPU_RECORD_NAME: usize = CPU_RECORD_REFUSED + LINE_NAME;
/// From one record to the next.
pub(super) const CPU_RECORD_BYTES: usize = size_of::<CpuRecord>();
const_assert_eq!(CPU_RECORD_REFUSED, 128);
const_assert_eq!(core::mem::offset_of!(CpuRecord, exception_stack_top), 8);

impl CpuRecord {
    const fn new() -> Self {
        Self {
            stack_top: AtomicU64::new(0),
            exception_stack_top: AtomicU64::new(0),
            state: AtomicU32::new(NOT_STARTED),
            affinity: AtomicU64::new(u64::MAX),
            work: AtomicUsize::new(0),
            argument: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            refused: Line::new(),
        }
    }
}

/// The boot CPU's record.
#[unsafe(link_section = ".data.cpu_record")]
static BOOT_CPU: CpuRecord = CpuRecord::new();
/// The others' records, from CPU 1 on, in RAM: [`take_records`].
static OTHERS: Once<&'static [CpuRecord]> = Once::new();

/// The records of all CPUs but this one, from CPU 1 on, once there are some. Takes no lock.
fn others() -> &'static [CpuRecord] {
    OTHERS.get().copied().unwrap_or(&[])
}

/// The record of CPU `index`, if there is one.
fn record(index: usize) -> Option<&'static CpuRecord> {
    index.checked_sub(1).map_or(Some(&BOOT_CPU), |other| others().get(other))
}

/// The record of CPU `index`.
///
/// # Panics
/// When there is none.
fn record_of(index: usize) -> &'static CpuRecord {
    record(index).unwrap_or_else(|| panic!("there is no CPU {index}"))
}

/// Takes from free RAM the records of `count` CPUs that are to be started.
///
/// # Errors
/// [`Failure::NoRam`].
pub(crate) fn take_records(frames: &mut FrameSupply<El2>, count: usize) -> Result<(), Failure> {
    let records = Room::take(frames, "CPU records", count, |_| CpuRecord::new())?;
    OTHERS.call_once(|| records.keep());
    Ok(())
}

/// Bytes of the mailbox that a secondary loads.
const MAILBOX_BYTES: usize = 56;

/// What a secondary loads with its MMU off.
#[derive(Debug)]
#[repr(C, align(128))]
struct Mailbox {
    root: AtomicU64,
    tcr: AtomicU64,
    link_offset: AtomicU64,
    /// Where a record is in the directmap - its physical address.
    record_offset: AtomicU64,
    /// Physical address of the first record: a CPU that a spin table lets go looks for its own.
    records: AtomicU64,
    /// Where the last one ends.
    records_end_exclusive: AtomicU64,
    /// 1 if firmware answers PSCI, so that a CPU that refuses can be turned off.
    psci: AtomicU64,
}

const_assert_eq!(core::mem::offset_of!(Mailbox, record_offset), 24);
const_assert_eq!(core::mem::offset_of!(Mailbox, records), 32);
const_assert_eq!(core::mem::offset_of!(Mailbox, psci), 48);

#[unsafe(no_mangle)]
#[unsafe(link_section = ".sealed.secondary_mailbox")]
static secondary_mailbox: Mailbox = Mailbox {
    root: AtomicU64::new(0),
    tcr: AtomicU64::new(0),
    link_offset: AtomicU64::new(0),
    record_offset: AtomicU64::new(0),
    records: AtomicU64::new(0),
    records_end_exclusive: AtomicU64::new(0),
    psci: AtomicU64::new(0),
};

/// What the running CPUs have in common; a secondary intersects itself into it before it reports.
static COMMON: Mutex<Option<CpuFeatures>> = Mutex::new(None);
/// The translation registers of the boot CPU after the root switch: every other must end up with the same.
static EXPECTED: Once<Translation> = Once::new();

/// What became of a CPU that was to be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It runs in the runtime tables, on its own stack, and waits for work.
    Online,
    /// It stopped itself; the number is a [`breakwater::refusal::Cause`].
    Refused(u32),
    /// It was not told to start, for this reason.
    NotStarted(&'static str),
    /// It did not report in time and is off: it will not arrive.
    Silent,
    /// It did not report in time and may still arrive: the identity page must stay.
    MayStillArrive,
}

impl Outcome {
    /// The same in words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Refused(cause) => refusal(cause),
            Self::NotStarted(reason) => reason,
            Self::Silent => "did not report, and is off",
            Self::MayStillArrive => "did not report, and may still arrive",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())?;
        match self {
            Self::Refused(cause) => write!(f, " (cause {cause})"),
            _ => Ok(()),
        }
    }
}

/// Why a CPU refused to join, in words; `cause` is a number that it left itself.
fn refusal(cause: u32) -> &'static str {
    const WORDS: [(Cause, &str); 6] = [
        (Cause::EnteredAtEl1, "refused to join: it was not started at EL2"),
        (Cause::MmuOnAtEntry, "refused to join: it was started with its MMU on"),
        (Cause::E2hStuck, "refused to join: its HCR_EL2.E2H is stuck at 1"),
        (Cause::NoGranule, "refused to join: it has no 4 KiB granule"),
        (Cause::SmallerPaRange, "refused to join: its physical addresses are smaller than the boot CPU's"),
        (Cause::Secondary, "refused to join: it lacks what the running CPUs rely on"),
    ];
    WORDS.iter().find(|(known, _)| *known as u32 == cause).map_or("refused to join", |(_, words)| words)
}

/// How a CPU of this machine is started: by its own tree's word, which [`Start::way`] has checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way(starting::Way);

impl Start {
    /// How `cpu`, which `machine` names, is started.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) fn way(&self, machine: &Known<'_>, cpu: &CpuNode) -> Result<Way, LeftOff> {
        let psci = starting::psci(machine.psci, self.entry_level());
        starting::Way::of(cpu.enable_method, psci, machine.memory(), self.image()).map(Way)
    }
}

/// Notes the boot CPU: its affinity, and what it has.
pub(crate) fn note_boot_cpu(cpu: CpuFeatures) {
    BOOT_CPU.affinity.store(registers::own_affinity(), Ordering::Relaxed);
    BOOT_CPU.state.store(ONLINE, Ordering::Relaxed);
    *COMMON.lock() = Some(cpu);
}

/// What every running CPU has.
#[must_use]
pub fn common() -> Option<CpuFeatures> {
    *COMMON.lock()
}

/// Leaves what secondaries load with their MMU off where they find it: the tables in force here, cleaned to the point of
/// coherency, and so are the names of their records, which never change from here on; [`start`] waits for that before
/// it releases a CPU.
pub(crate) fn prepare_mailbox(phys_to_virt: PhysToVirt) {
    let translation = *EXPECTED.call_once(registers::translation);
    secondary_mailbox.root.store(translation.ttbr0, Ordering::Relaxed);
    secondary_mailbox.tcr.store(translation.tcr, Ordering::Relaxed);
    secondary_mailbox.link_offset.store(phys_to_virt.link_offset(), Ordering::Relaxed);
    let record_offset = phys_to_virt.directmap_offset();
    secondary_mailbox.record_offset.store(record_offset, Ordering::Relaxed);
    let records = others().as_ptr_range();
    let physical = |record: *const CpuRecord| (record as u64).wrapping_sub(record_offset);
    secondary_mailbox.records.store(physical(records.start), Ordering::Relaxed);
    secondary_mailbox.records_end_exclusive.store(physical(records.end), Ordering::Relaxed);
    others().iter().for_each(|record| record.refused.name(record.affinity.load(Ordering::Relaxed)));
    secondary_mailbox.psci.store(power::is_available().into(), Ordering::Relaxed);
    clean_mailbox();
}

/// Writes the mailbox back to memory; a DSB completes it.
fn clean_mailbox() {
    let start: *const u8 = (&raw const secondary_mailbox).cast();
    for offset in (0..MAILBOX_BYTES).step_by(data_line_bytes()) {
        instruction::dc_civac(start.wrapping_add(offset));
    }
}

/// Bytes in this CPU's smallest data-cache line.
fn data_line_bytes() -> usize {
    common().map_or(16, |cpu| cpu.data_line_bytes.into())
}

/// Gives the CPU that firmware knows by `affinity` the record of its index, and `stacks`: before [`prepare_mailbox`],
/// for a CPU that shares a release address runs as soon as the first of them is let go.
pub(crate) fn give_stacks(affinity: u64, stacks: MappedStacks<El2>) {
    let record = record_of(stacks.index());
    let stacks = stacks.stacks();
    record.affinity.store(affinity, Ordering::Relaxed);
    record.stack_top.store(stacks.stack.end_exclusive().raw(), Ordering::Relaxed);
    record.exception_stack_top.store(stacks.exception_stack.end_exclusive().raw(), Ordering::Relaxed);
}

/// Starts CPU `index` in the way `way`, on the stacks that it was given, and waits until it has reported or cannot any
/// more, at most so many milliseconds. [`next_late`] waits for one that may still arrive.
pub(crate) fn start(index: usize, way: Way, phys_to_virt: PhysToVirt, milliseconds: u64) -> Outcome {
    let record = record(index).filter(|record| record.stack_top.load(Ordering::Relaxed) != 0);
    let Some(record) = record else { return Outcome::NotStarted(LeftOff::BeyondTheImage.text()) };
    let affinity = record.affinity.load(Ordering::Relaxed);
    instruction::dsb_sy(); // mailbox, record and refusal line are in memory before the CPU runs with its caches off
    let context = (&raw const *record as u64).wrapping_sub(phys_to_virt.directmap_offset());
    let told = match way.0 {
        starting::Way::Psci => {
            power::cpu_on(affinity, image::secondary_entry_address(phys_to_virt.link_offset()), context)
        }
        starting::Way::SpinTable(address) => release(address, phys_to_virt),
    };
    if let Err(reason) = told {
        return Outcome::NotStarted(reason);
    }
    let outcome = wait_for(record, affinity, way, milliseconds);
    record.awaited.store(outcome == Outcome::MayStillArrive, Ordering::Relaxed);
    outcome
}

/// What a CPU says of itself with its MMU on.
fn reported(record: &CpuRecord) -> Option<Outcome> {
    match record.state.load(Ordering::Acquire) {
        ONLINE => Some(Outcome::Online),
        UNSUITED => Some(Outcome::Refused(Cause::Secondary as u32)),
        _ => None,
    }
}

fn wait_for(record: &CpuRecord, affinity: u64, way: Way, milliseconds: u64) -> Outcome {
    let deadline = Deadline::after(milliseconds);
    let mut look = Deadline::after(OFF_AGAIN_MS);
    loop {
        if let Some(outcome) = reported(record) {
            return outcome;
        }
        core::hint::spin_loop();
        let is_over = deadline.has_passed();
        if !is_over && !look.has_passed() {
            continue;
        }
        let left = match way.0 {
            starting::Way::Psci => off_again(record, affinity),
            // Without PSCI it cannot be turned off: it waits with its MMU off, for good.
            starting::Way::SpinTable(_) => refused(record).map(Outcome::Refused),
        };
        match left {
            Some(outcome @ Outcome::Refused(_)) => return outcome,
            outcome if is_over => return outcome.unwrap_or(Outcome::MayStillArrive),
            // Off without a refusal: some firmware says so of a CPU that has not begun yet.
            _ => look = Deadline::after(OFF_AGAIN_MS),
        }
    }
}

/// Whether some CPU was started that has not reported and may still arrive.
pub(crate) fn is_one_awaited() -> bool {
    others().iter().any(|record| record.awaited.load(Ordering::Relaxed))
}

/// Waits for the next of the CPUs that may still arrive, at most so many milliseconds: its index, and what became of it.
pub(crate) fn next_late(milliseconds: u64) -> Option<(usize, Outcome)> {
    let deadline = Deadline::after(milliseconds);
    let mut look = Deadline::after(OFF_AGAIN_MS);
    let awaited = || (1..).zip(others()).filter(|(_, record)| record.awaited.load(Ordering::Relaxed));
    let (record, found) = loop {
        let heard = awaited().find_map(|(index, record)| Some((record, (index, reported(record)?))));
        let is_time = look.has_passed() || deadline.has_passed();
        let refusal = |record| refused(record).map(Outcome::Refused);
        let seen = || awaited().find_map(|(index, record)| Some((record, (index, refusal(record)?))));
        match heard.or_else(|| is_time.then(seen).flatten()) {
            Some(found) => break found,
            None if deadline.has_passed() || awaited().next().is_none() => return None,
            None if is_time => look = Deadline::after(OFF_AGAIN_MS),
            None => {}
        }
    };
    record.awaited.store(false, Ordering::Relaxed);
    Some(found)
}

/// Lets every CPU go that polls `address`, straight to secondary.S, where each looks for its record.
///
/// # Errors
/// The address is not mapped.
fn release(address: ReleaseAddress, phys_to_virt: PhysToVirt) -> Result<(), &'static str> {
    let entry = image::spin_table_entry_address(phys_to_virt.link_offset());
    let start = address.start();
    let place = phys_to_virt.address(Frame::containing(start)) as u64 + start.raw() % PAGE_BYTES;
    // SAFETY: a `Way` is made from this machine's own tree, and the address lies outside the image in reserved RAM, of
    // which the directmap alone shows anything, as Normal memory: no Rust object lives there. It is a multiple of 8.
    if unsafe { store_or_fault(place, entry.raw()) }.is_err() {
        return Err("was not started: its release address is not mapped");
    }
    instruction::dc_civac(place as *const u8);
    instruction::dsb_sy(); // the entry point is in memory, where the CPU looks past its caches, before the event wakes it
    instruction::sev();
    Ok(())
}

/// What a CPU has left that is off; nothing while it is not.
fn off_again(record: &CpuRecord, affinity: u64) -> Option<Outcome> {
    power::is_off(affinity).then(|| refused(record).map_or(Outcome::Silent, Outcome::Refused))
}

/// The cause that a CPU has left with its MMU off, if it refused to join.
#[inline(never)] // so that its barriers stand where a CPU that refuses misses them: `cargo xtask mutate`
fn refused(record: &CpuRecord) -> Option<u32> {
    instruction::dc_ivac(&raw const record.refused);
    instruction::dsb_sy(); // what it stored with its MMU off is read from memory, not from a stale line
    Some(record.refused.load()).filter(|&cause| cause != 0)
}

/// secondary.S, secondary_on_link_address: MMU on, on this CPU's own stack.
#[unsafe(no_mangle)]
extern "C" fn breakwater_secondary(record: &'static CpuRecord) -> ! {
    if !joins() {
        record.state.store(UNSUITED, Ordering::Release);
        power::cpu_off();
        power::park();
    }
    record.state.store(ONLINE, Ordering::Release);
    loop {
        let work = record.work.load(Ordering::Acquire);
        if work == 0 {
            instruction::wfe();
            continue;
        }
        instruction::isb(); // what was mapped for this work is translated anew: without FEAT_ETS2, seeing the work does not order its walks
        // SAFETY: only `Cpus::run` stores here, from a function of this very type; 0 was excluded.
        let work = unsafe { core::mem::transmute::<usize, fn(usize)>(work) };
        work(record.argument.load(Ordering::Relaxed));
        record.work.store(0, Ordering::Release);
        instruction::sev();
    }
}

/// Whether this CPU has what the running ones rely on and runs in their tables, with WXN.
fn joins() -> bool {
    let Ok(own) = CpuFeatures::decode(&registers::id_registers()) else { return false };
    let mut common = COMMON.lock();
    let Some(running) = *common else { return false };
    if own.may_join(&running, RELIED_ON).is_err() || EXPECTED.get() != Some(&registers::translation()) {
        return false;
    }
    *common = Some(running.common(own));
    true
}

/// The CPUs that run, for whoever takes over.
#[derive(Debug)]
pub struct Cpus {
    online: usize,
}

impl Cpus {
    /// The CPUs after boot: the boot CPU and `online - 1` others.
    #[must_use]
    pub(crate) fn new(online: usize) -> Self {
        Self { online }
    }

    /// How many run.
    #[must_use]
    pub fn count(&self) -> usize {
        self.online
    }

    /// The indices of the other CPUs that run.
    pub fn others(&self) -> impl Iterator<Item = usize> {
        (1..).zip(others()).filter(|(_, record)| record.state.load(Ordering::Acquire) == ONLINE).map(|(index, _)| index)
    }

    /// Runs `work` with `argument` on CPU `index`, which must be one of [`Self::others`], and returns at once.
    ///
    /// # Panics
    /// When the CPU is not online or still has work.
    pub fn run(&self, index: usize, work: fn(usize), argument: usize) {
        let record = record_of(index);
        assert!(index != 0 && record.state.load(Ordering::Acquire) == ONLINE, "work goes to an online CPU");
        assert!(record.work.load(Ordering::Acquire) == 0, "a CPU has one piece of work at a time");
        record.argument.store(argument, Ordering::Relaxed);
        record.work.store(work as usize, Ordering::Release);
        instruction::dsb_ish(); // the work is visible before the event that announces it
        instruction::sev();
    }

    /// Waits until CPU `index` has done its work. What it mapped can be accessed.
    pub fn wait(&self, index: usize) {
        let record = record_of(index);
        while record.work.load(Ordering::Acquire) != 0 {
            core::hint::spin_loop();
        }
        instruction::isb(); // as before the work: walks from here on come after it
    }
}

/// The index of this CPU, or 0 when it is not known yet. Takes no lock.
pub(super) fn current_index() -> usize {
    let own = registers::own_affinity();
    (1..).zip(others()).find(|(_, record)| record.affinity.load(Ordering::Relaxed) == own).map_or(0, |(index, _)| index)
}

/// The stack whose guard page holds `address`, by name. Takes no lock.
pub(super) fn guarded_stack(address: u64) -> Option<&'static str> {
    let map = image::image_map();
    let virt = VirtAddr::new(address)?;
    let below = |stack: VirtSpan| {
        let guard = stack.start().raw().checked_sub(breakwater::addr::PAGE_BYTES)?;
        VirtSpan::new(VirtAddr::new(guard)?, stack.start())
    };
    let hit = |stack: VirtSpan| below(stack).is_some_and(|guard| guard.contains(virt));
    if hit(map.stack) {
        return Some("the boot CPU's stack");
    }
    if hit(map.exception_stack) {
        return Some("the boot CPU's exception stack");
    }
    breakwater::regions::stacks::is_guard(virt).then_some("a secondary's stack")
}
