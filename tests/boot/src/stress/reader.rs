//! Reads and writes through pages that others may be changing, and the verdict on each.

use super::area::{self, Area, PAGES, SCRATCH_WORD, WORDS, address};
use super::counts::Counts;
use super::random::Random;
use super::shadow::{Seen, Verdict, View, judge};
use crate::{Booted, probe};
use breakwater::fault::FaultKind;
use breakwater_boot::el2::Faulted;

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
