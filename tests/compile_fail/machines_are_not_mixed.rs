//! The protocol of a real machine is made by `unsafe` and stays with who brings the machine up; and what another
//! machine gave is nothing to it.
#![deny(unsafe_code)]
use breakwater::addr::{Level, VirtAddr};
use breakwater::bbm::{
    After, Broken, Detached, Filled, FreeTables, FreshTable, Ignored, Live, Offline, Place, Protocol, Released, Tables,
    UnusedSlots,
};
use breakwater::bringup::{Bringup, Editor};
use breakwater::descriptor::Leaf;
use breakwater::errata::Errata;
use breakwater::frames::{FrameSupply, FreeFrame};
use breakwater::machine::Machine;
use breakwater::mapper::Mapper;
use breakwater::regions::image::Image;
use breakwater::regions::stacks::MappedStacks;
use breakwater::regions::{RegionMap, Space};

pub fn second<M: Machine>(protocol: Protocol<M>, _machine: M) -> Protocol<M> {
    protocol //~ E0133: Protocol::new(_machine, Errata::empty())
}

pub fn made_up<M: Machine>(protocol: Protocol<M>, _machine: M) -> Protocol<M> {
    protocol //~ E0277: Protocol::simulated(_machine, Errata::empty())
}

pub fn brought_up<M: Machine>(bringup: Bringup<M>, _machine: M, _image: Image) -> Bringup<M> {
    bringup //~ E0133: Bringup::new(_machine, Errata::empty(), _image)
}

pub fn brought_up_by_unsafe<M: Machine>(bringup: Bringup<M>, _machine: M, _image: Image) -> Bringup<M> {
    bringup //~ lint: unsafe { Bringup::new(_machine, Errata::empty(), _image) }
}

pub fn brought_up_made_up<M: Machine>(bringup: Bringup<M>, _machine: M, _image: Image) -> Bringup<M> {
    bringup //~ E0277: Bringup::simulated(_machine, Errata::empty(), _image)
}

/// Whose frames they lie in, only who brought the machine up can know.
pub fn adopted<M: Machine>(_p: &mut Protocol<M>, tables: Tables<M, Live>) -> Option<Tables<M, Live>> {
    Some(tables) //~ E0133: Some(_p.adopt(tables.root(), Ignored::Mend, &mut []).ok()?.0)
}

/// Below the mapper nobody asks what a CPU stands on.
pub fn below<M: Machine>(bringup: &mut Bringup<M>) -> Errata {
    bringup.protocol().errata() //~ E0616: bringup.protocol.share(Errata::all()); Errata::empty()
}

pub fn below_after_boot<M: Machine>(editor: &mut Editor<M>, frames: &mut FrameSupply<M>) -> u64 {
    editor.mapper(frames).free_frames() //~ E0616: editor.protocol.counts().stores.into()
}

pub fn below_a_request<M: Machine>(space: &mut Space<'_, M>) -> u64 {
    space.mapper().free_frames() //~ E0616: space.protocol.counts().stores.into()
}

pub fn parts<'a, M: Machine>(
    (one, _other): (&'a mut Protocol<M>, &'a mut FrameSupply<M>),
    (tables, regions): (&'a mut Tables<M, Live>, &'a mut RegionMap),
) -> Space<'a, M> {
    Space::new(one, _other, tables, regions) //~ E0451: Space { protocol: one, frames: _other, tables, regions }
}

pub fn image_of_another<M: Machine>(bringup: &mut Bringup<M>, _image: Image) -> Image {
    *bringup.image() //~ E0594: { *bringup.image() = _image; _image }
}

pub fn switched_twice<M: Machine>(
    bringup: &mut Bringup<M>,
    one: Tables<M, Offline>,
    _two: Tables<M, Offline>,
) -> Tables<M, Live> {
    let live = bringup.switch(one);
    let _root = live.root(); //~ E0382: let _root = one.root();
    live
}

pub fn stacks<M: Machine>(stacks: MappedStacks<M>) -> MappedStacks<M> {
    stacks //~ E0451: MappedStacks { index: 1, ..stacks }
}

pub fn started_twice<M: Machine>(stacks: MappedStacks<M>) -> (MappedStacks<M>, u8) {
    (stacks, 0) //~ E0599: (stacks.clone(), 0)
}

pub fn tables<'a, M: Machine, N: Machine>(
    (p, frames): (&'a mut Protocol<M>, &'a mut FrameSupply<M>),
    (tables, _other): (&'a mut Tables<M, Live>, &'a mut Tables<N, Live>),
) -> Mapper<'a, M, Live> {
    Mapper::new(p, frames, tables) //~ E0308: Mapper::new(p, frames, _other)
}

pub fn supply<'a, M: Machine, N: Machine>(
    (p, tables): (&'a mut Protocol<M>, &'a mut Tables<M, Live>),
    (frames, _other): (&'a mut FrameSupply<M>, &'a mut FrameSupply<N>),
) -> Mapper<'a, M, Live> {
    Mapper::new(p, frames, tables) //~ E0308: Mapper::new(p, _other, tables)
}

pub fn place<M: Machine, N: Machine>(
    p: &mut Protocol<M>,
    at: Place<'_, M, Live>,
    _other: Place<'_, N, Live>,
    broken: &mut Broken,
) {
    p.break_run(at, 1, After::Nothing, broken); //~ E0308: p.break_run(_other, 1, After::Nothing, broken);
}

pub fn slots<M: Machine, N: Machine>(
    (p, leaf, filled): (&mut Protocol<M>, Leaf, &mut Filled<Live>),
    (slots, _other): (UnusedSlots<'_, M, Live>, UnusedSlots<'_, N, Live>),
) {
    p.fill(slots, leaf, filled); //~ E0308: p.fill(_other, leaf, filled);
}

pub fn fresh<M: Machine, N: Machine>(p: &mut Protocol<M>, table: &FreshTable<M>, _other: &FreshTable<N>, leaf: Leaf) {
    p.fill_fresh(table, VirtAddr::at(0), 1, leaf); //~ E0308: p.fill_fresh(_other, VirtAddr::at(0), 1, leaf);
}

pub fn frame<M: Machine, N: Machine>(p: &mut Protocol<M>, free: FreeFrame<M>, _other: FreeFrame<N>) -> FreshTable<M> {
    p.new_table(free, Level::L3, VirtAddr::at(0)) //~ E0308: p.new_table(_other, Level::L3, VirtAddr::at(0))
}

pub fn former<M: Machine, N: Machine>(
    p: &mut Protocol<M>,
    free: &mut FreeTables<M>,
    _other: &mut FreeTables<N>,
) -> bool {
    p.take_free(free).is_some() //~ E0308: p.take_free(_other).is_some()
}

pub fn released<M: Machine, N: Machine>(
    frames: &mut FrameSupply<M>,
    ours: Released<M>,
    _other: Released<N>,
) -> Detached {
    frames.release(ours); //~ E0308: frames.release(_other);
    Detached::none()
}

pub fn root<M: Machine, N: Machine>(
    p: &mut Protocol<M>,
    next: Tables<M, Offline>,
    _other: Tables<N, Offline>,
    old: Detached,
) {
    let (_live, _released) = p.switch_root(next, old); //~ E0308: let (_live, _released) = p.switch_root(_other, old);
}
