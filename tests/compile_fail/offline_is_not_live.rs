//! What is filled in tables that nothing walks is not completed as if they were walked, nor the other way round; and nothing is ever
//! broken or changed but in live tables.
use breakwater::addr::{Level, VirtSpan};
use breakwater::bbm::{Filled, FreshTable, Live, Offline, Place, Protocol, State, Tables, UnusedSlots};
use breakwater::descriptor::Leaf;
use breakwater::machine::Machine;
use breakwater::mapper::{Cost, Error, Mapper, Unmapped};

pub fn complete<M: Machine>(p: &mut Protocol<M>, live: Filled<Live>, _offline: Filled<Offline>) {
    p.complete::<Live>(live); //~ E0308: p.complete::<Live>(_offline);
}

pub fn fill<M: Machine>(p: &mut Protocol<M>, slots: UnusedSlots<'_, M, Live>, leaf: Leaf, filled: &mut Filled<Live>) {
    p.fill::<Live>(slots, leaf, filled); //~ E0308: p.fill::<Offline>(slots, leaf, &mut Filled::none());
}

pub fn noted<M: Machine>(p: &mut Protocol<M>, slots: UnusedSlots<'_, M, Live>, leaf: Leaf, filled: &mut Filled<Live>) {
    p.fill(slots, leaf, filled); //~ E0308: p.fill(slots, leaf, &mut Filled::<Offline>::none());
}

pub fn proof<M: Machine>(p: &Protocol<M>, live: Place<'_, M, Live>, _offline: Place<'_, M, Offline>) {
    let _proof = p.unused_run::<Live>(live, 1); //~ E0308: let _proof = p.unused_run::<Live>(_offline, 1);
}

pub fn link<M: Machine>(
    p: &mut Protocol<M>,
    slot: UnusedSlots<'_, M, Live>,
    table: FreshTable<M>,
    filled: &mut Filled<Live>,
) {
    p.link::<Live>(slot, table, false, filled); //~ E0308: p.link::<Offline>(slot, table, false, &mut Filled::none());
}

pub fn unmap<M: Machine>(mut mapper: Mapper<'_, M, Live>, virt: VirtSpan) -> Result<Unmapped, Error> {
    mapper.unmap(virt)
}

pub fn protect<M: Machine>(
    mapper: Mapper<'_, M, Live>, //~ E0308: mapper: Mapper<'_, M, Offline>,
    virt: VirtSpan,
) -> Result<Unmapped, Error> {
    unmap(mapper, virt)
}

pub fn split<M: Machine>(
    mapper: &mut Mapper<'_, M, Live>, //~ E0599: mapper: &mut Mapper<'_, M, Offline>,
    virt: VirtSpan,
) -> Result<Cost, Error> {
    mapper.split(virt, Level::L3)
}

pub fn tables<M: Machine>(root: FreshTable<M>) -> Tables<M, Offline> {
    Tables::<M, Offline>::new(root) //~ E0599: Tables::<M, Live>::new(root)
}

pub fn in_force<M: Machine>(p: &mut Protocol<M>, next: Tables<M, Offline>) -> Tables<M, Live> {
    p.switch_root(next, breakwater::bbm::Detached::none()).0 //~ E0624: next.into_live()
}

pub fn states<S: State>() {}

pub fn no_third_state() {
    states::<Live>(); //~ E0277: states::<()>();
}
