//! The proof that a slot is unused is used up by the fill or the link.
use breakwater::bbm::{Filled, FreshTable, Live, Protocol, UnusedSlots};
use breakwater::descriptor::Leaf;
use breakwater::machine::Machine;

pub fn fill<M: Machine>(p: &mut Protocol<M>, one: UnusedSlots, two: UnusedSlots, leaf: Leaf, filled: &mut Filled<Live>) {
    p.fill(one, leaf, filled);
    p.fill(two, leaf, filled); //~ E0382: p.fill(one, leaf, filled);
}

pub fn link<M: Machine>(
    p: &mut Protocol<M>,
    (one, two): (UnusedSlots, UnusedSlots),
    (child, other): (FreshTable, FreshTable),
    filled: &mut Filled<Live>,
) {
    p.link(one, child, filled);
    p.link(two, other, filled); //~ E0382: p.link(two, child, filled);
}

/// Without a barrier only into a table that nothing links to, which a table is until it is linked.
pub fn link_unreached<M: Machine>(
    p: &mut Protocol<M>,
    (one, two): (UnusedSlots, UnusedSlots),
    (parent, child, other): (FreshTable, FreshTable, FreshTable),
    filled: &mut Filled<Live>,
) {
    p.link(one, other, filled); //~ E0382: p.link(one, parent, filled);
    p.link_unreached(&parent, two, child); //~ E0308: p.link_unreached(parent.frame(), two, child);
}
