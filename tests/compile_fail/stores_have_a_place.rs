//! A store to tables names a place in them, which a walk has found and which borrows them; a slot, which anyone can name, is not enough.
use breakwater::addr::{Level, VirtAddr};
use breakwater::bbm::{After, Broken, Detached, Filled, Live, Offline, Place, Protocol, Tables, UnusedSlots};
use breakwater::descriptor::Leaf;
use breakwater::geometry::{Geometry, Granule4K, Slot};
use breakwater::machine::Machine;

pub fn broken<M: Machine>(p: &mut Protocol<M>, place: Place<'_, M, Live>, broken: &mut Broken) {
    p.break_run(place, 1, After::Nothing, broken); //~ E0308: p.break_run(place.slot(), 1, After::Nothing, broken);
}

pub fn unused<'t, M: Machine>(
    p: &Protocol<M>,
    tables: &'t Tables<M, Live>,
    virt: VirtAddr,
) -> Option<UnusedSlots<'t, M, Live>> {
    let _named = Granule4K::slot(tables.root(), Level::L0, virt);
    let place = p.place(tables, Level::L0, virt)?;
    p.unused_run(place, 1).ok() //~ E0308: p.unused_run(_named, 1).ok()
}

pub fn in_force<M: Machine>(
    p: &mut Protocol<M>,
    place: Place<'_, M, Live>,
    _other: Place<'_, M, Offline>,
    broken: &mut Broken,
) {
    p.break_run(place, 1, After::Nothing, broken); //~ E0308: p.break_run(_other, 1, After::Nothing, broken);
}

pub fn forged<'t, M: Machine>(place: Place<'t, M, Live>, _slot: Slot) -> Place<'t, M, Live> {
    place //~ E0451: Place { slot: _slot, ..place }
}

pub fn vouched<'t, M: Machine>(
    p: &Protocol<M>,
    tables: &'t Tables<M, Live>,
    virt: VirtAddr,
) -> Option<Place<'t, M, Live>> {
    let _slot = Granule4K::slot(tables.root(), Level::L0, virt);
    p.place(tables, Level::L0, virt) //~ E0624: Some(p.vouch(tables, _slot))
}

/// What takes a table away takes the tables for itself: no place in what goes is left.
pub fn detached<M: Machine>(
    p: &mut Protocol<M>,
    (tables, _other): (&mut Tables<M, Live>, &mut Tables<M, Live>),
    (slot, virt): (Slot, VirtAddr),
    (broken, detached): (&mut Broken, &mut Detached),
) -> Option<()> {
    let below = p.place(tables, Level::L3, virt)?;
    p.break_table(_other, slot, broken, detached); //~ E0502: p.break_table(tables, slot, broken, detached);
    p.break_run(below, 1, After::Nothing, broken);
    Some(())
}

/// What was unused in tables that nobody walked is not filled in tables that are in force.
pub fn switched<M: Machine>(
    p: &mut Protocol<M>,
    (tables, _other): (Tables<M, Offline>, Tables<M, Offline>),
    (virt, leaf): (VirtAddr, Leaf),
    filled: &mut Filled<Offline>,
) -> Option<()> {
    let slots = p.unused_run(p.place(&tables, Level::L3, virt)?, 1).ok()?;
    let (_live, _released) = p.switch_root(_other, Detached::none()); //~ E0505: let (_live, _released) = p.switch_root(tables, Detached::none());
    p.fill(slots, leaf, filled);
    Some(())
}
