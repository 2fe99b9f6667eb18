//! The pages that are edited, the frames that they map to, and the shadow that says which.

use super::shadow::{Frame, Seen, View};
use crate::{Booted, probe};
use breakwater::addr::{PAGE_BYTES, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::frames::OwnedRam;
use breakwater::layout::VMAP;
use breakwater_boot::el2::El2;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use spin::Mutex;

/// Pages that are edited: four blocks of 2 MiB, so that a request may hit one whole, in part, or reach over its end.
pub(super) const PAGES: usize = 4 * BLOCK_PAGES;
/// Frames that they map to: twice as many, so that a remap rarely finds what it had.
pub(super) const FRAMES: usize = 2 * PAGES;
/// Pages of a block of level 2.
pub(super) const BLOCK_PAGES: usize = 512;
/// Pages of a contiguous run of level 3.
pub(super) const RUN_PAGES: usize = 16;
/// Words of a frame that say where they are.
pub(super) const WORDS: usize = PAGE_BYTES as usize / 8 - 2;
/// The word that is written through a page under the lock, and read back.
pub(super) const STAMP_WORD: usize = WORDS;
/// The word that anyone may write at any time, and nobody reads.
pub(super) const SCRATCH_WORD: usize = WORDS + 1;
/// What no table and no zeroed frame holds.
const PATTERN: u64 = 0x5afe_0000_b40c_0000;

static SHADOW: [AtomicU64; PAGES] = [const { AtomicU64::new(0) }; PAGES];

/// For each page, the word of the last request whose new frame someone has seen while it was under way.
static MADE: [AtomicU64; PAGES] = [const { AtomicU64::new(0) }; PAGES];

/// The pages and their frames.
#[derive(Debug)]
pub(super) struct Area {
    frames: PhysSpan,
    ram: Mutex<Option<OwnedRam<El2>>>,
    directmap: u64,
}

impl Area {
    /// Takes the frames out of the supply and writes into each word where it is. No page is mapped yet.
    pub(super) fn new(booted: &Booted) -> Self {
        let block = BLOCK_PAGES as u64 * PAGE_BYTES;
        let frames = booted.handover.frames().lock().take_ram(FRAMES as u64 * PAGE_BYTES, block);
        let ram = frames.unwrap_or_else(|| booted.failed("no free RAM in one piece"));
        let frames = ram.span();
        let area = Self { frames, ram: Mutex::new(Some(ram)), directmap: booted.directmap(frames.start()) };
        for frame in 0..FRAMES {
            (0..WORDS).for_each(|word| probe::write(area.alias(frame as Frame, word), value(frame as Frame, word)));
        }
        SHADOW.iter().for_each(|word| word.store(View::UNMAPPED.word(), Ordering::Relaxed));
        area
    }

    /// The frames, in one piece, to go back to the supply: once.
    pub(super) fn ram(&self) -> Option<OwnedRam<El2>> {
        self.ram.lock().take()
    }

    /// The directmap's address of a word of a frame.
    pub(super) fn alias(&self, frame: Frame, word: usize) -> u64 {
        self.directmap + u64::from(frame) * PAGE_BYTES + 8 * word as u64
    }

    /// Where a frame is.
    pub(super) fn phys(&self, frame: Frame) -> PhysAddr {
        PhysAddr::at(self.frames.start().raw() + u64::from(frame) * PAGE_BYTES)
    }

    /// What a page is, by the shadow, and what is being done to it. Whatever the caller accesses after it is accessed, and translated, later.
    pub(super) fn view_before(&self, page: usize) -> View {
        let view = View::of(SHADOW[page].load(Ordering::Acquire));
        probe::synchronise();
        view
    }

    /// The same once everything that the caller accessed before is done.
    pub(super) fn view_after(&self, page: usize) -> View {
        fence(Ordering::Acquire);
        View::of(SHADOW[page].load(Ordering::Acquire))
    }

    /// The word of a request under way whose new frame some CPU has seen in `page`. To be asked before [`Self::view_before`].
    pub(super) fn made(&self, page: usize) -> u64 {
        MADE[page].load(Ordering::Acquire)
    }

    /// Notes that `frame` was seen in `page`, if that is what it becomes while one request is under way.
    pub(super) fn note_made(&self, page: usize, before: View, frame: Frame, after: View) {
        if before == after && before.was != before.becomes && before.becomes == Some(frame) {
            MADE[page].store(before.word(), Ordering::Release);
        }
    }

    /// What a page is. For whoever holds the page-table lock, under which it cannot change.
    pub(super) fn view(&self, page: usize) -> View {
        View::of(SHADOW[page].load(Ordering::Relaxed))
    }

    /// Says what pages are from here on. For whoever holds the page-table lock: what was stored before is visible before, what is stored
    /// later is later, descriptors included.
    pub(super) fn update(&self, pages: Range<usize>, change: impl Fn(usize, View) -> View) {
        probe::synchronise();
        for page in pages {
            SHADOW[page].store(change(page, self.view(page)).word(), Ordering::Relaxed);
        }
        probe::synchronise();
    }
}

/// The virtual address of a page.
pub(super) fn address(page: usize) -> u64 {
    VMAP.start().raw() + page as u64 * PAGE_BYTES
}

/// The virtual addresses of pages.
pub(super) fn span(pages: &Range<usize>) -> VirtSpan {
    let bytes = pages.len() as u64 * PAGE_BYTES;
    VirtSpan::of(VirtAddr::at(address(pages.start)), bytes).unwrap_or_else(|| unreachable!("vmap has room"))
}

/// What a word of a frame holds.
pub(super) fn value(frame: Frame, word: usize) -> u64 {
    PATTERN ^ (u64::from(frame) << 20 | word as u64)
}

/// Which frame holds `found` in its word number `word`.
pub(super) fn seen(found: u64, word: usize) -> Seen {
    let frame = (found ^ PATTERN ^ word as u64) >> 20;
    match Frame::try_from(frame) {
        Ok(frame) if usize::from(frame) < FRAMES && value(frame, word) == found => Seen::Frame(frame),
        _ => Seen::Stranger(found),
    }
}
