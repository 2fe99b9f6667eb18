//! The frametable: [`layout::FRAME_INFO_BYTES`] for each frame of RAM, zeroed, in blocks of 2 MiB.
//!
//! One block describes 512 MiB of RAM. Blocks that would describe no RAM are left out: holes cost nothing.

#![forbid(unsafe_code)]

use super::{Failure, Space, image};
use crate::addr::{Level, PAGE_BYTES, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::audit::Declared;
use crate::layout;
use crate::machine::Machine;
use crate::memory_map::MemoryMap;

const NAME: &str = "frametable";
/// Bytes of a block of the table.
const BLOCK_BYTES: u64 = 2 << 20;
/// Bytes of RAM that one block describes.
pub const CHUNK_BYTES: u64 = BLOCK_BYTES / layout::FRAME_INFO_BYTES * PAGE_BYTES;

/// Maps the frametable for all banks of `memory`, whose directmap begins at `base`.
///
/// # Errors
/// [`Failure`] when free RAM runs out or the mapper refuses.
#[inline(never)] // linker.ld keeps this module with init, which boot frees
pub fn map<M: Machine>(space: &mut Space<'_, M>, memory: &MemoryMap, base: PhysAddr) -> Result<(), Failure> {
    let mut next_chunk = 0;
    for bank in memory.banks.iter() {
        let first = (bank.start().raw() - base.raw()) / CHUNK_BYTES;
        let end_exclusive = (bank.end_exclusive().raw() - base.raw()).div_ceil(CHUNK_BYTES);
        let first = first.max(next_chunk);
        if first < end_exclusive {
            map_chunks(space, first, end_exclusive - first)?;
            next_chunk = end_exclusive;
        }
    }
    Ok(())
}

/// Maps the blocks of `count` chunks from `first` on: in one piece of RAM where there is one, else block by block.
fn map_chunks<M: Machine>(space: &mut Space<'_, M>, first: u64, count: u64) -> Result<(), Failure> {
    if let Some(piece) = space.frames.take_ram(count * BLOCK_BYTES, BLOCK_BYTES) {
        return map_piece(space, first, piece);
    }
    for chunk in first..first + count {
        let no_ram = Failure::NoRam { name: NAME, bytes: BLOCK_BYTES };
        let piece = space.frames.take_ram(BLOCK_BYTES, BLOCK_BYTES).ok_or(no_ram)?;
        map_piece(space, chunk, piece)?;
    }
    Ok(())
}

fn map_piece<M: Machine>(space: &mut Space<'_, M>, first: u64, piece: PhysSpan) -> Result<(), Failure> {
    space.protocol.zero_frames(piece);
    let start = layout::FRAMETABLE.start().raw() + first * BLOCK_BYTES;
    let virt = VirtAddr::new(start)
        .and_then(|start| VirtSpan::of(start, piece.bytes()))
        .filter(|&virt| layout::FRAMETABLE.covers(virt))
        .ok_or(Failure::TooMany { name: NAME })?;
    let region = Declared { name: NAME, virt, output: Some(piece.start()), attributes: image::DATA };
    space.map(region, Level::L2)
}
