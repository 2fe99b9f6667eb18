//! Random requests, each under the locks, and the shadow that tells readers of them.

use super::area::{Area, BLOCK_PAGES, FRAMES, PAGES, RUN_PAGES, STAMP_WORD, address, span};
use super::counts::Counts;
use super::reader::Random;
use super::shadow::{Frame, Phase, View};
use crate::{Booted, probe};
use breakwater::addr::{Level, VirtAddr};
use breakwater::bbm::Live;
use breakwater::descriptor::{Access, Attributes};
use breakwater::mapper::{Cost, Error, Mapper, Request};
use breakwater_boot::el2::El2;
use core::ops::Range;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Map { first: Frame, writable: bool, largest: Level, contiguous: bool },
    Unmap,
    Protect { writable: bool },
    Remap { first: Frame, writable: bool },
    Split,
    Merge { contiguous: bool },
}

impl Wish {
    /// The request's place in the counts.
    fn kind(self) -> usize {
        match self {
            Self::Map { .. } => 0,
            Self::Unmap => 1,
            Self::Protect { .. } => 2,
            Self::Remap { .. } => 3,
            Self::Split => 4,
            Self::Merge { .. } => 5,
        }
    }

    /// What the page number `offset` of the request becomes, and whether it may be written then.
    fn becomes(self, offset: usize, view: View) -> (Option<Frame>, bool) {
        match self {
            Self::Map { first, writable, .. } | Self::Remap { first, writable } => {
                (Some(first + offset as Frame), writable)
            }
            Self::Unmap => (None, false),
            Self::Protect { writable } => (view.was, writable),
            Self::Split | Self::Merge { .. } => (view.was, view.was_writable),
        }
    }
}

/// Makes one random request.
pub(super) fn edit(booted: &Booted, area: &Area, random: &mut Random, counts: &mut Counts) {
    booted.handover.edit(|mut space| {
        let mut mapper = space.mapper();
        if random.one_in(16) {
            return refused(booted, area, &mut mapper, random, counts);
        }
        let (pages, wish) = wish(area, random);
        let touched = Touched::of(&mapper, &pages);
        area.update(touched.all(), |page, view| {
            let phase = touched.phase(wish, page);
            match pages.contains(&page) {
                true => {
                    let (becomes, writable) = wish.becomes(page - pages.start, view);
                    view.begin(becomes, writable, phase)
                }
                false => view.begin(view.was, view.was_writable, phase),
            }
        });
        let free = mapper.free_frames();
        let cost = request(&mut mapper, area, &pages, wish)
            .unwrap_or_else(|error| booted.failed(format_args!("{wish:?} of pages {pages:?}: {error}")));
        let left = mapper.free_frames();
        let adds_up = left + cost.frames == free + cost.freed;
        booted.require(
            adds_up,
            format_args!("{wish:?} of pages {pages:?}: {free} frames free, then {left}, by {cost:?}"),
        );
        area.update(touched.all(), |_, view| view.end());
        counts.done(wish.kind(), pages.len(), touched.is_cut(), &cost);
        let page = touched.all().start + random.below(touched.all().len());
        check(booted, area, page, counts);
    });
}

/// Makes a request that must be refused: nobody is told, for nothing may change, not for a moment.
fn refused(booted: &Booted, area: &Area, mapper: &mut Mapper<'_, El2, Live>, random: &mut Random, counts: &mut Counts) {
    let (pages, writable) = (place(random), random.one_in(2));
    let any_mapped = pages.clone().any(|page| area.view(page).was.is_some());
    let any_unmapped = pages.clone().any(|page| area.view(page).was.is_none());
    let first = output(random, &pages);
    let wish = match any_mapped {
        true if !any_unmapped || random.one_in(2) => {
            Wish::Map { first, writable, largest: Level::L2, contiguous: true }
        }
        _ if random.one_in(2) => Wish::Unmap,
        _ => Wish::Remap { first, writable },
    };
    match (wish, request(mapper, area, &pages, wish)) {
        (Wish::Map { .. }, Err(Error::Occupied { .. })) | (_, Err(Error::NotMapped { .. })) => counts.refused += 1,
        (_, outcome) => booted.failed(format_args!("{wish:?} of pages {pages:?}, to be refused: {outcome:?}")),
    }
}

/// A request that the pages allow, as they are: of pages that are all mapped; or it fills a hole, whole, so that there are always blocks
/// and contiguous runs to be cut.
fn wish(area: &Area, random: &mut Random) -> (Range<usize>, Wish) {
    let place = place(random);
    let first = place.start;
    let pages = match area.view(first).was {
        Some(_) => first..run_end(area, first, place.end),
        None => hole(area, first),
    };
    let (output, writable) = (output(random, &pages), random.one_in(2));
    let (contiguous, largest) = (!random.one_in(4), if random.one_in(4) { Level::L3 } else { Level::L2 });
    let wish = match random.below(12) {
        _ if area.view(first).was.is_none() => Wish::Map { first: output, writable, largest, contiguous },
        0 => Wish::Unmap,
        1..4 => Wish::Protect { writable },
        4 => Wish::Split,
        5..8 => Wish::Merge { contiguous },
        _ => Wish::Remap { first: output, writable },
    };
    (pages, wish)
}

/// Where the pages from `first` on end that are mapped, or are not, like it.
fn run_end(area: &Area, first: usize, limit: usize) -> usize {
    let is_mapped = |page| area.view(page).was.is_some();
    (first..limit).find(|&page| is_mapped(page) != is_mapped(first)).unwrap_or(limit)
}

/// All pages around `page`, in its block, that are not mapped as it is not.
fn hole(area: &Area, page: usize) -> Range<usize> {
    let block = page / BLOCK_PAGES * BLOCK_PAGES;
    let start = (block..page).rev().find(|&page| area.view(page).was.is_some()).map_or(block, |page| page + 1);
    start..run_end(area, page, block + BLOCK_PAGES)
}

/// Some pages. The first two blocks get small requests, anywhere; the third, spans that contiguous runs can hold; the last, mostly, itself as a
/// whole. Few start at a block and reach over its end.
fn place(random: &mut Random) -> Range<usize> {
    let block = random.below(PAGES / BLOCK_PAGES);
    let (unit, longest) = match (block, random.below(8)) {
        (_, 0) => (BLOCK_PAGES, 2),
        (3, 1..7) => (BLOCK_PAGES, 1),
        (2, _) => (RUN_PAGES, 8),
        _ => (1, 24),
    };
    let start = block * BLOCK_PAGES + random.below(BLOCK_PAGES / unit) * unit;
    let end_exclusive = start + (1 + random.below(longest)) * unit;
    start..end_exclusive.min(PAGES)
}

/// The first of as many frames as there are pages: mostly at the same place within a block as the pages are.
fn output(random: &mut Random, pages: &Range<usize>) -> Frame {
    let last = FRAMES - pages.len();
    let anywhere = random.below(last + 1);
    let alike = anywhere / BLOCK_PAGES * BLOCK_PAGES + pages.start % BLOCK_PAGES;
    let first = if alike <= last && !random.one_in(4) { alike } else { anywhere };
    first as Frame
}

/// What a request may disturb: its pages, and the leaves or contiguous runs that its first and its last page are of.
struct Touched {
    pages: Range<usize>,
    first: Range<usize>,
    last: Range<usize>,
}

impl Touched {
    fn of(mapper: &Mapper<'_, El2, Live>, pages: &Range<usize>) -> Self {
        let leaf = |page: usize| {
            let size = match mapper.query(VirtAddr::at(address(page))) {
                Some((Level::L2, _)) => BLOCK_PAGES,
                Some((_, leaf)) if leaf.contiguous() => RUN_PAGES,
                _ => 1,
            };
            page / size * size..(page / size + 1) * size
        };
        Self { pages: pages.clone(), first: leaf(pages.start), last: leaf(pages.end - 1) }
    }

    fn all(&self) -> Range<usize> {
        self.first.start..self.last.end
    }

    fn is_cut(&self) -> bool {
        self.all() != self.pages
    }

    /// Whether `page` may be gone for a moment. Rights alone change in place, but for a leaf or a run that the request covers in part: that is
    /// split, which breaks all of it.
    fn phase(&self, wish: Wish, page: usize) -> Phase {
        let is_split = [&self.first, &self.last]
            .into_iter()
            .any(|leaf| leaf.contains(&page) && (leaf.start < self.pages.start || leaf.end > self.pages.end));
        match wish {
            Wish::Map { .. } => Phase::Changing,
            Wish::Protect { .. } if !is_split => Phase::Changing,
            _ => Phase::Breaking,
        }
    }
}

fn request(mapper: &mut Mapper<'_, El2, Live>, area: &Area, pages: &Range<usize>, wish: Wish) -> Result<Cost, Error> {
    let virt = span(pages);
    match wish {
        Wish::Map { first, writable, largest, contiguous } => {
            let request = Request::new(virt, area.phys(first), attributes(writable), largest);
            mapper.map(if contiguous { request.with_contiguous() } else { request })
        }
        Wish::Unmap => mapper.unmap(virt).map(|unmapped| unmapped.cost),
        Wish::Protect { writable } => mapper.protect(virt, attributes(writable)),
        Wish::Remap { first, writable } => mapper.remap(virt, area.phys(first), attributes(writable)),
        Wish::Split => mapper.split(virt, Level::L3),
        Wish::Merge { contiguous } => mapper.merge(virt, Level::L2, contiguous),
    }
}

/// The memory type is the directmap's: frames are never mapped with two.
pub(super) const fn attributes(writable: bool) -> Attributes {
    Attributes::Normal(if writable { Access::ReadWrite } else { Access::ReadOnly })
}

/// Holds a page against the shadow, under the lock, by the hardware's walk and, where it may be written, by a write that must be in its frame.
pub(super) fn check(booted: &Booted, area: &Area, page: usize, counts: &mut Counts) {
    let (view, virt) = (area.view(page), address(page));
    let read = view.was.map(|frame| area.phys(frame));
    agree(booted, view, virt, ("reads", probe::translate(virt), read));
    agree(booted, view, virt, ("writes", probe::translate_write(virt), read.filter(|_| view.was_writable)));
    if let Some(frame) = view.was.filter(|_| view.was_writable) {
        let (stamp, offset) = (view.word(), 8 * STAMP_WORD as u64);
        probe::write(virt + offset, stamp);
        let found = probe::read(area.alias(frame, STAMP_WORD));
        booted.require(found == stamp, format_args!("{virt:#x}: {stamp:#x} written, {found:#x} in the frame ({view})"));
        counts.stamps += 1;
    }
}

type Translated = Option<breakwater::addr::PhysAddr>;

fn agree(booted: &Booted, view: View, virt: u64, (what, found, expected): (&str, Translated, Translated)) {
    let otherwise = format_args!("{virt:#x}: {what} go to {found:?}, not to {expected:?} ({view})");
    booted.require(found == expected, otherwise);
}
