//! Room in RAM for as many things as the machine has.
//!
//! Why it exists: how many CPUs there are is a fact of the machine, so what each of them needs is no part of the image.
//!
//! What must hold: the RAM comes out of the supply, whose frames the directmap shows as Normal, writable memory; it is
//! moved in here, so that nobody else has it; and no request breaks or restricts what the directmap shows
//! ([`breakwater::machine::Machine::reached`]).
//!
//! What it refuses: more than there is in one piece ([`Failure::NoRam`]).

use super::memory::El2;
use super::phys_to_virt::PhysToVirt;
use breakwater::addr::{Frame, PAGE_BYTES};
use breakwater::frames::{FrameSupply, OwnedRam, Supply};
use breakwater::regions::Failure;
use core::mem::MaybeUninit;

/// Things in RAM of their own.
#[derive(Debug)]
pub(crate) struct Room<T: 'static> {
    ram: OwnedRam<El2>,
    things: &'static mut [T],
}

impl<T> Room<T> {
    /// Room for `count` things called `name`, each of which begins as `thing` says of its index.
    ///
    /// # Errors
    /// [`Failure::NoRam`], with the supply as before.
    pub(crate) fn take(
        frames: &mut FrameSupply<El2>,
        name: &'static str,
        count: usize,
        mut thing: impl FnMut(usize) -> T,
    ) -> Result<Self, Failure> {
        const { assert!(align_of::<T>() <= PAGE_BYTES as usize && size_of::<T>() > 0) }
        if count == 0 {
            return Ok(Self { ram: OwnedRam::none(), things: &mut [] });
        }
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64).next_multiple_of(PAGE_BYTES);
        let no_ram = Failure::NoRam { name, bytes };
        let window = PhysToVirt::published().ok_or(no_ram)?;
        let ram = frames.take_ram(bytes, PAGE_BYTES).ok_or(no_ram)?;
        let first = window.address(Frame::containing(ram.span().start())) as *mut MaybeUninit<T>;
        // SAFETY: the directmap shows the supply's RAM as writable Normal memory from before it came into the supply;
        // this piece is ours alone, starts at a page and has room for `count` of them.
        let places = unsafe { core::slice::from_raw_parts_mut(first, count) };
        for (index, place) in places.iter_mut().enumerate() {
            place.write(thing(index));
        }
        // SAFETY: each place has just been written.
        let things = unsafe { places.assume_init_mut() };
        Ok(Self { ram, things })
    }

    /// The things.
    pub(crate) fn things(&mut self) -> &mut [T] {
        self.things
    }

    /// The things, for good.
    pub(crate) fn keep(self) -> &'static mut [T] {
        self.things
    }

    /// Gives the RAM back, frame by frame: a room is mapped by the directmap alone, as the free frames are.
    pub(crate) fn give_back(self, frames: &mut FrameSupply<El2>) {
        let mut ram = self.ram;
        while let Ok((first, rest)) = ram.split_at(PAGE_BYTES) {
            ram = rest;
            // Whole pages by `take`, so each is a frame.
            if let Ok(frame) = first.into_frame() {
                frames.take_back(frame);
            }
        }
    }
}
