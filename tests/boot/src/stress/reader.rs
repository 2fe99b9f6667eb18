//! Reads and writes through pages that others may be changing, and the verdict on each.
//!
//! What is read is drawn at random, in the same order for the same seed.

use super::area::{self, Area, PAGES, SCRATCH_WORD, WORDS, address};
use super::counts::Counts;
use super::shadow::{Seen, Verdict, View, judge};
use crate::{Booted, probe};
use breakwater::fault::FaultKind;
use breakwater_boot::el2::Faulted;

/// A generator of one CPU: xorshift64 (Marsaglia's triple 13, 7, 17), which never yields 0.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The generator of `cpu`, whose numbers have nothing to do with those of another.
    pub(super) fn new(seed: u64, cpu: usize) -> Self {
        let mut random = Self((seed << 8 | cpu as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..16 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 16) % bound as u64) as usize
    }

    /// True once in `count` times.
    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// Reads or writes one word of one page, again and again until there is a verdict.
pub(super) fn access(booted: &Booted, area: &Area, cpu: usize, random: &mut Random, counts: &mut Counts) {
    let (page, word, is_write) = (random.below(PAGES), random.below(WORDS), random.one_in(8));
    let virt = address(page) + 8 * if is_write { SCRATCH_WORD } else { word } as u64;
    loop {
        let made = area.made(page);
        let before = area.view_before(page);
        let outcome = if is_write {
            probe::write_or_fault(virt, before.word()).map(|()| Seen::Written)
        } else {
            probe::read_or_fault(virt).map(|found| area::seen(found, word))
        };
        let after = area.view_after(page);
        let seen = outcome.unwrap_or_else(|fault| of_fault(booted, cpu, virt, fault));
        if let Seen::Frame(frame) = seen {
            area.note_made(page, before, frame, after);
        }
        match judge(before, seen, after, made == before.word()) {
            Verdict::Right => return counts.right(seen),
            Verdict::NothingThere => return counts.nothing_there += 1,
            Verdict::Broken => counts.retried += 1,
            Verdict::Unknown => counts.unknown += 1,
            Verdict::Wrong => wrong(booted, cpu, virt, [before, after], seen),
        }
    }
}

fn of_fault(booted: &Booted, cpu: usize, virt: u64, fault: Faulted) -> Seen {
    let kind = fault.syndrome.fault().map(|fault| fault.kind).filter(|_| fault.address == virt);
    match kind {
        Some(FaultKind::Translation) => Seen::Fault,
        Some(FaultKind::Permission) => Seen::Denied,
        _ => booted.failed(format_args!("CPU {cpu} at {virt:#x}: {}, FAR {:#x}", fault.syndrome, fault.address)),
    }
}

fn wrong(booted: &Booted, cpu: usize, virt: u64, [before, after]: [View; 2], seen: Seen) -> ! {
    booted.failed(format_args!("CPU {cpu} at {virt:#x}: expected {before}, then {after}; got {seen}"))
}
