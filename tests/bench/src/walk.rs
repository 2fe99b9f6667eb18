//! What a candidate's tables say, read by nobody's code but this: extents of addresses that go to as many addresses with the same bits.
//!
//! Bits 1:0 of a descriptor: 3 is a table, at level 3 a page; 1 is a block at levels 1 and 2. An address is bits 47:12.

use crate::arena;

const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// A span that translates in one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first virtual address.
    pub virt: u64,
    /// Bytes.
    pub bytes: u64,
    /// The first physical address.
    pub output: u64,
    /// The leaves' bits without address and type: memory type, shareability, rights.
    pub bits: u64,
    /// log2 of what one leaf spans.
    pub shift: u32,
}

/// What the tables below `root` translate, in ascending order.
///
/// # Panics
/// On a descriptor that the architecture reserves.
#[must_use]
pub fn extents(root: u64) -> Vec<Extent> {
    let mut extents = Vec::new();
    table(root, 0, 0, &mut extents);
    extents
}

fn table(table_at: u64, level: u32, virt: u64, extents: &mut Vec<Extent>) {
    let shift = 39 - 9 * level;
    for index in 0..512 {
        let (descriptor, virt) = (arena::load(table_at + 8 * index), virt | index << shift);
        match (descriptor & 3, level) {
            (3, 0..=2) => table(descriptor & ADDRESS, level + 1, virt, extents),
            (3, 3) | (1, 1 | 2) => {
                let (output, bits) = (descriptor & ADDRESS & !((1 << shift) - 1), descriptor & !ADDRESS & !3);
                add(extents, Extent { virt, bytes: 1 << shift, output, bits, shift });
            }
            (1, _) => panic!("reserved descriptor {descriptor:#x} at level {level} for {virt:#x}"),
            _ => {}
        }
    }
}

fn add(extents: &mut Vec<Extent>, leaf: Extent) {
    if let Some(last) = extents.last_mut()
        && (last.virt + last.bytes, last.output + last.bytes) == (leaf.virt, leaf.output)
        && (last.bits, last.shift) == (leaf.bits, leaf.shift)
    {
        last.bytes += leaf.bytes;
    } else {
        extents.push(leaf);
    }
}
