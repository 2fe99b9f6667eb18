//! The requests that every candidate is given, the same for all.

use crate::arena::FRAME;

/// Bytes in 2 MiB.
pub const BLOCK: u64 = 2 << 20;
/// Bytes in 1 GiB.
pub const GIB: u64 = 1 << 30;
/// Bytes in 1 TiB.
pub const TIB: u64 = 1 << 40;
/// Where every request's addresses begin: no table above the leaves' is shared with anything else.
pub const START: u64 = TIB;

/// What one leaf spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaf {
    /// 4 KiB.
    Page,
    /// 2 MiB.
    Block,
    /// 1 GiB.
    Large,
}

impl Leaf {
    /// log2 of the bytes of one leaf.
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Self::Page => 12,
            Self::Block => 21,
            Self::Large => 30,
        }
    }
}

/// What a step asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Map as writable Normal memory.
    Map,
    /// Unmap.
    Unmap,
    /// Make read-only.
    Protect,
    /// Map, writable, to another output address than now.
    Remap,
}

/// One request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// What to do.
    pub verb: Verb,
    /// The leaves of the span: all of one size.
    pub leaf: Leaf,
    /// The first virtual address.
    pub virt: u64,
    /// Bytes.
    pub bytes: u64,
    /// The first physical address, for what maps or is mapped.
    pub output: u64,
}

impl Step {
    /// Leaves in the span.
    #[must_use]
    pub const fn leaves(&self) -> u64 {
        self.bytes >> self.leaf.shift()
    }
}

/// What is measured: steps that prepare, and steps that are timed.
#[derive(Clone, Debug)]
pub struct Work {
    /// A name for files and tables.
    pub name: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// Done before the clock starts.
    pub before: Vec<Step>,
    /// Done by the clock, one after the other.
    pub timed: Vec<Step>,
}

impl Work {
    /// Leaves that the timed steps map, unmap or change; a page that is mapped and unmapped again is one.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        let is_churn =
            self.timed.iter().any(|step| step.verb == Verb::Map) && self.timed.iter().any(|s| s.verb == Verb::Unmap);
        self.timed.iter().map(Step::leaves).sum::<u64>() / if is_churn { 2 } else { 1 }
    }
}

/// Addresses of `count` spans of `bytes`, `stride` apart, each at the output that is `shift_by` beyond its own address.
#[derive(Clone, Copy)]
struct Places {
    leaf: Leaf,
    count: u64,
    bytes: u64,
    stride: u64,
    beyond: u64,
}

impl Places {
    /// The spans from `offset` on.
    fn at(self, offset: u64, verb: Verb) -> impl Iterator<Item = Step> {
        (0..self.count).map(move |index| {
            let virt = START + offset + index * self.stride;
            Step { verb, leaf: self.leaf, virt, bytes: self.bytes, output: virt - START + self.beyond }
        })
    }

    /// One step over everything that the places span.
    fn whole(self, verb: Verb) -> Vec<Step> {
        let bytes = self.count * self.stride;
        vec![Step { verb, leaf: self.leaf, virt: START, bytes, output: self.beyond }]
    }
}

const fn pages(count: u64, pages: u64, stride: u64) -> Places {
    Places { leaf: Leaf::Page, count, bytes: pages * FRAME, stride: stride * FRAME, beyond: GIB }
}

fn bulk(name: &'static str, title: &'static str, places: Places) -> Work {
    Work { name, title, before: Vec::new(), timed: places.at(0, Verb::Map).collect() }
}

fn on_mapped(name: &'static str, title: &'static str, verb: Verb, places: Places) -> Work {
    let other = if verb == Verb::Remap { GIB } else { 0 };
    let timed = places.at(0, verb).map(|step| Step { output: step.output + other, ..step }).collect();
    Work { name, title, before: places.whole(Verb::Map), timed }
}

/// One page mapped and unmapped again, at a thousand places between pages that stay.
fn churn() -> Work {
    let places = pages(1024, 1, 2);
    let timed = places.at(0, Verb::Map).zip(places.at(0, Verb::Unmap)).flat_map(|(map, unmap)| [map, unmap]);
    let before = places.at(FRAME, Verb::Map).collect();
    Work { name: "churn-1", title: "map and unmap 1 page", before, timed: timed.collect() }
}

/// Every request. The bulk maps first: they are what the targets of the issue are about.
#[must_use]
pub fn all() -> Vec<Work> {
    let large = Places { leaf: Leaf::Large, count: 32, bytes: TIB, stride: TIB, beyond: GIB };
    // Off a 1 GiB boundary against the virtual address, so that no candidate can use anything larger than 2 MiB.
    let block = Places { leaf: Leaf::Block, count: 4, bytes: 64 * GIB, stride: 64 * GIB, beyond: GIB + BLOCK };
    let small = Places { leaf: Leaf::Page, count: 1, bytes: 4 * GIB, stride: 4 * GIB, beyond: GIB };
    vec![
        bulk("map-4g-pages", "map 4 GiB by 4 KiB", small),
        bulk("map-1t-blocks", "map 1 TiB by 1 GiB", large),
        bulk("map-64g-blocks", "map 64 GiB by 2 MiB", block),
        // Every second span, so that no table becomes empty; and whole tables, which do.
        on_mapped("unmap-1", "unmap 1 page", Verb::Unmap, pages(1024, 1, 2)),
        on_mapped("unmap-16", "unmap 16 pages", Verb::Unmap, pages(256, 16, 32)),
        on_mapped("unmap-512", "unmap 512 pages, a table", Verb::Unmap, pages(32, 512, 512)),
        on_mapped("protect-1", "protect 1 page", Verb::Protect, pages(1024, 1, 2)),
        on_mapped("protect-16", "protect 16 pages", Verb::Protect, pages(256, 16, 32)),
        on_mapped("protect-512", "protect 512 pages", Verb::Protect, pages(32, 512, 512)),
        churn(),
        on_mapped("remap-16", "remap 16 pages", Verb::Remap, pages(256, 16, 32)),
    ]
}
