//! What is filled in tables that nothing walks is not completed as if they were walked, nor the other way round; and nothing is ever
//! broken or changed but in live tables.
use breakwater::addr::VirtSpan;
use breakwater::bbm::{Filled, FreshTable, Live, Offline, Protocol, State, Tables};
use breakwater::machine::Machine;
use breakwater::mapper::{Error, Mapper, Unmapped};

pub fn complete<M: Machine>(p: &mut Protocol<M>, live: Filled<Live>, _offline: Filled<Offline>) {
    p.complete::<Live>(live); //~ E0308: p.complete::<Live>(_offline);
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

pub fn tables(root: FreshTable) -> Tables<Offline> {
    Tables::<Offline>::new(root) //~ E0599: Tables::<Live>::new(root)
}

pub fn states<S: State>() {}

pub fn no_third_state() {
    states::<Live>(); //~ E0277: states::<()>();
}
