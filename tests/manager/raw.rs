//! Walks written from the architecture: what the hardware would find in memory, whatever the manager thinks.

use super::bits::{EXECUTE_NEVER, OUTPUT, fault, is_table, is_valid, slot_bytes};
use super::reference::{Extent, Extents};
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};

/// Bits of a leaf beside the address, the type and the valid bit.
fn attribute_bits(descriptor: u64) -> u64 {
    descriptor & !OUTPUT & !3 & (EXECUTE_NEVER | 0xffc)
}

/// A leaf and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    pub(crate) virt: u64,
    pub(crate) level: u8,
    pub(crate) descriptor: u64,
}

/// The leaf that translates `virt`.
pub(crate) fn leaf(world: &World, root: u64, virt: u64) -> Option<Leaf> {
    let mut table = root;
    for level in 0..=3 {
        let index = (virt / slot_bytes(level)) % 512;
        let descriptor = world.word(table + 8 * index);
        if !is_valid(descriptor) {
            return None;
        }
        if !is_table(descriptor, level) {
            return Some(Leaf { virt: virt & !(slot_bytes(level) - 1), level, descriptor });
        }
        table = descriptor & OUTPUT;
    }
    None
}

/// The physical address that `virt` translates to.
pub(crate) fn translate(world: &World, root: u64, virt: u64) -> Option<u64> {
    leaf(world, root, virt).map(|leaf| (leaf.descriptor & OUTPUT) + (virt - leaf.virt))
}

/// Every leaf under `root`, ascending.
pub(crate) fn leaves(world: &World, root: u64) -> Vec<Leaf> {
    let mut found = Vec::new();
    collect(world, (root, 0, 0), &mut BTreeSet::new(), &mut found);
    found
}

const STRETCH: usize = 32;

fn collect(world: &World, (table, level, base): (u64, u8, u64), seen: &mut BTreeSet<u64>, found: &mut Vec<Leaf>) {
    assert!(seen.insert(table), "the table at {table:#x} is linked twice");
    let words = world.table(table).expect("a table was written before it was linked");
    // Most of most tables is empty: that is seen a stretch at a time.
    let stretches = words.chunks_exact(STRETCH).enumerate().filter(|(_, stretch)| **stretch != [0; STRETCH]);
    let used = stretches.flat_map(|(at, stretch)| (at * STRETCH..).zip(stretch)).filter(|&(_, &word)| word != 0);
    for (index, &descriptor) in used {
        let virt = base + index as u64 * slot_bytes(level);
        assert!(is_valid(descriptor), "what was broken has been reclaimed, at {virt:#x}");
        if let Some(what) = fault(level, descriptor) {
            panic!("{descriptor:#x} of level {level} at {virt:#x}: {what}");
        }
        if is_table(descriptor, level) {
            collect(world, (descriptor & OUTPUT, level + 1, virt), seen, found);
        } else {
            found.push(Leaf { virt, level, descriptor });
        }
    }
}

/// Every table under `root`, which is one of them.
pub(crate) fn tables(world: &World, root: u64) -> Vec<u64> {
    let mut found = vec![root];
    let mut rest = vec![(root, 0)];
    while let Some((table, level)) = rest.pop() {
        let words = (0..512).map(|index| world.word(table + 8 * index));
        for child in words.filter(|&word| is_valid(word) && is_table(word, level)) {
            found.push(child & OUTPUT);
            rest.push((child & OUTPUT, level + 1));
        }
    }
    found
}

/// What the tables under `root` map, neighbours together.
pub(crate) fn extents(world: &World, root: u64) -> Extents {
    let leaves = leaves(world, root).into_iter().map(|leaf| {
        let bits = attribute_bits(leaf.descriptor);
        (leaf.virt, Extent { bytes: slot_bytes(leaf.level), output: leaf.descriptor & OUTPUT, bits })
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
