//! From the start to the verdict.

use super::area::Area;
use super::counts::Counts;
use super::reader::Random;
use super::{editor, reader, settle};
use crate::{Booted, probe};
use breakwater_boot::{el2, line};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use spin::{Mutex, Once};

/// The most CPUs that it counts for.
const CPUS: usize = 16;
/// Accesses between two requests of one CPU.
const ACCESSES: usize = 8192;
/// How many times longer it runs than asked for, at most, until each CPU has done something and a reader has met a break.
const PATIENCE: u64 = 20;
/// Requests between two audits, on the average.
const REQUESTS: usize = 64;

/// What all CPUs share.
#[derive(Debug)]
struct Stress {
    booted: Booted,
    area: Area,
    seed: u64,
    /// When to stop, by the system counter, if there is something to show.
    end: u64,
    /// And when if there is not.
    latest: u64,
}

impl Stress {
    /// A host decides which CPU runs when: the run is over when all of them had their turn.
    fn is_over(&self) -> bool {
        let now = probe::counter();
        now >= self.latest || now >= self.end && WAITING.load(Ordering::Relaxed) == 0 && MET.load(Ordering::Relaxed)
    }
}

/// CPUs that have made no request yet.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// A reader has met a break.
static MET: AtomicBool = AtomicBool::new(false);

static STRESS: Once<Stress> = Once::new();
static COUNTS: [Mutex<Counts>; CPUS] = [const { Mutex::new(Counts::NONE) }; CPUS];

fn stress() -> &'static Stress {
    STRESS.get().unwrap_or_else(|| unreachable!("run sets it before any work is given out"))
}

/// Runs for as long as the command line says (`stress-seconds=0x...`), with the numbers that follow from `stress-seed=0x...`.
pub fn run(booted: Booted) -> ! {
    let (seconds, seed) = (booted.argument("stress-seconds"), booted.argument("stress-seed"));
    let cpus = booted.handover.cpus().count();
    booted.require(cpus <= CPUS, format_args!("{cpus} CPUs, and room for {CPUS}"));
    let frames_before = booted.handover.frames().lock().available();
    let tables_before = booted.audit(&[]).tables;
    let area = Area::new(&booted);
    line!("stress: {cpus} CPUs for {seconds} s, seed {seed:#x}");
    let (now, time) = (probe::counter(), seconds * probe::counter_frequency());
    WAITING.store(cpus, Ordering::Relaxed);
    let stress = STRESS.call_once(|| Stress { booted, area, seed, end: now + time, latest: now + PATIENCE * time });

    on_every_cpu(stress, work);
    let total = report(cpus);
    stress.booted.require(total.retried > 0, "no reader met a break: nothing was shown");

    on_every_cpu(stress, check);
    let tables_meanwhile = settle::audit_and_say(&stress.booted, &stress.area).tables;
    settle::unmap_all(&stress.booted, &stress.area);
    stress.booted.require_clean_audit(&[]);
    let tables_after = stress.booted.audit(&[]).tables;
    let frames_after = stress.booted.handover.frames().lock().available();
    let kept = tables_after - tables_before;
    let balance = format_args!("{frames_before} frames free before, {frames_after} after, {kept} in tables that stay");
    stress.booted.require(frames_before == frames_after && kept == 0, format_args!("frames were lost: {balance}"));
    line!("stress: {balance} (of {tables_meanwhile} tables at the end of the run)");
    line!(
        "fact holds: {} requests, {} reads, {} faults in a break retried",
        total.all_requests(),
        total.reads,
        total.retried
    );
    el2::leave(stress.booted.handover.exit(), el2::Status::Success)
}

fn on_every_cpu(stress: &Stress, work: fn(usize)) {
    let cpus = stress.booted.handover.cpus();
    for index in cpus.others() {
        cpus.run(index, work, index);
    }
    work(0);
    cpus.others().for_each(|index| cpus.wait(index));
}

/// What each CPU does until the time is up, or a little longer.
fn work(cpu: usize) {
    let stress = stress();
    let Stress { booted, area, seed, .. } = stress;
    let mut random = Random::new(*seed, cpu);
    let (mut counts, mut waiting) = (Counts::NONE, true);
    while !stress.is_over() {
        if random.one_in(REQUESTS) {
            settle::audit(booted, area);
            counts.audits += 1;
        }
        editor::edit(booted, area, &mut random, &mut counts);
        (0..ACCESSES).for_each(|_| reader::access(booted, area, cpu, &mut random, &mut counts));
        if waiting && counts.all_requests() > 0 {
            waiting = false;
            WAITING.fetch_sub(1, Ordering::Relaxed);
        }
        MET.fetch_or(counts.retried > 0, Ordering::Relaxed);
    }
    *COUNTS[cpu].lock() = counts;
}

/// What each CPU does once no request is made any more.
fn check(cpu: usize) {
    let Stress { booted, area, .. } = stress();
    settle::check_every_page(booted, area, &mut COUNTS[cpu].lock());
}

/// Says what each CPU did, and returns the sum.
fn report(cpus: usize) -> Counts {
    let mut total = Counts::NONE;
    for (cpu, counts) in COUNTS.iter().take(cpus).map(|counts| *counts.lock()).enumerate() {
        line!("stress: CPU {cpu}: {counts}");
        total += counts;
    }
    line!("stress: all CPUs: {total}");
    total
}
