//! The frametable: [`layout::FRAME_INFO_BYTES`] for each frame of RAM, zeroed, in blocks of 2 MiB, and contiguous runs of these.
//!
//! One block describes 512 MiB of RAM. Blocks that would describe no RAM are left out: holes cost nothing.

#![forbid(unsafe_code)]

use super::{Failure, Space, image};
use crate::addr::{Level, PAGE_BYTES, PhysAddr, VirtAddr, VirtSpan};
use crate::audit::Declared;
use crate::frames::OwnedRam;
use crate::layout;
use crate::machine::Machine;
use crate::memory_map::MemoryMap;

const NAME: &str = "frametable";
/// Bytes of a block of the table.
const BLOCK_BYTES: u64 = Level::L2.slot_bytes();
/// Blocks of a contiguous run.
const RUN_BLOCKS: u64 = 16;
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
            // What comes before the first contiguous run is mapped for itself, so that a piece of RAM can be aligned to the runs.
            let first_run = first.next_multiple_of(RUN_BLOCKS);
            let cut = if first_run + RUN_BLOCKS <= end_exclusive { first_run } else { first };
            for (first, count) in [(first, cut - first), (cut, end_exclusive - cut)] {
                if count > 0 {
                    map_chunks(space, first, count)?;
                }
            }
            next_chunk = end_exclusive;
        }
    }
    Ok(())
}

/// Maps the blocks of `count` chunks from `first` on: in one piece of RAM where there is one, aligned for contiguous runs if that helps, else
/// block by block.
fn map_chunks<M: Machine>(space: &mut Space<'_, M>, first: u64, count: u64) -> Result<(), Failure> {
    let run_bytes =
        if first.is_multiple_of(RUN_BLOCKS) && count >= RUN_BLOCKS { RUN_BLOCKS * BLOCK_BYTES } else { BLOCK_BYTES };
    for align in [run_bytes, BLOCK_BYTES] {
        if let Some(piece) = space.frames.take_ram(count * BLOCK_BYTES, align) {
            return map_piece(space, first, piece);
        }
    }
    for chunk in first..first + count {
        let no_ram = Failure::NoRam { name: NAME, bytes: BLOCK_BYTES };
        let piece = space.frames.take_ram(BLOCK_BYTES, BLOCK_BYTES).ok_or(no_ram)?;
        map_piece(space, chunk, piece)?;
    }
    Ok(())
}

fn map_piece<M: Machine>(space: &mut Space<'_, M>, first: u64, piece: OwnedRam<M>) -> Result<(), Failure> {
    space.protocol.zero_frames(&piece);
    let piece = piece.span();
    let start = layout::FRAMETABLE.start().raw() + first * BLOCK_BYTES;
    let virt = VirtAddr::new(start)
        .and_then(|start| VirtSpan::of(start, piece.bytes()))
        .filter(|&virt| layout::FRAMETABLE.covers(virt))
        .ok_or(Failure::TooMany { name: NAME })?;
    let region = Declared { name: NAME, virt, output: Some(piece.start()), attributes: image::DATA };
    space.map_contiguous(region, Level::L2)
}
