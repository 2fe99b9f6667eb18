//! Tables that were laid ready are linked after the DSB that makes them visible, and all of them.
use breakwater::bbm::{Filled, FreshTable, Laid, Live, Place, Protocol, Published, UnusedSlots};
use breakwater::machine::Machine;

pub fn link<M: Machine>(p: &mut Protocol<M>, slot: Place<'_, M, Live>, laid: Laid, filled: &mut Filled<Live>) {
    let mut published = p.publish(laid); //~ E0308: let mut published = laid;
    p.link_laid(slot, &mut published, filled);
    let _linked = published;
}

pub fn lay<M: Machine>(
    p: &mut Protocol<M>,
    (one, two): (UnusedSlots<'_, M, Live>, UnusedSlots<'_, M, Live>),
    (first, second): (FreshTable<M>, FreshTable<M>),
    (mut laid, mut later): (Laid, Laid),
) -> Published {
    p.lay(one, first, false, &mut laid);
    let published = p.publish(laid);
    p.lay(two, second, false, &mut later); //~ E0382: p.lay(two, second, false, &mut laid);
    p.publish(later).done();
    published
}

pub fn done(one: Published, two: Published) {
    one.done();
    two.done(); //~ E0382: one.done();
}

pub fn unpublished(laid: Laid, published: Published) -> Laid {
    published.done(); //~ E0599: laid.done();
    laid
}
