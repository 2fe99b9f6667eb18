//! What the manager stores to was claimed by `unsafe`, once, and given on by moves: safe code cannot make it store to
//! anything else.
#![deny(unsafe_code)]
use breakwater::addr::{Level, PhysSpan, VirtSpan};
use breakwater::errata::Errata;
use breakwater::frames::{FrameSupply, OwnedRam};
use breakwater::machine::{Machine, Simulated};
use breakwater::memory_map::{KnownRam, MemoryMap};
use breakwater::regions::directmap::Directmap;
use breakwater::regions::{RegionMap, Space};

/// A frame that is the image's own became a table in this way, and was zeroed.
pub fn table_anywhere<M: Machine>(space: &mut Space<'_, M>, own: OwnedRam<M>, at: VirtSpan, _victim: PhysSpan) {
    let mine = FrameSupply::new(own); //~ E0308: let mine = FrameSupply::new(_victim);
    let supply = space.frames(); //~ E0616: let supply = space.frames;
    let _theirs = core::mem::replace(supply, mine);
    let _ = space.mapper().populate(at, Level::L3);
}

pub fn claimed<M: Machine>(ram: OwnedRam<M>, _span: PhysSpan) -> OwnedRam<M> {
    ram //~ E0133: OwnedRam::claim(_span)
}

pub fn claimed_by_unsafe<M: Machine>(ram: OwnedRam<M>, _span: PhysSpan) -> OwnedRam<M> {
    ram //~ lint: unsafe { OwnedRam::claim(_span) }
}

pub fn made_up<M: Machine>(ram: OwnedRam<M>, _span: PhysSpan) -> OwnedRam<M> {
    ram //~ E0277: OwnedRam::simulated(_span)
}

pub fn forged<M: Machine>(ram: OwnedRam<M>, _span: PhysSpan) -> OwnedRam<M> {
    ram //~ E0451: OwnedRam { span: _span, ..ram }
}

pub fn made_by_name<M: Machine>(ram: OwnedRam<M>, _span: PhysSpan) -> OwnedRam<M> {
    ram //~ E0624: OwnedRam::new(_span)
}

pub fn added<M: Machine>(space: &mut Space<'_, M>, ram: OwnedRam<M>) {
    let _ = space.give_back(ram); //~ E0624: let _ = space.frames().add_ram(ram);
}

pub fn split<M: Machine>(ram: OwnedRam<M>, other: OwnedRam<M>) -> Option<(OwnedRam<M>, OwnedRam<M>)> {
    let (low, high) = ram.split_at(0x1000).ok()?;
    let _rest = high;
    let _both = other; //~ E0382: let _both = ram;
    Some((low, OwnedRam::none()))
}

/// A machine whose memory is made up gives nothing to one whose memory is real.
pub fn of_another<R: Machine, S: Simulated>(
    space: &mut Space<'_, R>,
    real: &mut FrameSupply<R>,
    _made_up: &mut FrameSupply<S>,
) {
    core::mem::swap(space.frames(), real); //~ E0308: core::mem::swap(space.frames(), _made_up);
}

/// Nobody says of a machine that is not theirs that its memory is made up.
pub struct Mine; //~ E0210: impl<M: Machine> Simulated for M {}

pub fn of_a_map<'m, M: Machine>(ram: KnownRam<'m, M>, _map: &'m MemoryMap, _image: PhysSpan) -> KnownRam<'m, M> {
    ram //~ E0133: KnownRam::claim(_map, _image)
}

pub fn of_a_made_up_map<'m, M: Machine>(
    ram: KnownRam<'m, M>,
    _map: &'m MemoryMap,
    _image: PhysSpan,
) -> KnownRam<'m, M> {
    ram //~ E0277: KnownRam::simulated(_map, _image)
}

pub fn mapped<M: Machine>(space: &mut Space<'_, M>, directmap: Directmap, ram: KnownRam<'_, M>, _map: &MemoryMap) {
    let _ = directmap.map(space, ram); //~ E0308: let _ = directmap.map(space, _map);
}

pub fn mapped_twice<M: Machine>(
    space: &mut Space<'_, M>,
    directmap: Directmap,
    one: KnownRam<'_, M>,
    two: KnownRam<'_, M>,
) {
    let _ = directmap.map(space, one);
    let _ = directmap.map(space, two); //~ E0382: let _ = directmap.map(space, one);
}

pub fn declared<M: Machine>(space: &mut Space<'_, M>, virt: VirtSpan) -> Errata {
    space.regions().withdraw(virt); //~ E0616: *space.regions = RegionMap::new();
    let _none = RegionMap::new();
    Errata::empty()
}
