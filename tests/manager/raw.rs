//! Walks written from the architecture: what the hardware would find in memory, whatever the manager thinks.

use super::bits::{CONTIGUOUS, is_valid};
use super::reference::{Extent, Extents};
use super::world::World;
use breakwater::geometry::Geometry;
use std::collections::{BTreeMap, BTreeSet};

/// A leaf and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    pub(crate) virt: u64,
    pub(crate) level: i8,
    pub(crate) descriptor: u64,
    /// Where its descriptor is.
    pub(crate) address: u64,
}

/// The leaf that translates `virt`.
pub(crate) fn leaf<G: Geometry>(world: &World<G>, root: u64, virt: u64) -> Option<Leaf> {
    let (shape, mut table) = (World::<G>::SHAPE, root);
    for level in shape.root_level()..=3 {
        let address = table + 8 * shape.index(virt, level) as u64;
        let descriptor = world.word(address);
        if !is_valid(descriptor) {
            return None;
        }
        if !shape.is_table(descriptor, level) {
            return Some(Leaf { virt: virt & !(shape.slot_bytes(level) - 1), level, descriptor, address });
        }
        table = shape.output(descriptor);
    }
    None
}

/// The physical address that `virt` translates to.
pub(crate) fn translate<G: Geometry>(world: &World<G>, root: u64, virt: u64) -> Option<u64> {
    leaf(world, root, virt).map(|leaf| World::<G>::SHAPE.output(leaf.descriptor) + (virt - leaf.virt))
}

/// Every leaf under `root`, ascending.
pub(crate) fn leaves<G: Geometry>(world: &World<G>, root: u64) -> Vec<Leaf> {
    let mut found = Vec::new();
    collect(world, (root, World::<G>::SHAPE.root_level(), 0), &mut BTreeSet::new(), &mut found);
    found
}

const STRETCH: usize = 32;

fn collect<G: Geometry>(
    world: &World<G>,
    (table, level, base): (u64, i8, u64),
    seen: &mut BTreeSet<u64>,
    found: &mut Vec<Leaf>,
) {
    let shape = World::<G>::SHAPE;
    assert!(seen.insert(table), "the table at {table:#x} is linked twice");
    let words = world.table(table).expect("a table was written before it was linked");
    // Most of most tables is empty: that is seen a stretch at a time.
    let stretches = words.chunks_exact(STRETCH).enumerate().filter(|(_, stretch)| **stretch != [0; STRETCH]);
    let used = stretches.flat_map(|(at, stretch)| (at * STRETCH..).zip(stretch)).filter(|&(_, &word)| word != 0);
    for (index, &descriptor) in used {
        let virt = base + index as u64 * shape.slot_bytes(level);
        assert!(is_valid(descriptor), "what was broken has been reclaimed, at {virt:#x}");
        if let Some(what) = shape.fault(level, descriptor) {
            panic!("{descriptor:#x} of level {level} at {virt:#x}: {what}");
        }
        if shape.is_table(descriptor, level) {
            collect(world, (shape.output(descriptor), level + 1, virt), seen, found);
            continue;
        }
        if descriptor & CONTIGUOUS != 0 {
            assert_run::<G>(words, level, index);
        }
        found.push(Leaf { virt, level, descriptor, address: table + 8 * index as u64 });
    }
}

/// A leaf with the contiguous hint is one of a whole run that maps memory side by side, aligned like the run, all of it alike.
fn assert_run<G: Geometry>(words: &[u64], level: i8, index: usize) {
    let shape = World::<G>::SHAPE;
    let (run, bytes) = (shape.run(level) as usize, shape.slot_bytes(level));
    let into = index % run;
    let (first, one) = (words[index - into], words[index]);
    let is_alike = (one ^ first) & !shape.output_mask() == 0;
    let follows = shape.output(one) == shape.output(first) + into as u64 * bytes;
    let is_aligned = shape.output(first).is_multiple_of(run as u64 * bytes);
    assert!(
        is_alike && follows && is_aligned,
        "{one:#x} of level {level} is in no contiguous run, which begins with {first:#x}"
    );
    assert!(words[index - into..][..run].iter().all(|word| word & CONTIGUOUS != 0), "a run without some of its leaves");
}

/// Every table under `root`, which is one of them.
pub(crate) fn tables<G: Geometry>(world: &World<G>, root: u64) -> Vec<u64> {
    let shape = World::<G>::SHAPE;
    let mut found = vec![root];
    let mut rest = vec![(root, shape.root_level())];
    while let Some((table, level)) = rest.pop() {
        let words = world.table(table).unwrap_or_default();
        for &child in words.iter().filter(|&&word| is_valid(word) && shape.is_table(word, level)) {
            found.push(shape.output(child));
            rest.push((shape.output(child), level + 1));
        }
    }
    found
}

/// What the tables under `root` map, neighbours together.
pub(crate) fn extents<G: Geometry>(world: &World<G>, root: u64) -> Extents {
    let shape = World::<G>::SHAPE;
    let leaves = leaves(world, root).into_iter().map(|leaf| {
        let (bits, output) = (shape.attributes_in(leaf.descriptor), shape.output(leaf.descriptor));
        (leaf.virt, Extent { bytes: shape.slot_bytes(leaf.level), output, bits })
    });
    merged(leaves)
}

/// The extents with neighbours that follow each other as one.
pub(crate) fn merged(extents: impl Iterator<Item = (u64, Extent)>) -> Extents {
    let mut merged: Extents = BTreeMap::new();
    for (virt, extent) in extents {
        match merged.last_entry() {
            Some(mut last) if last.get().continues(*last.key(), virt, extent) => last.get_mut().bytes += extent.bytes,
            _ => drop(merged.insert(virt, extent)),
        }
    }
    merged
}
