//! The end: the tables as the requests left them, held against the shadow; then everything unmapped, and every frame back.

use super::area::{Area, FRAMES, PAGES, address, span};
use super::counts::Counts;
use super::editor;
use crate::Booted;
use breakwater::addr::PAGE_BYTES;
use breakwater::audit::{Audit, Declared, Scratch};
use breakwater::layout;
use breakwater::regions::MAX_REGIONS;
use breakwater_boot::line;
use core::ops::Range;
use spin::Mutex;

/// What boot declared, and in the worst case each page by itself.
const DECLARED_MAX: usize = MAX_REGIONS + PAGES;

const NOTHING: Declared =
    Declared { name: "", virt: layout::NOWHERE, output: None, attributes: super::editor::attributes(false) };

/// Too large for a stack.
static DECLARED: Mutex<[Declared; DECLARED_MAX]> = Mutex::new([NOTHING; DECLARED_MAX]);
/// One run of leaves for each declaration, and some for the directmap's pieces and the tables.
static RUNS: Mutex<[Scratch; DECLARED_MAX + 256]> = Mutex::new([Scratch::EMPTY; DECLARED_MAX + 256]);

/// Every page, by the hardware's walk on this CPU: what the shadow says. Under the lock, because other CPUs write to the same frames.
pub(super) fn check_every_page(booted: &Booted, area: &Area, counts: &mut Counts) {
    (0..PAGES).for_each(|page| booted.handover.edit(|_| editor::check(booted, area, page, counts)));
}

/// Audits the tables as they are between two requests, while others read: what boot declared, and the pages as the shadow declares them.
pub(super) fn audit(booted: &Booted, area: &Area) -> Audit {
    let _no_request = booted.handover.tables().lock();
    let mut declared = DECLARED.lock();
    let count = declare(booted, area, declared.as_mut_slice());
    let audit = booted.audit_of(&declared[..count], &[], RUNS.lock().as_mut_slice());
    if let Some(finding) = audit.first {
        booted.failed(format_args!("{} mismatches, the first: {finding}", audit.mismatches));
    }
    audit
}

/// The same once more at the end, said.
pub(super) fn audit_and_say(booted: &Booted, area: &Area) -> Audit {
    let audit = audit(booted, area);
    let ([_, _, blocks, pages], tables) = (audit.leaves, audit.tables);
    line!("stress: audited as it is: {blocks} blocks and {pages} pages in all, {tables} tables, 0 mismatches");
    audit
}

/// What boot declared, then each run of pages; how many declarations that are.
fn declare(booted: &Booted, area: &Area, declared: &mut [Declared]) -> usize {
    let regions = booted.handover.regions().lock();
    let mut count = regions.count();
    declared[..count].copy_from_slice(regions.as_slice());
    let mut page = 0;
    while page < PAGES {
        let run = run_from(area, page);
        if let Some(frame) = area.view(page).was {
            let (virt, output) = (span(&run), Some(area.phys(frame)));
            let attributes = editor::attributes(area.view(page).was_writable);
            declared[count] = Declared { name: "stress", virt, output, attributes };
            count += 1;
        }
        page = run.end;
    }
    count
}

/// The pages from `first` on that one declaration covers, or that are all not mapped.
fn run_from(area: &Area, first: usize) -> Range<usize> {
    let start = area.view(first);
    let follows = |page: usize| {
        let view = area.view(page);
        let expected = start.was.map(|frame| frame + (page - first) as u16);
        view.was == expected && view.was_writable == start.was_writable
    };
    first..(first..PAGES).find(|&page| !follows(page)).unwrap_or(PAGES)
}

/// Unmaps everything, and gives the frames back to the supply.
pub(super) fn unmap_all(booted: &Booted, area: &Area) {
    let mut page = 0;
    while page < PAGES {
        let run = run_from(area, page);
        page = run.end;
        if area.view(run.start).was.is_none() {
            continue;
        }
        booted.handover.edit(|mut space| {
            if let Err(error) = space.mapper().unmap(span(&run)) {
                booted.failed(format_args!("{:#x}: {error}", address(run.start)));
            }
        });
    }
    let ram = area.ram().unwrap_or_else(|| booted.failed("the frames went back before"));
    if let Err((failure, _)) = booted.handover.edit(|mut space| space.give_back(ram)) {
        booted.failed(format_args!("{} KiB cannot go back: {failure}", FRAMES as u64 * PAGE_BYTES / 1024));
    }
}
